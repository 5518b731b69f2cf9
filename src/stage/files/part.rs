//! Parts: records of one or several files on their way to one data file of the table.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::parse::{Parsed, Parser, Unknown};
use super::records::Chunk;
use crate::clock::Timestamp;
use crate::error::{Context, ErrorKind, Result};

/// The record as it came.
pub(super) const PAYLOAD: &str = "payload";
/// The path of the file.
pub(super) const SOURCE_FILE: &str = "_source_file";
/// When the batch of its row was begun.
pub(super) const INGESTED_AT: &str = "_ingested_at";
/// Columns of ours. No field of a record gets one of these names.
pub(super) const RESERVED: [&str; 5] = ["_rescued_data", "_corrupt_record", SOURCE_FILE, "_source_row", "_ingested_at"];

/// Records of one file, in a row.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) file: Arc<str>,
    pub(super) chunk: Chunk,
}

/// Records on their way to one data file.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) pieces: Vec<Piece>,
    pub(super) bytes: usize,
}

/// What became of a part.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) rows: RecordBatch,
    pub(super) rescued_rows: u64,
    pub(super) corrupt_rows: u64,
}

/// Which columns a part gets, and what happens to the rest.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// Of the records, without ours.
    pub(super) columns: SchemaRef,
    pub(super) unknown: Unknown,
    pub(super) has_payload: bool,
}

impl Part {
    pub(super) fn push(&mut self, piece: Piece) {
        self.bytes += piece.chunk.len();
        self.pieces.push(piece);
    }

    /// What it is of, for people.
    pub(super) fn told(&self) -> String {
        let (first, last) = (self.pieces.first(), self.pieces.last());
        match (first.map(|piece| &piece.file), last.map(|piece| &piece.file)) {
            (Some(first), Some(last)) if first != last => format!("files {first} to {last}"),
            (Some(first), _) => format!("file {first}"),
            _ => "no file".to_owned(),
        }
    }

    /// Parses its records into columns.
    ///
    /// # Errors
    /// Configuration when JSON has no values for a column.
    pub(super) fn parse(&self, layout: &Layout) -> Result<Parsed> {
        let mut parser = Parser::new(&layout.columns, layout.unknown)?;
        for (chunk, record) in
            self.pieces.iter().flat_map(|piece| piece.chunk.records.iter().map(|record| (&piece.chunk, record)))
        {
            match (chunk.text(record), record.fault) {
                (Some(text), None) => parser.push(text),
                (_, fault) => parser.push_faulty(chunk.bytes(record), fault),
            }
        }
        parser.finish()
    }

    /// The rows of the table: the records' columns and ours.
    ///
    /// # Errors
    /// Corrupt when the columns do not fit each other.
    pub(super) fn rows(&self, parsed: Parsed, layout: &Layout, ingested_at: Timestamp) -> Result<Made> {
        let records =
            || self.pieces.iter().flat_map(|piece| piece.chunk.records.iter().map(move |record| (piece, record)));
        let count = parsed.corrupt.len();
        let mut columns = parsed.columns;
        if layout.has_payload {
            // What is no record stands in `_corrupt_record`.
            let text = records().map(|(piece, record)| piece.chunk.text(record).filter(|_| record.fault.is_none()));
            columns.push(Arc::new(text.collect::<StringArray>()));
        }
        let files: StringArray = records().map(|(piece, _)| Some(piece.file.as_ref())).collect();
        let numbers: Int64Array = records().map(|(_, record)| Some(record.row)).collect();
        let moments = TimestampMicrosecondArray::from(vec![ingested_at.as_micros(); count]).with_timezone("UTC");
        columns.extend([
            Arc::new(parsed.rescued) as ArrayRef,
            Arc::new(parsed.corrupt),
            Arc::new(files),
            Arc::new(numbers),
            Arc::new(moments),
        ]);
        let rows = RecordBatch::try_new(with_ours(&layout.columns, layout.has_payload), columns);
        let rows = rows.context(ErrorKind::Corrupt, "columns of a part do not fit each other")?;
        Ok(Made { rows, rescued_rows: parsed.rescued_rows, corrupt_rows: parsed.corrupt_rows })
    }
}

/// The columns of the table: those of the records, then ours.
pub(super) fn with_ours(columns: &Schema, has_payload: bool) -> SchemaRef {
    let text = |name: &str| Arc::new(Field::new(name, DataType::Utf8, true));
    let mut fields: Vec<_> = columns.fields().iter().cloned().collect();
    fields.extend(has_payload.then(|| text(PAYLOAD)));
    let moment = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    fields.extend([
        text("_rescued_data"),
        text("_corrupt_record"),
        text(SOURCE_FILE),
        Arc::new(Field::new("_source_row", DataType::Int64, true)),
        Arc::new(Field::new("_ingested_at", moment, true)),
    ]);
    Arc::new(Schema::new(fields))
}

/// The columns of the records, out of those of the table.
pub(super) fn without_ours(table: &Schema, has_payload: bool) -> SchemaRef {
    let is_ours = |name: &str| RESERVED.contains(&name) || (has_payload && name == PAYLOAD);
    let fields: Vec<_> = table.fields().iter().filter(|field| !is_ours(field.name())).cloned().collect();
    Arc::new(Schema::new(fields))
}
