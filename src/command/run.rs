//! `lakegram run`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::{Pipelines, Verdict, clean, output};
use crate::app::{App, BatchSummary};
use crate::error::{ErrorKind, Result};

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) pipelines: Pipelines,
    /// Stop after this long, even if something is still waiting (exit code 3 then).
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
    let progress = Progress::begin(&app);
    let summary = app.run(|text| progress.doing(text), &deadline).await;
    timer.abort();
    drop(progress);
    let summary = summary?;
    if !summary.loaders.is_empty() {
        output::print(&shown_loaders(&summary))?;
        for reason in summary.loaders.iter().flat_map(|(_, loader)| &loader.unread) {
            tracing::warn!("not loaded: {reason}");
        }
        for (name, _) in summary.loaders.iter().filter(|(_, loader)| loader.is_cut_short) {
            tracing::warn!("{name}: stopped early; run it again to continue");
        }
    }
    if !summary.pipelines.is_empty() {
        output::print(&shown(&summary))?;
    }
    for unread in &summary.unread {
        tracing::warn!("{unread}");
        output::print(&unread.to_string())?;
    }
    let cleaned = clean::lines(&summary.cleanings);
    if !cleaned.is_empty() {
        output::print(&cleaned)?;
    }
    verdict(&summary)
}

/// The result of the stages' troubles, each reported in a line.
fn verdict(summary: &BatchSummary) -> Result<Verdict> {
    summary.troubles.iter().for_each(output::complain);
    Ok(match summary.troubles.iter().any(|error| error.kind() == ErrorKind::Configuration) {
        true => Verdict::Misconfigured,
        false if summary.waiting() > 0 => Verdict::Waiting,
        false => Verdict::Done,
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
