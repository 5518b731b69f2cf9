//! Rows of the bronze table: from segments in, to Arrow out; and what is read back of them at a start.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType};
use object_store::path::Path;

use super::lanes::SegmentKey;
use crate::clock::Timestamp;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::{BotId, trace_id};
use crate::storage::StorageKey;
use crate::telegram::{Update, UpdateColumns};

/// What is read of the table to know what is ingested.
pub(super) const KNOWN_COLUMNS: [&str; 4] = ["bot_id", "update_id", "_source_file", "_received_at"];

/// A line of a segment.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) bot_id: BotId,
    pub(super) source_file: Arc<str>,
    /// From 1.
    pub(super) source_row: i64,
    pub(super) received_at: Timestamp,
    pub(super) text: String,
    pub(super) update: Update,
}

/// What a row of the table says about what is ingested.
#[derive(Clone, Debug)]
pub(super) struct KnownRow {
    pub(super) bot_id: BotId,
    pub(super) update_id: Option<i64>,
    pub(super) segment: Option<SegmentKey>,
    pub(super) received_at: Timestamp,
}

impl Line {
    /// The id of its update; `None` when it is corrupt.
    pub(super) fn update_id(&self) -> Option<i64> {
        self.columns().map(|columns| columns.update_id)
    }

    fn columns(&self) -> Option<&UpdateColumns> {
        match &self.update {
            Update::Known(columns) => Some(columns),
            Update::Corrupt { .. } => None,
        }
    }
}

/// The lines of a segment. Lines of nothing but white space are none.
pub(super) fn lines(key: &SegmentKey, path: &Path, bytes: &[u8]) -> Vec<Line> {
    let source_file: Arc<str> = path.as_ref().into();
    let mut lines = Vec::new();
    for (source_row, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        lines.push(Line {
            bot_id: key.lane.bot_id,
            source_file: Arc::clone(&source_file),
            source_row,
            received_at: key.micros,
            text: String::from_utf8_lossy(line).into_owned(),
            update: Update::parse(line),
        });
    }
    lines
}

/// Lines as rows of a table with `schema`; columns that are not ours are null.
pub(super) fn to_batch(schema: &SchemaRef, lines: &[&Line], ingested_at: Timestamp) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| {
        let column = system_column(field.name(), lines, ingested_at).or_else(|| update_column(field.name(), lines));
        column.unwrap_or_else(|| new_null_array(field.data_type(), lines.len()))
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect())
        .context(ErrorKind::Configuration, "the bronze table has other column types")
}

/// Columns that tell where a row comes from.
fn system_column(name: &str, lines: &[&Line], ingested_at: Timestamp) -> Option<ArrayRef> {
    let strings = |value: &dyn Fn(&Line) -> Option<String>| -> ArrayRef {
        Arc::new(lines.iter().map(|line| value(line)).collect::<StringArray>())
    };
    let times = |value: &dyn Fn(&Line) -> Option<Timestamp>| -> ArrayRef {
        let micros = lines.iter().map(|line| value(line).map(Timestamp::as_micros));
        Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
    };
    Some(match name {
        "bot_id" => Arc::new(lines.iter().map(|line| Some(line.bot_id.0)).collect::<Int64Array>()),
        "payload" => strings(&|line| line.columns().map(|_| line.text.clone())),
        "_rescued_data" => strings(&|line| line.columns().and_then(|columns| columns.rescued.clone())),
        "_corrupt_record" => strings(&|line| match &line.update {
            Update::Corrupt { text } => Some(text.clone()),
            Update::Known(_) => None,
        }),
        "_source_file" => strings(&|line| Some(line.source_file.to_string())),
        "_source_row" => Arc::new(lines.iter().map(|line| Some(line.source_row)).collect::<Int64Array>()),
        "_received_at" => times(&|line| Some(line.received_at)),
        "_ingested_at" => times(&|_| Some(ingested_at)),
        "_trace_id" => strings(&|line| line.update_id().map(|update_id| trace_id(line.bot_id, update_id))),
        "sent_at" => times(&|line| line.columns().and_then(|columns| columns.sent_at)),
        _ => return None,
    })
}

/// Columns of the update itself.
fn update_column(name: &str, lines: &[&Line]) -> Option<ArrayRef> {
    let integers = |value: fn(&UpdateColumns) -> Option<i64>| -> ArrayRef {
        Arc::new(lines.iter().map(|line| line.columns().and_then(value)).collect::<Int64Array>())
    };
    let strings = |value: fn(&UpdateColumns) -> Option<&String>| -> ArrayRef {
        Arc::new(lines.iter().map(|line| line.columns().and_then(value)).collect::<StringArray>())
    };
    Some(match name {
        "update_id" => integers(|update| Some(update.update_id)),
        "update_type" => strings(|update| update.update_type.as_ref()),
        "message_id" => integers(|update| update.message_id),
        "chat_id" => integers(|update| update.chat_id),
        "chat_type" => strings(|update| update.chat_type.as_ref()),
        "chat_title" => strings(|update| update.chat_title.as_ref()),
        "user_id" => integers(|update| update.user_id),
        "username" => strings(|update| update.username.as_ref()),
        "first_name" => strings(|update| update.first_name.as_ref()),
        "last_name" => strings(|update| update.last_name.as_ref()),
        "language_code" => strings(|update| update.language_code.as_ref()),
        "author_signature" => strings(|update| update.author_signature.as_ref()),
        "message_thread_id" => integers(|update| update.message_thread_id),
        "reply_to_message_id" => integers(|update| update.reply_to_message_id),
        "text" => strings(|update| update.text.as_ref()),
        "date" => integers(|update| update.date),
        "callback_query_id" => strings(|update| update.callback_query_id.as_ref()),
        "callback_data" => strings(|update| update.callback_data.as_ref()),
        "media_type" => strings(|update| update.media_type.as_ref()),
        "file_id" => strings(|update| update.file_id.as_ref()),
        _ => return None,
    })
}

/// What a file of the table says about what is ingested.
pub(super) fn known_rows(batch: &RecordBatch) -> Result<Vec<KnownRow>> {
    let odd = |name: &str| Error::corrupt(format!("column {name} of the bronze table has another type"));
    let integers = |name: &str| {
        let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
        column.ok_or_else(|| odd(name))
    };
    let (bot_ids, update_ids) = (integers("bot_id")?, integers("update_id")?);
    let files = batch.column_by_name("_source_file").and_then(|column| column.as_string_opt::<i32>());
    let files = files.ok_or_else(|| odd("_source_file"))?;
    let times =
        batch.column_by_name("_received_at").and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let times = times.ok_or_else(|| odd("_received_at"))?;
    let row = |row: usize| KnownRow {
        bot_id: BotId(bot_ids.value(row)),
        update_id: update_ids.is_valid(row).then(|| update_ids.value(row)),
        segment: StorageKey::parse(&Path::from(files.value(row))).and_then(SegmentKey::of),
        received_at: Timestamp::from_micros(times.value(row)),
    };
    Ok((0..batch.num_rows()).map(row).collect())
}
