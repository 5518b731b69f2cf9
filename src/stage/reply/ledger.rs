//! The content of the replies table: one row per part and send, the final one.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use object_store::path::Path;

use super::outcome::{Outcome, PartOf, PartState, Status};
use super::rows;
use crate::error::{Error, Result};
use crate::flow::key::UpdateKey;
use crate::flow::ledger::{ExistingRow, Ledger, LedgerRow, Parts};
use crate::pipeline::OnUnknown;
use crate::table::TableSpec;

/// Maximum sends of one part, if unknown ones are sent again.
pub(super) const MAX_SENDS: i64 = 3;

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

    fn known(batch: &RecordBatch) -> Result<Vec<ExistingRow<Self>>> {
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

/// All parts are sent, or one is not and will not be sent again.
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

/// The next send after these outcomes of a reply.
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

/// The definition of the replies table.
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
