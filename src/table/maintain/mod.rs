//! Maintenance through the same committer: compaction, checkpoints, log clean-up, vacuum.
//!
//! Every step leaves the table correct if it is interrupted or done by two processes at once, so maintenance needs no
//! state and no lock of its own.

mod clean;
mod compact;
mod merge;
mod vacuum;

use std::time::Duration;

use object_store::path::Path;
use tokio_util::sync::CancellationToken;

use super::checkpoint::Checkpoint;
use super::head::Moment;
use super::snapshot::{TableLog, Want};
use super::{LakeTable, delta};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::storage::Storage;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a reader's watermark protects what the reader still needs.
const READER_PATIENCE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Keys in one page of a listing.
const PAGE: usize = 1_000;

/// What maintenance may do.
#[derive(Clone, Debug)]
pub struct MaintainOptions {
    /// Rewrite small files once at least this many have accumulated.
    pub compact_at_files: usize,
    /// Target size of a rewritten file.
    pub target_bytes: u64,
    /// Checkpoint after this many commits.
    pub checkpoint_every: i64,
    /// Delete log entries that are older than this and below the newest checkpoint.
    pub log_retention: Duration,
    /// Delete files that are no longer in the table if they were both written and removed longer ago than this. A Delta
    /// checkpoint remembers removals for seven days unless the table says otherwise; beyond that only the write time
    /// counts.
    pub vacuum_retention: Duration,
    /// Whether to clean up the log and look for data files that no version refers to. This lists the table's folders,
    /// so once a day is enough.
    pub clean: bool,
    /// The version up to which the downstream stage, if there is one, has handled everything. What it has not read yet
    /// is kept for up to 30 days.
    pub reader_watermark: Option<i64>,
    /// Whether to allow retentions below one day. They break readers and commits in progress; for tests only.
    pub allow_short_retention: bool,
}

impl Default for MaintainOptions {
    fn default() -> Self {
        Self {
            compact_at_files: 32,
            target_bytes: 128 * 1024 * 1024,
            checkpoint_every: 100,
            log_retention: 7 * DAY,
            vacuum_retention: 7 * DAY,
            clean: true,
            reader_watermark: None,
            allow_short_retention: false,
        }
    }
}

/// What maintenance did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaintainSummary {
    /// Small files that were rewritten.
    pub files_compacted: usize,
    /// Files they were merged into.
    pub files_written: usize,
    /// The version of the checkpoint that was written.
    pub checkpoint: Option<i64>,
    /// Log entries deleted.
    pub log_entries_deleted: usize,
    /// Data files deleted.
    pub files_vacuumed: usize,
}

/// What every step works on.
struct Work<'a> {
    log: TableLog,
    options: &'a MaintainOptions,
    clock: &'a Clock,
    stop: &'a CancellationToken,
}

/// Maintains one table once; returns the version it ended at and what was done, or `None` if there is no table. Ends
/// early when `stop` is cancelled.
///
/// # Errors
/// Configuration when a retention is below one day; otherwise when the store fails. What was done stays done.
pub async fn maintain(
    storage: &Storage,
    table: &Path,
    options: &MaintainOptions,
    clock: &Clock,
    stop: &CancellationToken,
) -> Result<Option<(i64, MaintainSummary)>> {
    check(options)?;
    let work = Work { log: TableLog::new(storage, table), options, clock, stop };
    let mut summary = MaintainSummary::default();
    // All steps share one reading of the log: beside a fast writer, that is most of the cost of a round.
    let touched = Moment::now(clock);
    let Some(snapshot) = work.log.snapshot(Want { files: true, at: None }).await? else { return Ok(None) };
    let mut handle = LakeTable::at(work.log.clone(), snapshot.state, snapshot.newest, touched, clock);
    if !stop.is_cancelled() {
        let files = snapshot.files.into_values().collect();
        (summary.files_compacted, summary.files_written) = work.compact(&mut handle, files).await?;
    }
    if !stop.is_cancelled() {
        summary.checkpoint = work.checkpoint(handle.version()).await?;
    }
    if options.clean && !stop.is_cancelled() {
        summary.log_entries_deleted = work.clean_log().await?;
    }
    if options.clean && !stop.is_cancelled() {
        summary.files_vacuumed = work.vacuum().await?;
    }
    if summary != MaintainSummary::default() {
        tracing::info!(%table, ?summary, "maintained a table");
    }
    Ok(Some((handle.version(), summary)))
}

fn check(options: &MaintainOptions) -> Result<()> {
    if options.allow_short_retention {
        return Ok(());
    }
    for (name, retention) in [("log", options.log_retention), ("vacuum", options.vacuum_retention)] {
        if retention < DAY {
            return Err(Error::configuration(format!(
                "a {name} retention of {} s is too short; readers and commits in progress need at least one day",
                retention.as_secs()
            )));
        }
    }
    Ok(())
}

impl Work<'_> {
    /// Writes a checkpoint of the head if enough commits have passed since the last one.
    async fn checkpoint(&self, head: i64) -> Result<Option<i64>> {
        let named = self.log.last_checkpoint().await?.map_or(-1, |checkpoint| checkpoint.version);
        // If the hint is lost, the checkpoint may exist all the same.
        let there = Checkpoint { version: head, parts: None };
        if head - named < self.options.checkpoint_every.max(1) || self.is_complete(&there).await? {
            return Ok(None);
        }
        delta::make_checkpoint(&self.log.storage, &self.log.table, head).await?;
        let named = self.log.last_checkpoint().await?.map(|checkpoint| checkpoint.version);
        Ok(named.filter(|version| *version >= head))
    }

    /// Whether every part of a checkpoint exists.
    async fn is_complete(&self, checkpoint: &Checkpoint) -> Result<bool> {
        for path in checkpoint.paths(&self.log_folder()) {
            if self.log.storage.head(&path).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn log_folder(&self) -> Path {
        crate::storage::StorageKey::Log { table: self.log.table.clone() }.path()
    }

    /// Milliseconds since 1970; what is older is past `retention`.
    fn cutoff_millis(&self, retention: Duration) -> i64 {
        self.clock.now().minus(retention).as_millis()
    }
}

#[cfg(test)]
mod tests;
