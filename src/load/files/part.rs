//! Parts: records of one or more files on their way to one data file of the table.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::clock::Timestamp;
use crate::error::{Context, ErrorKind, Result};
use crate::json::parse::{Parsed, Parser, Unknown};
use crate::json::partition::{PartitionValue, with_partitions};
use crate::json::records::Chunk;
use crate::json::variant;
use crate::pipeline::files::PayloadType;

/// The record as it arrived.
pub(super) const PAYLOAD: &str = "payload";
/// The path of the file.
pub(super) const SOURCE_FILE: &str = "_source_file";
/// When the batch of the row was begun.
pub(super) const INGESTED_AT: &str = "_ingested_at";
/// The loader's own columns. No field of a record gets one of these names.
pub(super) const RESERVED: [&str; 5] = ["_rescued_data", "_corrupt_record", SOURCE_FILE, "_source_row", "_ingested_at"];

/// Consecutive records of one file.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) file: Arc<str>,
    pub(super) partition: Arc<[PartitionValue]>,
    pub(super) chunk: Chunk,
}

/// Records on their way to one data file.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) pieces: Vec<Piece>,
    pub(super) bytes: usize,
}

/// The rows of a part.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) rows: RecordBatch,
    pub(super) rescued_rows: u64,
    pub(super) corrupt_rows: u64,
}

/// Which columns a part gets, and what happens to the rest.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// The columns of the records, without the loader's own.
    pub(super) columns: SchemaRef,
    pub(super) unknown: Unknown,
    /// How whole records are kept, if they are.
    pub(super) payload: Option<PayloadType>,
}

impl Part {
    pub(super) fn push(&mut self, piece: Piece) {
        self.bytes += piece.chunk.len();
        self.pieces.push(piece);
    }

    /// Which files it is from, for messages.
    pub(super) fn label(&self) -> String {
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
        for Piece { partition, chunk, .. } in &self.pieces {
            parser.enter(partition);
            for record in &chunk.records {
                match (chunk.indented_text(record), record.fault) {
                    (Some(text), _) => parser.push_indented(text, record.indent),
                    (None, None) => parser.push_faulty(chunk.indented_bytes(record), None),
                    (None, fault) => parser.push_faulty(chunk.bytes(record), fault),
                }
            }
        }
        let mut parsed = parser.finish()?;
        if let Unknown::Infer(options) = layout.unknown {
            let values = self.pieces.iter().flat_map(|piece| piece.partition.iter());
            parsed.seen = with_partitions(parsed.seen, values, options);
        }
        Ok(parsed)
    }

    /// The rows of the table: the records' columns and the loader's own.
    ///
    /// # Errors
    /// Corrupt when the columns do not match each other.
    pub(super) fn rows(&self, parsed: Parsed, layout: &Layout, ingested_at: Timestamp) -> Result<Made> {
        let records =
            || self.pieces.iter().flat_map(|piece| piece.chunk.records.iter().map(move |record| (piece, record)));
        let count = parsed.corrupt.len();
        let (mut columns, mut rescued, mut rescued_rows) = (parsed.columns, parsed.rescued, parsed.rescued_rows);
        // What is not a record is in `_corrupt_record`.
        let texts = || records().map(|(piece, record)| piece.chunk.text(record));
        match layout.payload {
            None => {}
            Some(PayloadType::Text) => {
                let mut payload = StringBuilder::with_capacity(count, self.bytes);
                texts().for_each(|text| payload.append_option(text));
                columns.push(Arc::new(payload.finish()));
            }
            Some(PayloadType::Variant) => {
                let known = texts().enumerate().map(|(row, text)| text.filter(|_| parsed.corrupt.is_null(row)));
                let (variants, kept) = variant::column_of(known)?;
                columns.push(Arc::new(variants));
                rescued = variant::with_texts(&rescued, &kept);
                rescued_rows = (count - rescued.null_count()) as u64;
            }
        }
        let files: StringArray = records().map(|(piece, _)| Some(piece.file.as_ref())).collect();
        let numbers: Int64Array = records().map(|(_, record)| Some(record.row)).collect();
        let moments = TimestampMicrosecondArray::from(vec![ingested_at.as_micros(); count]).with_timezone("UTC");
        columns.extend([
            Arc::new(rescued) as ArrayRef,
            Arc::new(parsed.corrupt),
            Arc::new(files),
            Arc::new(numbers),
            Arc::new(moments),
        ]);
        let rows = RecordBatch::try_new(with_ours(&layout.columns, layout.payload), columns);
        let rows = rows.context(ErrorKind::Corrupt, "the columns of a batch do not match each other")?;
        Ok(Made { rows, rescued_rows, corrupt_rows: parsed.corrupt_rows })
    }
}

/// The columns of the table: those of the records, then the loader's own.
pub(super) fn with_ours(columns: &Schema, payload: Option<PayloadType>) -> SchemaRef {
    let text = |name: &str| Arc::new(Field::new(name, DataType::Utf8, true));
    let mut fields: Vec<_> = columns.fields().iter().cloned().collect();
    fields.extend(payload.map(|payload| match payload {
        PayloadType::Text => text(PAYLOAD),
        PayloadType::Variant => Arc::new(Field::new(PAYLOAD, variant::data_type(), true)),
    }));
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

/// The columns of the records among those of the table.
pub(super) fn without_ours(table: &Schema, has_payload: bool) -> SchemaRef {
    let is_ours = |name: &str| RESERVED.contains(&name) || (has_payload && name == PAYLOAD);
    let fields: Vec<_> = table.fields().iter().filter(|field| !is_ours(field.name())).cloned().collect();
    Arc::new(Schema::new(fields))
}
