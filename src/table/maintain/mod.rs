//! Maintenance through the same committer: compaction, checkpoints, log clean-up, vacuum.
//!
//! Every step leaves the table right when it is cut off or done by two processes at once, so that maintenance needs
//! no state and no lock of its own.

mod clean;
mod compact;
mod merge;
mod vacuum;

use std::time::Duration;

use deltalake::protocol::checkpoints::create_checkpoint;
use object_store::path::Path;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::checkpoint::Checkpoint;
use super::head::Moment;
use super::snapshot::{TableLog, Want};
use super::{LakeTable, delta};
use crate::clock::Clock;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::storage::Storage;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a reader's watermark holds back what it still needs.
const READER_PATIENCE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Keys in one page of a listing.
const PAGE: usize = 1_000;

/// A checkpoint adds at most so many times `checkpoint_every` commits to the one before it.
const CHECKPOINT_STEP: i64 = 10;

/// What maintenance may do.
#[derive(Clone, Debug)]
pub struct MaintainOptions {
    /// Rewrite small files when at least so many have gathered.
    pub compact_at_files: usize,
    /// Size a rewritten file should have.
    pub target_bytes: u64,
    /// Checkpoint after so many commits.
    pub checkpoint_every: i64,
    /// Log entries older than this and below the newest checkpoint go.
    pub log_retention: Duration,
    /// Files no longer in the table go when they were put, and removed, longer ago than this. A checkpoint of Delta
    /// remembers removals for seven days unless the table says otherwise; beyond that only the put counts.
    pub vacuum_retention: Duration,
    /// Whether to clean the log and to look for data files that no version needs. It lists the table's folders: a day
    /// apart is enough.
    pub clean: bool,
    /// The version up to which the stage that reads this table has handled everything, when one reads it. What it has
    /// still to read is kept for up to 30 days.
    pub reader_watermark: Option<i64>,
    /// Whether retentions below one day are taken. They break readers and commits that are under way: for tests only.
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
    /// Files they became.
    pub files_written: usize,
    /// The version of the checkpoint that was made.
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

/// Maintains one table once; returns the version it was left at and what was done, `None` where there is no table. Ends
/// early when `stop` is cancelled.
///
/// # Errors
/// Configuration when a retention is below one day; else when the store fails. What was done stays done.
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
    // One reading of the log serves every step: beside a fast writer it is what a round costs most for.
    let touched = Moment::now(clock);
    let Some(snapshot) = work.log.snapshot(Want { files: true, at: None }).await? else { return Ok(None) };
    let mut handle = LakeTable::at(work.log.clone(), snapshot.state, touched, clock);
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
                "a {name} retention of {} s is too short; keep at least one day, for readers and commits under way",
                retention.as_secs()
            )));
        }
    }
    Ok(())
}

impl Work<'_> {
    /// Makes a checkpoint of the head when enough commits have passed since the one that is named. Where far more have
    /// passed it goes there in steps, each upon the checkpoint before it: delta-rs holds a decoder open for every commit
    /// it reads.
    async fn checkpoint(&self, head: i64) -> Result<Option<i64>> {
        let mut named = self.named_checkpoint().await?;
        // Where the hint is lost the checkpoint may be there all the same.
        let there = Checkpoint { version: head, parts: None };
        let every = self.options.checkpoint_every.max(1);
        if head - named < every || self.is_complete(&there).await? {
            return Ok(None);
        }
        while named < head && !self.stop.is_cancelled() {
            let version = head.min(named.saturating_add(every.saturating_mul(CHECKPOINT_STEP)));
            self.make_checkpoint(version).await?;
            // Another process may have named a later one meanwhile; one that is older is not taken for ours.
            named = self.named_checkpoint().await?.max(version);
        }
        let named = self.named_checkpoint().await?;
        Ok((named >= head).then_some(named))
    }

    async fn make_checkpoint(&self, version: i64) -> Result<()> {
        let context = || format!("make a checkpoint of version {version} of table {}", self.log.table);
        let table = delta::delta_table_at(&self.log.storage, &self.log.table, version).await?;
        // delta-rs replays the log and encodes the checkpoint without giving others a turn.
        let runtime = Handle::current();
        let making = tokio::task::spawn_blocking(move || runtime.block_on(create_checkpoint(&table, None)));
        let made = making.await.context(ErrorKind::Unavailable, context())?;
        made.context(ErrorKind::Unavailable, context())
    }

    /// The version of the checkpoint that is named, or where the hint is lost of the newest that is there: what lies
    /// below that one may be cleaned away.
    async fn named_checkpoint(&self) -> Result<i64> {
        Ok(self.log.newest_checkpoint(None).await?.map_or(-1, |checkpoint| checkpoint.version))
    }

    /// Whether every part of a checkpoint is there.
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

    /// Milliseconds since 1970 before which `retention` is over.
    fn cutoff_millis(&self, retention: Duration) -> i64 {
        self.clock.now().minus(retention).as_millis()
    }
}

#[cfg(test)]
mod tests;
