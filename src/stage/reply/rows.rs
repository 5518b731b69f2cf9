//! Rows of the silver table in, rows of the replies table out.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::SchemaRef;

use super::outcome::{Outcome, PartOf, PartState, Status};
use crate::clock::Timestamp;
use crate::error::{self, Context, Error, ErrorKind};
use crate::flow::key::UpdateKey;
use crate::flow::ledger::ExistingRow;
use crate::flow::work::Item;
use crate::id::BotId;
use crate::redact::{CELL_LIMIT, excerpt};
use crate::table::values::{Columns, integer, moment, text};
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
    /// Whether the row has no messages, so that they were composed of its text by this release.
    pub(super) is_composed_here: bool,
    /// Why no message of it may be sent.
    pub(super) barred: Option<&'static str>,
    pub(super) trace_id: String,
    pub(super) silver_version: i64,
    /// When silver wrote it; the first moment there is where it does not say.
    pub(super) processed_at: Timestamp,
    /// Whether a byte of it may have left in this process without an outcome.
    pub(super) in_doubt: Arc<AtomicBool>,
}

impl Answer {
    /// Bars what is left of a reply of so many parts. The messages only stand for them from now on.
    pub(super) fn bar(&mut self, parts: i64, why: &'static str) {
        let parts = usize::try_from(parts).unwrap_or_default();
        if let Ok(messages) = &mut self.messages
            && let Some(message) = messages.first().cloned()
        {
            messages.resize(parts, message);
        }
        self.barred = Some(why);
    }

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
    let columns = Columns::of(batch);
    let (bot_ids, update_ids) = (columns.integers("bot_id")?, columns.integers("update_id")?);
    let (attempts, chat_ids) = (columns.integers("attempt")?, columns.integers("chat_id")?);
    let (message_ids, parts) = (columns.integers("message_id")?, columns.integers("reply_parts")?);
    let (chat_types, responses) = (columns.strings("chat_type")?, columns.strings("response")?);
    // A table of release 0.1 has no such column until silver opens it.
    let replies = columns.has("reply").then(|| columns.strings("reply")).transpose()?;
    let trace_ids = columns.strings("trace_id")?;
    let processed = columns.moments("processed_at")?;
    let answer = |row: usize| {
        if integer(parts, row).unwrap_or(0) <= 0 {
            return None;
        }
        let key = UpdateKey {
            bot_id: BotId(integer(bot_ids, row)?),
            update_id: integer(update_ids, row)?,
            attempt: integer(attempts, row).unwrap_or(1),
        };
        let chat_id = integer(chat_ids, row)?;
        let (messages, is_composed_here) = match (replies.and_then(|replies| text(replies, row)), text(responses, row))
        {
            (Some(reply), _) => (understand(reply), false),
            (None, Some(response)) => {
                // A row of release 0.1, which composed messages as it sent them.
                let (chat_type, message_id) = (text(chat_types, row), integer(message_ids, row));
                (Ok(reply::compose(response, None, Answered { chat_id, chat_type, topic: None, message_id })), true)
            }
            (None, None) => return None,
        };
        Some(Answer {
            key,
            chat_id,
            messages,
            is_composed_here,
            barred: None,
            trace_id: text(trace_ids, row).unwrap_or_default().to_owned(),
            silver_version,
            processed_at: moment(processed, row).unwrap_or_default(),
            in_doubt: Arc::default(),
        })
    };
    Ok((0..columns.len()).map(answer).collect())
}

fn understand(json: &str) -> Result<Vec<ReplyMessage>, String> {
    match reply::from_json(json) {
        Ok(messages) if messages.is_empty() => Err("the reply has no messages".to_owned()),
        Ok(messages) => Ok(messages),
        Err(error) => Err(error.to_string()),
    }
}

/// The outcomes in a batch of replies rows.
///
/// # Errors
/// Corrupt when a row cannot be understood: it may be about a message that was sent, and skipping it could send that
/// message again.
pub(super) fn outcomes(batch: &RecordBatch) -> error::Result<Vec<ExistingRow<Outcome>>> {
    let columns = Columns::of(batch);
    let (bot_ids, update_ids) = (columns.integers("bot_id")?, columns.integers("update_id")?);
    let (attempts, sends) = (columns.integers("attempt")?, columns.integers("send")?);
    let (parts, totals) = (columns.integers("part")?, columns.integers("parts")?);
    let (statuses, message_ids) = (columns.strings("status")?, columns.integers("telegram_message_id")?);
    let required = |column, name: &str, row| {
        integer(column, row).ok_or_else(|| Error::corrupt(format!("a row has no {name}; correct or remove that row")))
    };
    let outcome = |row: usize| {
        let key = UpdateKey {
            bot_id: BotId(required(bot_ids, "bot_id", row)?),
            update_id: required(update_ids, "update_id", row)?,
            attempt: integer(attempts, row).unwrap_or(1),
        };
        let part = PartOf { send: required(sends, "send", row)?, part: required(parts, "part", row)? };
        let status = text(statuses, row);
        let state = PartState {
            status: status.and_then(Status::of).ok_or_else(|| unknown_status(status, key, part))?,
            parts: integer(totals, row).unwrap_or(1),
            message_id: integer(message_ids, row),
        };
        Ok(ExistingRow { key, part, state })
    };
    (0..columns.len()).map(outcome).collect()
}

fn unknown_status(status: Option<&str>, key: UpdateKey, PartOf { send, part }: PartOf) -> Error {
    let UpdateKey { bot_id, update_id, attempt } = key;
    let status = status.map_or_else(|| "no status".to_owned(), |status| format!("the status `{status}`"));
    Error::corrupt(format!(
        "the row of bot {bot_id}, update {update_id}, attempt {attempt}, send {send}, part {part} has {status}, but \
         only sent, failed and unknown are known; if a later release wrote it, run that release, otherwise correct the \
         row"
    ))
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
        "error" => {
            let cells = outcomes.iter().map(|outcome| outcome.error.as_deref().map(|text| excerpt(text, CELL_LIMIT)));
            Arc::new(cells.collect::<StringArray>())
        }
        "silver_version" => integers(|outcome| Some(outcome.silver_version)),
        "sent_at" => {
            let times = outcomes.iter().map(|outcome| Some(outcome.at.as_micros()));
            Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        }
        "trace_id" => strings(|outcome| Some(outcome.trace_id.as_str())),
        _ => return None,
    })
}
