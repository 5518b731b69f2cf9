//! The silver table as the stage's ledger: which bronze rows are done, and the commits that add to it.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use object_store::path::Path;
use serde_json::Value;

use super::rows::{self, KnownRow, RowKey, SilverRow};
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::retry::Backoff;
use crate::storage::Storage;
use crate::table::{Append, Commit, CommitOutcome, DataFile, Fence, LakeTable, TableSpec};

/// What a commit came to.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// The version, when there were rows.
    pub(super) version: Option<i64>,
    /// The rows that are ours; the others another process had written first.
    pub(super) rows: Vec<SilverRow>,
}

/// The silver table, opened by the stage that appends to it.
#[derive(Debug)]
pub(super) struct Ledger {
    storage: Storage,
    spec: TableSpec,
    clock: Clock,
    table: LakeTable,
    app_id: String,
    watermark_id: String,
    seen: i64,
    /// Up to this version our own work is done and forgotten. Not the table's watermark: another process may have moved
    /// that past rows we have under way, and what became of those we must know.
    forgotten_to: i64,
    /// Rows that are done, of bronze versions above it.
    done: HashSet<RowKey>,
    /// The same by bronze version.
    by_version: BTreeMap<i64, Vec<RowKey>>,
}

impl Ledger {
    /// Opens the table and learns what is done.
    pub(super) async fn open(storage: &Storage, spec: TableSpec, stage: &str, clock: &Clock) -> Result<Self> {
        let table = LakeTable::open(storage, &spec, clock).await?;
        let mut ledger = Self {
            storage: storage.clone(),
            spec,
            clock: clock.clone(),
            table,
            app_id: stage.to_owned(),
            watermark_id: format!("{stage}/watermark"),
            seen: 0,
            forgotten_to: -1,
            done: HashSet::new(),
            by_version: BTreeMap::new(),
        };
        ledger.forgotten_to = ledger.watermark();
        ledger.learn().await?;
        Ok(ledger)
    }

    /// The bronze version up to which every row is done.
    pub(super) fn watermark(&self) -> i64 {
        self.table.txn(&self.watermark_id).unwrap_or(-1)
    }

    /// Whether a row that we have not forgotten is done.
    pub(super) fn is_done(&self, key: &RowKey) -> bool {
        self.done.contains(key)
    }

    /// Every row that silver has: for when bronze has to be compared as a whole.
    pub(super) async fn all_keys(&mut self) -> Result<HashSet<RowKey>> {
        // Where a stretch of bronze is gone, so may be what this handle stands on.
        self.reopen().await?;
        let mut keys = HashSet::new();
        for file in self.table.files().await? {
            keys.extend(self.read(&file).await?.into_iter().map(|row| row.key));
        }
        Ok(keys)
    }

    /// Rows received since `from`, for the history of chats.
    pub(super) async fn received_since(&self, from: Timestamp) -> Result<Vec<KnownRow>> {
        let mut rows = Vec::new();
        for file in self.table.files().await? {
            let newest = file.max_values.get("received_at").and_then(Value::as_str);
            let newest = newest.and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
            if newest.is_none_or(|newest| newest.timestamp_micros() >= from.as_micros()) {
                rows.extend(self.read(&file).await?.into_iter().filter(|row| row.received_at >= from));
            }
        }
        Ok(rows)
    }

    /// Appends rows, and the watermark, in one commit. A row that another process has written first stays as it is
    /// there.
    pub(super) async fn record(&mut self, mut silver: Vec<SilverRow>, watermark: i64) -> Result<Recorded> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            silver.retain(|row| !self.is_done(&row.bronze.key()));
            let progress = (watermark > self.watermark()).then(|| (self.watermark_id.clone(), watermark));
            if silver.is_empty() && progress.is_none() {
                self.forget_to(watermark);
                return Ok(Recorded::default());
            }
            match self.append(&silver, progress.into_iter().collect()).await {
                Ok(Some(version)) => {
                    for row in &silver {
                        self.remember(row.bronze.key(), Some(row.bronze.bronze_version));
                    }
                    self.forget_to(watermark);
                    return Ok(Recorded { version: (!silver.is_empty()).then_some(version), rows: silver });
                }
                Ok(None) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown) => {
                    tracing::warn!(%error, "answers could not be recorded; trying again");
                    self.clock.sleep(backoff.next_delay()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One append; `None` when what is known has changed and the plan must be made again.
    async fn append(&mut self, silver: &[SilverRow], progress: Vec<(String, i64)>) -> Result<Option<i64>> {
        let rows = match silver {
            [] => None,
            silver => Some(rows::to_batch(&self.table.schema(), silver)?),
        };
        let fence = Fence { app_id: self.app_id.clone(), seen: self.seen };
        match self.table.append(Append { rows, fence, progress }).await? {
            CommitOutcome::Committed { version } | CommitOutcome::AlreadyCommitted { version } => {
                self.seen += 1;
                Ok(Some(version))
            }
            CommitOutcome::Fenced { commits } => {
                self.take_in(commits).await?;
                Ok(None)
            }
            CommitOutcome::Stale => {
                self.reopen().await?;
                Ok(None)
            }
        }
    }

    async fn reopen(&mut self) -> Result<()> {
        self.table = LakeTable::open(&self.storage, &self.spec, &self.clock).await?;
        self.learn().await
    }

    async fn take_in(&mut self, commits: Vec<Commit>) -> Result<()> {
        for file in commits.iter().flat_map(|commit| &commit.added) {
            self.learn_file(file).await?;
        }
        self.seen = self.table.txn(&self.app_id).unwrap_or(0);
        Ok(())
    }

    /// Learns what is done from the files that may hold rows we have not forgotten.
    async fn learn(&mut self) -> Result<()> {
        self.done.clear();
        self.by_version.clear();
        self.seen = self.table.txn(&self.app_id).unwrap_or(0);
        for file in self.table.files().await? {
            let newest = file.max_values.get("bronze_version").and_then(Value::as_i64);
            if newest.is_none_or(|newest| newest > self.forgotten_to) {
                self.learn_file(&file).await?;
            }
        }
        Ok(())
    }

    async fn learn_file(&mut self, file: &DataFile) -> Result<()> {
        for row in self.read(file).await? {
            self.remember(row.key, row.bronze_version);
        }
        Ok(())
    }

    async fn read(&self, file: &DataFile) -> Result<Vec<KnownRow>> {
        rows::known_rows(&self.table.read_file(file, Some(&rows::SILVER_COLUMNS)).await?)
    }

    /// A row without a bronze version may be of any, so it is never forgotten.
    fn remember(&mut self, key: RowKey, bronze_version: Option<i64>) {
        let version = bronze_version.unwrap_or(i64::MAX);
        if version > self.forgotten_to && self.done.insert(key) {
            self.by_version.entry(version).or_default().push(key);
        }
    }

    fn forget_to(&mut self, version: i64) {
        self.forgotten_to = self.forgotten_to.max(version);
        let above = self.by_version.split_off(&(self.forgotten_to + 1));
        for key in std::mem::replace(&mut self.by_version, above).into_values().flatten() {
            self.done.remove(&key);
        }
    }
}

/// What the silver table must be.
pub(super) fn spec(table: &str, schema: SchemaRef) -> Result<TableSpec> {
    let path = Path::parse(table)
        .map_err(|error| Error::configuration(format!("silver.table `{table}` is no path")).caused_by(error))?;
    let stats = ["update_id", "chat_id", "bronze_version", "received_at", "processed_at"];
    Ok(TableSpec { path, schema, stats_columns: stats.map(str::to_owned).to_vec() })
}
