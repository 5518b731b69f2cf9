//! Honest posts while strangers hold as many connections as they can: silent ones, and ones whose headers never end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::figures::Samples;
use crate::support::load::{UpdateIds, post};
use crate::support::report::{Findings, Row};
use crate::support::service::{Service, lakegram};
use crate::support::{Bench, Result};

/// Strangers at the same time, where the descriptors of this process allow it.
const STRANGERS: u64 = 20_000;
/// Kept for everything else that this process does.
const OTHER_DESCRIPTORS: u64 = 1_000;
/// A stranger that was shown out comes back after this.
const COMES_BACK_AFTER: Duration = Duration::from_secs(5);
/// Honest clients at the same time, each with a connection a post.
const HONEST: usize = 8;
/// How much slower the slowest hundredth of honest posts may become.
const BAR: f64 = 2.0;

/// What honest clients met.
#[derive(Debug, Default)]
struct Met {
    latencies: Samples,
    posts: u64,
    failures: u64,
}

/// Posts for so long, each time on a connection of its own.
async fn be_honest(address: SocketAddr, ids: UpdateIds, span: Duration) -> Result<Met> {
    let mut clients = JoinSet::new();
    for chat_id in 1..=i64::try_from(HONEST)? {
        let ids = ids.clone();
        clients.spawn(async move {
            let (began, mut met) = (Instant::now(), Met::default());
            while began.elapsed() < span {
                let asked = Instant::now();
                let status = post(address, ids.next(), chat_id, "hello").await;
                met.posts += 1;
                met.failures += u64::from(!matches!(status, Ok(200)));
                met.latencies.push(asked.elapsed());
            }
            met
        });
    }
    let mut total = Met::default();
    while let Some(met) = clients.join_next().await {
        let met = met?;
        total.posts += met.posts;
        total.failures += met.failures;
        total.latencies.append(met.latencies);
    }
    Ok(total)
}

/// A stranger that keeps coming until `stop`.
async fn press(address: SocketAddr, is_silent: bool, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Ok(mut stream) = TcpStream::connect(address).await {
            let begins = is_silent || stream.write_all(b"POST /telegram-webhook HTTP/1.1\r\nx-slow: ").await.is_ok();
            let mut byte = [0];
            if begins {
                let _shown_out = stop.run_until_cancelled(stream.read(&mut byte)).await;
            }
        }
        stop.run_until_cancelled(tokio::time::sleep(COMES_BACK_AFTER)).await;
    }
}

pub(crate) async fn run(bench: &Bench) -> Result<Findings> {
    let mut findings = Findings::default();
    let folder = bench.folder()?;
    let service = Service::start(lakegram(folder.path(), &["serve", "--roles", "receive"]))?;
    let (ids, span) = (UpdateIds::new(), bench.scaled(Duration::from_secs(20), Duration::from_secs(5)));
    let calm = be_honest(service.address, ids.clone(), span).await?;
    let descriptors = rlimit::increase_nofile_limit(STRANGERS + OTHER_DESCRIPTORS)?;
    let strangers = descriptors.saturating_sub(OTHER_DESCRIPTORS).min(STRANGERS);
    let (stop, mut pressing) = (CancellationToken::new(), JoinSet::new());
    for number in 0..strangers {
        pressing.spawn(press(service.address, number.is_multiple_of(2), stop.clone()));
    }
    // Until most of them have come.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let pressed = be_honest(service.address, ids, span).await?;
    stop.cancel();
    pressing.join_all().await;
    for (name, met) in [("alone", &calm), ("beside strangers", &pressed)] {
        let (posts, failures, latencies) = (met.posts, met.failures, met.latencies.text());
        findings.note(format!("honest posts {name}: {posts}, {failures} failures, {latencies}"));
    }
    let [alone, beside] = [&calm, &pressed].map(|met| met.latencies.quantile_ms(0.99));
    let ratio = beside / alone;
    findings.rows.push(Row {
        work: format!("honest posts beside {strangers} strangers, half silent, half with slow headers"),
        ours: format!("p99 {beside:.2} ms, {} failures", pressed.failures),
        beside: format!("alone: p99 {alone:.2} ms"),
        bar: format!("at most {BAR} times, no failure"),
        measured: format!("{ratio:.2} times"),
        reached: Some(ratio <= BAR && pressed.failures == 0),
    });
    Ok(findings)
}
