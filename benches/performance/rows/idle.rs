//! What a service costs that has nothing to do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::support::process::sleeps_of_threads;
use crate::support::report::{Findings, Row};
use crate::support::stand_ins::StandIns;
use crate::support::webhook::Webhook;
use crate::support::{Bench, Result};

const MESSAGES: i64 = 20;
const PATIENCE: Duration = Duration::from_secs(20);
/// Threads come and go: what one did since the last look is lost with it, so looks are close.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(crate) async fn run(bench: &Bench) -> Result<Findings> {
    let span = bench.scaled(Duration::from_secs(60), Duration::from_secs(10));
    let folder = bench.folder()?;
    let mut stand_ins = StandIns::start().await?;
    let service = stand_ins.serve(folder.path())?;
    let webhook = Webhook::new(service.address);
    for number in 0..MESSAGES {
        webhook.post(1_000_000_000 + number, 5_000_000 + number, "Are you there?").await?;
    }
    for _ in 0..MESSAGES {
        stand_ins.next(PATIENCE).await?;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (began, before) = (Instant::now(), service.usage()?);
    let (mut known, mut sleeps) = (sleeps_of_threads(service.pid()), Vec::new());
    while began.elapsed() < span {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = sleeps_of_threads(service.pid());
        sleeps.push(gone_by(&known, &now));
        known = now;
    }
    let (used, took) = (service.usage()?, began.elapsed().as_secs_f64());
    let part = (used.cpu_seconds - before.cpu_seconds) / took * 100.0;
    let mut findings = Findings::default();
    findings.rows.push(Row {
        work: format!("idle with all roles, {} s", span.as_secs()),
        ours: format!("{:.2} s of CPU", used.cpu_seconds - before.cpu_seconds),
        beside: "nothing to do".to_owned(),
        bar: "under 0.5 % of one core".to_owned(),
        measured: format!("{part:.2} %"),
        reached: Some(part < 0.5),
    });
    // A timer of a second or less would wake something in every second. The sum says little: the tables are looked
    // after once a minute, and that minute's work is most of it.
    let quiet = sleeps.iter().filter(|sleeps| **sleeps == 0).count();
    let (total, busiest) = (sleeps.iter().sum::<u64>(), sleeps.iter().max().copied().unwrap_or(0));
    findings.rows.push(Row {
        work: "idle, no timer of a second or less".to_owned(),
        ours: format!("{total} wake-ups of all threads in {took:.0} s, {busiest} of them in one second"),
        beside: "looks without a hint: every 5 s".to_owned(),
        bar: "nothing wakes in at least a third of the seconds".to_owned(),
        measured: format!("{quiet} of {} seconds", sleeps.len()),
        reached: Some(quiet * 3 >= sleeps.len()),
    });
    Ok(findings)
}

/// How often threads went to sleep between two looks; one that is new did all of it since.
fn gone_by(before: &HashMap<u32, u64>, now: &HashMap<u32, u64>) -> u64 {
    now.iter().map(|(thread, sleeps)| sleeps.saturating_sub(before.get(thread).copied().unwrap_or(0))).sum()
}
