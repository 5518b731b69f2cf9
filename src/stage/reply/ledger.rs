//! What the replies table holds: one row a part and send, the final one.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use object_store::path::Path;

use super::rows;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::flow::key::UpdateKey;
use crate::flow::ledger::{Known, Ledger, LedgerRow, Parts};
use crate::id::BotId;
use crate::pipeline::OnUnknown;
use crate::table::TableSpec;
use crate::telegram::reply::Method;

/// Sends of one part, when unknown ones are sent again.
pub(super) const MAX_SENDS: i64 = 3;

/// Names one send of one part of a reply.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PartKey {
    pub(super) bot_id: BotId,
    pub(super) update_id: i64,
    pub(super) attempt: i64,
    pub(super) send: i64,
    pub(super) part: i64,
}

impl PartKey {
    /// The reply it belongs to.
    pub(super) fn update(&self) -> UpdateKey {
        UpdateKey { bot_id: self.bot_id, update_id: self.update_id, attempt: self.attempt }
    }

    /// What it is of that reply.
    pub(super) fn of(&self) -> PartOf {
        PartOf { send: self.send, part: self.part }
    }
}

/// One send of one part, within its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartOf {
    pub(super) send: i64,
    pub(super) part: i64,
}

/// What is known of a part that has an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartState {
    pub(super) status: Status,
    /// How many parts its reply has.
    pub(super) parts: i64,
    /// The message it became, where that is known.
    pub(super) message_id: Option<i64>,
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
    pub(super) method: Method,
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
    type Part = PartOf;
    type State = PartState;
    const COLUMNS: &'static [&'static str] = &rows::KEY_COLUMNS;

    fn key(&self) -> UpdateKey {
        self.key.update()
    }

    fn part(&self) -> PartOf {
        self.key.of()
    }

    fn state(&self) -> PartState {
        PartState { status: self.status, parts: self.parts, message_id: self.telegram_message_id }
    }

    fn to_batch(schema: &SchemaRef, outcomes: &[Self]) -> Result<RecordBatch> {
        rows::to_batch(schema, outcomes)
    }

    fn known(batch: &RecordBatch) -> Result<Vec<Known<Self>>> {
        rows::outcomes(batch)
    }
}

/// Whether every part that a reply will ever have has its outcome.
pub(super) fn settles(on_unknown: OnUnknown) -> fn(&Parts<Outcome>) -> bool {
    match on_unknown {
        OnUnknown::Leave => |rows| is_settled(rows, |_| true),
        OnUnknown::Resend => |rows| is_settled(rows, |send| send >= MAX_SENDS),
    }
}

/// All parts are sent, or one is not and no later send of it will be made.
fn is_settled(rows: &Parts<Outcome>, is_unknown_final: impl Fn(i64) -> bool) -> bool {
    let parts = rows.iter().map(|(_, state)| state.parts).max().unwrap_or(0);
    for part in 1..=parts {
        let sends = rows.iter().filter(|(of, _)| of.part == part);
        match sends.max_by_key(|(of, _)| of.send) {
            None => return false,
            Some((_, PartState { status: Status::Sent, .. })) => {}
            Some((_, PartState { status: Status::Failed, .. })) => return true,
            Some((of, PartState { status: Status::Unknown, .. })) => return is_unknown_final(of.send),
        }
    }
    parts > 0
}

/// The send that comes after these outcomes of a reply.
pub(super) fn next_part(rows: &Parts<Outcome>) -> PartOf {
    let mut next = PartOf { send: 1, part: 1 };
    loop {
        let sends = rows.iter().filter(|(of, _)| of.part == next.part);
        match sends.max_by_key(|(of, _)| of.send) {
            Some((_, PartState { status: Status::Sent, .. })) => next.part += 1,
            Some((of, _)) => return PartOf { send: of.send + 1, ..next },
            None => return next,
        }
    }
}

/// What the replies table must be.
///
/// # Errors
/// A configuration error when `table` is not a path.
pub fn spec(table: &str, schema: SchemaRef) -> Result<TableSpec> {
    let path = Path::parse(table)
        .map_err(|error| Error::configuration(format!("reply.table `{table}` is not a path")).caused_by(error))?;
    let stats = ["update_id", "chat_id", "silver_version", "sent_at"];
    Ok(TableSpec { path, schema, stats_columns: stats.map(str::to_owned).to_vec(), id: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_settled_when_no_part_of_it_is_left_to_be_sent() {
        use Status::{Failed, Sent, Unknown};
        let row = |send, part, status| (PartOf { send, part }, PartState { status, parts: 2, message_id: None });
        let both = |rows: &Parts<Outcome>| (settles(OnUnknown::Leave)(rows), settles(OnUnknown::Resend)(rows));
        assert_eq!(both(&[]), (false, false));
        assert_eq!(both(&[row(1, 1, Sent)]), (false, false), "the second part is left");
        assert_eq!(both(&[row(1, 2, Sent)]), (false, false));
        assert_eq!(both(&[row(1, 2, Sent), row(1, 1, Sent)]), (true, true));
        assert_eq!(both(&[row(1, 1, Failed)]), (true, true));
        assert_eq!(both(&[row(1, 1, Sent), row(1, 2, Unknown)]), (true, false));
        assert_eq!(both(&[row(2, 1, Unknown), row(1, 1, Unknown)]), (true, false));
        assert_eq!(both(&[row(1, 1, Unknown), row(3, 1, Unknown)]), (true, true));
    }
}
