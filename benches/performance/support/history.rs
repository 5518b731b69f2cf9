//! Tables with a history: rows as the stages write them, a commit each, on a store without fsync where only the
//! history counts.

use std::ops::Range;
use std::path::Path as FilePath;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::SchemaRef;
use lakegram::clock::Clock;
use lakegram::id::{BotId, trace_id};
use lakegram::storage::Storage;
use lakegram::table::{Append, CommitOutcome, Fence, LakeTable, TableRole, TableSpec, TxnId};
use object_store::local::LocalFileSystem;
use object_store::path::Path;

use super::Result;

/// The bot of every row, as in [`super::service::TOKEN`].
pub(crate) const BOT: BotId = BotId(4_839_574_812);
const TEXT: &str = "How late is it in Lisbon when it is noon here?";
const ANSWER: &str =
    "When it is noon in Central Europe it is eleven in the morning in Lisbon: Portugal is an hour behind.";

/// A storage over a folder that fsyncs nothing: the cost of the code and the file system alone.
pub(crate) fn storage_without_fsync(folder: &FilePath) -> Result<Storage> {
    std::fs::create_dir_all(folder)?;
    let store = Arc::new(LocalFileSystem::new_with_prefix(folder)?);
    Ok(Storage::memory().decorated(|_| store))
}

/// One message on its way through the tables.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) update_id: i64,
    pub(crate) chat_id: i64,
    pub(crate) received_micros: i64,
    /// Its segment.
    pub(crate) source_file: String,
    /// The version of the upstream table that brought it.
    pub(crate) version_before: i64,
    /// What its row says became of it, in a table that tells.
    pub(crate) status: &'static str,
}

impl Message {
    /// What Telegram would have posted.
    pub(crate) fn payload(&self) -> String {
        let Self { update_id, chat_id, .. } = self;
        format!(
            r#"{{"update_id":{update_id},"message":{{"message_id":{update_id},"from":{{"id":{chat_id},"is_bot":false,"first_name":"Ada","last_name":"Lovelace","username":"ada","language_code":"en"}},"chat":{{"id":{chat_id},"first_name":"Ada","last_name":"Lovelace","username":"ada","type":"private"}},"date":{},"text":"{TEXT}"}}}}"#,
            self.received_micros / 1_000_000
        )
    }

    /// Its row of a table with these columns; what it has nothing for is null.
    pub(crate) fn row(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        let columns = schema.fields().iter().map(|field| {
            let name = field.name().as_str();
            let integer = self.integer(name).map(|value| -> ArrayRef { Arc::new(Int64Array::from(vec![value])) });
            let text = || self.text(name).map(|value| -> ArrayRef { Arc::new(StringArray::from(vec![value])) });
            let moment = || self.moment(name);
            integer.or_else(text).or_else(moment).unwrap_or_else(|| new_null_array(field.data_type(), 1))
        });
        Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect())?)
    }

    /// Rows that follow a first message, numbered in this range, without their payloads.
    pub(crate) fn rows(schema: &SchemaRef, numbers: Range<i64>, first: Self) -> Result<RecordBatch> {
        let count = usize::try_from(numbers.end - numbers.start)?;
        let messages: Vec<Self> = numbers
            .map(|number| Self {
                update_id: first.update_id + number,
                chat_id: first.chat_id + number % 10_000,
                ..first.clone()
            })
            .collect();
        let columns = schema.fields().iter().map(|field| {
            let name = field.name().as_str();
            let moments = || TimestampMicrosecondArray::from(vec![first.received_micros; count]).with_timezone("UTC");
            match () {
                () if name == "payload" => new_null_array(field.data_type(), count),
                () if first.integer(name).is_some() => {
                    Arc::new(messages.iter().map(|message| message.integer(name)).collect::<Int64Array>()) as ArrayRef
                }
                () if first.text(name).is_some() => {
                    Arc::new(messages.iter().map(|message| message.text(name)).collect::<StringArray>())
                }
                () if first.moment(name).is_some() => Arc::new(moments()),
                () => new_null_array(field.data_type(), count),
            }
        });
        Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect())?)
    }

    fn integer(&self, column: &str) -> Option<i64> {
        Some(match column {
            "bot_id" => BOT.0,
            "update_id" | "message_id" | "telegram_message_id" => self.update_id,
            "chat_id" | "user_id" => self.chat_id,
            "date" => self.received_micros / 1_000_000,
            "_source_row" | "attempt" | "send" | "part" | "parts" | "reply_parts" | "tries" | "model_calls" => 1,
            "input_tokens" => 120,
            "output_tokens" => 25,
            "latency_ms" => 700,
            "bronze_version" | "silver_version" => self.version_before,
            _ => return None,
        })
    }

    fn text(&self, column: &str) -> Option<String> {
        Some(match column {
            "update_type" => "message".to_owned(),
            "chat_type" => "private".to_owned(),
            "username" => "ada".to_owned(),
            "first_name" => "Ada".to_owned(),
            "last_name" => "Lovelace".to_owned(),
            "language_code" => "en".to_owned(),
            "text" | "user_message" => TEXT.to_owned(),
            "payload" => self.payload(),
            "_source_file" => self.source_file.clone(),
            "_trace_id" | "trace_id" => trace_id(BOT, self.update_id),
            "response" => ANSWER.to_owned(),
            "model" => "gpt-4.1-mini".to_owned(),
            "finish_reason" => "stop".to_owned(),
            "kind" => "send".to_owned(),
            "status" => self.status.to_owned(),
            _ => return None,
        })
    }

    fn moment(&self, column: &str) -> Option<ArrayRef> {
        let is_moment = matches!(column, "sent_at" | "_received_at" | "_ingested_at" | "received_at" | "processed_at");
        let values = || TimestampMicrosecondArray::from(vec![self.received_micros]).with_timezone("UTC");
        is_moment.then(|| -> ArrayRef { Arc::new(values()) })
    }
}

/// A table, opened by the stage that appends to it.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) table: LakeTable,
    role: TableRole,
}

impl History {
    /// Opens or makes the table of a stage (`bronze`, `silver`, `reply`) with one of the shipped schemas.
    pub(crate) async fn open(storage: &Storage, path: &str, schema: &str, role: TableRole) -> Result<Self> {
        let schema = lakegram::schema::built_in(schema).ok_or("no such schema")?;
        let stats = ["update_id", "chat_id", "date", "sent_at", "_received_at", "_ingested_at"];
        let later = ["bronze_version", "silver_version", "received_at", "processed_at"];
        let known = |name: &&str| schema.column_with_name(name).is_some();
        let stats_columns = stats.into_iter().chain(later).filter(known).map(str::to_owned).collect();
        let spec = TableSpec { path: Path::from(path), schema, stats_columns, id: None };
        let table = LakeTable::open(storage, &spec, &Clock::system()).await?;
        Ok(Self { table, role })
    }

    /// Appends rows in one commit, as the stage does.
    pub(crate) async fn append(&mut self, rows: RecordBatch, progress: Vec<(TxnId, i64)>) -> Result<i64> {
        let fence = Fence { role: self.role, seen: self.table.fence(self.role) };
        match self.table.append(Append { rows: Some(rows), fence, progress }).await? {
            CommitOutcome::Committed { version } => Ok(version),
            other => Err(format!("an append on a table of our own ended {other:?}").into()),
        }
    }
}
