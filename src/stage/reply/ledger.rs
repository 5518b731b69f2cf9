//! The replies table as the stage's ledger: what has an outcome, and the commits that record more.

use std::collections::{BTreeMap, HashMap, HashSet};

use object_store::path::Path;

use super::rows;
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::id::BotId;
use crate::retry::Backoff;
use crate::storage::Storage;
use crate::table::{Append, Commit, CommitOutcome, DataFile, Fence, LakeTable, TableSpec};

/// Names one send of one part of a reply.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PartKey {
    pub(super) bot_id: BotId,
    pub(super) update_id: i64,
    pub(super) attempt: i64,
    pub(super) send: i64,
    pub(super) part: i64,
}

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Telegram has confirmed it.
    Sent,
    /// Telegram has refused it.
    Failed,
    /// It may or may not have arrived.
    Unknown,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    pub(super) fn of(text: &str) -> Option<Self> {
        [Self::Sent, Self::Failed, Self::Unknown].into_iter().find(|status| status.as_str() == text)
    }
}

/// A row of the replies table.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) key: PartKey,
    pub(super) parts: i64,
    pub(super) chat_id: i64,
    pub(super) telegram_message_id: Option<i64>,
    pub(super) status: Status,
    pub(super) tries: i64,
    pub(super) error: Option<String>,
    pub(super) silver_version: i64,
    pub(super) at: Timestamp,
    pub(super) trace_id: String,
}

/// The replies table, opened by the stage that appends to it.
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
    /// What has an outcome, of silver versions above it.
    known: HashMap<PartKey, Status>,
    /// The same by silver version.
    by_version: BTreeMap<i64, Vec<PartKey>>,
}

impl Ledger {
    /// Opens the table and learns what has an outcome.
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
            known: HashMap::new(),
            by_version: BTreeMap::new(),
        };
        ledger.forgotten_to = ledger.watermark();
        ledger.learn().await?;
        Ok(ledger)
    }

    /// The silver version up to which every reply has its outcomes.
    pub(super) fn watermark(&self) -> i64 {
        self.table.txn(&self.watermark_id).unwrap_or(-1)
    }

    /// The outcome of a part, where it has one and its reply is not forgotten.
    pub(super) fn status(&self, key: &PartKey) -> Option<Status> {
        self.known.get(key).copied()
    }

    /// Reads what other processes have recorded.
    pub(super) async fn refresh(&mut self) -> Result<()> {
        if self.table.is_stale() {
            return self.reopen().await;
        }
        let commits = self.table.refresh().await?;
        self.take_in(commits).await
    }

    /// Records outcomes, and the watermark, in one commit. An outcome that another process has recorded first stays
    /// as it is there: one row per part and send.
    pub(super) async fn record(&mut self, mut outcomes: Vec<Outcome>, watermark: i64) -> Result<()> {
        let mut backoff = Backoff::new(std::time::Duration::from_millis(200), std::time::Duration::from_secs(10));
        loop {
            outcomes.retain(|outcome| self.status(&outcome.key).is_none());
            let progress = (watermark > self.watermark()).then(|| (self.watermark_id.clone(), watermark));
            if outcomes.is_empty() && progress.is_none() {
                self.forget_to(watermark);
                return Ok(());
            }
            match self.append(&outcomes, progress.into_iter().collect()).await {
                Ok(true) => {
                    for outcome in outcomes {
                        self.remember(outcome.silver_version, outcome.key, outcome.status);
                    }
                    self.forget_to(watermark);
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown) => {
                    tracing::warn!(%error, "outcomes of replies could not be recorded; trying again");
                    self.clock.sleep(backoff.next_delay()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One append; `false` when what is known has changed and the plan must be made again.
    async fn append(&mut self, outcomes: &[Outcome], progress: Vec<(String, i64)>) -> Result<bool> {
        let rows = match outcomes {
            [] => None,
            outcomes => Some(rows::to_batch(&self.table.schema(), outcomes)?),
        };
        let fence = Fence { app_id: self.app_id.clone(), seen: self.seen };
        match self.table.append(Append { rows, fence, progress }).await? {
            CommitOutcome::Committed { .. } | CommitOutcome::AlreadyCommitted { .. } => {
                self.seen += 1;
                Ok(true)
            }
            CommitOutcome::Fenced { commits } => {
                self.take_in(commits).await?;
                Ok(false)
            }
            CommitOutcome::Stale => {
                self.reopen().await?;
                Ok(false)
            }
        }
    }

    /// The replies at or below the watermark, as `(bot_id, update_id, attempt)`: for when silver has to be compared
    /// as a whole because a stretch of its log is gone.
    pub(super) async fn settled(&mut self) -> Result<HashSet<(BotId, i64, i64)>> {
        // Where a stretch of silver is gone, so may be what this handle stands on.
        self.reopen().await?;
        let watermark = self.watermark();
        let mut settled = HashSet::new();
        for file in self.table.files().await? {
            let batch = self.table.read_file(&file, Some(&rows::KEY_COLUMNS)).await?;
            let old = rows::statuses(&batch)?.into_iter().filter(|(version, ..)| *version <= watermark);
            settled.extend(old.map(|(_, key, _)| (key.bot_id, key.update_id, key.attempt)));
        }
        Ok(settled)
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

    /// Learns what has an outcome from the files that may hold replies we have not forgotten.
    async fn learn(&mut self) -> Result<()> {
        self.known.clear();
        self.by_version.clear();
        self.seen = self.table.txn(&self.app_id).unwrap_or(0);
        for file in self.table.files().await? {
            let newest = file.max_values.get("silver_version").and_then(serde_json::Value::as_i64);
            if newest.is_none_or(|newest| newest > self.forgotten_to) {
                self.learn_file(&file).await?;
            }
        }
        Ok(())
    }

    async fn learn_file(&mut self, file: &DataFile) -> Result<()> {
        let batch = self.table.read_file(file, Some(&rows::KEY_COLUMNS)).await?;
        for (silver_version, key, status) in rows::statuses(&batch)? {
            self.remember(silver_version, key, status);
        }
        Ok(())
    }

    fn remember(&mut self, silver_version: i64, key: PartKey, status: Status) {
        if silver_version > self.forgotten_to && self.known.insert(key.clone(), status).is_none() {
            self.by_version.entry(silver_version).or_default().push(key);
        }
    }

    fn forget_to(&mut self, version: i64) {
        self.forgotten_to = self.forgotten_to.max(version);
        let above = self.by_version.split_off(&(self.forgotten_to + 1));
        for key in std::mem::replace(&mut self.by_version, above).into_values().flatten() {
            self.known.remove(&key);
        }
    }
}

/// What the replies table must be.
pub(super) fn spec(table: &str, schema: arrow::datatypes::SchemaRef) -> Result<TableSpec> {
    let path = Path::parse(table)
        .map_err(|error| Error::configuration(format!("reply.table `{table}` is no path")).caused_by(error))?;
    let stats = ["update_id", "chat_id", "silver_version", "sent_at"];
    Ok(TableSpec { path, schema, stats_columns: stats.map(str::to_owned).to_vec() })
}
