//! Holds the files of a source against the rows of its table: how many records and rows, and which.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use object_store::path::Path;

use super::content::{Content, Reader};
use super::discover::{Found, Source};
use super::memo;
use super::options::FilesOptions;
use super::part::SOURCE_FILE;
use super::records::Records;
use super::seen::{PathHash, Seen, Stamp, hash_of};
use crate::error::{Context, ErrorKind, Result};
use crate::table::LakeTable;

const SOURCE_ROW: &str = "_source_row";
/// Files looked at between two words about it.
const FILES_AT_ONCE: usize = 1_000;

/// What an audit of a source found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesAudit {
    /// Rows of the table.
    pub rows: u64,
    /// Files that were held against them.
    pub files: u64,
    /// Files that no row is of yet.
    pub waiting: u64,
    /// Files whose rows are not their records, and how.
    pub broken: Vec<(String, String)>,
    /// Files with rows that are gone, or not among the wanted ones any more.
    pub gone: u64,
    /// Files that have changed since they were loaded.
    pub changed: u64,
    /// Files that cannot be read now.
    pub unread: Vec<(String, String)>,
}

/// How many rows, and which: a sum over their numbers, each of them stirred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    rows: u64,
    sum: u64,
}

impl Tally {
    fn add(&mut self, row: i64) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(stirred(row));
    }
}

/// As splitmix64 does it: neighbours become strangers, so that no two lists of rows have one sum by chance.
fn stirred(row: i64) -> u64 {
    let mut bits = u64::from_ne_bytes(row.to_ne_bytes()).wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Audits a source. The table is read first: what comes meanwhile is seen to wait. Memory holds a few dozen bytes for
/// each file, and one chunk of records.
///
/// # Errors
/// When the store fails or the table cannot be read.
pub async fn audit(options: FilesOptions, tell: &dyn Fn(u64)) -> Result<FilesAudit> {
    let FilesOptions { data, pipeline, checkpoints, clock, .. } = options;
    let (mut found, mut of_rows) = (FilesAudit::default(), HashMap::new());
    let table = Path::parse(&pipeline.bronze.table).context(ErrorKind::Configuration, "bronze.table")?;
    if let Some(table) = LakeTable::open_existing(&data, &table, &clock).await? {
        of_rows = tallies(&table, &mut found.rows).await?;
    }
    let source = Arc::new(Source::new(&data, &pipeline.source)?);
    let reader = Reader::new(Arc::clone(&source), &pipeline.source);
    let memo = memo::read(&memo::path_of(&checkpoints, pipeline.name.as_str())).map(|(_, seen)| seen);
    let (mut walk, nothing) = (source.walk(), Seen::default());
    loop {
        let files = walk.next_batch(&source, &nothing, clock.now(), (FILES_AT_ONCE, u64::MAX)).await?;
        if files.is_empty() {
            break;
        }
        let reader = reader.clone();
        let counting = tokio::task::spawn_blocking(move || {
            let counted = |(file, records): (Found, Result<_>)| (records.and_then(|open| count(&file, open)), file);
            reader.open_each(files).map(counted).collect::<Vec<_>>()
        });
        for (counted, file) in counting.await.context(ErrorKind::Unavailable, "count records")? {
            let rows = of_rows.remove(&hash_of(file.path.as_ref()));
            judge(&file, counted, rows, memo.as_ref(), &mut found);
        }
        tell(found.files);
    }
    found.gone = of_rows.len() as u64;
    Ok(found)
}

fn judge(file: &Found, counted: Result<Tally>, rows: Option<Tally>, memo: Option<&Seen>, found: &mut FilesAudit) {
    let path = file.path.to_string();
    let records = match counted {
        Ok(records) => records,
        Err(error) => return found.unread.push((path, error.to_string())),
    };
    let loaded_as = memo.and_then(|seen| seen.get(&file.path)).filter(|stamp| *stamp != Stamp::UNKNOWN);
    if rows.is_some() && loaded_as.is_some_and(|stamp| stamp != Stamp::of(file.size_bytes, file.modified)) {
        found.changed += 1;
        return;
    }
    match rows {
        None if records.rows > 0 => found.waiting += 1,
        Some(rows) if rows != records => {
            let what = match rows.rows == records.rows {
                true => format!("{} records, and as many rows, but not of the same records", records.rows),
                false => format!("{} records, {} rows", records.rows, rows.rows),
            };
            found.broken.push((path, what));
        }
        _ => found.files += 1,
    }
}

async fn tallies(table: &LakeTable, rows: &mut u64) -> Result<HashMap<PathHash, Tally>> {
    let (files, mut tallies) = (table.files().await?, HashMap::new());
    let mut reads = table.read_files(&files, Some(&[SOURCE_FILE, SOURCE_ROW]));
    while let Some(batch) = reads.try_next().await? {
        *rows += batch.num_rows() as u64;
        take(&batch, &mut tallies);
    }
    Ok(tallies)
}

fn take(batch: &RecordBatch, tallies: &mut HashMap<PathHash, Tally>) {
    let files = batch.column_by_name(SOURCE_FILE).and_then(|column| column.as_string_opt::<i32>());
    let rows = batch.column_by_name(SOURCE_ROW).and_then(|column| column.as_primitive_opt::<Int64Type>());
    let (Some(files), Some(rows)) = (files, rows) else { return };
    let mut last: Option<(&str, PathHash)> = None;
    for (file, row) in files.iter().zip(rows.iter()) {
        let Some(file) = file else { continue };
        let hash = match last {
            Some((before, hash)) if before == file => hash,
            _ => hash_of(file),
        };
        last = Some((file, hash));
        tallies.entry(hash).or_default().add(row.unwrap_or(0));
    }
}

/// The records of a file.
fn count(file: &Found, mut records: Records<Content>) -> Result<Tally> {
    let mut tally = Tally::default();
    while let Some(chunk) = records.next_chunk().context(ErrorKind::Unavailable, format!("read {}", file.path))? {
        chunk.records.iter().for_each(|record| tally.add(record.row));
    }
    Ok(tally)
}
