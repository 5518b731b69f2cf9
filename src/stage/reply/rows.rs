//! Rows of the silver table in, rows of the replies table out.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimestampMicrosecondType};

use super::outcome::{Outcome, PartOf, PartState, Status};
use crate::clock::Timestamp;
use crate::error::{self, Context, Error, ErrorKind};
use crate::flow::key::UpdateKey;
use crate::flow::ledger::ExistingRow;
use crate::flow::work::Item;
use crate::id::BotId;
use crate::telegram::reply::{self, Answered, Method, ReplyMessage};

/// The columns read from the replies table.
pub(super) const KEY_COLUMNS: [&str; 8] =
    ["bot_id", "update_id", "attempt", "send", "part", "parts", "status", "telegram_message_id"];

/// The columns read from the silver table.
pub(super) const SILVER_COLUMNS: [&str; 11] = [
    "bot_id",
    "update_id",
    "attempt",
    "chat_id",
    "chat_type",
    "message_id",
    "response",
    "reply_parts",
    "reply",
    "trace_id",
    "processed_at",
];

/// A silver row that requires a reply.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) key: UpdateKey,
    pub(super) chat_id: i64,
    /// The messages to send, or why there are none if the row cannot be understood.
    pub(super) messages: Result<Vec<ReplyMessage>, String>,
    pub(super) trace_id: String,
    pub(super) silver_version: i64,
    /// When silver wrote it; the first moment there is where it does not say.
    pub(super) processed_at: Timestamp,
    /// Whether a byte of it may have left in this process without an outcome.
    pub(super) in_doubt: Arc<AtomicBool>,
}

impl Answer {
    /// How many messages it has.
    pub(super) fn parts(&self) -> i64 {
        self.messages.as_ref().map_or(1, |messages| i64::try_from(messages.len()).unwrap_or(i64::MAX))
    }
}

impl Item for Answer {
    fn key(&self) -> UpdateKey {
        self.key
    }

    fn chat_id(&self) -> i64 {
        self.chat_id
    }

    fn version(&self) -> i64 {
        self.silver_version
    }
}

/// The answers in a batch of silver rows, one for each row that requires a reply.
pub(super) fn answers(batch: &RecordBatch, silver_version: i64) -> error::Result<Vec<Option<Answer>>> {
    let columns = Columns { batch };
    let (bot_ids, update_ids) = (columns.integers("bot_id")?, columns.integers("update_id")?);
    let (attempts, chat_ids) = (columns.integers("attempt")?, columns.integers("chat_id")?);
    let (message_ids, parts) = (columns.integers("message_id")?, columns.integers("reply_parts")?);
    let (chat_types, responses) = (columns.strings("chat_type")?, columns.strings("response")?);
    // A table of release 0.1 has no such column until silver opens it; what a table lacks is read as null.
    let replies = batch.column_by_name("reply").filter(|column| *column.data_type() != DataType::Null);
    let replies = replies.map(|_| columns.strings("reply")).transpose()?;
    let trace_ids = columns.strings("trace_id")?;
    let processed = columns.moments("processed_at")?;
    let answer = |row: usize| {
        let asks = parts.is_valid(row) && parts.value(row) > 0;
        let addressed = [bot_ids, update_ids, chat_ids].iter().all(|column| column.is_valid(row));
        if !asks || !addressed {
            return None;
        }
        let chat_id = chat_ids.value(row);
        let answered = Answered {
            chat_id,
            chat_type: chat_types.is_valid(row).then(|| chat_types.value(row)),
            message_id: message_ids.is_valid(row).then(|| message_ids.value(row)),
        };
        let reply = replies.filter(|replies| replies.is_valid(row)).map(|replies| replies.value(row));
        let messages = match (reply, responses.is_valid(row)) {
            (Some(reply), _) => understand(reply),
            (None, true) => Ok(composed_as_before(responses.value(row), answered)),
            (None, false) => return None,
        };
        Some(Answer {
            key: UpdateKey {
                bot_id: BotId(bot_ids.value(row)),
                update_id: update_ids.value(row),
                attempt: if attempts.is_valid(row) { attempts.value(row) } else { 1 },
            },
            chat_id,
            messages,
            trace_id: if trace_ids.is_valid(row) { trace_ids.value(row).to_owned() } else { String::new() },
            silver_version,
            processed_at: Timestamp::from_micros(if processed.is_valid(row) { processed.value(row) } else { 0 }),
            in_doubt: Arc::default(),
        })
    };
    Ok((0..batch.num_rows()).map(answer).collect())
}

fn understand(json: &str) -> Result<Vec<ReplyMessage>, String> {
    match reply::from_json(json) {
        Ok(messages) if messages.is_empty() => Err("the reply has no messages".to_owned()),
        Ok(messages) => Ok(messages),
        Err(error) => Err(error.to_string()),
    }
}

/// The messages of a row written before rows contained their messages, composed the way they were then.
fn composed_as_before(response: &str, answered: Answered<'_>) -> Vec<ReplyMessage> {
    reply::compose(response, answered)
}

/// The outcomes in a batch of replies rows.
pub(super) fn outcomes(batch: &RecordBatch) -> error::Result<Vec<ExistingRow<Outcome>>> {
    let columns = Columns { batch };
    let (bot_ids, update_ids) = (columns.integers("bot_id")?, columns.integers("update_id")?);
    let (attempts, sends) = (columns.integers("attempt")?, columns.integers("send")?);
    let (parts, totals) = (columns.integers("part")?, columns.integers("parts")?);
    let (statuses, message_ids) = (columns.strings("status")?, columns.integers("telegram_message_id")?);
    let outcome = |row: usize| {
        let key = UpdateKey {
            bot_id: BotId(bot_ids.value(row)),
            update_id: update_ids.value(row),
            attempt: attempts.value(row),
        };
        let state = PartState {
            status: Status::of(statuses.value(row))?,
            parts: if totals.is_valid(row) { totals.value(row) } else { 1 },
            message_id: message_ids.is_valid(row).then(|| message_ids.value(row)),
        };
        Some(ExistingRow { key, part: PartOf { send: sends.value(row), part: parts.value(row) }, state })
    };
    Ok((0..batch.num_rows()).filter_map(outcome).collect())
}

/// Outcomes as rows of a table with `schema`; columns that we do not fill are null.
pub(super) fn to_batch(schema: &SchemaRef, outcomes: &[Outcome]) -> error::Result<RecordBatch> {
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
        "kind" => strings(|outcome| Some(if outcome.method == Method::Edit { "edit" } else { "send" })),
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
    fn integers(&self, name: &str) -> error::Result<&'a Int64Array> {
        let column = self.batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
        column.ok_or_else(|| Error::corrupt(format!("column {name} is missing or is not a bigint")))
    }

    fn moments(&self, name: &str) -> error::Result<&'a TimestampMicrosecondArray> {
        let column = self.batch.column_by_name(name);
        let column = column.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        column.ok_or_else(|| Error::corrupt(format!("column {name} is missing or not a timestamp")))
    }

    fn strings(&self, name: &str) -> error::Result<&'a StringArray> {
        let column = self.batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        column.ok_or_else(|| Error::corrupt(format!("column {name} is missing or is not a string")))
    }
}
