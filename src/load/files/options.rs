//! What the loader is given, and what it reports.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use prometheus::{Histogram, IntCounter};

use crate::clock::Clock;
use crate::pipeline::files::FilesPipeline;
use crate::storage::Storage;
use crate::telemetry::Telemetry;

/// What the loader works with.
#[derive(Clone, Debug)]
pub struct FilesOptions {
    /// The store below `LAKEGRAM_DATA`.
    pub data: Storage,
    /// The pipeline.
    pub pipeline: FilesPipeline,
    /// The columns of the table, if its records are Telegram updates.
    pub schema: Option<SchemaRef>,
    /// `LAKEGRAM_CHECKPOINTS`.
    pub checkpoints: PathBuf,
    /// Time.
    pub clock: Clock,
    /// Metrics.
    pub telemetry: Telemetry,
    /// Where it reports its progress.
    pub progress: Arc<FilesProgress>,
}

/// The progress of a loader. Counts only grow.
#[derive(Debug, Default)]
pub struct FilesProgress {
    /// Files loaded.
    pub files: AtomicU64,
    /// Their bytes, as stored.
    pub bytes: AtomicU64,
    /// Rows committed.
    pub rows: AtomicU64,
    /// Files found to load, including the loaded ones.
    pub found_files: AtomicU64,
    /// Their bytes.
    pub found_bytes: AtomicU64,
    /// Whether to count ahead of the loader. It costs a second listing.
    pub counts_ahead: AtomicBool,
    /// Whether that listing is complete.
    pub is_counted: AtomicBool,
    /// Files it has seen, loaded or not.
    pub listed_files: AtomicU64,
    /// Their bytes.
    pub listed_bytes: AtomicU64,
    /// Files that the loader has seen and that had been loaded before.
    pub known_files: AtomicU64,
    /// Their bytes.
    pub known_bytes: AtomicU64,
}

impl FilesProgress {
    pub(super) fn add(counter: &AtomicU64, value: u64) {
        counter.fetch_add(value, Ordering::Relaxed);
    }
}

/// What was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesSummary {
    /// Files listed, wanted or not.
    pub listed: u64,
    /// Files loaded.
    pub files: u64,
    /// Rows added.
    pub rows: u64,
    /// Rows with `_rescued_data`.
    pub rescued_rows: u64,
    /// Rows with `_corrupt_record`.
    pub corrupt_rows: u64,
    /// Commits with rows.
    pub commits: u64,
    /// Files that have changed since they were loaded.
    pub changed: u64,
    /// Files that may still be growing.
    pub fresh: u64,
    /// Files that could not be read, with the reason.
    pub unread: Vec<String>,
    /// Whether it was stopped early; the next run continues from there.
    pub is_cut_short: bool,
}

#[derive(Debug)]
pub(super) struct FilesMetrics {
    pub(super) files: IntCounter,
    pub(super) rows: IntCounter,
    pub(super) rescued: IntCounter,
    pub(super) corrupt: IntCounter,
    pub(super) unread: IntCounter,
    pub(super) batch_seconds: Histogram,
}

impl FilesMetrics {
    pub(super) fn new(telemetry: &Telemetry) -> Self {
        Self {
            files: telemetry.counter("lakegram_files_loaded_total", "foreign files loaded"),
            rows: telemetry.counter("lakegram_files_rows_total", "rows added from foreign files"),
            rescued: telemetry.counter("lakegram_files_rescued_rows_total", "rows with data that fits no column"),
            corrupt: telemetry.counter("lakegram_files_corrupt_rows_total", "rows that are not records"),
            unread: telemetry.counter("lakegram_files_unread_total", "failed attempts to read a foreign file"),
            batch_seconds: telemetry
                .latency("lakegram_files_batch_seconds", "time from a batch's listing to its commit"),
        }
    }
}
