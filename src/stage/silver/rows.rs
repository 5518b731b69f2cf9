//! Rows of the bronze table in, rows of the silver table out, and what is read back of them at a start.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::SchemaRef;

use crate::clock::Timestamp;
use crate::error::{Context, ErrorKind, Result};
use crate::flow::key::UpdateKey;
use crate::flow::work::Item;
use crate::id::BotId;
use crate::redact::{CELL_LIMIT, excerpt};
use crate::table::values::{Columns, integer, moment, text};
use crate::telegram::reply::{self, ReplyMessage};
use crate::telegram::update::{MessageContext, Topic};

/// The columns read from the bronze table.
pub(super) const BRONZE_COLUMNS: [&str; 16] = [
    "bot_id",
    "update_id",
    "update_type",
    "message_id",
    "chat_id",
    "chat_type",
    "chat_title",
    "user_id",
    "username",
    "language_code",
    "sent_at",
    "text",
    "callback_query_id",
    "payload",
    "_received_at",
    "_trace_id",
];

/// The columns read from the silver table.
pub(super) const KEY_COLUMNS: [&str; 3] = ["bot_id", "update_id", "attempt"];

/// The columns read for the history of chats.
pub(super) const HISTORY_COLUMNS: [&str; 6] =
    ["chat_id", "topic_id", "status", "user_message", "response", "received_at"];

/// The chat id for rows of a chat without an id; Telegram's ids never come near it.
const NO_CHAT: i64 = i64::MIN;

/// A chat, or one of its topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Conversation {
    pub(super) chat_id: i64,
    pub(super) topic_id: Option<i64>,
}

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
    pub(super) language_code: Option<String>,
    pub(super) sent_at: Option<Timestamp>,
    pub(super) text: Option<String>,
    pub(super) callback_query_id: Option<String>,
    pub(super) context: MessageContext,
    pub(super) received_at: Timestamp,
    pub(super) trace_id: String,
    pub(super) bronze_version: i64,
}

impl BronzeRow {
    /// Where it waits for its turn.
    pub(super) fn chat(&self) -> i64 {
        self.chat_id.unwrap_or(NO_CHAT)
    }

    /// The conversation it belongs to, if any.
    pub(super) fn conversation(&self) -> Option<Conversation> {
        Some(Conversation { chat_id: self.chat_id?, topic_id: self.context.topic.map(Topic::id) })
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
    /// The turns that the model could read, if it could not read all that were remembered. In no column.
    pub(super) kept_turns: Option<usize>,
    pub(super) processed_at: Timestamp,
}

/// What a row of the silver table says about its chat.
#[derive(Clone, Debug)]
pub(super) struct SaidRow {
    pub(super) conversation: Conversation,
    pub(super) question: String,
    pub(super) answer: String,
    pub(super) received_at: Timestamp,
}

/// The rows of a bronze batch; corrupt ones get no silver row.
pub(super) fn bronze_rows(batch: &RecordBatch, bronze_version: i64) -> Result<Vec<Option<BronzeRow>>> {
    let columns = Columns::of(batch);
    let (bot_ids, update_ids) = (columns.integers("bot_id")?, columns.integers("update_id")?);
    let (message_ids, chat_ids) = (columns.integers("message_id")?, columns.integers("chat_id")?);
    let (user_ids, update_types) = (columns.integers("user_id")?, columns.strings("update_type")?);
    let (chat_types, chat_titles) = (columns.strings("chat_type")?, columns.strings("chat_title")?);
    let (usernames, texts) = (columns.strings("username")?, columns.strings("text")?);
    let (query_ids, trace_ids) = (columns.strings("callback_query_id")?, columns.strings("_trace_id")?);
    let (sent, received) = (columns.moments("sent_at")?, columns.moments("_received_at")?);
    let optional = |name| columns.has(name).then(|| columns.strings(name)).transpose();
    let (payloads, languages) = (optional("payload")?, optional("language_code")?);
    let owned = |column, row| text(column, row).map(str::to_owned);
    let bronze_row = |row: usize| {
        let bot_id = BotId(integer(bot_ids, row)?);
        let context = |payload| MessageContext::of(payload, bot_id);
        Some(BronzeRow {
            bot_id,
            update_id: integer(update_ids, row)?,
            update_type: owned(update_types, row),
            message_id: integer(message_ids, row),
            chat_id: integer(chat_ids, row),
            chat_type: owned(chat_types, row),
            chat_title: owned(chat_titles, row),
            user_id: integer(user_ids, row),
            username: owned(usernames, row),
            language_code: languages.and_then(|column| owned(column, row)),
            sent_at: moment(sent, row),
            text: owned(texts, row),
            callback_query_id: owned(query_ids, row),
            context: payloads.and_then(|column| text(column, row)).map(context).unwrap_or_default(),
            received_at: moment(received, row).unwrap_or_default(),
            trace_id: owned(trace_ids, row).unwrap_or_default(),
            bronze_version,
        })
    };
    Ok((0..columns.len()).map(bronze_row).collect())
}

/// The updates in a batch of the silver table.
pub(super) fn known_keys(batch: &RecordBatch) -> Result<Vec<UpdateKey>> {
    let columns = Columns::of(batch);
    let (bot_ids, update_ids) = (columns.integers("bot_id")?, columns.integers("update_id")?);
    let attempts = columns.integers("attempt")?;
    let key = |row: usize| {
        Some(UpdateKey {
            bot_id: BotId(integer(bot_ids, row)?),
            update_id: integer(update_ids, row)?,
            attempt: integer(attempts, row).unwrap_or(1),
        })
    };
    Ok((0..columns.len()).filter_map(key).collect())
}

/// What was asked and answered in a batch of the silver table.
pub(super) fn said(batch: &RecordBatch) -> Result<Vec<SaidRow>> {
    let columns = Columns::of(batch);
    let (statuses, chat_ids) = (columns.strings("status")?, columns.integers("chat_id")?);
    let (questions, answers) = (columns.strings("user_message")?, columns.strings("response")?);
    let received = columns.moments("received_at")?;
    let topic_ids = columns.has("topic_id").then(|| columns.integers("topic_id")).transpose()?;
    let said = |row: usize| {
        let is_answered = text(statuses, row) == Some(Status::Answered.as_str());
        Some(SaidRow {
            conversation: Conversation {
                chat_id: integer(chat_ids, row).filter(|_| is_answered)?,
                topic_id: topic_ids.and_then(|column| integer(column, row)),
            },
            question: text(questions, row)?.to_owned(),
            answer: text(answers, row)?.to_owned(),
            received_at: moment(received, row).unwrap_or_default(),
        })
    };
    Ok((0..columns.len()).filter_map(said).collect())
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
        "topic_id" => |row| row.bronze.context.topic.map(Topic::id),
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
    // What others wrote may repeat a secret, and may be of any length.
    let cells = |value: fn(&SilverRow) -> Option<&str>| -> ArrayRef {
        Arc::new(rows.iter().map(|row| value(row).map(|text| excerpt(text, CELL_LIMIT))).collect::<StringArray>())
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
        "error" => return Some(cells(|row| row.error.as_deref())),
        "model" => return Some(cells(|row| row.model.as_deref())),
        "prompt_version" => |row| row.prompt_version.as_deref(),
        "finish_reason" => return Some(cells(|row| row.finish_reason.as_deref())),
        "trace_id" => |row| Some(row.bronze.trace_id.as_str()),
        _ => return None,
    };
    Some(Arc::new(rows.iter().map(text).collect::<StringArray>()))
}
