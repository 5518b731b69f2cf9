//! What stays in memory: after ten thousand answers, and over a million messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::figures::megabytes;
use crate::support::load::{Load, Until, UpdateIds, send};
use crate::support::report::{Findings, Row};
use crate::support::service::{Service, lakegram};
use crate::support::stand_ins::StandIns;
use crate::support::webhook::Webhook;
use crate::support::{Bench, Result};

const FIRST_UPDATE_ID: i64 = 1_000_000_000;
const FIRST_CHAT: i64 = 5_000_000;
/// For one reply.
const PATIENCE: Duration = Duration::from_secs(60);
/// Posts under way at the same time; Telegram's own default is 40.
const POSTS: usize = 40;
/// Of 100,000 messages each. What is resident rises and falls by half over about a million, so that three show whether it
/// grows and one shows a slope of the moment.
const WAVES: u32 = 30;
/// As long as the allocator takes to give back what is idle, and one second more.
const QUIET_SECONDS: u32 = 3;
/// Messages may not cost more than this for each 100,000, in MB: what is kept of a message must fit in ten
/// bytes, and ten million messages in the memory of the smallest machine.
const FLAT: f64 = 1.0;

pub(crate) async fn run(bench: &Bench) -> Result<Findings> {
    let mut findings = Findings::default();
    after_answers(bench, &mut findings).await?;
    over_many_messages(bench, &mut findings).await?;
    Ok(findings)
}

/// Every message in a chat of its own, so that no pace holds them up.
async fn after_answers(bench: &Bench, findings: &mut Findings) -> Result<()> {
    let count: i64 = bench.scaled(10_000, 500);
    let folder = bench.folder()?;
    let mut stand_ins = StandIns::start().await?;
    let service = stand_ins.serve(folder.path())?;
    let at_start = service.usage()?;
    let webhook = Arc::new(Webhook::new(service.address));
    let (began, mut posts) = (Instant::now(), JoinSet::new());
    for number in 0..count {
        if posts.len() >= POSTS
            && let Some(posted) = posts.join_next().await
        {
            posted??;
        }
        let webhook = Arc::clone(&webhook);
        posts.spawn(async move {
            let text = format!("How late is it in Lisbon when it is noon here? This is question {number}.");
            webhook.post(FIRST_UPDATE_ID + number, FIRST_CHAT + number, &text).await
        });
    }
    for _ in 0..count {
        stand_ins.next(PATIENCE).await?;
    }
    let took = began.elapsed();
    while let Some(posted) = posts.join_next().await {
        posted??;
    }
    tokio::time::sleep(bench.scaled(Duration::from_secs(10), Duration::from_secs(2))).await;
    let used = service.usage()?;
    let resident = megabytes(used.resident_bytes);
    findings.rows.push(Row {
        work: format!("memory, 10 s after {count} answers"),
        ours: format!("{resident:.0} MB resident"),
        beside: format!("{:.0} MB at start", megabytes(at_start.resident_bytes)),
        bar: "under 80 MB resident".to_owned(),
        measured: format!("{resident:.1} MB"),
        reached: Some(resident < 80.0),
    });
    #[allow(clippy::cast_precision_loss)]
    let rate = count as f64 / took.as_secs_f64();
    findings.note(format!(
        "{count} answers to as many chats: {rate:.0} a second, {:.0} MB at most, {:.2} ms of CPU each",
        megabytes(used.peak_resident_bytes),
        (used.cpu_seconds - at_start.cpu_seconds) * 1e3 / f64::from(i32::try_from(count)?),
    ));
    Ok(())
}

/// In waves, each followed by a rest: while a batch catches up, memory says how large the batch is, and not what is
/// kept of the messages before it.
async fn over_many_messages(bench: &Bench, findings: &mut Findings) -> Result<()> {
    let wave = bench.scaled(100_000, 4_000);
    let folder = bench.folder()?;
    let service = Service::start(lakegram(folder.path(), &["serve", "--roles", "receive,bronze"]))?;
    let load = Load { address: service.address, connections: 100, until: Until::Acked(wave) };
    let (ids, mut at_rest, mut acked, mut sending) = (UpdateIds::new(), Vec::new(), 0, 0.0);
    for number in 1..=WAVES {
        let report = send(&load, &ids).await?;
        acked += report.acked;
        sending += report.acked as f64 / report.acks_a_second;
        let resident = megabytes(resident_at_rest(&service).await?);
        at_rest.push((f64::from(number), resident));
    }
    let peak = megabytes(service.usage()?.peak_resident_bytes);
    let readings: Vec<String> = at_rest.iter().map(|(_, resident)| format!("{resident:.0}")).collect();
    let later = at_rest.split_off(1);
    let growth = slope(&later) * 1e5 / wave as f64;
    let last = later.last().map_or(0.0, |(_, resident)| *resident);
    findings.rows.push(Row {
        work: format!("memory over {acked} messages, received and loaded"),
        ours: format!("{last:.0} MB resident at the end"),
        beside: format!("peak {peak:.0} MB"),
        bar: format!("after the first {wave} under {FLAT} MB per 100,000"),
        measured: format!("{growth:+.2} MB per 100,000"),
        reached: Some(growth < FLAT),
    });
    findings.note(format!(
        "{acked} messages at {:.0} a second; MB resident at rest after each {wave}: {}",
        acked as f64 / sending,
        readings.join(", "),
    ));
    Ok(())
}

/// What is resident once it has loaded everything and used no more than a hundredth of a core for some seconds.
async fn resident_at_rest(service: &Service) -> Result<u64> {
    let began = Instant::now();
    let (mut used, mut quiet) = (service.usage()?, 0);
    while quiet < QUIET_SECONDS {
        if began.elapsed() > PATIENCE {
            return Err("it does not come to rest".into());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = service.usage()?;
        quiet = if now.cpu_seconds - used.cpu_seconds <= 0.01 { quiet + 1 } else { 0 };
        used = now;
    }
    Ok(used.resident_bytes)
}

/// The slope of the line that fits these points best, by least squares.
#[allow(clippy::cast_precision_loss)]
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len().max(1) as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / count;
    let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
    let above: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let below: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if below > 0.0 { above / below } else { 0.0 }
}
