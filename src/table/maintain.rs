//! Maintenance through the same committer: compaction, checkpoints, log clean-up, vacuum.

use std::time::Duration;

use object_store::path::Path;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::Result;
use crate::storage::Storage;

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
    /// Files no longer in the table go after this.
    pub vacuum_retention: Duration,
    /// The version up to which the stage that reads this table has handled everything, when one reads it.
    pub reader_watermark: Option<i64>,
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

/// Maintains one table once.
///
/// # Errors
/// When the store fails. What was done stays done.
pub async fn maintain(
    _storage: &Storage,
    _table: &Path,
    _options: &MaintainOptions,
    _clock: &Clock,
    _stop: &CancellationToken,
) -> Result<MaintainSummary> {
    Ok(MaintainSummary::default())
}

impl Default for MaintainOptions {
    fn default() -> Self {
        Self {
            compact_at_files: 32,
            target_bytes: 128 << 20,
            checkpoint_every: 100,
            log_retention: Duration::from_secs(7 * 86400),
            vacuum_retention: Duration::from_secs(7 * 86400),
            reader_watermark: None,
        }
    }
}
