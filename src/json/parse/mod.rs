//! Parses records into Arrow columns. Values that do not fit are kept beside them, so nothing is lost.

mod column;
mod folders;
mod raw;
mod rescue;
#[cfg(test)]
mod tests;
mod visit;

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, StringBuilder};
use arrow::datatypes::SchemaRef;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use self::column::StructValues;
pub(crate) use self::raw::fields_of;
use self::rescue::{Rescued, ValuePath};
use super::partition::PartitionValue;
use super::records::Fault;
use super::types::{InferOptions, JsonType};
use crate::error::Result;

/// What happens to fields that have no column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// They go into `_rescued_data`.
    Rescue,
    /// The same, and their types are reported.
    Infer(InferOptions),
    /// They are ignored.
    Ignore,
}

/// Parses records into columns.
#[derive(Debug)]
pub(crate) struct Parser {
    root: StructValues,
    rows: usize,
    partition: Arc<[PartitionValue]>,
    unknown: Unknown,
    notes: Notes,
    rescued: StringBuilder,
    corrupt: StringBuilder,
    corrupt_rows: u64,
    rescued_rows: u64,
    /// The types of records with fields that have no column.
    seen: Option<JsonType>,
    #[cfg(test)]
    is_careful: bool,
}

/// The result of parsing.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// One array per column of the schema.
    pub(crate) columns: Vec<ArrayRef>,
    /// JSON of what fits no column.
    pub(crate) rescued: StringArray,
    /// Text that is not a record.
    pub(crate) corrupt: StringArray,
    pub(crate) rescued_rows: u64,
    pub(crate) corrupt_rows: u64,
    /// The types of records with fields that have no column, if requested.
    pub(crate) seen: Option<JsonType>,
}

/// Notes about one record, taken while its values are placed into columns.
#[derive(Debug, Default)]
struct Notes {
    ignores_unknown: bool,
    /// Fields of the record that are handled elsewhere.
    passed_over: &'static [&'static str],
    has_unknown: bool,
    rescued: Vec<Rescued>,
}

impl Notes {
    /// A field without a column. Null says no more than an absent field.
    fn unknown(&mut self, path: &ValuePath<'_>, value: &str) {
        if !self.ignores_unknown && value != "null" && !path.is_field_of_record(self.passed_over) {
            // An empty value has no type, so inferring from it would only cost time.
            self.has_unknown |= !matches!(value, "[]" | "{}");
            self.rescued.push(path.rescue(value));
        }
    }

    /// A value that its column does not accept.
    fn misfit(&mut self, path: &ValuePath<'_>, value: &str) {
        if value != "null" {
            self.rescued.push(path.rescue(value));
        }
    }

    fn clear(&mut self) {
        self.has_unknown = false;
        self.rescued.clear();
    }
}

const TOO_LARGE_BYTES: &str = "_too_large_bytes";

/// What is kept of a record that is too large.
pub(crate) fn too_large(length: u64, beginning: &[u8]) -> String {
    json!({ TOO_LARGE_BYTES: length, "_begins": String::from_utf8_lossy(beginning) }).to_string()
}

/// How long the record was that [`too_large`] was made from; `None` if a corrupt record was kept whole.
pub(crate) fn shortened_bytes(corrupt: &str) -> Option<u64> {
    if !corrupt.starts_with('{') || !corrupt.contains(TOO_LARGE_BYTES) {
        return None;
    }
    serde_json::from_str::<serde_json::Value>(corrupt).ok()?.get(TOO_LARGE_BYTES)?.as_u64()
}

impl Parser {
    /// A parser for records with these columns.
    ///
    /// # Errors
    /// Configuration when JSON has no values for one of them.
    pub(crate) fn new(schema: &SchemaRef, unknown: Unknown) -> Result<Self> {
        Ok(Self {
            root: StructValues::new(schema.fields())?,
            rows: 0,
            partition: Arc::default(),
            unknown,
            notes: Notes { ignores_unknown: unknown == Unknown::Ignore, ..Notes::default() },
            rescued: StringBuilder::new(),
            corrupt: StringBuilder::new(),
            corrupt_rows: 0,
            rescued_rows: 0,
            seen: None,
            #[cfg(test)]
            is_careful: false,
        })
    }

    /// Ignores these top-level fields if they have no column.
    pub(crate) fn passing_over(mut self, fields: &'static [&'static str]) -> Self {
        self.notes.passed_over = fields;
        self
    }

    /// Sets the partition values of the records that follow.
    pub(crate) fn enter(&mut self, partition: &Arc<[PartitionValue]>) {
        self.partition = Arc::clone(partition);
    }

    /// Appends something that cannot be a record as one row.
    pub(crate) fn push_faulty(&mut self, bytes: &[u8], fault: Option<Fault>) {
        let kept = match (std::str::from_utf8(bytes), fault) {
            (_, Some(Fault::TooLarge { bytes: length })) => too_large(length, bytes),
            (Ok(text), _) => text.to_owned(),
            (Err(_), _) => {
                json!({ "_encoding": "base64", "_corrupt_record": BASE64_STANDARD.encode(bytes) }).to_string()
            }
        };
        self.push_corrupt(&kept);
    }

    /// Appends one record as one row, whatever it is.
    pub(crate) fn push(&mut self, text: &str) {
        self.push_indented(text, 0);
    }

    /// The same for a record after so many blanks, which are kept if it is corrupt.
    pub(crate) fn push_indented(&mut self, indented: &str, indent: usize) {
        let text = indented.get(indent..).unwrap_or(indented);
        self.notes.clear();
        if !self.append(text) {
            return self.push_corrupt(indented);
        }
        self.corrupt.append_null();
        self.end_row();
        if let (true, Unknown::Infer(options)) = (self.notes.has_unknown, self.unknown)
            && let Ok(here) = JsonType::read(text, options)
        {
            self.seen = Some(match self.seen.take() {
                Some(seen) => seen.merge(here),
                None => here,
            });
        }
    }

    fn end_row(&mut self) {
        folders::append(&mut self.root, self.rows, &self.partition, &mut self.notes);
        self.rows += 1;
        if self.notes.rescued.is_empty() {
            return self.rescued.append_null();
        }
        self.rescued.append_value(rescue::to_json(&self.notes.rescued));
        self.rescued_rows += 1;
    }

    fn append(&mut self, text: &str) -> bool {
        if !self.is_careful() && visit::append(&mut self.root, self.rows, text, &mut self.notes).is_ok() {
            return true;
        }
        self.notes.clear();
        self.root.children.iter_mut().for_each(|column| column.truncate(self.rows));
        raw::append(&mut self.root, self.rows, text, &mut self.notes).is_ok()
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    fn is_careful(&self) -> bool {
        false
    }

    #[cfg(test)]
    fn is_careful(&self) -> bool {
        self.is_careful
    }

    fn push_corrupt(&mut self, text: &str) {
        self.notes.clear();
        self.corrupt_rows += 1;
        self.corrupt.append_value(text);
        self.end_row();
    }

    /// Builds the columns.
    ///
    /// # Errors
    /// Configuration when a non-nullable column has no value.
    pub(crate) fn finish(mut self) -> Result<Parsed> {
        let columns = self.root.finish(self.rows)?;
        Ok(Parsed {
            columns,
            rescued: self.rescued.finish(),
            corrupt: self.corrupt.finish(),
            rescued_rows: self.rescued_rows,
            corrupt_rows: self.corrupt_rows,
            seen: self.seen,
        })
    }
}
