//! The table as the loader's ledger: a file is loaded when the table has rows from it, and every commit raises the
//! fence.

use std::collections::HashSet;
use std::path::PathBuf;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use futures::TryStreamExt;
use object_store::path::Path;

use super::batch::Loaded;
use super::discover::Source;
use super::memo::{self, Origin};
use super::options::FilesOptions;
use super::owner;
use super::part::{SOURCE_FILE, with_ours, without_ours};
use super::seen::{Seen, Stamp, hash_of};
use super::telegram;
use crate::clock::{Clock, Timestamp};
use crate::error::{Context, ErrorKind, Result};
use crate::load::updates;
use crate::pipeline::files::PayloadType;
use crate::storage::Storage;
use crate::table::{
    Commit, CommitOutcome, DataFile, Fence, Identity, LakeTable, Stager, TableRole, TableSpec, Tail, TailStep, TxnId,
};

/// What the ledger is about, and where it is.
#[derive(Clone, Debug)]
pub(super) struct LedgerOptions {
    pub(super) data: Storage,
    pub(super) table: Path,
    /// The name of the source.
    pub(super) source: String,
    /// How whole records are kept, if they are.
    pub(super) payload: Option<PayloadType>,
    /// The columns of the table, if the records are Telegram updates.
    pub(super) updates: Option<SchemaRef>,
    pub(super) memo: PathBuf,
    pub(super) clock: Clock,
    /// What the table says about itself if it is the loader's own.
    pub(super) identity: Identity,
}

/// The table, and the files it has rows from.
#[derive(Debug)]
pub(super) struct FilesLedger {
    options: LedgerOptions,
    table: LakeTable,
    pub(super) seen: Seen,
    fence: i64,
    /// Whether the table says that it is the loader's own. One of an earlier release does not.
    is_identified: bool,
    /// Whether the memo has everything that is known.
    is_remembered: bool,
}

/// How the commit of a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The rows are in the table, in this version.
    Committed(i64),
    /// There were none.
    Empty,
    /// Another process has loaded some of the files: find out again which are left.
    Overtaken,
}

impl LedgerOptions {
    /// Of a loader with this source.
    ///
    /// # Errors
    /// Configuration when `bronze.table` is not a path.
    pub(super) fn new(options: &FilesOptions, source: &Source) -> Result<Self> {
        let FilesOptions { data, pipeline, schema, checkpoints, clock, .. } = options;
        let table = Path::parse(&pipeline.bronze.table);
        Ok(Self {
            table: table.context(ErrorKind::Configuration, format!("bronze.table `{}`", pipeline.bronze.table))?,
            source: source.name.clone(),
            payload: pipeline.bronze.payload_column(),
            updates: schema.clone(),
            memo: memo::path_of(checkpoints, pipeline.name.as_str()),
            clock: clock.clone(),
            data: data.clone(),
            identity: owner::identity(&pipeline.name, source),
        })
    }
}

impl FilesLedger {
    /// Opens the ledger; `None` if there is no table yet and its columns are unknown.
    ///
    /// # Errors
    /// When the table cannot be opened or the store fails.
    pub(super) async fn open(options: &LedgerOptions) -> Result<Option<Self>> {
        if let Some(schema) = &options.updates {
            let stats_columns = telegram::STATS_COLUMNS.map(str::to_owned).to_vec();
            let spec =
                TableSpec { path: options.table.clone(), schema: SchemaRef::clone(schema), stats_columns, id: None };
            let table = open_own(options, &spec).await?;
            updates::check(options.table.as_ref(), &table.schema())?;
            return Self::learn(options.clone(), table).await.map(Some);
        }
        let Some(table) = Self::table(options).await? else { return Ok(None) };
        owner::check(&table, &options.identity)?;
        Self::learn(options.clone(), table).await.map(Some)
    }

    /// The table as it is, whoever it belongs to; `None` if there is none.
    ///
    /// # Errors
    /// When the store fails or the log is not understood.
    pub(super) async fn table(options: &LedgerOptions) -> Result<Option<LakeTable>> {
        LakeTable::open_existing(&options.data, &options.table, &options.clock).await
    }

    /// Opens the table as it is, whoever it belongs to, to look at it; `None` if there is none.
    ///
    /// # Errors
    /// As [`FilesLedger::table`].
    pub(super) async fn open_any(options: &LedgerOptions) -> Result<Option<Self>> {
        match Self::table(options).await? {
            Some(table) => Self::learn(options.clone(), table).await.map(Some),
            None => Ok(None),
        }
    }

    /// Creates the table with these record columns, or opens it if another process just created it.
    ///
    /// # Errors
    /// As [`FilesLedger::open`].
    pub(super) async fn create(options: &LedgerOptions, columns: &SchemaRef) -> Result<Self> {
        let stats_columns = vec!["_ingested_at".to_owned()];
        let schema = with_ours(columns, options.payload);
        let spec = TableSpec { path: options.table.clone(), schema, stats_columns, id: None };
        Self::learn(options.clone(), open_own(options, &spec).await?).await
    }

    async fn learn(options: LedgerOptions, table: LakeTable) -> Result<Self> {
        let fence = table.fence(TableRole::Bronze);
        let (seen, is_remembered) = match remember(&options, &table).await? {
            Some(seen) => (seen, true),
            None => (read_all(&table).await?, false),
        };
        tracing::info!(table = %options.table, files = seen.len(), "knows the files that are loaded");
        let is_identified = table.identity()?.is_some();
        Ok(Self { options, table, seen, fence, is_identified, is_remembered })
    }

    /// The columns of the records; for updates, those of the table.
    pub(super) fn columns(&self) -> SchemaRef {
        if self.options.updates.is_some() {
            return self.table.schema();
        }
        without_ours(&self.table.schema(), self.options.payload.is_some())
    }

    pub(super) fn stager(&self) -> Stager {
        self.table.stager()
    }

    /// If files changed before some time are left out: that time.
    pub(super) fn from(&self) -> Option<Timestamp> {
        self.table.progress().get(&TxnId::SourceFrom).copied().map(Timestamp::from_micros)
    }

    /// Leaves out, for good, files that were last changed before this time.
    ///
    /// # Errors
    /// As [`FilesLedger::commit`].
    pub(super) async fn begin_at(&mut self, moment: Timestamp) -> Result<Ended> {
        let progress = [(TxnId::SourceFrom, moment.as_micros())];
        self.append(&Loaded::default(), &progress).await
    }

    /// Commits a batch: all of it or nothing.
    ///
    /// # Errors
    /// When the store fails or the table no longer matches. The rows may be in the table all the same; the next commit
    /// is then fenced and finds out.
    pub(super) async fn commit(&mut self, loaded: &Loaded) -> Result<Ended> {
        if !loaded.staged.is_empty() {
            return self.append(loaded, &[]).await;
        }
        self.remember_files(loaded);
        Ok(Ended::Empty)
    }

    async fn append(&mut self, loaded: &Loaded, progress: &[(TxnId, i64)]) -> Result<Ended> {
        self.identify_if_unnamed().await?;
        loop {
            let fence = Fence { role: TableRole::Bronze, seen: self.fence };
            match self.table.append_staged(&fence, progress, &loaded.staged).await? {
                CommitOutcome::Committed { version } | CommitOutcome::AlreadyCommitted { version } => {
                    self.fence += self.table.fence_step(TableRole::Bronze);
                    self.remember_files(loaded);
                    return Ok(Ended::Committed(version));
                }
                CommitOutcome::Fenced { commits } => {
                    let theirs = self.take_in(&commits).await?;
                    if loaded.files.iter().any(|file| theirs.contains(file.path.as_ref())) {
                        return Ok(Ended::Overtaken);
                    }
                }
                CommitOutcome::Stale => {
                    self.reopen().await?;
                    return Ok(Ended::Overtaken);
                }
            }
        }
    }

    /// Has the table say whose it is, if it does not yet.
    async fn identify_if_unnamed(&mut self) -> Result<()> {
        if self.is_identified {
            return Ok(());
        }
        self.table.refresh().await?;
        owner::check(&self.table, &self.options.identity)?;
        let step = self.table.fence_step(TableRole::Bronze);
        let is_ours = self.table.identify_if_unnamed(&self.options.identity).await?;
        // Another loader may have been faster.
        owner::check(&self.table, &self.options.identity)?;
        // If others have committed as well, the next append is fenced and takes that in.
        if is_ours && self.table.fence(TableRole::Bronze) == self.fence + step {
            self.fence += step;
        }
        self.is_identified = true;
        Ok(())
    }

    fn remember_files(&mut self, loaded: &Loaded) {
        self.is_remembered &= loaded.files.is_empty();
        for file in &loaded.files {
            self.seen.insert(hash_of(file.path.as_ref()), Stamp::of(file.size_bytes, file.modified));
        }
    }

    /// Learns which files another process has loaded, and returns them.
    async fn take_in(&mut self, commits: &[Commit]) -> Result<HashSet<String>> {
        // Somebody may have adopted the table for another loader.
        owner::check(&self.table, &self.options.identity)?;
        tracing::info!(commits = commits.len(), "another process is loading this pipeline too");
        let files: Vec<DataFile> = commits.iter().flat_map(|commit| commit.added.iter().cloned()).collect();
        let mut theirs = HashSet::new();
        let mut reads = self.table.read_files(&files, Some(&[SOURCE_FILE]));
        while let Some(rows) = reads.try_next().await? {
            each_file(&rows, |file| {
                theirs.insert(file.to_owned());
            });
        }
        drop(reads);
        self.is_remembered &= theirs.is_empty();
        theirs.iter().for_each(|file| self.seen.insert(hash_of(file), Stamp::UNKNOWN));
        self.fence = self.table.fence(TableRole::Bronze);
        Ok(theirs)
    }

    async fn reopen(&mut self) -> Result<()> {
        tracing::info!(table = %self.options.table, "reopening the table: what is known about it may be stale");
        if let Some(fresh) = Self::open(&self.options).await? {
            *self = fresh;
        }
        Ok(())
    }

    /// Saves which files are loaded, for the next start, if there is anything new.
    ///
    /// # Errors
    /// Unavailable when the folder cannot be written; nothing is lost by that.
    pub(super) async fn write_memo(&mut self) -> Result<()> {
        if self.is_remembered || self.seen.len() == 0 {
            return Ok(());
        }
        let Some(origin) = origin(&self.options, &self.table, self.table.version()).await? else { return Ok(()) };
        tokio::task::block_in_place(|| memo::write(&self.options.memo, &origin, &self.seen))?;
        self.is_remembered = true;
        Ok(())
    }
}

/// Opens the table with what `spec` asks for, or creates it, if it is the loader's own.
async fn open_own(options: &LedgerOptions, spec: &TableSpec) -> Result<LakeTable> {
    let table = match FilesLedger::table(options).await? {
        Some(table) => table,
        None => LakeTable::create(&options.data, spec, Some(&options.identity), &options.clock).await?,
    };
    owner::check(&table, &options.identity)?;
    table.fitted(spec).await
}

/// The header of a memo for this version of the table.
async fn origin(options: &LedgerOptions, table: &LakeTable, version: i64) -> Result<Option<Origin>> {
    let Some(commit_id) = table.commit_id(version).await? else { return Ok(None) };
    Ok(Some(Origin { table_id: table.table_id().to_owned(), version, commit_id, source: options.source.clone() }))
}

/// The files in the memo and those of every commit since; `None` when the memo is of no use.
async fn remember(options: &LedgerOptions, table: &LakeTable) -> Result<Option<Seen>> {
    let path = options.memo.clone();
    let Some((saved, mut seen)) = tokio::task::block_in_place(|| memo::read(&path)) else { return Ok(None) };
    if saved.version > table.version() || origin(options, table, saved.version).await? != Some(saved.clone()) {
        tracing::info!(path = %path.display(), "the saved set does not match the table; reading the table instead");
        return Ok(None);
    }
    let mut tail = Tail::new(&options.data, &options.table, saved.version, &[SOURCE_FILE], &options.clock);
    while tail.version() < table.version() {
        match tail.next().await? {
            TailStep::Rows { batches, .. } => {
                batches.iter().for_each(|rows| each_file(rows, |file| seen.insert(hash_of(file), Stamp::UNKNOWN)));
            }
            // The head exists, so nothing before it may be missing. What was rewritten is read from the table.
            TailStep::AtHead | TailStep::Lost | TailStep::Replaced | TailStep::Rewritten { .. } => return Ok(None),
        }
    }
    Ok(Some(seen))
}

/// The files that the table has rows from.
async fn read_all(table: &LakeTable) -> Result<Seen> {
    let (files, mut seen) = (table.files().await?, Seen::default());
    let mut reads = table.read_files(&files, Some(&[SOURCE_FILE]));
    while let Some(rows) = reads.try_next().await? {
        each_file(&rows, |file| seen.insert(hash_of(file), Stamp::UNKNOWN));
    }
    Ok(seen)
}

/// Calls `take` for the source files of rows, once per run of equal ones.
fn each_file(rows: &RecordBatch, mut take: impl FnMut(&str)) {
    let Some(files) = rows.column_by_name(SOURCE_FILE).and_then(|column| column.as_string_opt::<i32>()) else { return };
    let mut last = None;
    for file in files.iter().flatten() {
        if last != Some(file) {
            take(file);
            last = Some(file);
        }
    }
}
