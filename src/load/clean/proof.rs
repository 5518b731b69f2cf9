//! The proof that a file is loaded: the table has rows from it.

use std::collections::HashMap;
use std::hash::Hash;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use crate::clock::Timestamp;
use crate::error::Result;
use crate::table::{DataFile, LakeTable, Within};

const SOURCE_FILE: &str = "_source_file";
const INGESTED_AT: &str = "_ingested_at";
/// Table files read at the same time.
const READ_AHEAD: usize = 8;

/// When the newest rows of each source file were made, for the files that `key` recognizes by path. Reads only the part
/// of the table that is within bounds.
///
/// # Errors
/// When a file of the table is missing or cannot be read.
pub(in crate::load) async fn newest_rows<K: Eq + Hash + Send>(
    table: &LakeTable,
    files: &[DataFile],
    within: Within<'_>,
    key: impl Fn(&str) -> Option<K> + Sync,
) -> Result<HashMap<K, Timestamp>> {
    let span = (Timestamp::from_micros(within.from), Timestamp::from_micros(within.to));
    let files = files.iter().filter(|file| {
        let (first, last) = file.span(within.column);
        last >= span.0 && first <= span.1
    });
    let reads: Vec<_> = files.map(|file| newest_in(table, file, within, &key).boxed()).collect();
    let found: Vec<HashMap<K, Timestamp>> = stream::iter(reads).buffer_unordered(READ_AHEAD).try_collect().await?;
    let mut newest = HashMap::new();
    for (key, ingested_at) in found.into_iter().flatten() {
        raise(&mut newest, key, ingested_at);
    }
    Ok(newest)
}

async fn newest_in<K: Eq + Hash + Send>(
    table: &LakeTable,
    file: &DataFile,
    within: Within<'_>,
    key: &(impl Fn(&str) -> Option<K> + Sync),
) -> Result<HashMap<K, Timestamp>> {
    let mut scan = table.scan(file, &[SOURCE_FILE, INGESTED_AT], Some(within)).await?;
    let mut newest = HashMap::new();
    while let Some(rows) = scan.next().await? {
        take(&rows, key, &mut newest);
    }
    Ok(newest)
}

/// Takes the newest time per file from some rows, once per run of equal ones.
fn take<K: Eq + Hash>(rows: &RecordBatch, key: impl Fn(&str) -> Option<K>, newest: &mut HashMap<K, Timestamp>) {
    let files = rows.column_by_name(SOURCE_FILE).and_then(|column| column.as_string_opt::<i32>());
    let moments = rows.column_by_name(INGESTED_AT);
    let moments = moments.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let (Some(files), Some(moments)) = (files, moments) else { return };
    let mut last = None;
    for (file, moment) in files.iter().zip(moments.iter()) {
        let (Some(file), Some(moment)) = (file, moment) else { continue };
        if last == Some((file, moment)) {
            continue;
        }
        last = Some((file, moment));
        if let Some(key) = key(file) {
            raise(newest, key, Timestamp::from_micros(moment));
        }
    }
}

fn raise<K: Eq + Hash>(newest: &mut HashMap<K, Timestamp>, key: K, moment: Timestamp) {
    let newest = newest.entry(key).or_insert(moment);
    *newest = (*newest).max(moment);
}
