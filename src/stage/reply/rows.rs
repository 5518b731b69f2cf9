//! Rows of the silver table in, rows of the replies table out.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{Int64Type, SchemaRef};

use super::ledger::{Outcome, PartKey, ReplyKey, Status};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::BotId;

/// What is read of the replies table.
pub(super) const KEY_COLUMNS: [&str; 7] =
    ["bot_id", "update_id", "attempt", "send", "part", "status", "silver_version"];

/// What is read of the silver table.
pub(super) const SILVER_COLUMNS: [&str; 9] =
    ["bot_id", "update_id", "attempt", "chat_id", "chat_type", "message_id", "response", "reply_parts", "trace_id"];

/// A silver row that asks for a reply.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) bot_id: BotId,
    pub(super) update_id: i64,
    pub(super) attempt: i64,
    pub(super) chat_id: i64,
    pub(super) chat_type: Option<String>,
    pub(super) message_id: Option<i64>,
    pub(super) response: String,
    pub(super) trace_id: String,
}

impl Answer {
    /// What names it.
    pub(super) fn key(&self) -> ReplyKey {
        (self.bot_id, self.update_id, self.attempt)
    }
}

/// The answers in a batch of silver rows.
pub(super) fn answers(batch: &RecordBatch) -> Result<Vec<Answer>> {
    let columns = Columns { batch };
    let (bot_ids, update_ids) = (columns.integers("bot_id")?, columns.integers("update_id")?);
    let (attempts, chat_ids) = (columns.integers("attempt")?, columns.integers("chat_id")?);
    let (message_ids, parts) = (columns.integers("message_id")?, columns.integers("reply_parts")?);
    let (chat_types, responses) = (columns.strings("chat_type")?, columns.strings("response")?);
    let trace_ids = columns.strings("trace_id")?;
    let mut answers = Vec::new();
    for row in 0..batch.num_rows() {
        let asks = parts.is_valid(row) && parts.value(row) > 0;
        let addressed = [bot_ids, update_ids, chat_ids].iter().all(|column| column.is_valid(row));
        if !asks || !addressed || responses.is_null(row) {
            continue;
        }
        answers.push(Answer {
            bot_id: BotId(bot_ids.value(row)),
            update_id: update_ids.value(row),
            attempt: if attempts.is_valid(row) { attempts.value(row) } else { 1 },
            chat_id: chat_ids.value(row),
            chat_type: chat_types.is_valid(row).then(|| chat_types.value(row).to_owned()),
            message_id: message_ids.is_valid(row).then(|| message_ids.value(row)),
            response: responses.value(row).to_owned(),
            trace_id: if trace_ids.is_valid(row) { trace_ids.value(row).to_owned() } else { String::new() },
        });
    }
    Ok(answers)
}

/// The outcomes in a batch of replies rows, with the silver version each belongs to.
pub(super) fn statuses(batch: &RecordBatch) -> Result<Vec<(i64, PartKey, Status)>> {
    let columns = Columns { batch };
    let (bot_ids, update_ids) = (columns.integers("bot_id")?, columns.integers("update_id")?);
    let (attempts, sends) = (columns.integers("attempt")?, columns.integers("send")?);
    let (parts, versions) = (columns.integers("part")?, columns.integers("silver_version")?);
    let statuses = columns.strings("status")?;
    let row = |row: usize| {
        let key = PartKey {
            bot_id: BotId(bot_ids.value(row)),
            update_id: update_ids.value(row),
            attempt: attempts.value(row),
            send: sends.value(row),
            part: parts.value(row),
        };
        Some((versions.value(row), key, Status::of(statuses.value(row))?))
    };
    Ok((0..batch.num_rows()).filter_map(row).collect())
}

/// Outcomes as rows of a table with `schema`; columns that are not ours are null.
pub(super) fn to_batch(schema: &SchemaRef, outcomes: &[Outcome]) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| {
        column(field.name(), outcomes).unwrap_or_else(|| new_null_array(field.data_type(), outcomes.len()))
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect())
        .context(ErrorKind::Configuration, "the replies table has other column types")
}

fn column(name: &str, outcomes: &[Outcome]) -> Option<ArrayRef> {
    let integers = |value: fn(&Outcome) -> Option<i64>| -> ArrayRef {
        Arc::new(outcomes.iter().map(value).collect::<Int64Array>())
    };
    let strings = |value: fn(&Outcome) -> Option<&str>| -> ArrayRef {
        Arc::new(outcomes.iter().map(value).collect::<StringArray>())
    };
    Some(match name {
        "bot_id" => integers(|outcome| Some(outcome.key.bot_id.0)),
        "update_id" => integers(|outcome| Some(outcome.key.update_id)),
        "attempt" => integers(|outcome| Some(outcome.key.attempt)),
        "send" => integers(|outcome| Some(outcome.key.send)),
        "part" => integers(|outcome| Some(outcome.key.part)),
        "parts" => integers(|outcome| Some(outcome.parts)),
        "chat_id" => integers(|outcome| Some(outcome.chat_id)),
        "telegram_message_id" => integers(|outcome| outcome.telegram_message_id),
        "kind" => strings(|_| Some("send")),
        "status" => strings(|outcome| Some(outcome.status.as_str())),
        "tries" => integers(|outcome| Some(outcome.tries)),
        "error" => strings(|outcome| outcome.error.as_deref()),
        "silver_version" => integers(|outcome| Some(outcome.silver_version)),
        "sent_at" => {
            let times = outcomes.iter().map(|outcome| Some(outcome.at.as_micros()));
            Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        }
        "trace_id" => strings(|outcome| Some(outcome.trace_id.as_str())),
        _ => return None,
    })
}

struct Columns<'a> {
    batch: &'a RecordBatch,
}

impl<'a> Columns<'a> {
    fn integers(&self, name: &str) -> Result<&'a Int64Array> {
        let column = self.batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
        column.ok_or_else(|| Error::corrupt(format!("column {name} is missing or no bigint")))
    }

    fn strings(&self, name: &str) -> Result<&'a StringArray> {
        let column = self.batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        column.ok_or_else(|| Error::corrupt(format!("column {name} is missing or no string")))
    }
}
