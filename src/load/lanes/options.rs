//! What the loader is given, and what it reports.

use arrow::datatypes::SchemaRef;
use prometheus::{Histogram, IntCounter};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::id::Name;
use crate::pipeline::BronzeSettings;
use crate::storage::Storage;
use crate::table::OwnTable;
use crate::telemetry::Telemetry;

/// What the loader works with.
#[derive(Debug)]
pub struct BronzeOptions {
    /// The store below `LAKEGRAM_DATA`.
    pub storage: Storage,
    /// The pipeline's name.
    pub pipeline: Name,
    /// Its bronze settings.
    pub settings: BronzeSettings,
    /// The columns of the bronze table.
    pub schema: SchemaRef,
    /// The bronze table that is the pipeline's own.
    pub own: OwnTable,
    /// Time.
    pub clock: Clock,
    /// Metrics and hops.
    pub telemetry: Telemetry,
    /// Receives the latest version with rows: the hint for the stage that reads the table.
    pub committed: watch::Sender<i64>,
}

/// What was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BronzeSummary {
    /// Segments read.
    pub files: u64,
    /// Rows added.
    pub rows: u64,
    /// Lines that were redeliveries.
    pub redeliveries: u64,
    /// Rows with `_corrupt_record`.
    pub corrupt: u64,
    /// Commits with rows.
    pub commits: u64,
}

#[derive(Debug)]
pub(super) struct BronzeMetrics {
    pub(super) files: IntCounter,
    pub(super) rows: IntCounter,
    pub(super) redeliveries: IntCounter,
    pub(super) corrupt: IntCounter,
    pub(super) commit_seconds: Histogram,
    pub(super) lag_seconds: Histogram,
}

impl BronzeMetrics {
    pub(super) fn new(telemetry: &Telemetry) -> Self {
        Self {
            files: telemetry.counter("lakegram_bronze_files_total", "segments read"),
            rows: telemetry.counter("lakegram_bronze_rows_total", "rows added"),
            redeliveries: telemetry.counter("lakegram_bronze_redeliveries_total", "lines that were redeliveries"),
            corrupt: telemetry.counter("lakegram_bronze_corrupt_rows_total", "rows that are not updates"),
            commit_seconds: telemetry.latency("lakegram_bronze_commit_seconds", "time a commit took"),
            lag_seconds: telemetry.latency("lakegram_bronze_lag_seconds", "time from a segment's key to its commit"),
        }
    }
}
