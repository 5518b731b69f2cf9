//! Reads a table forward: its log as a stream of rows.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;

use super::head::{FRESH, Moment};
use super::landmark::{Landmarks, LogComparison};
use super::log::Action;
use super::scan::{Part, Scan};
use super::snapshot::{LogObject, TableLog, Want, digest};
use super::{Commit, DataFile, columns, parquet};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::storage::Storage;

/// Files of one commit that are read at the same time.
const READ_AHEAD: usize = 4;

/// The next step of a tail.
#[derive(Clone, Debug)]
pub enum TailStep {
    /// A commit. It may have no rows.
    Rows {
        /// The version.
        version: i64,
        /// Its new rows, a batch per file, with the requested columns.
        batches: Vec<RecordBatch>,
    },
    /// A commit that also removed rows: those it added may have been seen before. It may have rewritten the whole
    /// table, so its files are not read.
    Rewritten {
        /// The version.
        version: i64,
        /// The files it added; there may be none.
        files: Vec<DataFile>,
    },
    /// Nothing newer yet.
    AtHead,
    /// A version or a file is gone, or the table is shorter than where the tail starts; the rows of the current
    /// snapshot are the work. Repeated until [`Tail::snapshot`] has succeeded.
    Lost,
    /// The same, because another copy of the table has taken its place: versions that were read before may have other
    /// rows now.
    Replaced,
}

/// Reads commits after a version, one at a time, without listing: one GET for a commit and one for each of its files.
#[derive(Debug)]
pub struct Tail {
    log: TableLog,
    version: i64,
    columns: Vec<String>,
    clock: Clock,
    /// The table's id, once it was found. Another table in its place is refused.
    table_id: Option<String>,
    /// The head at which the table was found, until it was looked at.
    found_head: Option<i64>,
    known: Option<FoundTable>,
    /// Whether another copy of the table was noticed, until its snapshot was taken.
    is_replaced: bool,
}

/// How long a tail trusts that it still reads the table it has found.
const VERIFY_EVERY: Duration = Duration::from_secs(30);

/// What is known once the table was found.
#[derive(Debug)]
struct FoundTable {
    schema: SchemaRef,
    /// What was read of its log; `None` until the tail has begun.
    landmarks: Option<Landmarks>,
    /// When the table was last confirmed to be the one that was found.
    verified: Moment,
    /// When the log was last confirmed to reach this far.
    touched: Moment,
}

impl Tail {
    /// A tail of the table at `path` that starts after version `after` (-1: from the first) and reads `columns`.
    pub fn new(storage: &Storage, path: &Path, after: i64, columns: &[&str], clock: &Clock) -> Self {
        Self {
            log: TableLog::new(storage, path),
            version: after,
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            clock: clock.clone(),
            table_id: None,
            found_head: None,
            known: None,
            is_replaced: false,
        }
    }

    /// The id of the table, found the first time; `None` while there is no table.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn table_id(&mut self) -> Result<Option<String>> {
        if self.table_id.is_none() {
            self.found_head = self.find().await?.flatten();
        }
        Ok(self.table_id.clone())
    }

    /// Continues after another version.
    pub(crate) fn start_after(&mut self, version: i64) {
        self.version = version;
        if let Some(known) = &mut self.known {
            known.landmarks = None;
        }
    }

    /// The version that was returned last.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// The next commit.
    ///
    /// # Errors
    /// When the store fails; the same commit comes again. A configuration error when a commit requires an unsupported
    /// table feature.
    pub async fn next(&mut self) -> Result<TailStep> {
        let step = self.step().await?;
        if matches!(step, TailStep::Lost | TailStep::Replaced) {
            // After being found anew, the table says the same until the snapshot was taken.
            self.known = None;
        }
        Ok(step)
    }

    async fn step(&mut self) -> Result<TailStep> {
        let began = Moment::now(&self.clock);
        self.is_replaced = self.is_replaced || !self.verify().await?;
        if self.is_replaced {
            return Ok(TailStep::Replaced);
        }
        let Some(head) = self.find().await? else { return Ok(TailStep::AtHead) };
        let head = head.or(self.found_head.take());
        if head.is_some_and(|head| head < self.version) {
            // Another table than the one that was read is here, or an old copy of it.
            return Ok(TailStep::Lost);
        }
        let version = self.version + 1;
        let path = self.log.commit_path(version);
        let Some((bytes, mark)) = self
            .log
            .storage
            .get_with_mark(&path)
            .await
            .map_err(|error| error.during(format!("read version {version} of table {}", self.log.table)))?
        else {
            return self.nothing_there(version, head, began).await;
        };
        let actions = self.log.parse(version, &bytes)?;
        // Its writer may have died before it was durable, and our reader is about to act on it.
        self.log.storage.persist(&path).await?;
        let schema = self.schema_after(&actions)?;
        let commit = Commit::from_actions(version, &actions);
        let step = if commit.rewritten {
            TailStep::Rewritten { version, files: commit.added }
        } else {
            let Some(batches) = self.read_files(&commit.added, &schema).await? else { return Ok(TailStep::Lost) };
            TailStep::Rows { version, batches }
        };
        self.version = version;
        let read = Landmarks::of(path, version, digest(&bytes), mark);
        let (landmarks, verified) = match self.known.take() {
            Some(FoundTable { landmarks: Some(before), verified, .. }) => (before.passed_to(read), verified),
            Some(FoundTable { verified, .. }) => (read, verified),
            None => (read, began),
        };
        self.known = Some(FoundTable { schema, landmarks: Some(landmarks), verified, touched: began });
        Ok(step)
    }

    /// After [`TailStep::Lost`] or [`TailStep::Replaced`]: the version of the current snapshot and its files, oldest
    /// rows first as far as the log tells; the tail continues after it.
    ///
    /// # Errors
    /// When the store fails or the table is gone.
    pub async fn snapshot(&mut self) -> Result<(i64, Vec<DataFile>)> {
        let touched = Moment::now(&self.clock);
        let snapshot = self.log.snapshot(Want { files: true, at: None }).await?;
        let snapshot = snapshot.ok_or_else(|| Error::corrupt(format!("table {} is gone", self.log.table)))?;
        self.recognize(&snapshot.state.metadata.id)?;
        let version = snapshot.state.version;
        let read = |object: LogObject| Some(Landmarks::of(object.path, version, object.digest?, Some(object.mark)));
        let landmarks = snapshot.newest.and_then(read);
        (self.version, self.is_replaced) = (version, false);
        self.known = Some(FoundTable { schema: snapshot.state.schema, landmarks, verified: touched, touched });
        let mut files: Vec<DataFile> = snapshot.files.into_values().collect();
        files.sort_by(|one, other| (one.modification_millis, &one.path).cmp(&(other.modification_millis, &other.path)));
        Ok((self.version, files))
    }

    /// Finds the table the first time; then the version of its head. `None` while there is no table.
    async fn find(&mut self) -> Result<Option<Option<i64>>> {
        if self.known.is_some() {
            return Ok(Some(None));
        }
        let touched = Moment::now(&self.clock);
        let Some(snapshot) = self.log.snapshot(Want::default()).await? else { return Ok(None) };
        self.recognize(&snapshot.state.metadata.id)?;
        self.known = Some(FoundTable { schema: snapshot.state.schema, landmarks: None, verified: touched, touched });
        Ok(Some(Some(snapshot.state.version)))
    }

    /// Remembers the table's id, and refuses another table in its place.
    fn recognize(&mut self, id: &str) -> Result<()> {
        let found = self.table_id.get_or_insert_with(|| id.to_owned());
        if found == id {
            return Ok(());
        }
        Err(Error::corrupt(format!("table {} was replaced by another one (id {id}, was {found})", self.log.table)))
    }

    /// Checks whether the table is still the one that was found: from time to time, and on a local disk whenever the
    /// last commit is another file. `false` if it is another copy of it, whose commits would be read as if they
    /// continued this one.
    async fn verify(&mut self) -> Result<bool> {
        let began = Moment::now(&self.clock);
        let Some(known) = self.known.as_mut().filter(|_| self.version >= 0) else { return Ok(true) };
        let Some(landmarks) = &mut known.landmarks else {
            known.landmarks = Some(Landmarks::find(&self.log, self.version).await?);
            return Ok(true);
        };
        if known.verified.age(&self.clock) < VERIFY_EVERY && !landmarks.may_have_changed(&self.log).await? {
            return Ok(true);
        }
        let compared = landmarks.check(&self.log).await?;
        if compared == LogComparison::Same {
            known.verified = began;
            return Ok(true);
        }
        let found = Landmarks::find(&self.log, self.version).await?;
        let snapshot = self.log.snapshot(Want::default()).await?;
        let snapshot = snapshot.ok_or_else(|| Error::corrupt(format!("table {} is gone", self.log.table)))?;
        self.recognize(&snapshot.state.metadata.id)?;
        if compared == LogComparison::Rewritten || snapshot.state.version < self.version {
            tracing::error!(
                table = %self.log.table, version = self.version, head = snapshot.state.version,
                "the table was replaced by another copy of itself while it was in use; comparing contents"
            );
            return Ok(false);
        }
        if let Some(known) = &mut self.known {
            (known.landmarks, known.verified) = (Some(found), began);
        }
        Ok(true)
    }

    /// Begins to read some rows of a file with the tail's columns, piece by piece.
    ///
    /// # Errors
    /// Corrupt when the file is missing or not Parquet.
    pub(crate) async fn scan(&self, file: &DataFile, part: Part<'_>) -> Result<Scan> {
        let known = self.known.as_ref().ok_or_else(|| Error::corrupt("a file was read before its table was found"))?;
        Scan::open(&self.log, file, self.wanted(&known.schema), part).await
    }

    /// All rows of a file with the tail's columns, with one request.
    ///
    /// # Errors
    /// Corrupt when the file is missing or not Parquet.
    pub(crate) async fn read_file(&self, file: &DataFile) -> Result<RecordBatch> {
        let known = self.known.as_ref().ok_or_else(|| Error::corrupt("a file was read before its table was found"))?;
        parquet::read_file(&self.log.storage, &self.log.table, file, self.wanted(&known.schema)).await
    }

    /// The files that a commit has added; `None` if the log no longer has it.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn files_of(&self, version: i64) -> Result<Option<Vec<DataFile>>> {
        let actions = self.log.read(version).await?;
        Ok(actions.map(|actions| Commit::from_actions(version, &actions).added))
    }

    /// "Not found" only means "nothing new" where clean-up cannot have been: it stays below the checkpoint that is
    /// named.
    async fn nothing_there(&mut self, version: i64, head: Option<i64>, began: Moment) -> Result<TailStep> {
        if head.is_some_and(|head| head >= version) {
            return Ok(TailStep::Lost);
        }
        let Some(known) = &mut self.known else { return Ok(TailStep::AtHead) };
        if known.touched.age(&self.clock) < FRESH {
            return Ok(TailStep::AtHead);
        }
        let checkpoint = self.log.last_checkpoint().await?.map_or(-1, |checkpoint| checkpoint.version);
        if checkpoint >= version && self.log.bytes(version).await?.is_none() {
            return Ok(TailStep::Lost);
        }
        known.touched = began;
        Ok(TailStep::AtHead)
    }

    /// The columns after a commit; what it requires of readers is checked before anyone reads it.
    fn schema_after(&self, actions: &[Action]) -> Result<SchemaRef> {
        let known =
            self.known.as_ref().ok_or_else(|| Error::corrupt("a commit was read before its table was found"))?;
        let mut schema = SchemaRef::clone(&known.schema);
        for action in actions {
            match action {
                Action::Protocol(protocol) => columns::check_protocol(&self.log.table, protocol)?,
                Action::MetaData(metadata) => schema = columns::arrow_schema(&self.log.table, metadata)?,
                _ => {}
            }
        }
        Ok(schema)
    }

    fn wanted(&self, schema: &SchemaRef) -> SchemaRef {
        let columns: Vec<&str> = self.columns.iter().map(String::as_str).collect();
        parquet::pick(schema, Some(&columns))
    }

    /// The rows of these files, in order; `None` if one is missing.
    async fn read_files(&self, files: &[DataFile], schema: &SchemaRef) -> Result<Option<Vec<RecordBatch>>> {
        let wanted = self.wanted(schema);
        let mut reads = Vec::with_capacity(files.len());
        for file in files {
            reads.push(read_if_there(
                self.log.storage.clone(),
                file.location(&self.log.table)?,
                SchemaRef::clone(&wanted),
            ));
        }
        let batches: Vec<Option<RecordBatch>> =
            stream::iter(reads).buffered(READ_AHEAD).try_collect::<Vec<_>>().await?;
        Ok(batches.into_iter().collect())
    }
}

/// The rows of a file; `None` if it is missing.
async fn read_if_there(storage: Storage, location: Path, wanted: SchemaRef) -> Result<Option<RecordBatch>> {
    let Some(bytes) = storage.get(&location).await? else { return Ok(None) };
    let rows = parquet::decode_aside(bytes, wanted).await;
    rows.map(Some).map_err(|error| error.during(location))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::super::log::{Add, Remove, commit_bytes};
    use super::super::{Append, CommitOutcome, Fence, LakeTable, TableRole, TableSpec};
    use super::*;
    use crate::storage::StorageKey;

    fn spec() -> TableSpec {
        let schema = Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("x", DataType::Utf8, true)]);
        TableSpec { path: Path::from("t"), schema: Arc::new(schema), stats_columns: vec!["id".to_owned()], id: None }
    }

    async fn checkpoint(storage: &Storage) {
        let delta = super::super::delta::delta_table(storage, &Path::from("t")).await.unwrap();
        deltalake::protocol::checkpoints::create_checkpoint(&delta, None).await.unwrap();
    }

    async fn append(table: &mut LakeTable, id: i64) {
        let schema = Schema::new(vec![Field::new("id", DataType::Int64, true)]);
        let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(vec![id]))]).unwrap();
        let fence = Fence { role: TableRole::Bronze, seen: table.fence(TableRole::Bronze) };
        let outcome = table.append(Append { rows: Some(rows), fence, progress: Vec::new() }).await.unwrap();
        assert!(matches!(outcome, CommitOutcome::Committed { .. }));
    }

    async fn ids(tail: &mut Tail) -> Vec<i64> {
        let mut ids = Vec::new();
        while let TailStep::Rows { batches, .. } = tail.next().await.unwrap() {
            for batch in batches {
                ids.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
            }
        }
        ids
    }

    #[tokio::test]
    async fn a_tail_sees_each_row_once_and_in_order() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let mut tail = Tail::new(&storage, &Path::from("t"), -1, &["id"], &clock);
        assert!(matches!(tail.next().await.unwrap(), TailStep::AtHead), "there is no table yet");
        let mut table = LakeTable::open(&storage, &spec(), &clock).await.unwrap();
        append(&mut table, 1).await;
        append(&mut table, 2).await;
        assert_eq!(ids(&mut tail).await, [1, 2]);
        append(&mut table, 3).await;
        assert_eq!(ids(&mut tail).await, [3]);
        assert_eq!(tail.version(), table.version());
        let mut later = Tail::new(&storage, &Path::from("t"), table.version() - 1, &["id"], &clock);
        assert_eq!(ids(&mut later).await, [3]);
    }

    #[tokio::test]
    async fn no_snapshot_is_needed_to_be_told_again() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let mut table = LakeTable::open(&storage, &spec(), &clock).await.unwrap();
        for id in 1..4 {
            append(&mut table, id).await;
        }
        let mut tail = Tail::new(&storage, &Path::from("t"), 0, &["id"], &clock);
        checkpoint(&storage).await;
        storage.delete(&StorageKey::Commit { table: Path::from("t"), version: 1 }.path()).await.unwrap();
        for _ in 0..3 {
            assert!(matches!(tail.next().await.unwrap(), TailStep::Lost));
        }
        let (version, files) = tail.snapshot().await.unwrap();
        assert_eq!((version, files.len()), (3, 3));
        assert!(matches!(tail.next().await.unwrap(), TailStep::AtHead));
    }

    #[tokio::test]
    async fn a_table_shorter_than_what_was_read_of_it_is_another_one() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let mut table = LakeTable::open(&storage, &spec(), &clock).await.unwrap();
        append(&mut table, 1).await;
        let mut tail = Tail::new(&storage, &Path::from("t"), 100, &["id"], &clock);
        assert!(matches!(tail.next().await.unwrap(), TailStep::Lost));
        assert_eq!(tail.snapshot().await.unwrap().0, 1);
        append(&mut table, 2).await;
        assert_eq!(ids(&mut tail).await, [2]);
    }

    #[tokio::test]
    async fn a_commit_that_asks_for_an_unknown_feature_is_not_read_past() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let table = LakeTable::open(&storage, &spec(), &clock).await.unwrap();
        let mut tail = Tail::new(&storage, &Path::from("t"), -1, &["id"], &clock);
        assert!(ids(&mut tail).await.is_empty());
        let upgrade = r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"],"writerFeatures":["deletionVectors"]}}"#;
        let next = StorageKey::Commit { table: Path::from("t"), version: table.version() + 1 }.path();
        storage.put_new(&next, upgrade.into()).await.unwrap();
        for _ in 0..2 {
            let error = tail.next().await.unwrap_err();
            assert!(error.to_string().contains("deletionVectors"), "{error}");
        }
        assert_eq!(tail.version(), table.version());
    }

    #[tokio::test]
    async fn another_table_in_its_place_is_not_read_on() {
        for is_replaced in [true, false] {
            let (storage, clock) = (Storage::memory(), Clock::system());
            let mut table = LakeTable::open(&storage, &spec(), &clock).await.unwrap();
            append(&mut table, 1).await;
            let mut tail = Tail::new(&storage, &Path::from("t"), -1, &["id"], &clock);
            assert_eq!(ids(&mut tail).await, [1]);
            for object in storage.list_after(&Path::from("t"), None, 100).await.unwrap() {
                storage.delete(&object.location).await.unwrap();
            }
            if is_replaced {
                let mut other = LakeTable::open(&storage, &spec(), &clock).await.unwrap();
                for id in 5..9 {
                    append(&mut other, id).await;
                }
            }
            clock.step(31_000_000);
            for _ in 0..2 {
                let error = tail.next().await.unwrap_err();
                assert_eq!(error.kind(), crate::error::ErrorKind::Corrupt, "{error}");
            }
        }
    }

    /// Everything in the table's folder.
    async fn copy_of(storage: &Storage) -> Vec<(Path, bytes::Bytes)> {
        let mut copy = Vec::new();
        for object in storage.list_after(&Path::from("t"), None, 100).await.unwrap() {
            copy.push((object.location.clone(), storage.get(&object.location).await.unwrap().unwrap()));
        }
        copy
    }

    async fn restore(storage: &Storage, copy: &[(Path, bytes::Bytes)]) {
        for object in storage.list_after(&Path::from("t"), None, 100).await.unwrap() {
            storage.delete(&object.location).await.unwrap();
        }
        for (path, bytes) in copy {
            storage.put_new(path, bytes.clone()).await.unwrap();
        }
    }

    async fn open(storage: &Storage, clock: &Clock) -> LakeTable {
        LakeTable::open(storage, &spec(), clock).await.unwrap()
    }

    /// A restored copy has the table's id. What comes after it has versions that were read before, with other rows.
    #[tokio::test]
    async fn an_older_copy_in_its_place_is_compared_however_long_it_has_become() {
        let folder = tempfile::tempdir().unwrap();
        for storage in [Storage::memory(), Storage::open(folder.path().to_str().unwrap()).unwrap()] {
            for (case, appended_to_copy) in [0, 1, 2, 3].into_iter().enumerate() {
                let clock = Clock::system();
                restore(&storage, &[]).await;
                let mut table = open(&storage, &clock).await;
                append(&mut table, 1).await;
                let older = copy_of(&storage).await;
                append(&mut table, 2).await;
                append(&mut table, 3).await;
                let mut tail = Tail::new(&storage, &Path::from("t"), -1, &["id"], &clock);
                assert_eq!(ids(&mut tail).await, [1, 2, 3]);
                restore(&storage, &older).await;
                let mut table = open(&storage, &clock).await;
                for id in 0..appended_to_copy {
                    append(&mut table, 12 + id).await;
                }
                if storage.local_root().is_none() {
                    clock.step(31_000_000);
                }
                for _ in 0..2 {
                    let step = tail.next().await.unwrap();
                    assert!(matches!(step, TailStep::Replaced), "case {case}: {step:?}");
                }
                let (version, files) = tail.snapshot().await.unwrap();
                assert_eq!((version, files.len()), (table.version(), 1 + usize::try_from(appended_to_copy).unwrap()));
                append(&mut table, 20).await;
                assert_eq!(ids(&mut tail).await, [20]);
            }
        }
    }

    /// The process that reads the table may have just written it, and remembers what it wrote.
    #[tokio::test]
    async fn another_copy_is_not_hidden_by_what_this_process_has_just_put() {
        let folder = tempfile::tempdir().unwrap();
        let (storage, clock) = (Storage::open(folder.path().to_str().unwrap()).unwrap(), Clock::system());
        let mut table = open(&storage, &clock).await;
        append(&mut table, 1).await;
        let older = copy_of(&storage).await;
        append(&mut table, 2).await;
        let mut tail = Tail::new(&storage, &Path::from("t"), 100, &["id"], &clock);
        assert!(matches!(tail.next().await.unwrap(), TailStep::Lost));
        assert_eq!(tail.snapshot().await.unwrap().0, 2);
        let others = Storage::open(folder.path().to_str().unwrap()).unwrap();
        restore(&others, &older).await;
        let mut copy = open(&others, &clock).await;
        append(&mut copy, 12).await;
        append(&mut copy, 13).await;
        assert!(matches!(tail.next().await.unwrap(), TailStep::Replaced));
    }

    #[tokio::test]
    async fn commits_that_were_read_after_an_older_copy_do_not_hide_it() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let mut table = open(&storage, &clock).await;
        append(&mut table, 1).await;
        let older = copy_of(&storage).await;
        append(&mut table, 2).await;
        let mut tail = Tail::new(&storage, &Path::from("t"), -1, &["id"], &clock);
        assert_eq!(ids(&mut tail).await, [1, 2]);
        clock.step(31_000_000);
        assert!(ids(&mut tail).await.is_empty());
        restore(&storage, &older).await;
        let mut table = open(&storage, &clock).await;
        append(&mut table, 12).await;
        append(&mut table, 13).await;
        // In the cloud nobody looks back at every commit.
        assert_eq!(ids(&mut tail).await, [13]);
        clock.step(31_000_000);
        assert!(matches!(tail.next().await.unwrap(), TailStep::Replaced));
    }

    #[tokio::test]
    async fn a_copy_that_is_as_long_as_what_was_read_is_read_on() {
        let folder = tempfile::tempdir().unwrap();
        let (storage, clock) = (Storage::open(folder.path().to_str().unwrap()).unwrap(), Clock::system());
        let mut table = open(&storage, &clock).await;
        append(&mut table, 1).await;
        let mut tail = Tail::new(&storage, &Path::from("t"), -1, &["id"], &clock);
        assert_eq!(ids(&mut tail).await, [1]);
        let copy = copy_of(&storage).await;
        restore(&storage, &copy).await;
        let mut table = open(&storage, &clock).await;
        append(&mut table, 2).await;
        assert_eq!(ids(&mut tail).await, [2]);
    }

    #[tokio::test]
    async fn an_idle_tail_never_reads_the_whole_table_twice() {
        for is_cleaned in [false, true] {
            let clock = Clock::system();
            let (storage, script) = super::super::tests::faulty::scripted(&Storage::memory(), &clock);
            let mut table = open(&storage, &clock).await;
            append(&mut table, 1).await;
            // A writer that gives its commits no id.
            let next = StorageKey::Commit { table: Path::from("t"), version: 2 }.path();
            storage.put_new(&next, r#"{"txn":{"appId":"a","version":1}}"#.into()).await.unwrap();
            let mut tail = Tail::new(&storage, &Path::from("t"), -1, &["id"], &clock);
            assert_eq!(ids(&mut tail).await, [1]);
            if is_cleaned {
                checkpoint(&storage).await;
                storage.delete(&next).await.unwrap();
            }
            clock.step(31_000_000);
            assert!(matches!(tail.next().await.unwrap(), TailStep::AtHead));
            for _ in 0..5 {
                clock.step(31_000_000);
                script.counts();
                assert!(matches!(tail.next().await.unwrap(), TailStep::AtHead));
                assert_eq!(script.counts(), (0, 2, 0), "a look back and one ahead; cleaned: {is_cleaned}");
            }
        }
    }

    #[tokio::test]
    async fn moved_rows_are_none_and_rewritten_ones_are_marked() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let mut table = LakeTable::open(&storage, &spec(), &clock).await.unwrap();
        append(&mut table, 1).await;
        append(&mut table, 2).await;
        let mut tail = Tail::new(&storage, &Path::from("t"), 2, &["id", "nowhere"], &clock);
        for (version, data_change) in [(3, false), (4, true)] {
            let file = table.files().await.unwrap().remove(0);
            let (old, new) = (file.location(&Path::from("t")).unwrap(), format!("part-{version}.parquet"));
            let bytes = storage.get(&old).await.unwrap().unwrap();
            storage.put_new(&Path::from("t").join(new.as_str()), bytes).await.unwrap();
            let actions = [
                Action::Remove(Remove::of(&file, 0, data_change)),
                Action::Add(Add::new(&new, 1, 0, "{}".to_owned(), data_change)),
            ];
            let path = StorageKey::Commit { table: Path::from("t"), version }.path();
            storage.put_new(&path, commit_bytes(&actions).unwrap()).await.unwrap();
            table.refresh().await.unwrap();
            let (read, files) = match tail.next().await.unwrap() {
                TailStep::Rows { version, batches } if batches.is_empty() => (version, Vec::new()),
                TailStep::Rewritten { version, files } => (version, files),
                other => panic!("{other:?}"),
            };
            assert_eq!((read, files.len()), (version, usize::from(data_change)));
            for file in files {
                let batch = tail.read_file(&file).await.unwrap();
                assert_eq!((batch.num_rows(), batch.column(1).logical_null_count()), (1, 1));
            }
        }
    }

    #[tokio::test]
    async fn a_version_or_a_file_that_is_gone_is_told_and_the_snapshot_takes_over() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let mut table = LakeTable::open(&storage, &spec(), &clock).await.unwrap();
        append(&mut table, 1).await;
        append(&mut table, 2).await;
        let file = table.files().await.unwrap().remove(0);
        storage.delete(&file.location(&Path::from("t")).unwrap()).await.unwrap();
        let mut tail = Tail::new(&storage, &Path::from("t"), 0, &["id"], &clock);
        let mut lost = false;
        for _ in 0..3 {
            lost |= matches!(tail.next().await.unwrap(), TailStep::Lost);
        }
        assert!(lost);
        let (version, files) = tail.snapshot().await.unwrap();
        assert_eq!((version, files.len()), (2, 2));
        append(&mut table, 3).await;
        assert_eq!(ids(&mut tail).await, [3]);
    }

    #[tokio::test]
    async fn not_found_below_a_cleaned_log_is_no_head() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let mut table = LakeTable::open(&storage, &spec(), &clock).await.unwrap();
        append(&mut table, 1).await;
        let mut tail = Tail::new(&storage, &Path::from("t"), -1, &["id"], &clock);
        assert_eq!(ids(&mut tail).await, [1]);
        for id in 2..6 {
            append(&mut table, id).await;
        }
        checkpoint(&storage).await;
        for version in 0..5 {
            let key = StorageKey::Commit { table: Path::from("t"), version };
            storage.delete(&key.path()).await.unwrap();
        }
        clock.step(86_400_000_000);
        assert!(matches!(tail.next().await.unwrap(), TailStep::Lost));
        let (version, files) = tail.snapshot().await.unwrap();
        assert_eq!((version, files.len()), (5, 5));
    }
}
