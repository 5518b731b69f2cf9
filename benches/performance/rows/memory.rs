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
/// A million messages may not cost more than this for each 100,000, in MB: what is kept of a message must fit in ten
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

async fn over_many_messages(bench: &Bench, findings: &mut Findings) -> Result<()> {
    let count = bench.scaled(1_000_000, 40_000);
    let every = bench.scaled(Duration::from_secs(2), Duration::from_millis(250));
    let folder = bench.folder()?;
    let service = Service::start(lakegram(folder.path(), &["serve", "--roles", "receive,bronze"]))?;
    let load = Load { address: service.address, connections: 100, until: Until::Acked(count) };
    let mut sending = tokio::spawn(async move { send(&load, &UpdateIds::new()).await });
    let (began, mut samples) = (Instant::now(), Vec::new());
    let report = loop {
        tokio::select! {
            report = &mut sending => break report??,
            () = tokio::time::sleep(every) => {
                samples.push((began.elapsed().as_secs_f64(), megabytes(service.usage()?.resident_bytes)));
            }
        }
    };
    let took = began.elapsed().as_secs_f64();
    let peak = megabytes(service.usage()?.peak_resident_bytes);
    let later = samples.split_off(samples.len() / 2);
    #[allow(clippy::cast_precision_loss)]
    let seconds_per_100_000 = took * 1e5 / report.acked.max(1) as f64;
    let growth = slope(&later) * seconds_per_100_000;
    let last = later.last().map_or(0.0, |(_, megabytes)| *megabytes);
    findings.rows.push(Row {
        work: format!("memory over {} messages, received and loaded", report.acked),
        ours: format!("{last:.0} MB resident at the end"),
        beside: format!("peak {peak:.0} MB"),
        bar: format!("second half under {FLAT} MB per 100,000"),
        measured: format!("{growth:+.2} MB per 100,000"),
        reached: Some(growth < FLAT),
    });
    let middle = later.first().map_or(0.0, |(_, megabytes)| *megabytes);
    findings.note(format!(
        "a million messages at {:.0} a second: {middle:.0} MB resident half-way, {last:.0} MB at the end",
        report.acks_a_second,
    ));
    Ok(())
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
