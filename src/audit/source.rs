//! A table as the audit reads it: at one version, file by file, noting what cannot be read.

use std::collections::HashMap;
use std::time::Duration;

use arrow::array::TimestampMicrosecondArray;
use object_store::path::Path;
use serde_json::Value;

use super::Audit;
use super::report::{AuditedTable, Check, Finding};
use crate::clock::Timestamp;
use crate::error::{ErrorKind, Result};
use crate::id::Name;
pub(super) use crate::table::values::{Columns, integer};
use crate::table::{DataFile, FileHealth, Identity, LakeTable, TableRole, TxnId, Within, values};

/// Statistics are in whole milliseconds, and not every writer rounds a maximum up.
const STATISTICS_STEP: Duration = Duration::from_millis(1);

/// From and to, both inclusive.
pub(super) type Span = (Timestamp, Timestamp);

/// All of time.
pub(super) const ALWAYS: Span = (Timestamp::from_micros(i64::MIN), Timestamp::from_micros(i64::MAX));

/// A table at one version.
pub(super) struct Source {
    pub(super) name: &'static str,
    /// `None` if it does not exist or cannot be read.
    pub(super) table: Option<LakeTable>,
    pub(super) files: Vec<File>,
    path: String,
    /// The column that says when a row was received or sent.
    time_column: &'static str,
    /// The times of rows that cannot be read.
    blind: Vec<Span>,
    /// Files added after the next stage's watermark and rewritten since.
    moved: Vec<DataFile>,
    /// Whether the log no longer says everything that was added after the watermark.
    is_forgotten: bool,
    troubles: Vec<Finding>,
}

/// A live file.
pub(super) struct File {
    file: DataFile,
    pub(super) span: Span,
    pub(super) rows: u64,
    /// Whether the next stage may not have read it yet.
    pub(super) is_fresh: bool,
    /// Whether it exists and is intact.
    is_whole: bool,
}

impl Source {
    /// Opens a table at its head. A log that cannot be understood is a finding, not an error.
    pub(super) async fn open(
        audit: &Audit,
        (name, path): (&'static str, &str),
        time_column: &'static str,
    ) -> Result<Self> {
        let mut source = Self {
            name,
            table: None,
            files: Vec::new(),
            path: path.to_owned(),
            time_column,
            blind: Vec::new(),
            moved: Vec::new(),
            is_forgotten: false,
            troubles: Vec::new(),
        };
        match open(audit, path).await {
            Ok(None) => {}
            Ok(Some((opened, files))) => {
                source.files = files.into_iter().map(|file| File::new(file, time_column)).collect();
                source.files.sort_by_key(|file| file.span);
                source.table = Some(opened);
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                source.blind.push(ALWAYS);
                source.trouble("the log cannot be read".to_owned(), &source.path.clone(), &error.to_string());
            }
            Err(error) => return Err(error),
        }
        Ok(source)
    }

    pub(super) fn path(&self) -> Path {
        Path::from(self.path.as_str())
    }

    pub(super) fn audited(&self) -> AuditedTable {
        AuditedTable {
            table: self.name,
            path: self.path.clone(),
            version: self.table.as_ref().map(LakeTable::version),
            rows: self.rows(),
        }
    }

    /// Rows, according to the log.
    pub(super) fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Up to which version the stage that appends to this table has handled an upstream table.
    pub(super) fn watermark(&self, role: TableRole, upstream: &Self) -> Option<i64> {
        let upstream = upstream.table.as_ref()?.table_id().to_owned();
        self.table.as_ref()?.txn(&TxnId::Watermark { role, upstream })
    }

    /// What the pipeline was called before, as the table says.
    pub(super) fn former_pipelines(&self) -> Vec<Name> {
        self.identity().map(|identity| identity.former_pipelines).unwrap_or_default()
    }

    /// Rows of the upstream table from before this moment were handled before this table was made.
    pub(super) fn history_before(&self) -> Option<Timestamp> {
        self.identity()?.history_before
    }

    fn identity(&self) -> Option<Identity> {
        self.table.as_ref()?.identity().ok().flatten()
    }

    /// How many watermarks of upstream tables this table has.
    pub(super) fn watermarks(&self, of: TableRole) -> u64 {
        let progress = self.table.as_ref().map(LakeTable::progress).unwrap_or_default();
        let is_one = |id: &&TxnId| matches!(id, TxnId::Watermark { role, .. } if *role == of);
        progress.keys().filter(is_one).count() as u64
    }

    /// Checks every live file; damaged ones are not read later.
    pub(super) async fn check_files(&mut self, check: &mut Check, step: impl Fn()) -> Result<()> {
        let Some(table) = &self.table else { return Ok(()) };
        let mut broken = Vec::new();
        for (index, file) in self.files.iter().enumerate() {
            step();
            check.checked += 1;
            match table.file_health(&file.file).await? {
                FileHealth::Whole => {}
                FileHealth::Missing => broken.push((index, "a file is missing".to_owned())),
                FileHealth::Torn { why } => broken.push((index, format!("a file is corrupt, {why}"))),
            }
        }
        for (index, what) in broken {
            self.lose(index, what);
        }
        Ok(())
    }

    /// Finds the rows that the next stage still has to read: those of commits after its watermark.
    pub(super) async fn mark_fresh(&mut self, watermark: i64) -> Result<()> {
        let Some(table) = &self.table else { return Ok(()) };
        let live = self.files.iter().enumerate().map(|(index, file)| (file.file.path.clone(), index));
        let live: HashMap<String, usize> = live.collect();
        for version in watermark + 1..=table.version() {
            let Some(commit) = table.commit_at(version).await? else {
                self.is_forgotten = true;
                return Ok(());
            };
            for added in commit.added {
                match live.get(&added.path).and_then(|index| self.files.get_mut(*index)) {
                    Some(file) => file.is_fresh = true,
                    None => self.moved.push(slim(added)),
                }
            }
        }
        Ok(())
    }

    /// Whether the log is cleaned up beyond the watermark: the next stage then compares all rows and takes those it
    /// lacks.
    pub(super) fn is_forgotten(&self) -> bool {
        self.is_forgotten
    }

    /// Whether rows that are no longer in their original file may be fresh.
    pub(super) fn has_moved(&self) -> bool {
        !self.moved.is_empty()
    }

    /// The rows of files that were added after the watermark and rewritten since; `false` if one is missing.
    pub(super) async fn read_moved(
        &self,
        columns: &[&str],
        mut take: impl FnMut(&Columns<'_>) -> Result<()>,
    ) -> Result<bool> {
        let Some(table) = &self.table else { return Ok(true) };
        let mut complete = true;
        for file in &self.moved {
            match scan(table, file, columns, None, &mut take).await {
                Err(error) if error.kind() == ErrorKind::Corrupt => complete = false,
                outcome => outcome?,
            }
        }
        Ok(complete)
    }

    /// Reads the rows of every file that may have rows of that time. Files that cannot be read are noted.
    pub(super) async fn read(
        &mut self,
        span: Span,
        columns: &[&str],
        mut take: impl FnMut(&Columns<'_>, &File) -> Result<()>,
    ) -> Result<()> {
        let Some(table) = &self.table else { return Ok(()) };
        let within = Within { column: self.time_column, from: span.0.as_micros(), to: span.1.as_micros() };
        let mut broken = Vec::new();
        for (index, file) in self.files.iter().enumerate() {
            if !file.is_whole || !overlap(file.span, span) {
                continue;
            }
            let read = scan(table, &file.file, columns, Some(within), &mut |rows| take(rows, file)).await;
            match read {
                Err(error) if error.kind() == ErrorKind::Corrupt => broken.push((index, error.to_string())),
                outcome => outcome?,
            }
        }
        for (index, why) in broken {
            self.lose(index, format!("a file cannot be read, {why}"));
        }
        Ok(())
    }

    /// Whether rows of that time may be in what cannot be read.
    pub(super) fn is_blind(&self, span: Span) -> bool {
        self.blind.iter().any(|blind| overlap(*blind, span))
    }

    /// Problems found on the way, for the check of files.
    pub(super) fn troubles(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.troubles)
    }

    fn lose(&mut self, index: usize, what: String) {
        let Some(file) = self.files.get_mut(index) else { return };
        file.is_whole = false;
        self.blind.push(file.span);
        let path = format!("{}/{}", self.path, file.file.path);
        self.troubles.push(Finding { file: Some(path), ..Finding::new(what) });
    }

    fn trouble(&mut self, what: String, file: &str, why: &str) {
        let what = format!("{what}, {why}");
        self.troubles.push(Finding { file: Some(file.to_owned()), ..Finding::new(what) });
    }
}

impl File {
    /// A file with rows of that time.
    #[cfg(test)]
    pub(super) fn spanning(span: Span, rows: u64) -> Self {
        let empty = DataFile {
            path: String::new(),
            size_bytes: 0,
            modification_millis: 0,
            num_records: None,
            min_values: Value::Null,
            max_values: Value::Null,
        };
        Self { file: empty, span, rows, is_fresh: false, is_whole: true }
    }

    fn new(file: DataFile, time_column: &str) -> Self {
        let bound = |values: &Value| {
            let text = values.get(time_column)?.as_str()?;
            Some(Timestamp::from_micros(chrono::DateTime::parse_from_rfc3339(text).ok()?.timestamp_micros()))
        };
        let from = bound(&file.min_values).map_or(ALWAYS.0, |from| from.minus(STATISTICS_STEP));
        let to = bound(&file.max_values).map_or(ALWAYS.1, |to| to.plus(STATISTICS_STEP));
        let rows = file.num_records.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0);
        Self { file: slim(file), span: (from, to), rows, is_fresh: false, is_whole: true }
    }
}

/// The time of a row; the stages treat null as the beginning of 1970.
pub(super) fn moment(column: &TimestampMicrosecondArray, row: usize) -> Timestamp {
    values::moment(column, row).unwrap_or_default()
}

/// Whether two spans overlap.
pub(super) fn overlap(one: Span, other: Span) -> bool {
    one.0 <= other.1 && other.0 <= one.1
}

/// Statistics are large, and only the bounds of one column are needed.
fn slim(file: DataFile) -> DataFile {
    DataFile { min_values: Value::Null, max_values: Value::Null, ..file }
}

async fn open(audit: &Audit, path: &str) -> Result<Option<(LakeTable, Vec<DataFile>)>> {
    let opened = LakeTable::open_existing(&audit.storage, &Path::from(path), &audit.clock).await?;
    let Some(opened) = opened else { return Ok(None) };
    let files = opened.files().await?;
    Ok(Some((opened, files)))
}

async fn scan(
    table: &LakeTable,
    file: &DataFile,
    columns: &[&str],
    within: Option<Within<'_>>,
    take: &mut impl FnMut(&Columns<'_>) -> Result<()>,
) -> Result<()> {
    let mut scan = table.scan(file, columns, within).await?;
    while let Some(batch) = scan.next().await? {
        take(&Columns::of(&batch))?;
    }
    Ok(())
}
