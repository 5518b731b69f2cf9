//! What the replies table holds: one row a part and send, the final one.

use std::collections::HashSet;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use object_store::path::Path;

use super::rows;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::flow::ledger::{Known, Ledger, LedgerRow};
use crate::id::BotId;
use crate::table::TableSpec;

/// Names one send of one part of a reply.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PartKey {
    pub(super) bot_id: BotId,
    pub(super) update_id: i64,
    pub(super) attempt: i64,
    pub(super) send: i64,
    pub(super) part: i64,
}

/// Names a reply: bot, update, and silver's attempt.
pub(super) type ReplyKey = (BotId, i64, i64);

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
pub(super) type ReplyLedger = Ledger<Outcome>;

impl LedgerRow for Outcome {
    type Key = PartKey;
    type State = Status;
    const COLUMNS: &'static [&'static str] = &rows::KEY_COLUMNS;
    const VERSION_COLUMN: &'static str = "silver_version";

    fn key(&self) -> PartKey {
        self.key.clone()
    }

    fn state(&self) -> Status {
        self.status
    }

    fn version(&self) -> i64 {
        self.silver_version
    }

    fn to_batch(schema: &SchemaRef, outcomes: &[Self]) -> Result<RecordBatch> {
        rows::to_batch(schema, outcomes)
    }

    fn known(batch: &RecordBatch) -> Result<Vec<Known<Self>>> {
        let known = |(version, key, state)| Known { key, state, version: Some(version) };
        Ok(rows::statuses(batch)?.into_iter().map(known).collect())
    }
}

/// The replies at or below the watermark: for when silver has to be compared as a whole.
pub(super) async fn settled(ledger: &mut ReplyLedger) -> Result<HashSet<ReplyKey>> {
    let mut settled = HashSet::new();
    for file in ledger.files_anew().await? {
        let known = rows::statuses(&ledger.read(&file).await?)?;
        let old = known.into_iter().filter(|(version, ..)| *version <= ledger.watermark());
        settled.extend(old.map(|(_, key, _)| (key.bot_id, key.update_id, key.attempt)));
    }
    Ok(settled)
}

/// What the replies table must be.
///
/// # Errors
/// A configuration error when `table` is not a path.
pub fn spec(table: &str, schema: SchemaRef) -> Result<TableSpec> {
    let path = Path::parse(table)
        .map_err(|error| Error::configuration(format!("reply.table `{table}` is no path")).caused_by(error))?;
    let stats = ["update_id", "chat_id", "silver_version", "sent_at"];
    Ok(TableSpec { path, schema, stats_columns: stats.map(str::to_owned).to_vec(), id: None })
}
