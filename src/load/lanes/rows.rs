//! Rows of the bronze table: from segments to Arrow, and what is read back at a start.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType};
use object_store::path::Path;

use super::lane::SegmentKey;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::id::BotId;
use crate::load::updates::{self, Extra, Origin, Row};
use crate::telegram::Update;
use crate::telegram::update::message_of;

/// The columns needed to know what is ingested.
pub(super) const KNOWN_COLUMNS: [&str; 4] = ["bot_id", "update_id", "_source_file", "_received_at"];
/// A line of a segment.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) bot_id: BotId,
    pub(super) received_at: Timestamp,
    row: Row,
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
        let origin = Origin { bot_id: Some(bot_id), received_at: Some(received_at), source_file, source_row };
        let row = Row::new(origin, Update::parse(line), || String::from_utf8_lossy(line).into_owned());
        Self { bot_id, received_at, row }
    }

    /// The id of its update; `None` if it is corrupt.
    pub(super) fn update_id(&self) -> Option<i64> {
        self.row.update_id()
    }

    /// The path of its segment.
    pub(super) fn source_file(&self) -> &str {
        &self.row.origin.source_file
    }

    /// Its number in its segment.
    pub(super) fn source_row(&self) -> i64 {
        self.row.origin.source_row
    }

    /// Its update, verbatim; `None` when it is corrupt.
    pub(super) fn payload(&self) -> Option<&str> {
        self.row.payload()
    }

    /// The message or post in its update.
    pub(super) fn message(&self) -> Option<&str> {
        message_of(self.row.payload()?)
    }
}

/// The lines of a segment. Blank lines are skipped.
pub(super) fn lines(key: &SegmentKey, path: &Path, bytes: &[u8]) -> Vec<Line> {
    let source_file: Arc<str> = path.as_ref().into();
    let numbered = (1..).zip(bytes.split(|byte| *byte == b'\n'));
    let numbered = numbered.map(|(row, line)| (row, line.strip_suffix(b"\r").unwrap_or(line)));
    let numbered = numbered.filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace));
    numbered.map(|(row, line)| Line::new(key, Arc::clone(&source_file), row, line)).collect()
}

/// Lines as rows of a table with `schema`, plus the columns of `extra`.
///
/// # Errors
/// As [`updates::to_batch`].
pub(super) fn to_batch(
    schema: &SchemaRef,
    lines: &[&Line],
    ingested_at: Timestamp,
    extra: Option<&Extra>,
) -> Result<RecordBatch> {
    updates::to_batch(schema, &lines.iter().map(|line| &line.row).collect::<Vec<_>>(), ingested_at, extra)
}

/// A segment as rows of the shipped schema, to check it against the laws.
///
/// # Errors
/// As [`to_batch`].
#[cfg(any(test, fuzzing))]
pub fn batch_of(segment: &[u8]) -> Result<RecordBatch> {
    let path = Path::from("raw/p/7/a/2025-10-09/08/00001760000000123456.json");
    let key = SegmentKey::parse(&path).ok_or_else(|| Error::corrupt("not a segment"))?;
    let lines = lines(&key, &path, segment);
    let schema = crate::schema::built_in(crate::schema::MESSAGES).ok_or_else(|| Error::corrupt("no shipped schema"))?;
    to_batch(&schema, &lines.iter().collect::<Vec<_>>(), Timestamp::from_micros(5), None)
}

/// What a table file says about what is ingested.
///
/// # Errors
/// Corrupt when a column has another type.
pub(super) fn known_rows(batch: &RecordBatch) -> Result<Vec<KnownRow>> {
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
        segment: SegmentKey::parse(&Path::from(files.value(row))),
        received_at: Timestamp::from_micros(times.value(row)),
    };
    // A row without a bot or a time belongs to no lane.
    Ok((0..batch.num_rows()).filter(|row| bot_ids.is_valid(*row) && times.is_valid(*row)).map(row).collect())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::id::trace_id;
    use crate::load::updates::check;
    use crate::schema;

    fn key() -> (SegmentKey, Path) {
        let path = Path::from("raw/p/7/a/2025-10-09/08/00001760000000123456.json");
        (SegmentKey::parse(&path).unwrap(), path)
    }

    fn batch(schema: &SchemaRef, bytes: &[u8]) -> RecordBatch {
        let (key, path) = key();
        let lines = lines(&key, &path, bytes);
        to_batch(schema, &lines.iter().collect::<Vec<_>>(), Timestamp::from_micros(5), None).unwrap()
    }

    fn text<'a>(batch: &'a RecordBatch, name: &str) -> Vec<Option<&'a str>> {
        batch.column_by_name(name).unwrap().as_string::<i32>().iter().collect()
    }

    #[test]
    fn every_column_of_the_shipped_schema_is_filled_and_fits() {
        let schema = schema::built_in(schema::MESSAGES).unwrap();
        check("t", &schema).unwrap();
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(names, updates::names());
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
        let known = known_rows(&found).unwrap();
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
        assert!(known_rows(&found).unwrap().iter().all(|row| row.update_id.is_none() && row.segment.is_some()));
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
        assert!(check("t", &other).unwrap_err().to_string().starts_with("column `chat_id` of t has type"));
        let kept = shipped.fields().iter().filter(|field| field.name() != "payload").cloned().collect::<Vec<_>>();
        let error = check("t", &Schema::new(kept)).unwrap_err();
        assert_eq!(error.to_string(), "the schema of t lacks column `payload`; add it");
    }
}
