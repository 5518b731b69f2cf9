//! Rows of the bronze table in, rows of the silver table out, and what is read back of them at a start.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType};

use crate::clock::Timestamp;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::flow::key::UpdateKey;
use crate::flow::work::Item;
use crate::id::BotId;
use crate::telegram::reply::{self, ReplyMessage};

/// The columns read from the bronze table.
pub(super) const BRONZE_COLUMNS: [&str; 14] = [
    "bot_id",
    "update_id",
    "update_type",
    "message_id",
    "chat_id",
    "chat_type",
    "chat_title",
    "user_id",
    "username",
    "sent_at",
    "text",
    "callback_query_id",
    "_received_at",
    "_trace_id",
];

/// The columns read from the silver table.
pub(super) const KEY_COLUMNS: [&str; 3] = ["bot_id", "update_id", "attempt"];

/// The columns read for the history of chats.
pub(super) const HISTORY_COLUMNS: [&str; 5] = ["chat_id", "status", "user_message", "response", "received_at"];

/// The chat id for rows of a chat without an id; Telegram's ids never come near it.
const NO_CHAT: i64 = i64::MIN;

/// A bronze row that is not corrupt.
#[derive(Clone, Debug, Default)]
pub(super) struct BronzeRow {
    pub(super) bot_id: BotId,
    pub(super) update_id: i64,
    pub(super) update_type: Option<String>,
    pub(super) message_id: Option<i64>,
    pub(super) chat_id: Option<i64>,
    pub(super) chat_type: Option<String>,
    pub(super) chat_title: Option<String>,
    pub(super) user_id: Option<i64>,
    pub(super) username: Option<String>,
    pub(super) sent_at: Option<Timestamp>,
    pub(super) text: Option<String>,
    pub(super) callback_query_id: Option<String>,
    pub(super) received_at: Timestamp,
    pub(super) trace_id: String,
    pub(super) bronze_version: i64,
}

impl BronzeRow {
    /// Where it waits for its turn.
    pub(super) fn chat(&self) -> i64 {
        self.chat_id.unwrap_or(NO_CHAT)
    }
}

impl Item for BronzeRow {
    fn key(&self) -> UpdateKey {
        UpdateKey { bot_id: self.bot_id, update_id: self.update_id, attempt: 1 }
    }

    fn chat_id(&self) -> i64 {
        self.chat()
    }

    fn version(&self) -> i64 {
        self.bronze_version
    }
}

/// The outcome of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Answered,
    Ignored,
    Failed,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Ignored => "ignored",
            Self::Failed => "failed",
        }
    }
}

/// A finished row.
#[derive(Clone, Debug)]
pub(super) struct SilverRow {
    pub(super) bronze: BronzeRow,
    pub(super) status: Status,
    pub(super) response: Option<String>,
    pub(super) route: Option<String>,
    pub(super) error: Option<String>,
    /// The messages to send.
    pub(super) reply: Vec<ReplyMessage>,
    pub(super) model: Option<String>,
    pub(super) prompt_version: Option<String>,
    pub(super) finish_reason: Option<String>,
    pub(super) input_tokens: Option<i64>,
    pub(super) output_tokens: Option<i64>,
    pub(super) latency_ms: Option<i64>,
    pub(super) model_calls: i64,
    pub(super) processed_at: Timestamp,
}

/// What a row of the silver table says about its chat.
#[derive(Clone, Debug)]
pub(super) struct SaidRow {
    pub(super) chat_id: i64,
    pub(super) question: String,
    pub(super) answer: String,
    pub(super) received_at: Timestamp,
}

/// The rows of a bronze batch; corrupt ones get no silver row.
pub(super) fn bronze_rows(batch: &RecordBatch, bronze_version: i64) -> Result<Vec<Option<BronzeRow>>> {
    let reader = Reader { batch };
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let (Some(bot_id), Some(update_id)) = (reader.integer("bot_id", row)?, reader.integer("update_id", row)?)
        else {
            rows.push(None);
            continue;
        };
        rows.push(Some(BronzeRow {
            bot_id: BotId(bot_id),
            update_id,
            update_type: reader.text("update_type", row)?,
            message_id: reader.integer("message_id", row)?,
            chat_id: reader.integer("chat_id", row)?,
            chat_type: reader.text("chat_type", row)?,
            chat_title: reader.text("chat_title", row)?,
            user_id: reader.integer("user_id", row)?,
            username: reader.text("username", row)?,
            sent_at: reader.moment("sent_at", row)?,
            text: reader.text("text", row)?,
            callback_query_id: reader.text("callback_query_id", row)?,
            received_at: reader.moment("_received_at", row)?.unwrap_or_default(),
            trace_id: reader.text("_trace_id", row)?.unwrap_or_default(),
            bronze_version,
        }));
    }
    Ok(rows)
}

/// The updates in a batch of the silver table.
pub(super) fn known_keys(batch: &RecordBatch) -> Result<Vec<UpdateKey>> {
    let reader = Reader { batch };
    let mut keys = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let (Some(bot_id), Some(update_id)) = (reader.integer("bot_id", row)?, reader.integer("update_id", row)?)
        else {
            continue;
        };
        let attempt = reader.integer("attempt", row)?.unwrap_or(1);
        keys.push(UpdateKey { bot_id: BotId(bot_id), update_id, attempt });
    }
    Ok(keys)
}

/// What was asked and answered in a batch of the silver table.
pub(super) fn said(batch: &RecordBatch) -> Result<Vec<SaidRow>> {
    let reader = Reader { batch };
    let mut said = Vec::new();
    for row in 0..batch.num_rows() {
        if reader.text("status", row)?.as_deref() != Some(Status::Answered.as_str()) {
            continue;
        }
        let (chat_id, question) = (reader.integer("chat_id", row)?, reader.text("user_message", row)?);
        let (answer, received_at) = (reader.text("response", row)?, reader.moment("received_at", row)?);
        if let (Some(chat_id), Some(question), Some(answer)) = (chat_id, question, answer) {
            said.push(SaidRow { chat_id, question, answer, received_at: received_at.unwrap_or_default() });
        }
    }
    Ok(said)
}

/// Rows as a batch of a table with `schema`; columns that we do not fill are null.
pub(super) fn to_batch(schema: &SchemaRef, rows: &[SilverRow]) -> Result<RecordBatch> {
    let replies = rows.iter().map(|row| match row.reply.as_slice() {
        [] => Ok(None),
        messages => reply::to_json(messages).map(Some),
    });
    let replies = Arc::new(replies.collect::<Result<StringArray>>()?);
    let columns = schema.fields().iter().map(|field| {
        if field.name() == "reply" {
            return Arc::clone(&replies) as ArrayRef;
        }
        let column = integer_column(field.name(), rows).or_else(|| other_column(field.name(), rows));
        column.unwrap_or_else(|| new_null_array(field.data_type(), rows.len()))
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect())
        .context(ErrorKind::Configuration, "the silver table has other column types")
}

fn integer_column(name: &str, rows: &[SilverRow]) -> Option<ArrayRef> {
    let value: fn(&SilverRow) -> Option<i64> = match name {
        "bot_id" => |row| Some(row.bronze.bot_id.0),
        "update_id" => |row| Some(row.bronze.update_id),
        "message_id" => |row| row.bronze.message_id,
        "chat_id" => |row| row.bronze.chat_id,
        "user_id" => |row| row.bronze.user_id,
        "attempt" => |_| Some(1),
        "reply_parts" => |row| Some(i64::try_from(row.reply.len()).unwrap_or(i64::MAX)),
        "input_tokens" => |row| row.input_tokens,
        "output_tokens" => |row| row.output_tokens,
        "latency_ms" => |row| row.latency_ms,
        "model_calls" => |row| Some(row.model_calls),
        "bronze_version" => |row| Some(row.bronze.bronze_version),
        _ => return None,
    };
    Some(Arc::new(rows.iter().map(value).collect::<Int64Array>()))
}

fn other_column(name: &str, rows: &[SilverRow]) -> Option<ArrayRef> {
    let times = |value: fn(&SilverRow) -> Option<Timestamp>| -> ArrayRef {
        let micros = rows.iter().map(|row| value(row).map(Timestamp::as_micros));
        Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
    };
    let text: fn(&SilverRow) -> Option<&str> = match name {
        "sent_at" => return Some(times(|row| row.bronze.sent_at)),
        "received_at" => return Some(times(|row| Some(row.bronze.received_at))),
        "processed_at" => return Some(times(|row| Some(row.processed_at))),
        "chat_type" => |row| row.bronze.chat_type.as_deref(),
        "chat_title" => |row| row.bronze.chat_title.as_deref(),
        "username" => |row| row.bronze.username.as_deref(),
        "status" => |row| Some(row.status.as_str()),
        "user_message" => |row| row.bronze.text.as_deref(),
        "response" => |row| row.response.as_deref(),
        "route" => |row| row.route.as_deref(),
        "error" => |row| row.error.as_deref(),
        "model" => |row| row.model.as_deref(),
        "prompt_version" => |row| row.prompt_version.as_deref(),
        "finish_reason" => |row| row.finish_reason.as_deref(),
        "trace_id" => |row| Some(row.bronze.trace_id.as_str()),
        _ => return None,
    };
    Some(Arc::new(rows.iter().map(text).collect::<StringArray>()))
}

struct Reader<'a> {
    batch: &'a RecordBatch,
}

impl Reader<'_> {
    fn integer(&self, name: &str, row: usize) -> Result<Option<i64>> {
        let column = self.column(name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| odd(name))?;
        Ok(column.is_valid(row).then(|| column.value(row)))
    }

    fn text(&self, name: &str, row: usize) -> Result<Option<String>> {
        let column = self.column(name)?.as_string_opt::<i32>().ok_or_else(|| odd(name))?;
        Ok(column.is_valid(row).then(|| column.value(row).to_owned()))
    }

    fn moment(&self, name: &str, row: usize) -> Result<Option<Timestamp>> {
        let column = self.column(name)?.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| odd(name))?;
        Ok(column.is_valid(row).then(|| Timestamp::from_micros(column.value(row))))
    }

    fn column(&self, name: &str) -> Result<&ArrayRef> {
        self.batch.column_by_name(name).ok_or_else(|| odd(name))
    }
}

fn odd(name: &str) -> Error {
    Error::corrupt(format!("column {name} is missing or has another type"))
}
