//! `lakegram run`.

use std::io::IsTerminal;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::{Pipelines, Verdict, clean, output};
use crate::app::{App, BatchSummary};
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) pipelines: Pipelines,
    /// Stop after this long, even when something still waits (exit code 3 then).
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration)]
    deadline: Duration,
}

pub(super) async fn run(app: App, options: Options, stop: CancellationToken) -> Result<Verdict> {
    let deadline = stop.child_token();
    let timer = {
        let (clock, deadline) = (app.clock.clone(), deadline.clone());
        tokio::spawn(async move {
            clock.sleep(options.deadline).await;
            deadline.cancel();
        })
    };
    let spinner = spinner();
    let counting = spinner.clone().map(|spinner| tokio::spawn(count(spinner, app.clone())));
    let progress = |text: &str| match &spinner {
        Some(spinner) => spinner.set_message(text.to_owned()),
        None => tracing::info!("{text}"),
    };
    let summary = app.run(progress, &deadline).await;
    timer.abort();
    if let Some(counting) = counting {
        counting.abort();
    }
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    let summary = summary?;
    if !summary.loaders.is_empty() {
        output::print(&shown_loaders(&summary))?;
        for reason in summary.loaders.iter().flat_map(|(_, loader)| &loader.unread) {
            tracing::warn!("not loaded: {reason}");
        }
    }
    if !summary.pipelines.is_empty() {
        output::print(&shown(&summary))?;
    }
    let cleaned = clean::lines(&summary.cleanings);
    if !cleaned.is_empty() {
        output::print(&cleaned)?;
    }
    Ok(if summary.waiting() > 0 { Verdict::Waiting } else { Verdict::Done })
}

/// Says beside the spinner how far the loaders are.
async fn count(spinner: ProgressBar, app: App) {
    let began = app.clock.monotonic();
    loop {
        app.clock.sleep(Duration::from_millis(250)).await;
        let [files, found, bytes, rows] =
            [&app.loading.files, &app.loading.found_files, &app.loading.bytes, &app.loading.rows]
                .map(|counter| counter.load(Ordering::Relaxed));
        if found > 0 {
            let millis = app.clock.monotonic().saturating_sub(began).as_millis().max(1);
            let rate = u64::try_from(u128::from(bytes) * 1_000 / millis).unwrap_or(u64::MAX);
            spinner.set_prefix(format!(
                "{files} of {found} files, {}, {rows} rows, {}/s ",
                HumanBytes(bytes),
                HumanBytes(rate)
            ));
        }
    }
}

fn spinner() -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{spinner} {elapsed} {prefix}{msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let spinner = ProgressBar::new_spinner().with_style(style);
        spinner.enable_steady_tick(Duration::from_millis(120));
        spinner
    })
}

fn shown_loaders(summary: &BatchSummary) -> String {
    let rows = summary.loaders.iter().map(|(name, done)| {
        let counts = [
            done.listed,
            done.files,
            done.rows,
            done.rescued_rows,
            done.corrupt_rows,
            done.changed,
            done.fresh,
            done.unread.len() as u64,
        ];
        std::iter::once(name.clone()).chain(counts.iter().map(u64::to_string)).collect()
    });
    let header =
        ["loader", "files listed", "loaded", "rows", "with rescued data", "corrupt", "changed", "growing", "unread"];
    output::table(&header, rows)
}

fn shown(summary: &BatchSummary) -> String {
    let rows = summary.pipelines.iter().map(|done| {
        vec![
            done.pipeline.clone(),
            done.bronze.rows.to_string(),
            done.silver.rows.to_string(),
            done.reply.sent.to_string(),
            done.reply.unknown.to_string(),
            (done.silver.failed + done.reply.failed).to_string(),
            (done.silver.waiting + done.reply.waiting).to_string(),
        ]
    });
    output::table(&["pipeline", "bronze rows", "silver rows", "replies sent", "unknown", "failed", "waiting"], rows)
}
