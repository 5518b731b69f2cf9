//! Compares the files of a source with the rows of its table: how many records and rows, and which.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use futures::TryStreamExt;
use object_store::path::Path;

use super::content::{Content, Reader};
use super::discover::{Found, Source};
use super::memo;
use super::options::FilesOptions;
use super::owner;
use super::part::{INGESTED_AT, SOURCE_FILE};
use super::seen::{PathHash, Seen, Stamp, hash_of};
use crate::clock::{Clock, Timestamp};
use crate::error::{Context, ErrorKind, Result};
use crate::json::parse::shortened_bytes;
use crate::json::records::Records;
use crate::pipeline::files::SourceSettings;
use crate::storage::Storage;
use crate::table::LakeTable;

const SOURCE_ROW: &str = "_source_row";
const CORRUPT_RECORD: &str = "_corrupt_record";
/// Shortened records named in the output.
const NAMED: usize = 20;
/// Files checked between two progress updates.
const FILES_AT_ONCE: usize = 1_000;

/// The result of auditing a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesAudit {
    /// Rows of the table.
    pub rows: u64,
    /// Files that were compared with their rows.
    pub files: u64,
    /// Files without rows so far.
    pub waiting: u64,
    /// Files whose rows do not match their records, and how.
    pub broken: Vec<(String, String)>,
    /// Files with rows that are missing from the source, or no longer match its settings.
    pub gone: u64,
    /// Files with rows that were removed by `clean_source`: nothing is left to compare those rows with.
    pub cleaned: u64,
    /// Files without rows where loaded ones are moved to: they belong to another loader, or their rows are lost.
    pub strangers: u64,
    /// Files that have changed since they were loaded.
    pub changed: u64,
    /// Records of which the table has only the beginning.
    pub shortened: u64,
    /// The first of those: file, record number and length.
    pub shortened_names: Vec<String>,
    /// Files that cannot be read now.
    pub unread: Vec<(String, String)>,
}

/// How many rows, and which: a sum over their hashed numbers.
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

/// As in splitmix64: close numbers get unrelated hashes, so that no two lists of rows have the same sum by chance.
fn stirred(row: i64) -> u64 {
    let mut bits = u64::from_ne_bytes(row.to_ne_bytes()).wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// The rows of a file.
#[derive(Clone, Copy, Debug, Default)]
struct Rows {
    tally: Tally,
    /// When the newest of them were made.
    ingested_at: Timestamp,
    /// Whether they were compared with a file.
    is_held: bool,
}

/// A folder whose files are compared with rows: the source, or where its files were moved to.
struct Side {
    source: Arc<Source>,
    reader: Reader,
    /// The folder by which rows name their files.
    named: Path,
    is_archive: bool,
}

/// The audit in progress.
struct Holding {
    rows: HashMap<PathHash, Rows>,
    memo: Option<Seen>,
    clock: Clock,
    found: FilesAudit,
}

/// Audits a source. The table is read first, so files that arrive meanwhile count as waiting. Memory holds a few dozen
/// bytes per file, and one chunk of records.
///
/// # Errors
/// When the store fails or the table cannot be read.
pub async fn audit(options: FilesOptions, tell: &dyn Fn(u64)) -> Result<FilesAudit> {
    let FilesOptions { data, pipeline, checkpoints, clock, .. } = options;
    let (mut found, mut rows) = (FilesAudit::default(), HashMap::new());
    let table = Path::parse(&pipeline.bronze.table).context(ErrorKind::Configuration, "bronze.table")?;
    if let Some(table) = LakeTable::open_existing(&data, &table, &clock).await? {
        rows = match rows_of(&table, &mut found).await {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                // Without all rows there is nothing to compare the files with.
                found.broken.push((pipeline.bronze.table.to_string(), error.to_string()));
                return Ok(found);
            }
            rows => rows?,
        };
        let wanted = owner::identity(&pipeline.name, &Source::new(&data, &pipeline.source)?);
        if let Err(error) = owner::check(&table, &wanted) {
            found.broken.push((pipeline.bronze.table.to_string(), error.to_string()));
        }
    }
    let memo = memo::read(&memo::path_of(&checkpoints, pipeline.name.as_str())).map(|(_, seen)| seen);
    let cleaning = &pipeline.source.clean_source;
    let cleaned_before = cleaning.is_on().then(|| cleaning.loaded_before(clock.now()));
    let mut holding = Holding { rows, memo, clock, found };
    let side = Side::source(&data, &pipeline.source)?;
    holding.hold(&side, tell).await?;
    if let Some(to) = &cleaning.to {
        holding.hold(&side.archive(&data, &pipeline.source, to)?, tell).await?;
    }
    let Holding { rows, mut found, .. } = holding;
    for rows in rows.values().filter(|rows| !rows.is_held) {
        match cleaned_before {
            Some(before) if rows.ingested_at < before => found.cleaned += 1,
            _ => found.gone += 1,
        }
    }
    Ok(found)
}

impl Side {
    fn source(data: &Storage, settings: &SourceSettings) -> Result<Self> {
        let source = Arc::new(Source::new(data, settings)?);
        let reader = Reader::new(Arc::clone(&source), settings);
        Ok(Self { named: source.folder.clone(), source, reader, is_archive: false })
    }

    /// The folder that files of this source were moved to: everything in it may have come from here.
    fn archive(&self, data: &Storage, settings: &SourceSettings, to: &str) -> Result<Self> {
        let (glob, max_file_age, modified_after, modified_before) = (None, None, None, None);
        let settings = SourceSettings {
            path: to.to_owned(),
            glob,
            max_file_age,
            modified_after,
            modified_before,
            ..settings.clone()
        };
        Ok(Self { named: self.named.clone(), is_archive: true, ..Self::source(data, &settings)? })
    }

    /// The path by which rows name a file.
    fn name(&self, path: &Path) -> Path {
        self.named.parts().chain(path.prefix_match(&self.source.folder).into_iter().flatten()).collect()
    }
}

impl Holding {
    /// Compares files with rows.
    async fn hold(&mut self, side: &Side, tell: &dyn Fn(u64)) -> Result<()> {
        let (mut walk, nothing) = (side.source.walk(), Seen::default());
        loop {
            let bounds = (FILES_AT_ONCE, u64::MAX);
            let mut files = walk.next_batch(&side.source, &nothing, self.clock.now(), bounds).await?;
            if files.is_empty() {
                return Ok(());
            }
            if side.is_archive {
                files.retain(|file| self.is_of_rows(&side.name(&file.path)));
            }
            let reader = side.reader.clone();
            let counting = tokio::task::spawn_blocking(move || {
                let counted = |(file, records): (Found, Result<_>)| (records.and_then(|open| count(&file, open)), file);
                reader.open_each(files).map(counted).collect::<Vec<_>>()
            });
            for (counted, file) in counting.await.context(ErrorKind::Unavailable, "count records")? {
                let rows = self.rows.get_mut(&hash_of(side.name(&file.path).as_ref()));
                let rows = rows.map(|rows| {
                    rows.is_held = true;
                    rows.tally
                });
                let memo = self.memo.as_ref().filter(|_| !side.is_archive);
                judge(&file, counted, rows, memo, &mut self.found);
            }
            tell(self.found.files);
        }
    }

    /// Whether a moved file still has rows to be compared with it. A file without any is counted: the archive may hold
    /// what other tables were loaded from.
    fn is_of_rows(&mut self, name: &Path) -> bool {
        let rows = self.rows.get(&hash_of(name.as_ref()));
        self.found.strangers += u64::from(rows.is_none());
        rows.is_some_and(|rows| !rows.is_held)
    }
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
                true => format!("{} records and as many rows, but the rows are not of these records", records.rows),
                false => format!("{} records, {} rows", records.rows, rows.rows),
            };
            found.broken.push((path, what));
        }
        _ => found.files += 1,
    }
}

async fn rows_of(table: &LakeTable, found: &mut FilesAudit) -> Result<HashMap<PathHash, Rows>> {
    let (files, mut rows) = (table.files().await?, HashMap::new());
    let mut reads = table.read_files(&files, Some(&[SOURCE_FILE, SOURCE_ROW, INGESTED_AT, CORRUPT_RECORD]));
    while let Some(batch) = reads.try_next().await? {
        found.rows += batch.num_rows() as u64;
        take(&batch, &mut rows);
        note_shortened(&batch, found);
    }
    Ok(rows)
}

fn take(batch: &RecordBatch, of_files: &mut HashMap<PathHash, Rows>) {
    let files = batch.column_by_name(SOURCE_FILE).and_then(|column| column.as_string_opt::<i32>());
    let rows = batch.column_by_name(SOURCE_ROW).and_then(|column| column.as_primitive_opt::<Int64Type>());
    let moments = batch.column_by_name(INGESTED_AT);
    let moments = moments.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let (Some(files), Some(rows), Some(moments)) = (files, rows, moments) else { return };
    let mut last: Option<(&str, PathHash)> = None;
    for ((file, row), moment) in files.iter().zip(rows.iter()).zip(moments.iter()) {
        let Some(file) = file else { continue };
        let hash = match last {
            Some((before, hash)) if before == file => hash,
            _ => hash_of(file),
        };
        last = Some((file, hash));
        let rows = of_files.entry(hash).or_default();
        rows.tally.add(row.unwrap_or(0));
        rows.ingested_at = rows.ingested_at.max(Timestamp::from_micros(moment.unwrap_or(i64::MAX)));
    }
}

/// Notes rows that hold only the beginning of their record.
fn note_shortened(batch: &RecordBatch, found: &mut FilesAudit) {
    let text = |name| batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
    let (Some(files), Some(corrupt)) = (text(SOURCE_FILE), text(CORRUPT_RECORD)) else { return };
    let rows = batch.column_by_name(SOURCE_ROW).and_then(|column| column.as_primitive_opt::<Int64Type>());
    for (index, (file, corrupt)) in files.iter().zip(corrupt.iter()).enumerate() {
        let Some(bytes) = corrupt.and_then(shortened_bytes) else { continue };
        found.shortened += 1;
        if found.shortened_names.len() < NAMED {
            let row = rows.map_or(0, |rows| rows.value(index));
            found.shortened_names.push(format!("{} row {row} ({bytes} bytes)", file.unwrap_or_default()));
        }
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
