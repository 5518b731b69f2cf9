//! Reads checkpoints: the whole log up to a version, in one or more Parquet files.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, is_not_null, or};
use arrow::error::ArrowError;
use arrow::json::LineDelimitedWriter;
use bytes::Bytes;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::log::{Action, parse_lines};
use crate::error::{Context, ErrorKind, Result};

/// What a writer needs from a checkpoint.
const STATE: [&str; 3] = ["protocol", "metaData", "txn"];
/// What the file list needs in addition.
const FILES: [&str; 6] =
    ["add.path", "add.partitionValues", "add.size", "add.modificationTime", "add.dataChange", "add.stats"];

/// A checkpoint of one version, in `parts` files when it has more than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) version: i64,
    pub(crate) parts: Option<u32>,
}

impl Checkpoint {
    /// Its files.
    pub(crate) fn paths(&self, log: &Path) -> Vec<Path> {
        let version = self.version;
        match self.parts {
            None => vec![Path::from(format!("{log}/{version:020}.checkpoint.parquet"))],
            Some(parts) => (1..=parts)
                .map(|part| Path::from(format!("{log}/{version:020}.checkpoint.{part:010}.{parts:010}.parquet")))
                .collect(),
        }
    }
}

/// The version that a log file is named after, and the rest of its name.
pub(crate) fn split_version(name: &str) -> Option<(i64, &str)> {
    let (digits, rest) = name.split_once('.')?;
    let version = (digits.len() == 20).then(|| digits.parse().ok())??;
    Some((version, rest))
}

/// Finds the newest checkpoint in a listing with all its parts.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    parts: BTreeMap<(i64, u32), BTreeSet<u32>>,
    best: Option<Checkpoint>,
}

impl Newest {
    /// Adds one name, split by [`split_version`].
    pub(crate) fn take(&mut self, version: i64, rest: &str) {
        let pieces: Vec<&str> = rest.split('.').collect();
        let complete = match pieces.as_slice() {
            ["checkpoint", "parquet"] => Some(Checkpoint { version, parts: None }),
            ["checkpoint", part, parts, "parquet"] => {
                let (Ok(part), Ok(parts)) = (part.parse(), parts.parse::<u32>()) else { return };
                // Names come in order, so parts of older versions will not be completed any more.
                self.parts.retain(|(of, _), _| *of == version);
                let there = self.parts.entry((version, parts)).or_default();
                there.insert(part);
                (u32::try_from(there.len()) == Ok(parts)).then_some(Checkpoint { version, parts: Some(parts) })
            }
            _ => None,
        };
        self.best = complete.or(self.best);
    }

    /// The newest one that is complete.
    pub(crate) fn complete(self) -> Option<Checkpoint> {
        self.best
    }
}

/// The actions in one file of a checkpoint; file actions only if requested.
///
/// # Errors
/// Corrupt when it is not a Parquet file or an action lacks a required field.
pub(crate) fn actions(bytes: Bytes, with_files: bool) -> Result<Vec<Action>> {
    let files: &[&str] = if with_files { &FILES } else { &[] };
    read(bytes, STATE.iter().chain(files).copied())
}

fn read<'a>(bytes: Bytes, columns: impl Iterator<Item = &'a str>) -> Result<Vec<Action>> {
    let unreadable = "read a checkpoint";
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).context(ErrorKind::Corrupt, unreadable)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
    let reader = builder.with_projection(mask).build().context(ErrorKind::Corrupt, unreadable)?;
    let mut actions = Vec::new();
    for rows in reader {
        let rows =
            rows_with_values(&rows.context(ErrorKind::Corrupt, unreadable)?).context(ErrorKind::Corrupt, unreadable)?;
        // As JSON, a row looks like a line of a commit, and nulls are left out.
        let mut lines = LineDelimitedWriter::new(Vec::new());
        lines.write(&rows).context(ErrorKind::Corrupt, unreadable)?;
        lines.finish().context(ErrorKind::Corrupt, unreadable)?;
        actions.extend(parse_lines(&lines.into_inner()).context(ErrorKind::Corrupt, unreadable)?);
    }
    Ok(actions)
}

/// The rows in which one of the columns that were read is not null. In a table that is compacted all day most rows are
/// removals, and a reader that did not ask for them should not pay for each.
pub(crate) fn rows_with_values(rows: &RecordBatch) -> std::result::Result<RecordBatch, ArrowError> {
    let mut mask: Option<BooleanArray> = None;
    for column in rows.columns() {
        let here = is_not_null(column)?;
        mask = Some(match mask {
            Some(before) => or(&before, &here)?,
            None => here,
        });
    }
    mask.map_or_else(|| Ok(rows.clone()), |mask| filter_record_batch(rows, &mask))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn newest(names: &[&str]) -> Option<Checkpoint> {
        let mut newest = Newest::default();
        for (version, rest) in names.iter().filter_map(|name| split_version(name)) {
            newest.take(version, rest);
        }
        newest.complete()
    }

    #[test]
    fn a_checkpoint_with_a_part_missing_is_none() {
        let names = [
            "00000000000000000003.checkpoint.parquet",
            "00000000000000000003.json",
            "00000000000000000005.checkpoint.0000000001.0000000002.parquet",
            "00000000000000000005.json",
            "_last_checkpoint",
            "6.checkpoint.parquet",
        ];
        assert_eq!(newest(&names), Some(Checkpoint { version: 3, parts: None }));
        assert_eq!(newest(&names[3..]), None);
    }

    #[test]
    fn the_parts_of_a_checkpoint_are_found_under_the_names_they_have() {
        let names = [
            "00000000000000000005.checkpoint.0000000001.0000000002.parquet",
            "00000000000000000005.checkpoint.0000000002.0000000002.parquet",
        ];
        let found = newest(&names).unwrap();
        let paths: Vec<String> = found.paths(&Path::from("t")).into_iter().map(|path| path.to_string()).collect();
        assert_eq!(paths, names.map(|name| format!("t/{name}")));
    }

    #[test]
    fn bytes_that_are_no_checkpoint_are_corrupt() {
        assert_eq!(actions(Bytes::from_static(b"PAR1"), true).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn rows_that_say_nothing_in_what_was_read_are_left_out() {
        let column = |values: Vec<Option<i64>>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let (txn, add) = (column(vec![None, Some(1), None]), column(vec![None, None, Some(2)]));
        let rows = RecordBatch::try_from_iter_with_nullable([("txn", txn, true), ("add", add, true)]).unwrap();
        assert_eq!(rows_with_values(&rows).unwrap(), rows.slice(1, 2));
    }
}
