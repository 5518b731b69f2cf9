//! Rows of the bronze table: from segments in, to Arrow out; and what is read back of them at a start.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use object_store::path::Path;

use super::lanes::SegmentKey;
use crate::clock::Timestamp;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::{BotId, Name, trace_id};
use crate::telegram::{Update, UpdateColumns};

/// What is read of the table to know what is ingested.
pub(super) const KNOWN_COLUMNS: [&str; 4] = ["bot_id", "update_id", "_source_file", "_received_at"];
/// Columns without which rows would double at the next start, or what fits no column would be lost.
const REQUIRED_COLUMNS: [&str; 6] =
    ["bot_id", "update_id", "_source_file", "_received_at", "payload", "_corrupt_record"];

/// Where the values of a column come from.
#[derive(Clone, Copy)]
enum Source {
    Integer(fn(&Line) -> Option<i64>),
    Text(fn(&Line) -> Option<&str>),
    Moment(fn(&Line) -> Option<Timestamp>),
    IngestedAt,
}

/// The columns of the table that we fill.
const COLUMNS: [(&str, Source); 30] = [
    ("bot_id", Source::Integer(|line| Some(line.bot_id.0))),
    ("update_id", Source::Integer(Line::update_id)),
    ("update_type", Source::Text(|line| line.update()?.update_type.as_deref())),
    ("message_id", Source::Integer(|line| line.update()?.message_id)),
    ("chat_id", Source::Integer(|line| line.update()?.chat_id)),
    ("chat_type", Source::Text(|line| line.update()?.chat_type.as_deref())),
    ("chat_title", Source::Text(|line| line.update()?.chat_title.as_deref())),
    ("user_id", Source::Integer(|line| line.update()?.user_id)),
    ("username", Source::Text(|line| line.update()?.username.as_deref())),
    ("first_name", Source::Text(|line| line.update()?.first_name.as_deref())),
    ("last_name", Source::Text(|line| line.update()?.last_name.as_deref())),
    ("language_code", Source::Text(|line| line.update()?.language_code.as_deref())),
    ("author_signature", Source::Text(|line| line.update()?.author_signature.as_deref())),
    ("message_thread_id", Source::Integer(|line| line.update()?.message_thread_id)),
    ("reply_to_message_id", Source::Integer(|line| line.update()?.reply_to_message_id)),
    ("text", Source::Text(|line| line.update()?.text.as_deref())),
    ("date", Source::Integer(|line| line.update()?.date)),
    ("sent_at", Source::Moment(|line| line.update()?.sent_at)),
    ("callback_query_id", Source::Text(|line| line.update()?.callback_query_id.as_deref())),
    ("callback_data", Source::Text(|line| line.update()?.callback_data.as_deref())),
    ("media_type", Source::Text(|line| line.update()?.media_type.as_deref())),
    ("file_id", Source::Text(|line| line.update()?.file_id.as_deref())),
    ("payload", Source::Text(|line| line.payload.as_deref())),
    ("_rescued_data", Source::Text(|line| line.update()?.rescued.as_deref())),
    ("_corrupt_record", Source::Text(Line::corrupt_record)),
    ("_source_file", Source::Text(|line| Some(&line.source_file))),
    ("_source_row", Source::Integer(|line| Some(line.source_row))),
    ("_received_at", Source::Moment(|line| Some(line.received_at))),
    ("_ingested_at", Source::IngestedAt),
    ("_trace_id", Source::Text(|line| line.trace_id.as_deref())),
];

/// A line of a segment.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) bot_id: BotId,
    pub(super) received_at: Timestamp,
    source_file: Arc<str>,
    /// From 1.
    source_row: i64,
    /// The line as it came; `None` when it is corrupt.
    payload: Option<String>,
    trace_id: Option<String>,
    update: Update,
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
    fn new(key: &SegmentKey, source_file: Arc<str>, source_row: i64, line: &[u8]) -> Self {
        let (bot_id, received_at) = (key.lane.bot_id, key.micros);
        let update = Update::parse(line);
        let (payload, trace_id) = match &update {
            Update::Known(columns) => {
                (Some(String::from_utf8_lossy(line).into_owned()), Some(trace_id(bot_id, columns.update_id)))
            }
            Update::Corrupt { .. } => (None, None),
        };
        Self { bot_id, received_at, source_file, source_row, payload, trace_id, update }
    }

    /// The id of its update; `None` when it is corrupt.
    pub(super) fn update_id(&self) -> Option<i64> {
        self.update().map(|columns| columns.update_id)
    }

    /// The path of its segment.
    pub(super) fn source_file(&self) -> &str {
        &self.source_file
    }

    fn update(&self) -> Option<&UpdateColumns> {
        match &self.update {
            Update::Known(columns) => Some(columns),
            Update::Corrupt { .. } => None,
        }
    }

    fn corrupt_record(&self) -> Option<&str> {
        match &self.update {
            Update::Corrupt { text } => Some(text),
            Update::Known(_) => None,
        }
    }
}

impl Source {
    fn data_type(self) -> DataType {
        match self {
            Self::Integer(_) => DataType::Int64,
            Self::Text(_) => DataType::Utf8,
            Self::Moment(_) | Self::IngestedAt => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }

    fn array(self, lines: &[&Line], ingested_at: Timestamp) -> ArrayRef {
        let moments = |value: &dyn Fn(&Line) -> Option<Timestamp>| -> ArrayRef {
            let micros = lines.iter().map(|line| value(line).map(Timestamp::as_micros));
            Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        };
        match self {
            Self::Integer(value) => Arc::new(lines.iter().map(|line| value(line)).collect::<Int64Array>()),
            Self::Text(value) => Arc::new(lines.iter().map(|line| value(line)).collect::<StringArray>()),
            Self::Moment(value) => moments(&value),
            Self::IngestedAt => moments(&|_| Some(ingested_at)),
        }
    }
}

/// The lines of a segment. Lines of nothing but white space are none.
pub(super) fn lines(key: &SegmentKey, path: &Path, bytes: &[u8]) -> Vec<Line> {
    let source_file: Arc<str> = path.as_ref().into();
    let numbered = (1..).zip(bytes.split(|byte| *byte == b'\n'));
    let numbered = numbered.map(|(row, line)| (row, line.strip_suffix(b"\r").unwrap_or(line)));
    let numbered = numbered.filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace));
    numbered.map(|(row, line)| Line::new(key, Arc::clone(&source_file), row, line)).collect()
}

/// Checks that the columns of the table are those that we fill, as far as it has them.
///
/// # Errors
/// A configuration error that names the column that is missing or has another type.
pub(super) fn check(table: &str, schema: &Schema) -> Result<()> {
    if let Some(name) = REQUIRED_COLUMNS.iter().find(|name| schema.field_with_name(name).is_err()) {
        return Err(Error::configuration(format!("the schema of {table} lacks column `{name}`; add it")));
    }
    for (name, source) in COLUMNS {
        let Ok(field) = schema.field_with_name(name) else { continue };
        let (found, wanted) = (field.data_type(), source.data_type());
        if *found != wanted {
            let text = format!("column `{name}` of {table} is {found} and must be {wanted}; name another table");
            return Err(Error::configuration(text));
        }
    }
    Ok(())
}

/// Lines as rows of a table with `schema`; columns that are not ours are null.
///
/// # Errors
/// A configuration error when a column has another type or may not be null.
pub(super) fn to_batch(schema: &SchemaRef, lines: &[&Line], ingested_at: Timestamp) -> Result<RecordBatch> {
    let columns = schema.fields().iter().map(|field| {
        let ours = COLUMNS.iter().find(|(name, _)| name == field.name());
        ours.map_or_else(
            || new_null_array(field.data_type(), lines.len()),
            |(_, source)| source.array(lines, ingested_at),
        )
    });
    RecordBatch::try_new(Arc::clone(schema), columns.collect())
        .context(ErrorKind::Configuration, "a column of the bronze table has another type or may not be null")
}

/// What a file of the table says about what is ingested.
///
/// # Errors
/// Corrupt when a column has another type.
pub(super) fn known_rows(pipeline: &Name, batch: &RecordBatch) -> Result<Vec<KnownRow>> {
    let odd = |name: &str| Error::corrupt(format!("column {name} of the bronze table has another type"));
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| odd(name));
    let bot_ids = column("bot_id")?.as_primitive_opt::<Int64Type>().ok_or_else(|| odd("bot_id"))?;
    let update_ids = column("update_id")?.as_primitive_opt::<Int64Type>().ok_or_else(|| odd("update_id"))?;
    let files = column("_source_file")?.as_string_opt::<i32>().ok_or_else(|| odd("_source_file"))?;
    let times = column("_received_at")?.as_primitive_opt::<TimestampMicrosecondType>();
    let times = times.ok_or_else(|| odd("_received_at"))?;
    let row = |row: usize| KnownRow {
        bot_id: BotId(bot_ids.value(row)),
        update_id: update_ids.is_valid(row).then(|| update_ids.value(row)),
        segment: SegmentKey::parse(pipeline, &Path::from(files.value(row))),
        received_at: Timestamp::from_micros(times.value(row)),
    };
    Ok((0..batch.num_rows()).map(row).collect())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;

    use super::*;
    use crate::schema;

    fn key() -> (SegmentKey, Path, Name) {
        let (pipeline, path) = (Name::new("p").unwrap(), "raw/p/7/a/2025-10-09/08/00001760000000123456.json");
        (SegmentKey::parse(&pipeline, &Path::from(path)).unwrap(), Path::from(path), pipeline)
    }

    fn batch(schema: &SchemaRef, bytes: &[u8]) -> RecordBatch {
        let (key, path, _) = key();
        let lines = lines(&key, &path, bytes);
        to_batch(schema, &lines.iter().collect::<Vec<_>>(), Timestamp::from_micros(5)).unwrap()
    }

    fn text<'a>(batch: &'a RecordBatch, name: &str) -> Vec<Option<&'a str>> {
        batch.column_by_name(name).unwrap().as_string::<i32>().iter().collect()
    }

    #[test]
    fn every_column_of_the_shipped_schema_is_filled_and_fits() {
        let schema = schema::built_in(schema::MESSAGES).unwrap();
        check("t", &schema).unwrap();
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, COLUMNS.map(|(name, _)| name));
    }

    #[test]
    fn a_line_keeps_its_bytes_its_place_and_its_moment() {
        let line = r#"{"update_id":9 , "message": {"text":"caf\u00e9","date":1}}"#;
        let found = batch(&schema::built_in(schema::MESSAGES).unwrap(), format!(" \r\n{line}\r\n\n{line}").as_bytes());
        assert_eq!(text(&found, "payload"), [Some(line), Some(line)]);
        assert_eq!(text(&found, "text"), [Some("café"), Some("café")]);
        assert_eq!(text(&found, "_source_file"), [Some(key().1.as_ref()); 2]);
        let trace = trace_id(BotId(7), 9);
        assert_eq!(text(&found, "_trace_id"), [Some(trace.as_str()); 2]);
        let rows = found.column_by_name("_source_row").unwrap().as_primitive::<Int64Type>();
        assert_eq!(rows.values(), &[2, 4]);
        let known = known_rows(&key().2, &found).unwrap();
        assert_eq!((known[0].update_id, known[0].segment.as_ref()), (Some(9), Some(&key().0)));
        assert_eq!(known[0].received_at, Timestamp::from_micros(1_760_000_000_123_456));
    }

    #[test]
    fn what_is_no_update_is_a_row_with_its_text() {
        let found = batch(&schema::built_in(schema::MESSAGES).unwrap(), b"[1]\nba\xffd\n{\"update_id\": \"7\"}\n");
        let expected = [Some("[1]"), Some("data:;base64,YmH/ZA=="), Some(r#"{"update_id": "7"}"#)];
        assert_eq!(text(&found, "_corrupt_record"), expected);
        assert_eq!(text(&found, "payload"), [None; 3]);
        assert_eq!(text(&found, "_trace_id"), [None; 3]);
        assert_eq!(found.column_by_name("update_id").unwrap().null_count(), 3);
        assert!(
            known_rows(&key().2, &found).unwrap().iter().all(|row| row.update_id.is_none() && row.segment.is_some())
        );
    }

    #[test]
    fn a_column_that_is_not_ours_is_null_and_one_of_another_type_is_named() {
        let shipped = schema::built_in(schema::MESSAGES).unwrap();
        let with = |field: Field| {
            let kept = shipped.fields().iter().filter(|there| there.name() != field.name());
            let mut fields: Vec<_> = kept.cloned().collect();
            fields.push(Arc::new(field));
            Arc::new(Schema::new(fields))
        };
        let wider = with(Field::new("note", DataType::Boolean, true));
        check("t", &wider).unwrap();
        assert_eq!(batch(&wider, b"{\"update_id\": 1}").column_by_name("note").unwrap().null_count(), 1);
        let other = with(Field::new("chat_id", DataType::Utf8, true));
        assert!(check("t", &other).unwrap_err().to_string().starts_with("column `chat_id` of t is"));
        let kept = shipped.fields().iter().filter(|field| field.name() != "payload").cloned().collect::<Vec<_>>();
        let error = check("t", &Schema::new(kept)).unwrap_err();
        assert_eq!(error.to_string(), "the schema of t lacks column `payload`; add it");
    }
}
