//! Rows of the bronze table of Telegram updates, for both loaders that fill it.

use std::collections::{HashMap, HashSet};
use std::ops::Deref;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef, TimeUnit};

use crate::clock::Timestamp;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::{BotId, trace_id};
use crate::telegram::{Update, UpdateColumns};

const RESCUED: &str = "_rescued_data";
/// Columns without which the next start would duplicate rows, or data that fits no column would be lost.
const REQUIRED_COLUMNS: [&str; 6] =
    ["bot_id", "update_id", "_source_file", "_received_at", "payload", "_corrupt_record"];

/// Where the values of a column come from.
enum Source<T> {
    Integer(fn(&Row<T>) -> Option<i64>),
    Text(fn(&Row<T>) -> Option<&str>),
    Moment(fn(&Row<T>) -> Option<Timestamp>),
    IngestedAt,
}

/// The columns of the table that we fill.
fn sources<T: Deref<Target = str>>() -> [(&'static str, Source<T>); 30] {
    [
        ("bot_id", Source::Integer(|row| Some(row.origin.bot_id?.0))),
        ("update_id", Source::Integer(Row::update_id)),
        ("update_type", Source::Text(|row| row.update()?.update_type.as_deref())),
        ("message_id", Source::Integer(|row| row.update()?.message_id)),
        ("chat_id", Source::Integer(|row| row.update()?.chat_id)),
        ("chat_type", Source::Text(|row| row.update()?.chat_type.as_deref())),
        ("chat_title", Source::Text(|row| row.update()?.chat_title.as_deref())),
        ("user_id", Source::Integer(|row| row.update()?.user_id)),
        ("username", Source::Text(|row| row.update()?.username.as_deref())),
        ("first_name", Source::Text(|row| row.update()?.first_name.as_deref())),
        ("last_name", Source::Text(|row| row.update()?.last_name.as_deref())),
        ("language_code", Source::Text(|row| row.update()?.language_code.as_deref())),
        ("author_signature", Source::Text(|row| row.update()?.author_signature.as_deref())),
        ("message_thread_id", Source::Integer(|row| row.update()?.message_thread_id)),
        ("reply_to_message_id", Source::Integer(|row| row.update()?.reply_to_message_id)),
        ("text", Source::Text(|row| row.update()?.text.as_deref())),
        ("date", Source::Integer(|row| row.update()?.date)),
        ("sent_at", Source::Moment(|row| row.update()?.sent_at)),
        ("callback_query_id", Source::Text(|row| row.update()?.callback_query_id.as_deref())),
        ("callback_data", Source::Text(|row| row.update()?.callback_data.as_deref())),
        ("media_type", Source::Text(|row| row.update()?.media_type.as_deref())),
        ("file_id", Source::Text(|row| row.update()?.file_id.as_deref())),
        ("payload", Source::Text(Row::payload)),
        (RESCUED, Source::Text(|row| row.update()?.rescued.as_deref())),
        ("_corrupt_record", Source::Text(Row::corrupt_record)),
        ("_source_file", Source::Text(|row| Some(&row.origin.source_file))),
        ("_source_row", Source::Integer(|row| Some(row.origin.source_row))),
        ("_received_at", Source::Moment(|row| row.origin.received_at)),
        ("_ingested_at", Source::IngestedAt),
        ("_trace_id", Source::Text(|row| row.trace_id.as_deref())),
    ]
}

/// Where a record came from.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The bot that received it, if known.
    pub(super) bot_id: Option<BotId>,
    pub(super) received_at: Option<Timestamp>,
    pub(super) source_file: Arc<str>,
    /// From 1.
    pub(super) source_row: i64,
}

/// A record that is an update, or is not one. Its strings are copies, or `Cow`s of what was read.
#[derive(Clone, Debug)]
pub(super) struct Row<T = String> {
    pub(super) origin: Origin,
    /// The record as it arrived; `None` when it is corrupt.
    payload: Option<T>,
    trace_id: Option<String>,
    update: Update<T>,
}

/// Additional columns besides the typed ones, with a value for each row.
#[derive(Debug)]
pub(super) struct Extra {
    pub(super) columns: Vec<(FieldRef, ArrayRef)>,
    /// A JSON object of what did not fit them.
    pub(super) rescued: StringArray,
}

impl<T> Row<T> {
    /// `payload` is the record as it arrived, which is UTF-8 if it is an update.
    pub(super) fn new(origin: Origin, update: Update<T>, payload: impl FnOnce() -> T) -> Self {
        let mut row = Self { origin, payload: None, trace_id: None, update };
        if let Some(update_id) = row.update_id() {
            row.payload = Some(payload());
            row.trace_id = row.origin.bot_id.map(|bot_id| trace_id(bot_id, update_id));
        }
        row
    }

    /// The update's id; `None` when it is corrupt.
    pub(super) fn update_id(&self) -> Option<i64> {
        self.update().map(|columns| columns.update_id)
    }

    fn update(&self) -> Option<&UpdateColumns<T>> {
        match &self.update {
            Update::Known(columns) => Some(columns),
            Update::Corrupt { .. } => None,
        }
    }
}

impl<T: Deref<Target = str>> Row<T> {
    /// The record as it arrived; `None` when it is corrupt.
    pub(super) fn payload(&self) -> Option<&str> {
        self.payload.as_deref()
    }

    fn corrupt_record(&self) -> Option<&str> {
        match &self.update {
            Update::Corrupt { text } => Some(text),
            Update::Known(_) => None,
        }
    }
}

impl<T> Source<T> {
    fn data_type(&self) -> DataType {
        match self {
            Self::Integer(_) => DataType::Int64,
            Self::Text(_) => DataType::Utf8,
            Self::Moment(_) | Self::IngestedAt => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    fn array(&self, rows: &[&Row<T>], ingested_at: Timestamp) -> ArrayRef {
        let moments = |value: &dyn Fn(&Row<T>) -> Option<Timestamp>| -> ArrayRef {
            let micros = rows.iter().map(|row| value(row).map(Timestamp::as_micros));
            Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        };
        match self {
            Self::Integer(value) => Arc::new(rows.iter().map(|row| value(row)).collect::<Int64Array>()),
            Self::Text(value) => {
                let bytes = rows.iter().filter_map(|row| value(row)).map(str::len).sum();
                let mut texts = StringBuilder::with_capacity(rows.len(), bytes);
                rows.iter().for_each(|row| texts.append_option(value(row)));
                Arc::new(texts.finish())
            }
            Self::Moment(value) => moments(&value),
            Self::IngestedAt => moments(&|_| Some(ingested_at)),
        }
    }
}

/// The names of the columns that we fill.
#[cfg(test)]
pub(super) fn names() -> [&'static str; 30] {
    sources::<String>().map(|(name, _)| name)
}

/// Checks that the columns of the table match those that we fill.
///
/// # Errors
/// A configuration error that names the column that is missing or has another type.
pub(super) fn check(table: &str, schema: &Schema) -> Result<()> {
    if let Some(name) = REQUIRED_COLUMNS.iter().find(|name| schema.field_with_name(name).is_err()) {
        return Err(Error::configuration(format!("the schema of {table} lacks column `{name}`; add it")));
    }
    for (name, source) in sources::<String>() {
        let Ok(field) = schema.field_with_name(name) else { continue };
        let (found, wanted) = (field.data_type(), source.data_type());
        if *found != wanted {
            let text = format!("column `{name}` of {table} has type {found} but must be {wanted}; use another table");
            return Err(Error::configuration(text));
        }
    }
    Ok(())
}

/// Rows of a table with `schema`, plus the columns of `extra`; columns that nobody fills are null.
///
/// # Errors
/// A configuration error when a column has another type or is not nullable.
pub(super) fn to_batch<T: Deref<Target = str>>(
    schema: &SchemaRef,
    rows: &[&Row<T>],
    ingested_at: Timestamp,
    extra: Option<&Extra>,
) -> Result<RecordBatch> {
    let typed: HashMap<&str, Source<T>> = sources().into();
    let added = extra.map_or(&[][..], |extra| &extra.columns);
    let by_name: HashMap<&str, &(FieldRef, ArrayRef)> =
        added.iter().map(|column| (column.0.name().as_str(), column)).collect();
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for field in schema.fields() {
        let name = field.name().as_str();
        let (field, column) = match (typed.get(name), by_name.get(name), extra) {
            (Some(source), _, Some(extra)) if name == RESCUED => {
                (field, both(&source.array(rows, ingested_at), &extra.rescued))
            }
            (Some(source), ..) => (field, source.array(rows, ingested_at)),
            (None, Some((grown, values)), _) => (grown, Arc::clone(values)),
            (None, None, _) => (field, new_null_array(field.data_type(), rows.len())),
        };
        fields.push(Arc::clone(field));
        columns.push(column);
    }
    let present: HashSet<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    for (field, values) in added.iter().filter(|(field, _)| !present.contains(field.name().as_str())) {
        fields.push(Arc::clone(field));
        columns.push(Arc::clone(values));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .context(ErrorKind::Configuration, "a column of the bronze table has another type or is not nullable")
}

/// Merges the JSON objects of two columns.
fn both(one: &ArrayRef, other: &StringArray) -> ArrayRef {
    let joined = |(one, other): (Option<&str>, Option<&str>)| match (one, other) {
        (Some(one), Some(other)) => {
            let (fields, more) = (one.strip_suffix('}').unwrap_or(one), other.strip_prefix('{').unwrap_or(other));
            Some(format!("{fields},{more}"))
        }
        (one, other) => one.or(other).map(str::to_owned),
    };
    Arc::new(one.as_string::<i32>().iter().zip(other.iter()).map(joined).collect::<StringArray>())
}
