//! A stage's own table as its ledger: what is done, and the commits that record more, each exactly once.
//!
//! What is done is kept as a set of keys, a few bits each. Files that existed at the start are only read when a key may
//! be in them, according to the bounds of `update_id` in the log: new updates have ids that no file covers.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::TryStreamExt;

use super::SMALL_FILE_BYTES;
use super::key::{KeySet, UpdateKey};
pub(crate) use super::row::{ExistingRow, LedgerRow, Parts, Recorded};
use super::unread::Unread;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::retry::Backoff;
use crate::storage::Storage;
use crate::table::{Append, Commit, CommitOutcome, DataFile, Fence, LakeTable, TableRole, TableSpec, TxnId, Within};

/// Files that are read side by side where many are.
const READ_TOGETHER: usize = 64;

/// What a ledger is for.
pub(crate) struct LedgerOptions<R: LedgerRow> {
    pub(crate) storage: Storage,
    pub(crate) spec: TableSpec,
    /// The stage that appends to the table.
    pub(crate) role: TableRole,
    /// Whether an update with these rows will not get any more.
    pub(crate) settles: fn(&Parts<R>) -> bool,
    pub(crate) clock: Clock,
}

impl<R: LedgerRow> Clone for LedgerOptions<R> {
    fn clone(&self) -> Self {
        let Self { storage, spec, role, settles, clock } = self;
        let (storage, spec, clock) = (storage.clone(), spec.clone(), clock.clone());
        Self { storage, spec, role: *role, settles: *settles, clock }
    }
}

/// An update in progress, or one whose rows are incomplete.
struct Item<R: LedgerRow> {
    rows: Vec<(R::Part, R::State)>,
    is_under_way: bool,
}

/// The table, opened by the stage that appends to it.
pub(crate) struct Ledger<R: LedgerRow> {
    options: LedgerOptions<R>,
    table: LakeTable,
    /// The fence value that the knowledge is based on.
    seen: i64,
    items: HashMap<UpdateKey, Item<R>>,
    done: KeySet,
    /// Files of the table as it was opened.
    unread: Vec<Unread>,
    /// Commits that the handle has passed and whose rows could not be read yet. The handle does not report them again.
    unlearned: Vec<Commit>,
}

impl<R: LedgerRow> fmt::Debug for Ledger<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ledger").field("table", &self.options.spec.path).finish_non_exhaustive()
    }
}

impl<R: LedgerRow> Ledger<R> {
    /// Opens the table with its files. None of them is read.
    pub(crate) async fn open(mut options: LedgerOptions<R>) -> Result<(Self, Vec<DataFile>)> {
        let (table, files) = LakeTable::open_with_files(&options.storage, &options.spec, &options.clock).await?;
        // Opened again it has to be the same table.
        options.spec.id = Some(table.table_id().to_owned());
        Ok((Self::at(options, table, &files), files))
    }

    fn at(options: LedgerOptions<R>, table: LakeTable, files: &[DataFile]) -> Self {
        Self {
            seen: table.fence(options.role),
            items: HashMap::new(),
            done: KeySet::default(),
            unread: files.iter().map(Unread::new).collect(),
            unlearned: Vec::new(),
            options,
            table,
        }
    }

    /// The version of the upstream table with this id up to which everything is done, by any process; `None` if nothing
    /// is known about that table.
    pub(crate) fn watermark(&self, upstream: &str) -> Option<i64> {
        self.table.txn(&self.watermark_id(upstream))
    }

    fn watermark_id(&self, upstream: &str) -> TxnId {
        TxnId::Watermark { role: self.options.role, upstream: upstream.to_owned() }
    }

    /// Whether all rows of these updates exist. Reads the files that may have some, once each; transient errors are
    /// retried.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub(crate) async fn are_done(&mut self, keys: &[UpdateKey]) -> Result<Vec<bool>> {
        self.learn_of(keys).await?;
        Ok(keys.iter().map(|key| self.done.contains(key)).collect())
    }

    /// From now on an update is in progress: its existing rows are kept in memory until [`Self::end`]. It must have
    /// been requested with [`Self::are_done`].
    pub(crate) fn begin(&mut self, key: UpdateKey) {
        let item = self.items.entry(key).or_insert_with(|| Item { rows: Vec::new(), is_under_way: true });
        item.is_under_way = true;
    }

    /// An update is no longer in progress.
    pub(crate) fn end(&mut self, key: &UpdateKey) {
        let Some(item) = self.items.get_mut(key) else { return };
        item.is_under_way = false;
        if item.rows.is_empty() || (self.options.settles)(&item.rows) {
            self.items.remove(key);
        }
    }

    /// Releases memory beyond what is in use or was asked for.
    pub(crate) fn shrink_to(&mut self, capacity: usize) {
        self.items.shrink_to(capacity);
    }

    /// How many updates fit without more memory.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.items.capacity()
    }

    /// What is known about a row of an update in progress.
    pub(crate) fn get(&self, key: &UpdateKey, part: R::Part) -> Option<R::State> {
        let rows = &self.items.get(key)?.rows;
        rows.iter().find(|(there, _)| *there == part).map(|(_, state)| *state)
    }

    /// What is known about an update in progress.
    pub(crate) fn rows(&self, key: &UpdateKey) -> &Parts<R> {
        self.items.get(key).map_or(&[], |item| &item.rows)
    }

    /// Reads what other processes have recorded. Transient errors are retried.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub(crate) async fn refresh(&mut self) -> Result<()> {
        let mut backoff = backoff();
        loop {
            match self.try_refresh().await {
                Err(error) if error.is_transient() => self.pause(&error, &mut backoff).await,
                outcome => return outcome,
            }
        }
    }

    async fn try_refresh(&mut self) -> Result<()> {
        if self.table.is_stale() {
            return self.reopen().await;
        }
        let commits = self.table.refresh().await?;
        self.take_in(commits).await
    }

    /// Passes every row of these files to `take`, a batch at a time and in no order; large files piece by piece, less
    /// what lies outside `within`.
    ///
    /// # Errors
    /// When a file cannot be read, or as `take`.
    pub(crate) async fn scan(
        &self,
        files: Vec<DataFile>,
        columns: &[&str],
        within: Within<'_>,
        mut take: impl FnMut(&RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let (small, large): (Vec<_>, Vec<_>) = files.into_iter().partition(is_small);
        let mut batches = self.table.read_files(&small, Some(columns));
        while let Some(batch) = batches.try_next().await? {
            take(&batch)?;
        }
        for file in &large {
            let mut scan = self.table.scan(file, columns, Some(within)).await?;
            while let Some(batch) = scan.next().await? {
                take(&batch)?;
            }
        }
        Ok(())
    }

    /// Appends rows, and how far an upstream table is done, in one commit. A row that another process has written first
    /// stays as it is. Transient errors are retried.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub(crate) async fn record(&mut self, mut rows: Vec<R>, upstream: Option<(&str, i64)>) -> Result<Recorded<R>> {
        let mut backoff = backoff();
        let had_rows = !rows.is_empty();
        loop {
            rows.retain(|row| self.get(&row.key(), row.part()).is_none() && !self.done.contains(&row.key()));
            let ahead = upstream.filter(|(id, version)| self.watermark(id).is_none_or(|done| done < *version));
            let progress: Vec<_> = ahead.map(|(id, version)| (self.watermark_id(id), version)).into_iter().collect();
            if rows.is_empty() && progress.is_empty() {
                return Ok(Recorded { version: had_rows.then(|| self.table.version()), rows });
            }
            match self.append(&rows, progress).await {
                Ok(Some(version)) => {
                    for row in &rows {
                        self.remember(ExistingRow { key: row.key(), part: row.part(), state: row.state() });
                    }
                    return Ok(Recorded { version: had_rows.then_some(version), rows });
                }
                Ok(None) => {}
                Err(error) if error.is_transient() => self.pause(&error, &mut backoff).await,
                Err(error) => return Err(error),
            }
        }
    }

    async fn pause(&self, error: &Error, backoff: &mut Backoff) {
        tracing::warn!(%error, table = %self.options.spec.path, "the table is not available; retrying");
        self.options.clock.sleep(backoff.next_delay()).await;
    }

    /// One append; `None` if what is known has changed and the plan must be made again.
    async fn append(&mut self, rows: &[R], progress: Vec<(TxnId, i64)>) -> Result<Option<i64>> {
        let rows = match rows {
            [] => None,
            rows => Some(R::to_batch(&self.table.schema(), rows)?),
        };
        let fence = Fence { role: self.options.role, seen: self.seen };
        match self.table.append(Append { rows, fence, progress }).await? {
            CommitOutcome::Committed { version } | CommitOutcome::AlreadyCommitted { version } => {
                self.seen += self.table.fence_step(self.options.role);
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

    /// Reopens the table and learns the existing rows of the updates in progress. Until all of it is known nothing
    /// changes: with partial knowledge the fence would let existing rows pass.
    ///
    /// # Errors
    /// When the table cannot be read. Corrupt when it is gone, or another table has taken its place.
    pub(crate) async fn reopen(&mut self) -> Result<()> {
        let LedgerOptions { storage, spec, clock, .. } = &self.options;
        let gone = |what: &str| Error::corrupt(format!("table {} {what} while it was in use", spec.path));
        // Opening would create a missing table, which would know nothing about what is done.
        let there = LakeTable::open_existing(storage, &spec.path, clock).await?;
        let there = there.ok_or_else(|| gone("was removed"))?;
        if there.table_id() != self.table.table_id() {
            return Err(gone("was replaced"));
        }
        let (table, files) = LakeTable::open_with_files(storage, spec, clock).await?;
        let mut ledger = Self::at(self.options.clone(), table, &files);
        let under_way = self.items.iter().filter(|(_, item)| item.is_under_way);
        let keys: Vec<UpdateKey> = under_way.map(|(key, _)| *key).collect();
        keys.iter().for_each(|key| ledger.begin(*key));
        ledger.try_learn_of(&keys).await?;
        *self = ledger;
        Ok(())
    }

    /// Learns what these commits have added, and earlier ones that could not be read. Only then is the known fence
    /// value raised.
    async fn take_in(&mut self, commits: Vec<Commit>) -> Result<()> {
        self.unlearned.extend(commits);
        let files: Vec<DataFile> = self.unlearned.iter().flat_map(|commit| commit.added.iter().cloned()).collect();
        for file in &files {
            match self.learn_file(file).await {
                // After sleeping for days, this reports files that were merged and cleaned up since. If a file is
                // missing that should exist, opening fails as well.
                Err(error) if error.kind() == ErrorKind::Corrupt => return self.reopen().await,
                learned => learned?,
            }
        }
        self.unlearned.clear();
        self.seen = self.table.fence(self.options.role);
        Ok(())
    }

    /// Reads the files that may have rows of these updates.
    async fn learn_of(&mut self, keys: &[UpdateKey]) -> Result<()> {
        let mut backoff = backoff();
        let mut reopened_at = None;
        loop {
            // Each time anew: what was known before a reopening is not known after it.
            let unknown: Vec<UpdateKey> = keys.iter().filter(|key| !self.done.contains(key)).copied().collect();
            let outcome = match self.try_learn_of(&unknown).await {
                Ok(()) => return Ok(()),
                // Merged and cleaned up since the table was opened; if not, opening it again does not help.
                Err(error) if error.kind() == ErrorKind::Corrupt && reopened_at != Some(self.table.version()) => {
                    self.reopen().await
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => reopened_at = Some(self.table.version()),
                Err(error) if error.is_transient() => self.pause(&error, &mut backoff).await,
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_learn_of(&mut self, keys: &[UpdateKey]) -> Result<()> {
        for files in self.files_with(keys).chunks(READ_TOGETHER) {
            self.learn_files(files).await?;
            let paths: HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
            self.unread.retain(|unread| !paths.contains(unread.file.path.as_str()));
        }
        Ok(())
    }

    /// Learns what these files say: small ones side by side.
    async fn learn_files(&mut self, files: &[DataFile]) -> Result<()> {
        let (small, large): (Vec<_>, Vec<_>) = files.iter().cloned().partition(is_small);
        let batches: Vec<RecordBatch> = self.table.read_files(&small, Some(R::COLUMNS)).try_collect().await?;
        for batch in &batches {
            self.learn_rows(batch)?;
        }
        for file in &large {
            self.learn_file(file).await?;
        }
        Ok(())
    }

    /// The unread files that may have rows of these updates.
    fn files_with(&self, keys: &[UpdateKey]) -> Vec<DataFile> {
        if self.unread.is_empty() || keys.is_empty() {
            return Vec::new();
        }
        let mut ids: Vec<i64> = keys.iter().map(|key| key.update_id).collect();
        ids.sort_unstable();
        self.unread.iter().filter(|unread| unread.may_hold(&ids)).map(|unread| unread.file.clone()).collect()
    }

    async fn learn_file(&mut self, file: &DataFile) -> Result<()> {
        if is_small(file) {
            let batch = self.table.read_file(file, Some(R::COLUMNS)).await?;
            return self.learn_rows(&batch);
        }
        let mut scan = self.table.scan(file, R::COLUMNS, None).await?;
        while let Some(batch) = scan.next().await? {
            self.learn_rows(&batch)?;
        }
        Ok(())
    }

    fn learn_rows(&mut self, batch: &RecordBatch) -> Result<()> {
        let known = R::known(batch).map_err(|error| error.during(format!("table {}", self.options.spec.path)))?;
        known.into_iter().for_each(|known| self.remember(known));
        Ok(())
    }

    /// Remembers a row. The same row may be added more than once.
    fn remember(&mut self, known: ExistingRow<R>) {
        let ExistingRow { key, part, state } = known;
        let is_done = self.done.contains(&key);
        if is_done && !self.items.contains_key(&key) {
            return;
        }
        let item = self.items.entry(key).or_insert_with(|| Item { rows: Vec::new(), is_under_way: false });
        if item.rows.iter().all(|(there, _)| *there != part) {
            item.rows.push((part, state));
        }
        if (self.options.settles)(&item.rows) {
            self.done.insert(key);
            if !item.is_under_way {
                self.items.remove(&key);
            }
        }
    }
}

fn is_small(file: &DataFile) -> bool {
    file.size_bytes <= SMALL_FILE_BYTES
}

fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(200), Duration::from_secs(10))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use std::collections::BTreeSet;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
    use object_store::path::Path;
    use proptest::prelude::*;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::id::BotId;
    use crate::table::maintain::{MaintainOptions, maintain};

    #[derive(Clone, Debug)]
    struct Row(i64);

    fn key(update_id: i64) -> UpdateKey {
        UpdateKey { bot_id: BotId(1), update_id, attempt: 1 }
    }

    impl LedgerRow for Row {
        type Part = ();
        type State = ();
        const COLUMNS: &'static [&'static str] = &["update_id"];

        fn key(&self) -> UpdateKey {
            key(self.0)
        }

        fn part(&self) {}

        fn state(&self) {}

        fn to_batch(schema: &SchemaRef, rows: &[Self]) -> Result<RecordBatch> {
            let ids = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
            Ok(RecordBatch::try_new(Arc::clone(schema), vec![Arc::new(ids)]).unwrap())
        }

        fn known(batch: &RecordBatch) -> Result<Vec<ExistingRow<Self>>> {
            let ids = batch.column(0).as_primitive::<Int64Type>().values();
            Ok(ids.iter().map(|id| ExistingRow { key: key(*id), part: (), state: () }).collect())
        }
    }

    async fn open(storage: &Storage, clock: &Clock) -> Ledger<Row> {
        let schema = Arc::new(Schema::new(vec![Field::new("update_id", DataType::Int64, true)]));
        let spec = TableSpec { path: Path::from("t"), schema, stats_columns: vec!["update_id".to_owned()], id: None };
        let (storage, clock) = (storage.clone(), clock.clone());
        let settles = |rows: &Parts<Row>| !rows.is_empty();
        Ledger::open(LedgerOptions { storage, spec, role: TableRole::Silver, settles, clock }).await.unwrap().0
    }

    async fn is_done(ledger: &mut Ledger<Row>, id: i64) -> bool {
        ledger.are_done(&[key(id)]).await.unwrap()[0]
    }

    #[tokio::test]
    async fn rows_that_are_there_already_are_told_of_with_a_version_that_has_them() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let (mut one, mut two) = (open(&storage, &clock).await, open(&storage, &clock).await);
        assert_eq!(one.record(vec![Row(1)], None).await.unwrap().version, Some(1));
        let recorded = two.record(vec![Row(1)], None).await.unwrap();
        assert_eq!((recorded.rows.len(), recorded.version), (0, Some(1)));
        assert_eq!(two.record(Vec::new(), None).await.unwrap().version, None);
    }

    #[tokio::test]
    async fn only_files_that_may_hold_an_update_are_read() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let mut writer = open(&storage, &clock).await;
        for id in [10, 20, 30] {
            writer.record(vec![Row(id), Row(id + 5)], None).await.unwrap();
        }
        let mut ledger = open(&storage, &clock).await;
        assert_eq!((is_done(&mut ledger, 40).await, ledger.unread.len()), (false, 3), "new updates cost no reading");
        assert_eq!((is_done(&mut ledger, 22).await, ledger.unread.len()), (false, 2));
        assert_eq!((is_done(&mut ledger, 35).await, ledger.unread.len()), (true, 1));
    }

    #[tokio::test]
    async fn a_watermark_is_that_of_one_upstream_table() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let mut ledger = open(&storage, &clock).await;
        ledger.record(vec![Row(1)], Some(("this", 7))).await.unwrap();
        let ledger = open(&storage, &clock).await;
        assert_eq!((ledger.watermark("this"), ledger.watermark("another")), (Some(7), None));
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
        one.record(vec![Row(1)], None).await.unwrap();
        let give_back = without_the_file(&storage, &one).await;
        // Opened again, the ledger still has the file to read.
        let _unread = two.refresh().await;
        give_back().await;
        two.refresh().await.unwrap();
        assert!(is_done(&mut two, 1).await, "a sender would send what another has sent");
    }

    #[tokio::test]
    async fn files_that_were_merged_and_cleaned_away_since_are_learned_from_what_they_became() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let (mut one, mut two) = (open(&storage, &clock).await, open(&storage, &clock).await);
        for id in [1, 2] {
            one.record(vec![Row(id)], None).await.unwrap();
        }
        let mut three = open(&storage, &clock).await;
        // No checkpoint, so that the log still tells of every file.
        let options = MaintainOptions { compact_at_files: 2, checkpoint_every: 100, ..MaintainOptions::default() };
        let later = MaintainOptions { compact_at_files: usize::MAX, ..options.clone() };
        let mut vacuumed = 0;
        for options in [options, later] {
            clock.step(8 * 86_400_000_000);
            let done = maintain(&storage, &Path::from("t"), &options, &clock, &CancellationToken::new()).await;
            vacuumed += done.unwrap().unwrap().1.files_vacuumed;
            // Known by its own work, in a file of its own, and to be known after it has opened the table again.
            three.record(vec![Row(4)], None).await.unwrap();
        }
        assert_eq!(vacuumed, 2);
        two.refresh().await.unwrap();
        for ledger in [&mut two, &mut three] {
            let done = ledger.are_done(&[key(4), key(1), key(2), key(3)]).await.unwrap();
            assert_eq!(done, [true, true, true, false]);
        }
    }

    #[tokio::test]
    async fn a_reopening_that_fails_half_way_forgets_nothing() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let mut ledger = open(&storage, &clock).await;
        ledger.begin(key(1));
        ledger.record(vec![Row(1)], None).await.unwrap();
        let give_back = without_the_file(&storage, &ledger).await;
        assert!(ledger.reopen().await.is_err());
        give_back().await;
        // Seen first as seed 283: the fence passed, and the row was there twice.
        assert!(ledger.record(vec![Row(1)], None).await.unwrap().rows.is_empty());
        assert_eq!(ledger.table.files().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_table_that_was_replaced_or_removed_is_not_made_again() {
        for is_replaced in [true, false] {
            let (storage, clock) = (Storage::memory(), Clock::system());
            let mut ledger = open(&storage, &clock).await;
            ledger.record(vec![Row(1)], None).await.unwrap();
            for object in storage.list_after(&Path::from("t"), None, 100).await.unwrap() {
                storage.delete(&object.location).await.unwrap();
            }
            if is_replaced {
                open(&storage, &clock).await;
            }
            let error = ledger.reopen().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert_eq!(storage.list_after(&Path::from("t"), None, 100).await.unwrap().len(), usize::from(is_replaced));
        }
    }

    /// What one of two processes may do next with its ledger, or somebody with the table.
    #[derive(Clone, Debug)]
    enum Step {
        /// It begins those of these updates that are not done.
        Begin(usize, Vec<i64>),
        /// It records what it has begun, and how far it is.
        Record(usize),
        /// It reads what others have recorded.
        Refresh(usize),
        /// It opens the table anew.
        Reopen(usize),
        /// It is started anew.
        Restart(usize),
        /// Files are merged; those that were merged a week before are removed, as is the log up to the checkpoint.
        Maintain,
    }

    fn step() -> impl Strategy<Value = Step> {
        let ids = proptest::collection::vec(0_i64..24, 1..6);
        prop_oneof![
            4 => (0_usize..2, ids).prop_map(|(process, ids)| Step::Begin(process, ids)),
            4 => (0_usize..2).prop_map(Step::Record),
            1 => (0_usize..2).prop_map(Step::Refresh),
            1 => (0_usize..2).prop_map(Step::Reopen),
            1 => (0_usize..2).prop_map(Step::Restart),
            2 => Just(Step::Maintain),
        ]
    }

    /// A process: its ledger, and what it has begun.
    struct Process {
        ledger: Ledger<Row>,
        begun: BTreeSet<i64>,
    }

    impl Process {
        async fn start(storage: &Storage, clock: &Clock) -> Self {
            Self { ledger: open(storage, clock).await, begun: BTreeSet::new() }
        }

        async fn begin(&mut self, ids: &[i64]) {
            let keys: Vec<UpdateKey> = ids.iter().map(|id| key(*id)).collect();
            let done = self.ledger.are_done(&keys).await.unwrap();
            for (id, _) in ids.iter().zip(done).filter(|(_, is_done)| !is_done) {
                self.ledger.begin(key(*id));
                self.begun.insert(*id);
            }
        }

        /// Returns what it recorded itself.
        async fn record(&mut self) -> Vec<i64> {
            let rows = self.begun.iter().map(|id| Row(*id)).collect();
            let recorded = self.ledger.record(rows, None).await.unwrap();
            std::mem::take(&mut self.begun).iter().for_each(|id| self.ledger.end(&key(*id)));
            recorded.rows.iter().map(|row| row.0).collect()
        }
    }

    async fn interleave(steps: Vec<Step>) -> std::result::Result<(), TestCaseError> {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let mut processes = [Process::start(&storage, &clock).await, Process::start(&storage, &clock).await];
        let options = MaintainOptions { compact_at_files: 2, checkpoint_every: 2, ..MaintainOptions::default() };
        let mut recorded = BTreeSet::new();
        for step in steps {
            match step {
                Step::Begin(process, ids) => processes[process].begin(&ids).await,
                Step::Record(process) => {
                    for id in processes[process].record().await {
                        prop_assert!(recorded.insert(id), "{id} is recorded a second time");
                    }
                }
                Step::Refresh(process) => processes[process].ledger.refresh().await.unwrap(),
                Step::Reopen(process) => processes[process].ledger.reopen().await.unwrap(),
                Step::Restart(process) => processes[process] = Process::start(&storage, &clock).await,
                Step::Maintain => {
                    maintain(&storage, &Path::from("t"), &options, &clock, &CancellationToken::new()).await.unwrap();
                    clock.step(8 * 86_400_000_000);
                }
            }
        }
        for Process { ledger, .. } in &mut processes {
            ledger.refresh().await.unwrap();
            for id in 0..24 {
                prop_assert_eq!(is_done(ledger, id).await, recorded.contains(&id), "update {}", id);
            }
        }
        let table = &processes[0].ledger.table;
        let mut rows = Vec::new();
        for file in table.files().await.unwrap() {
            let batch = table.read_file(&file, None).await.unwrap();
            rows.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
        }
        rows.sort_unstable();
        prop_assert_eq!(rows, recorded.into_iter().collect::<Vec<_>>());
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// However two processes and maintenance interleave, the table has each recorded row once, and a ledger that
        /// has read to the head knows exactly those.
        #[test]
        fn a_row_is_recorded_once_and_known_to_every_ledger(steps in proptest::collection::vec(step(), 0..40)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(interleave(steps))?;
        }
    }
}
