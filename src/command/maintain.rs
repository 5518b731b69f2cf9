//! `lakegram maintain`.

use std::io::IsTerminal;

use indicatif::ProgressBar;
use tokio_util::sync::CancellationToken;

use super::{Pipelines, Verdict, output};
use crate::app::{App, DRAIN, TableUpkeep};
use crate::error::Result;
use crate::shutdown::in_time;
use crate::table::maintain::MaintainOptions;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) pipelines: Pipelines,
}

pub(super) async fn maintain(app: App, _options: Options, stop: CancellationToken) -> Result<Verdict> {
    let tables: usize = app.all_tables().iter().map(|(_, tables)| tables.len()).sum();
    let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(tables as u64));
    // Whoever asks for maintenance wants it now, however little there is to do.
    let options = MaintainOptions { compact_at_files: 2, checkpoint_every: 1, ..MaintainOptions::default() };
    let progress = |table: &crate::app::TableRef| match &bar {
        Some(bar) => bar.inc(1),
        None => tracing::info!(table = %table.path, "maintaining"),
    };
    let upkeep = in_time(app.maintain(&options, progress, &stop), &app.clock, &stop, DRAIN).await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    output::print(&shown(&upkeep?))
}

fn shown(upkeep: &[TableUpkeep]) -> String {
    let header =
        ["pipeline", "table", "files compacted", "into", "checkpoint", "log entries deleted", "files vacuumed"];
    let rows = upkeep.iter().map(|upkeep| {
        let mut row = vec![upkeep.pipeline.clone(), upkeep.table.path.to_string()];
        match &upkeep.done {
            None => row.push("does not exist yet".to_owned()),
            Some(done) => row.extend([
                done.files_compacted.to_string(),
                done.files_written.to_string(),
                done.checkpoint.map(|version| format!("v{version}")).unwrap_or_default(),
                done.log_entries_deleted.to_string(),
                done.files_vacuumed.to_string(),
            ]),
        }
        row
    });
    output::table(&header, rows)
}
