//! The proof that a file is loaded: the table has rows from it, and every byte of it.

use std::collections::HashMap;
use std::hash::Hash;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use crate::clock::Timestamp;
use crate::error::Result;
use crate::json::parse::shortened_bytes;
use crate::table::{DataFile, LakeTable, Within};

const SOURCE_FILE: &str = "_source_file";
const INGESTED_AT: &str = "_ingested_at";
const CORRUPT_RECORD: &str = "_corrupt_record";
/// Table files read at the same time.
const READ_AHEAD: usize = 8;

/// The rows of a source file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::load) struct Rows {
    /// When the newest of them were made.
    pub(in crate::load) ingested_at: Timestamp,
    /// Whether one of them holds only the beginning of its record.
    pub(in crate::load) are_shortened: bool,
}

/// The rows of each source file, for the files that `key` recognizes by path. Reads only the part of the table that is
/// within bounds.
///
/// # Errors
/// When a file of the table is missing or cannot be read.
pub(in crate::load) async fn rows_of<K: Eq + Hash + Send>(
    table: &LakeTable,
    files: &[DataFile],
    within: Within<'_>,
    key: impl Fn(&str) -> Option<K> + Sync,
) -> Result<HashMap<K, Rows>> {
    let span = (Timestamp::from_micros(within.from), Timestamp::from_micros(within.to));
    let files = files.iter().filter(|file| {
        let (first, last) = file.span(within.column);
        last >= span.0 && first <= span.1
    });
    let reads: Vec<_> = files.map(|file| rows_in(table, file, within, &key).boxed()).collect();
    let found: Vec<HashMap<K, Rows>> = stream::iter(reads).buffer_unordered(READ_AHEAD).try_collect().await?;
    let mut all = HashMap::new();
    for (key, rows) in found.into_iter().flatten() {
        add(&mut all, key, rows);
    }
    Ok(all)
}

async fn rows_in<K: Eq + Hash + Send>(
    table: &LakeTable,
    file: &DataFile,
    within: Within<'_>,
    key: &(impl Fn(&str) -> Option<K> + Sync),
) -> Result<HashMap<K, Rows>> {
    let mut scan = table.scan(file, &[SOURCE_FILE, INGESTED_AT, CORRUPT_RECORD], Some(within)).await?;
    let mut found = HashMap::new();
    while let Some(rows) = scan.next().await? {
        take(&rows, key, &mut found);
    }
    Ok(found)
}

/// Takes what some rows say about each file, once per run of equal ones.
fn take<K: Eq + Hash>(rows: &RecordBatch, key: impl Fn(&str) -> Option<K>, found: &mut HashMap<K, Rows>) {
    let text = |name| rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    let moments = rows.column_by_name(INGESTED_AT);
    let moments = moments.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let (Some(files), Some(corrupt), Some(moments)) = (text(SOURCE_FILE), text(CORRUPT_RECORD), moments) else {
        return;
    };
    let mut last = None;
    for ((file, moment), corrupt) in files.iter().zip(moments.iter()).zip(corrupt.iter()) {
        let (Some(file), Some(moment)) = (file, moment) else { continue };
        let are_shortened = corrupt.and_then(shortened_bytes).is_some();
        if !are_shortened && last == Some((file, moment)) {
            continue;
        }
        last = Some((file, moment));
        if let Some(key) = key(file) {
            add(found, key, Rows { ingested_at: Timestamp::from_micros(moment), are_shortened });
        }
    }
}

fn add<K: Eq + Hash>(found: &mut HashMap<K, Rows>, key: K, rows: Rows) {
    let all = found.entry(key).or_insert(rows);
    all.ingested_at = all.ingested_at.max(rows.ingested_at);
    all.are_shortened |= rows.are_shortened;
}
