//! A stage's own table as its ledger: what is done, and the commits that record more, each exactly once.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::stream::BoxStream;
use object_store::path::Path;
use serde_json::Value;

use crate::clock::Clock;
use crate::error::{ErrorKind, Result};
use crate::retry::Backoff;
use crate::storage::Storage;
use crate::table::{Append, Commit, CommitOutcome, DataFile, Fence, LakeTable, TableRole, TableSpec, TxnId};

/// A row that a stage writes once.
pub(crate) trait LedgerRow: Sized + Send + Sync {
    /// What names it: no second row of the same key is written.
    type Key: Clone + Eq + Hash + Send + Sync + fmt::Debug;
    /// What is worth knowing of a row that is there.
    type State: Copy + Send + Sync + fmt::Debug;
    /// What is read back of the table.
    const COLUMNS: &'static [&'static str];
    /// The column with the version of the table before that a row was made from.
    const VERSION_COLUMN: &'static str;

    fn key(&self) -> Self::Key;
    fn state(&self) -> Self::State;
    /// The version of the table before that it was made from.
    fn version(&self) -> i64;
    /// Rows as a batch of a table with `schema`; columns that are not the stage's are null.
    fn to_batch(schema: &SchemaRef, rows: &[Self]) -> Result<RecordBatch>;
    /// What a batch of the table says.
    fn known(batch: &RecordBatch) -> Result<Vec<Known<Self>>>;
}

/// A row that is there. Without a version it may be of any.
#[derive(Clone, Debug)]
pub(crate) struct Known<R: LedgerRow> {
    pub(crate) key: R::Key,
    pub(crate) state: R::State,
    pub(crate) version: Option<i64>,
}

/// What a commit came to.
#[derive(Debug)]
pub(crate) struct Recorded<R> {
    /// A version at which all the rows are there, when there were rows.
    pub(crate) version: Option<i64>,
    /// The rows that are ours; the others another process had written first, or an earlier try of ours of which nobody
    /// knew whether it had succeeded.
    pub(crate) rows: Vec<R>,
}

/// The table, opened by the stage that appends to it.
#[derive(Debug)]
pub(crate) struct Ledger<R: LedgerRow> {
    storage: Storage,
    spec: TableSpec,
    clock: Clock,
    table: LakeTable,
    role: TableRole,
    watermark_id: TxnId,
    seen: i64,
    /// Up to this version our own work is done and forgotten. Not the table's watermark: another process may have moved
    /// that past rows we have under way, and what became of those we must know.
    forgotten_to: i64,
    /// What is there, of versions above it.
    known: HashMap<R::Key, R::State>,
    /// The same by version.
    by_version: BTreeMap<i64, Vec<R::Key>>,
    /// Commits that the handle has passed and whose rows could not be read yet. The handle does not tell them again.
    unlearned: Vec<Commit>,
}

impl<R: LedgerRow> Ledger<R> {
    /// Opens the table and learns what is there; the files it has come along. `upstream` is the folder of the upstream
    /// table.
    pub(crate) async fn open(
        storage: &Storage,
        spec: TableSpec,
        role: TableRole,
        upstream: &Path,
        clock: &Clock,
    ) -> Result<(Self, Vec<DataFile>)> {
        let upstream = LakeTable::open_existing(storage, upstream, clock).await?;
        let upstream = upstream.map_or_else(|| "none".to_owned(), |table| table.table_id().to_owned());
        let (table, files) = LakeTable::open_with_files(storage, &spec, clock).await?;
        // Opened again it has to be the same table.
        let spec = TableSpec { id: Some(table.table_id().to_owned()), ..spec };
        let watermark_id = TxnId::Watermark { role, upstream };
        let mut ledger = Self {
            storage: storage.clone(),
            spec,
            clock: clock.clone(),
            role,
            seen: 0,
            forgotten_to: table.txn(&watermark_id).unwrap_or(-1),
            watermark_id,
            known: HashMap::new(),
            by_version: BTreeMap::new(),
            unlearned: Vec::new(),
            table,
        };
        ledger.learn(&files).await?;
        Ok((ledger, files))
    }

    /// The version of the table before up to which everything is done, by whoever did it.
    pub(crate) fn watermark(&self) -> i64 {
        self.table.txn(&self.watermark_id).unwrap_or(-1)
    }

    /// What is known of a row that our own work has not passed.
    pub(crate) fn get(&self, key: &R::Key) -> Option<R::State> {
        self.known.get(key).copied()
    }

    /// Reads what other processes have recorded.
    pub(crate) async fn refresh(&mut self) -> Result<()> {
        if self.table.is_stale() {
            return self.reopen().await.map(drop);
        }
        let commits = self.table.refresh().await?;
        self.take_in(commits).await
    }

    /// The files of the table as it is now. Opens it anew: whoever asks has met a gap in the table before, and what
    /// this handle stands on may be gone as well.
    pub(crate) async fn files_anew(&mut self) -> Result<Vec<DataFile>> {
        self.reopen().await
    }

    /// The columns of [`LedgerRow::COLUMNS`] of one file.
    pub(crate) async fn read(&self, file: &DataFile) -> Result<RecordBatch> {
        self.table.read_file(file, Some(R::COLUMNS)).await
    }

    /// The same of many files, in their order.
    pub(crate) fn read_all<'a>(&'a self, files: &'a [DataFile]) -> BoxStream<'a, Result<RecordBatch>> {
        self.table.read_files(files, Some(R::COLUMNS))
    }

    /// Appends rows, and the watermark, in one commit. A row that another process has written first stays as it is
    /// there. What fails for the moment is tried again.
    pub(crate) async fn record(&mut self, mut rows: Vec<R>, watermark: i64) -> Result<Recorded<R>> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let had_rows = !rows.is_empty();
        loop {
            rows.retain(|row| self.get(&row.key()).is_none());
            let progress = (watermark > self.watermark()).then(|| (self.watermark_id.clone(), watermark));
            if rows.is_empty() && progress.is_none() {
                self.forget_to(watermark);
                return Ok(Recorded { version: had_rows.then(|| self.table.version()), rows });
            }
            match self.append(&rows, progress.into_iter().collect()).await {
                Ok(Some(version)) => {
                    for row in &rows {
                        self.remember(Known { key: row.key(), state: row.state(), version: Some(row.version()) });
                    }
                    self.forget_to(watermark);
                    return Ok(Recorded { version: had_rows.then_some(version), rows });
                }
                Ok(None) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown) => {
                    tracing::warn!(%error, "rows could not be recorded; trying again");
                    self.clock.sleep(backoff.next_delay()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One append; `None` when what is known has changed and the plan must be made again.
    async fn append(&mut self, rows: &[R], progress: Vec<(TxnId, i64)>) -> Result<Option<i64>> {
        let rows = match rows {
            [] => None,
            rows => Some(R::to_batch(&self.table.schema(), rows)?),
        };
        let fence = Fence { role: self.role, seen: self.seen };
        match self.table.append(Append { rows, fence, progress }).await? {
            CommitOutcome::Committed { version } | CommitOutcome::AlreadyCommitted { version } => {
                self.seen += self.table.fence_step(self.role);
                Ok(Some(version))
            }
            CommitOutcome::Fenced { commits } => {
                self.take_in(commits).await?;
                Ok(None)
            }
            CommitOutcome::Stale => {
                self.reopen().await?;
                Ok(None)
            }
        }
    }

    /// Opens the table again and learns what is there. Until all of it is known nothing changes: with a part of it the
    /// fence would let rows pass that are there.
    async fn reopen(&mut self) -> Result<Vec<DataFile>> {
        let (table, files) = LakeTable::open_with_files(&self.storage, &self.spec, &self.clock).await?;
        let mut ledger = Self {
            table,
            storage: self.storage.clone(),
            spec: self.spec.clone(),
            clock: self.clock.clone(),
            role: self.role,
            watermark_id: self.watermark_id.clone(),
            seen: 0,
            forgotten_to: self.forgotten_to,
            known: HashMap::new(),
            by_version: BTreeMap::new(),
            unlearned: Vec::new(),
        };
        ledger.learn(&files).await?;
        *self = ledger;
        Ok(files)
    }

    /// Learns what these commits have brought, and the ones before them that could not be read. Only then is what was
    /// seen of the fence raised.
    async fn take_in(&mut self, commits: Vec<Commit>) -> Result<()> {
        self.unlearned.extend(commits);
        let files: Vec<DataFile> = self.unlearned.iter().flat_map(|commit| commit.added.iter().cloned()).collect();
        for file in &files {
            match self.learn_file(file).await {
                // Whoever has slept for days is told of files that were merged and cleaned away since. If it is one
                // that should be there, opening fails as well.
                Err(error) if error.kind() == ErrorKind::Corrupt => return self.reopen().await.map(drop),
                learned => learned?,
            }
        }
        self.unlearned.clear();
        self.seen = self.table.fence(self.role);
        Ok(())
    }

    /// Learns what is there from the files that may hold rows we have not forgotten.
    async fn learn(&mut self, files: &[DataFile]) -> Result<()> {
        for file in files {
            let newest = file.max_values.get(R::VERSION_COLUMN).and_then(Value::as_i64);
            if newest.is_none_or(|newest| newest > self.forgotten_to) {
                self.learn_file(file).await?;
            }
        }
        self.seen = self.table.fence(self.role);
        Ok(())
    }

    async fn learn_file(&mut self, file: &DataFile) -> Result<()> {
        let batch = self.read(file).await?;
        R::known(&batch)?.into_iter().for_each(|known| self.remember(known));
        Ok(())
    }

    fn remember(&mut self, known: Known<R>) {
        let version = known.version.unwrap_or(i64::MAX);
        if version > self.forgotten_to && self.known.insert(known.key.clone(), known.state).is_none() {
            self.by_version.entry(version).or_default().push(known.key);
        }
    }

    fn forget_to(&mut self, version: i64) {
        self.forgotten_to = self.forgotten_to.max(version);
        let above = self.by_version.split_off(&(self.forgotten_to + 1));
        for key in std::mem::replace(&mut self.by_version, above).into_values().flatten() {
            self.known.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::table::maintain::{MaintainOptions, maintain};

    #[derive(Debug)]
    struct Row(i64);

    impl LedgerRow for Row {
        type Key = i64;
        type State = ();
        const COLUMNS: &'static [&'static str] = &["id", "version"];
        const VERSION_COLUMN: &'static str = "version";

        fn key(&self) -> i64 {
            self.0
        }

        fn state(&self) {}

        fn version(&self) -> i64 {
            7
        }

        fn to_batch(schema: &SchemaRef, rows: &[Self]) -> Result<RecordBatch> {
            let ids = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
            let versions = Int64Array::from_iter_values(rows.iter().map(Row::version));
            Ok(RecordBatch::try_new(Arc::clone(schema), vec![Arc::new(ids), Arc::new(versions)]).unwrap())
        }

        fn known(batch: &RecordBatch) -> Result<Vec<Known<Self>>> {
            let ids = batch.column(0).as_primitive::<Int64Type>().values();
            Ok(ids.iter().map(|id| Known { key: *id, state: (), version: Some(7) }).collect())
        }
    }

    async fn open(storage: &Storage, clock: &Clock) -> Ledger<Row> {
        let field = |name| Field::new(name, DataType::Int64, true);
        let schema = Arc::new(Schema::new(vec![field("id"), field("version")]));
        let spec = TableSpec { path: Path::from("t"), schema, stats_columns: vec!["version".to_owned()], id: None };
        Ledger::open(storage, spec, TableRole::Silver, &Path::from("upstream"), clock).await.unwrap().0
    }

    #[tokio::test]
    async fn rows_that_are_there_already_are_told_of_with_a_version_that_has_them() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let (mut one, mut two) = (open(&storage, &clock).await, open(&storage, &clock).await);
        assert_eq!(one.record(vec![Row(1)], -1).await.unwrap().version, Some(1));
        let recorded = two.record(vec![Row(1)], -1).await.unwrap();
        assert_eq!((recorded.rows.len(), recorded.version), (0, Some(1)));
        assert_eq!(two.record(Vec::new(), -1).await.unwrap().version, None);
    }

    /// Takes the newest data file away and gives it back when told to.
    async fn without_the_file<'a>(storage: &'a Storage, ledger: &Ledger<Row>) -> impl AsyncFnOnce() + use<'a> {
        let file = ledger.table.files().await.unwrap().remove(0);
        let path = file.location(&Path::from("t")).unwrap();
        let bytes = storage.get(&path).await.unwrap().unwrap();
        storage.delete(&path).await.unwrap();
        async move || {
            storage.put_new(&path, bytes).await.unwrap();
        }
    }

    #[tokio::test]
    async fn news_that_could_not_be_read_are_not_taken_for_known() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let (mut one, mut two) = (open(&storage, &clock).await, open(&storage, &clock).await);
        one.record(vec![Row(1)], -1).await.unwrap();
        let give_back = without_the_file(&storage, &one).await;
        assert!(two.refresh().await.is_err());
        give_back().await;
        two.refresh().await.unwrap();
        assert_eq!(two.get(&1), Some(()), "a sender would send what another has sent");
    }

    #[tokio::test]
    async fn files_that_were_merged_and_cleaned_away_since_are_learned_from_what_they_became() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let (mut one, mut two) = (open(&storage, &clock).await, open(&storage, &clock).await);
        for id in [1, 2] {
            one.record(vec![Row(id)], -1).await.unwrap();
        }
        // No checkpoint, so that the log still tells of every file.
        let options = MaintainOptions { compact_at_files: 2, checkpoint_every: 100, ..MaintainOptions::default() };
        let mut vacuumed = 0;
        for _ in 0..2 {
            clock.step(8 * 86_400_000_000);
            let done = maintain(&storage, &Path::from("t"), &options, &clock, &CancellationToken::new()).await;
            vacuumed += done.unwrap().unwrap().1.files_vacuumed;
        }
        assert_eq!(vacuumed, 2);
        two.refresh().await.unwrap();
        assert_eq!((two.get(&1), two.get(&2), two.get(&3)), (Some(()), Some(()), None));
    }

    #[tokio::test]
    async fn a_reopening_that_fails_half_way_forgets_nothing() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let mut ledger = open(&storage, &clock).await;
        ledger.record(vec![Row(1)], -1).await.unwrap();
        let give_back = without_the_file(&storage, &ledger).await;
        assert!(ledger.files_anew().await.is_err());
        give_back().await;
        // Seen first as seed 283: the fence passed, and the row was there twice.
        assert!(ledger.record(vec![Row(1)], -1).await.unwrap().rows.is_empty());
        assert_eq!(ledger.table.files().await.unwrap().len(), 1);
    }
}
