//! Maintenance, off the hot path and through the same committer: compaction, checkpoints, log clean-up, vacuum.

mod clean;
mod compact;
#[cfg(test)]
mod tests;

use std::time::Duration;

use deltalake::protocol::checkpoints::create_checkpoint;
use object_store::path::Path;
use tokio_util::sync::CancellationToken;

use super::LakeTable;
use super::delta::delta_table;
use crate::clock::Clock;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::storage::Storage;

const DAY: Duration = Duration::from_secs(86_400);
/// A reader that stands still holds up clean-up no longer than this.
const LONGEST_STAND: Duration = Duration::from_secs(30 * 86_400);

/// What maintenance may do.
#[derive(Clone, Debug)]
pub struct MaintainOptions {
    /// Rewrite small files when at least so many of about one size have gathered.
    pub compact_at_files: usize,
    /// Size a rewritten file should have, in bytes.
    pub target_bytes: u64,
    /// Checkpoint after so many commits.
    pub checkpoint_every: i64,
    /// Log entries older than this and below the newest checkpoint go; a day at least.
    pub log_retention: Duration,
    /// Files no longer in the table go after this; a day at least, for somebody may be reading or writing them.
    pub vacuum_retention: Duration,
    /// Whether to look for data files that no version needs. It lists the whole table: a day apart is enough.
    pub vacuum: bool,
    /// The version up to which the stage that reads this table has handled everything, when one reads it.
    pub reader_watermark: Option<i64>,
}

impl Default for MaintainOptions {
    /// Seven days, as is usual for Delta tables.
    fn default() -> Self {
        Self {
            compact_at_files: 32,
            target_bytes: 128 * 1_024 * 1_024,
            checkpoint_every: 100,
            log_retention: 7 * DAY,
            vacuum_retention: 7 * DAY,
            vacuum: true,
            reader_watermark: None,
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

/// Maintains one table once, until `stop`.
///
/// # Errors
/// A configuration error for a retention below a day; else as the store. What was done stays done.
pub async fn maintain(
    storage: &Storage,
    table: &Path,
    options: &MaintainOptions,
    clock: &Clock,
    stop: &CancellationToken,
) -> Result<MaintainSummary> {
    if options.log_retention < DAY || options.vacuum_retention < DAY {
        return Err(Error::configuration(
            "retention below a day would take files from under readers; write \"1d\" or more",
        ));
    }
    let mut summary = MaintainSummary::default();
    let Some(mut opened) = LakeTable::open_existing(storage, table, clock).await? else { return Ok(summary) };
    compact::compact(&mut opened, options, &mut summary, stop).await?;
    if !stop.is_cancelled() {
        summary.checkpoint = checkpoint(&opened, options.checkpoint_every).await?;
    }
    if !stop.is_cancelled() {
        summary.log_entries_deleted = clean::clean_log(&opened, options, stop).await?;
    }
    if options.vacuum && !stop.is_cancelled() {
        summary.files_vacuumed = clean::vacuum(&opened, options, stop).await?;
    }
    Ok(summary)
}

/// Makes a checkpoint when enough commits have passed; returns its version.
async fn checkpoint(table: &LakeTable, every: i64) -> Result<Option<i64>> {
    let newest = table.log.last_checkpoint().await?.map_or(-1, |checkpoint| checkpoint.version);
    if table.version() - newest < every.max(1) {
        return Ok(None);
    }
    let context = || format!("make a checkpoint of table {}", table.log.table);
    let delta = delta_table(&table.log.storage, &table.log.table).await?;
    create_checkpoint(&delta, None).await.context(ErrorKind::Unavailable, context())?;
    Ok(delta.version().and_then(|version| i64::try_from(version).ok()))
}
