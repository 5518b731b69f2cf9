//! `lakegram run`.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::{Pipelines, Verdict, output};
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
    let progress = |text: &str| match &spinner {
        Some(spinner) => spinner.set_message(text.to_owned()),
        None => tracing::info!("{text}"),
    };
    let summary = app.run(progress, &deadline).await;
    timer.abort();
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    let summary = summary?;
    output::print(&shown(&summary))?;
    Ok(if summary.waiting() > 0 { Verdict::Waiting } else { Verdict::Done })
}

fn spinner() -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let spinner = ProgressBar::new_spinner().with_style(style);
        spinner.enable_steady_tick(Duration::from_millis(120));
        spinner
    })
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
