//! What the upstream table brings to a stage: the rows of its log and, where the log alone does not show what is new,
//! every row that might be.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use futures::{StreamExt, stream};
use object_store::path::Path;

use super::SMALL_FILE_BYTES;
use crate::clock::Clock;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::storage::Storage;
use crate::table::{DataFile, Part, Scan, Tail, TailStep};

/// Files that are read side by side where rows are fetched.
const FETCH_AHEAD: usize = 8;

/// Where a row is in the upstream table: in the order in which rows are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RowPosition {
    /// The version up to which its stretch goes.
    pub(crate) version: i64,
    /// The number of its file in that stretch, from 0.
    pub(crate) file: u32,
    /// The number of the row in that file, from 0.
    pub(crate) row: u32,
}

/// Consecutive rows of one file.
#[derive(Debug)]
pub(crate) struct Rows {
    /// The position of the first one.
    pub(crate) first: RowPosition,
    pub(crate) batch: RecordBatch,
}

/// Rows that were requested by position.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// In the order of the batch; all from one file.
    pub(crate) positions: Vec<RowPosition>,
    pub(crate) batch: RecordBatch,
}

/// The next thing a feed delivers.
#[derive(Debug)]
pub(crate) enum Step {
    /// The table was found. The feed waits for [`Feed::start`] to say where to start.
    Found {
        /// The table's id.
        table_id: String,
    },
    /// Nothing newer yet.
    AtHead,
    /// A commit. Its rows were never there before, unless a writer has duplicated them.
    New {
        /// The version of the commit.
        version: i64,
        /// Its rows; there may be none.
        rows: Vec<Rows>,
    },
    /// Rows that may already be done come next, up to a version.
    Unclear {
        /// That version.
        version: i64,
    },
    /// Some of these rows.
    Some(Rows),
    /// Those were all of them.
    Cleared {
        /// The version up to which everything has now been delivered.
        version: i64,
    },
    /// The rest of these rows cannot be read: they were moved once more, or another copy of the table is there.
    /// Positions may be wrong; whatever is not done comes with the contents of the table, next.
    Abandoned {
        /// The version up to which they were to be delivered.
        version: i64,
    },
    /// Another copy of the table is there. Positions say nothing about it; its contents come next.
    Replaced,
}

/// What is read next.
#[derive(Debug)]
enum Next {
    /// The table was not found yet, or the stage has not said where to start.
    Start,
    /// The commit after the last.
    Commit,
    /// The contents of the table.
    Snapshot,
    /// The rest of a stretch whose rows may already be done.
    Stretch(Box<Stretch>),
}

/// Rows up to a version that may already be done. Kept until each was delivered: the tail does not deliver them again.
#[derive(Debug)]
struct Stretch {
    version: i64,
    /// Those of a snapshot, or those that a commit has added while it rewrote the table.
    files: Arc<[DataFile]>,
    is_snapshot: bool,
    file: usize,
    /// Rows of that file that were delivered.
    delivered: usize,
    scan: Option<OpenScan>,
}

/// A file being read, and the rows read from it.
struct OpenScan {
    scan: Scan,
    read: usize,
}

impl std::fmt::Debug for OpenScan {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("OpenScan").field("read", &self.read).finish_non_exhaustive()
    }
}

/// A table, read forward.
#[derive(Debug)]
pub(crate) struct Feed {
    tail: Tail,
    next: Next,
    /// The files of snapshots by version, as long as rows of them may be requested.
    snapshots: BTreeMap<i64, Arc<[DataFile]>>,
}

impl Feed {
    /// The `columns` of the table at `path`.
    pub(crate) fn new(storage: &Storage, path: &Path, columns: &[&str], clock: &Clock) -> Self {
        let tail = Tail::new(storage, path, -1, columns, clock);
        Self { tail, next: Next::Start, snapshots: BTreeMap::new() }
    }

    /// Answers [`Step::Found`]: everything up to this version is done. Without a version, the whole table is delivered
    /// as unclear.
    pub(crate) fn start(&mut self, after: Option<i64>) {
        self.next = match after {
            Some(version) => {
                self.tail.start_after(version);
                Next::Commit
            }
            None => Next::Snapshot,
        };
    }

    /// Delivers the whole table again, as unclear. Returns the version of the stretch that is not delivered to its end
    /// because of that: no [`Step::Cleared`] comes for it.
    pub(crate) fn compare(&mut self) -> Option<i64> {
        match std::mem::replace(&mut self.next, Next::Snapshot) {
            Next::Stretch(stretch) => Some(stretch.version),
            _ => None,
        }
    }

    /// Rows of versions up to this one will not be requested any more.
    pub(crate) fn forget_to(&mut self, version: i64) {
        self.snapshots = self.snapshots.split_off(&(version + 1));
    }

    /// Whether everything up to `version` was delivered.
    pub(crate) fn has_reached(&self, version: i64) -> bool {
        matches!(self.next, Next::Commit) && self.tail.version() >= version
    }

    /// The next step.
    ///
    /// # Errors
    /// When the store fails; the same step comes again. Corrupt when the table is gone or another one has taken its
    /// place.
    pub(crate) async fn next(&mut self) -> Result<Step> {
        match &mut self.next {
            Next::Start => {
                let table_id = self.tail.table_id().await?;
                Ok(table_id.map_or(Step::AtHead, |table_id| Step::Found { table_id }))
            }
            Next::Commit => self.next_commit().await,
            Next::Snapshot => self.next_snapshot().await,
            Next::Stretch(stretch) => {
                let (version, is_snapshot) = (stretch.version, stretch.is_snapshot);
                match stretch.next(&self.tail).await {
                    Ok(Some(rows)) => Ok(Step::Some(rows)),
                    Ok(None) => {
                        self.next = Next::Commit;
                        Ok(Step::Cleared { version })
                    }
                    // Rewritten and cleaned up again since that commit, or another copy of the table is there.
                    Err(error) if error.kind() == ErrorKind::Corrupt && !is_snapshot => {
                        tracing::info!(%error, version, "rows of a rewritten table were moved again");
                        self.begin_anew();
                        Ok(Step::Abandoned { version })
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Another copy of the table may be there: its contents come next, and no position from before is asked for.
    fn begin_anew(&mut self) {
        self.snapshots.clear();
        self.next = Next::Snapshot;
    }

    async fn next_commit(&mut self) -> Result<Step> {
        match self.tail.next().await? {
            TailStep::AtHead => Ok(Step::AtHead),
            TailStep::Lost => self.next_snapshot().await,
            TailStep::Replaced => {
                self.begin_anew();
                Ok(Step::Replaced)
            }
            TailStep::Rows { version, batches } => {
                let first = |file| RowPosition { version, file, row: 0 };
                let rows = (0..).zip(batches).map(|(file, batch)| Rows { first: first(file), batch });
                Ok(Step::New { version, rows: rows.collect() })
            }
            TailStep::Rewritten { version, files } if files.is_empty() => Ok(Step::New { version, rows: Vec::new() }),
            TailStep::Rewritten { version, files } => {
                self.next = Next::Stretch(Box::new(Stretch::new(version, files.into(), false)));
                Ok(Step::Unclear { version })
            }
        }
    }

    async fn next_snapshot(&mut self) -> Result<Step> {
        let (version, mut files) = self.tail.snapshot().await?;
        // Update ids follow the order of their chats; a file's name, or when it was merged, says nothing.
        let first_update = |file: &DataFile| file.min_values.get("update_id").and_then(serde_json::Value::as_i64);
        files.sort_by_key(first_update);
        tracing::info!(version, files = files.len(), "comparing the contents of an upstream table with what is done");
        let files: Arc<[DataFile]> = files.into();
        self.snapshots.insert(version, Arc::clone(&files));
        self.next = Next::Stretch(Box::new(Stretch::new(version, files, true)));
        Ok(Step::Unclear { version })
    }

    /// The rows at these positions, a batch per file; `None` if one of the files is gone, and only a comparison of
    /// contents finds the rows again. If another copy of the table has taken its place meanwhile, they may be others.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn fetch(&mut self, mut positions: Vec<RowPosition>) -> Result<Option<Vec<Fetched>>> {
        positions.sort_unstable();
        let (tail, snapshots) = (&self.tail, &self.snapshots);
        let mut reads = Vec::new();
        for positions in positions.chunk_by(|one, next| (one.version, one.file) == (next.version, next.file)) {
            reads.push(fetch_of_file(tail, snapshots, positions.to_vec()));
        }
        let mut reads = stream::iter(reads).buffered(FETCH_AHEAD);
        let mut fetched = Vec::new();
        while let Some(rows) = reads.next().await {
            match rows {
                Ok(Some(rows)) => fetched.push(rows),
                Ok(None) => return Ok(None),
                // Cleaned up.
                Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(fetched))
    }
}

/// The rows at positions of one file; `None` when it is gone.
async fn fetch_of_file(
    tail: &Tail,
    snapshots: &BTreeMap<i64, Arc<[DataFile]>>,
    positions: Vec<RowPosition>,
) -> Result<Option<Fetched>> {
    let Some(RowPosition { version, file, .. }) = positions.first().copied() else { return Ok(None) };
    let index = usize::try_from(file).unwrap_or(usize::MAX);
    let file = match snapshots.get(&version) {
        Some(files) => files.get(index).cloned(),
        None => tail.files_of(version).await?.and_then(|files| files.get(index).cloned()),
    };
    let Some(file) = file else { return Ok(None) };
    let rows: Vec<u32> = positions.iter().map(|position| position.row).collect();
    let mut scan = tail.scan(&file, Part::Rows(&rows)).await?;
    let mut batches = Vec::new();
    while let Some(batch) = scan.next().await? {
        batches.push(batch);
    }
    let Some(first) = batches.first() else { return Ok(None) };
    let batch = concat_batches(&first.schema(), &batches).context(ErrorKind::Corrupt, "rows of one file differ")?;
    if batch.num_rows() != positions.len() {
        return Err(Error::corrupt(format!("file {} has fewer rows than it had", file.path)));
    }
    Ok(Some(Fetched { positions, batch }))
}

impl Stretch {
    fn new(version: i64, files: Arc<[DataFile]>, is_snapshot: bool) -> Self {
        Self { version, files, is_snapshot, file: 0, delivered: 0, scan: None }
    }

    /// The next rows: a small file, or a piece of a larger one. `None` after the last.
    async fn next(&mut self, tail: &Tail) -> Result<Option<Rows>> {
        while let Some(file) = self.files.get(self.file) {
            match self.next_of_file(tail, &file.clone()).await {
                Ok(Some(rows)) => return Ok(Some(rows)),
                Ok(None) => (self.file, self.delivered, self.scan) = (self.file + 1, 0, None),
                Err(error) => {
                    // What was read so far is not lost: it is skipped when the file is read again.
                    self.scan = None;
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    async fn next_of_file(&mut self, tail: &Tail, file: &DataFile) -> Result<Option<Rows>> {
        if file.size_bytes <= SMALL_FILE_BYTES {
            if self.delivered > 0 {
                return Ok(None);
            }
            let batch = tail.read_file(file).await?;
            self.delivered = batch.num_rows();
            let first = self.position(0)?;
            return Ok((batch.num_rows() > 0).then_some(Rows { first, batch }));
        }
        if self.scan.is_none() {
            self.scan = Some(OpenScan { scan: tail.scan(file, Part::Within(None)).await?, read: 0 });
        }
        let Some(open) = &mut self.scan else { return Ok(None) };
        while let Some(batch) = open.scan.next().await? {
            let before = open.read;
            open.read += batch.num_rows();
            if open.read <= self.delivered || batch.num_rows() == 0 {
                continue;
            }
            self.delivered = open.read;
            return Ok(Some(Rows { first: self.position(before)?, batch }));
        }
        Ok(None)
    }

    /// The position of a row of the file that is being read.
    fn position(&self, row: usize) -> Result<RowPosition> {
        let (Ok(file), Ok(row)) = (u32::try_from(self.file), u32::try_from(row)) else {
            return Err(Error::corrupt("a table has more files, or a file more rows, than can be read"));
        };
        Ok(RowPosition { version: self.version, file, row })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use serde_json::json;

    use super::*;
    use crate::storage::StorageKey;
    use crate::table::{Append, Fence, LakeTable, TableRole, TableSpec};

    /// Rows of a file that is too large to be read whole.
    const MANY: i64 = 6_000;

    struct World {
        storage: Storage,
        clock: Clock,
        path: Path,
    }

    impl World {
        fn new() -> Self {
            Self { storage: Storage::memory(), clock: Clock::system(), path: Path::from("t") }
        }

        async fn append(&self, ids: std::ops::Range<i64>) {
            let fields = vec![Field::new("update_id", DataType::Int64, true), Field::new("text", DataType::Utf8, true)];
            let (path, schema) = (self.path.clone(), Arc::new(Schema::new(fields)));
            let spec = TableSpec { path, schema: Arc::clone(&schema), stats_columns: Vec::new(), id: None };
            let mut table = LakeTable::open(&self.storage, &spec, &self.clock).await.unwrap();
            // Text that does not compress.
            let mut dice = 1_u64;
            let text = ids.clone().map(|_| {
                let mut word = || {
                    dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    format!("{:016x}", dice.rotate_left(29) ^ dice)
                };
                (0..40).map(|_| word()).collect::<String>()
            });
            let columns: [ArrayRef; 2] =
                [Arc::new(ids.clone().collect::<Int64Array>()), Arc::new(text.map(Some).collect::<StringArray>())];
            let rows = RecordBatch::try_new(schema, columns.to_vec()).unwrap();
            let fence = Fence { role: TableRole::Bronze, seen: table.fence(TableRole::Bronze) };
            table.append(Append { rows: Some(rows), fence, progress: Vec::new() }).await.unwrap();
        }

        /// Replaces every file by a copy, in one commit; the copies.
        async fn rewrite(&self) -> Vec<Path> {
            let table = LakeTable::open_existing(&self.storage, &self.path, &self.clock).await.unwrap().unwrap();
            let (version, mut actions, mut copies) = (table.version() + 1, String::new(), Vec::new());
            for (number, file) in table.files().await.unwrap().iter().enumerate() {
                let bytes = self.storage.get(&file.location(&self.path).unwrap()).await.unwrap().unwrap();
                let copy = format!("copy-{version}-{number}.parquet");
                copies.push(self.path.clone().join(copy.as_str()));
                self.storage.put_new(&copies[number], bytes).await.unwrap();
                let remove = json!({"path": file.path, "deletionTimestamp": 1, "dataChange": true});
                let add = json!({"path": copy, "partitionValues": {}, "size": file.size_bytes,
                    "modificationTime": 1, "dataChange": true});
                actions += &format!("{}\n{}\n", json!({ "remove": remove }), json!({ "add": add }));
            }
            let commit = StorageKey::Commit { table: self.path.clone(), version }.path();
            self.storage.put_new(&commit, actions.into()).await.unwrap();
            copies
        }

        /// A feed that has delivered everything up to a version.
        async fn feed_after(&self, version: i64) -> Feed {
            let mut feed = Feed::new(&self.storage, &self.path, &["update_id", "text"], &self.clock);
            assert!(matches!(feed.next().await.unwrap(), Step::Found { .. }));
            feed.start(Some(version));
            feed
        }
    }

    /// The rows of a step, by their ids.
    fn ids(step: Step) -> Vec<i64> {
        let Step::Some(Rows { batch, .. }) = step else { panic!("{step:?}") };
        batch.column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    #[tokio::test]
    async fn a_commit_that_rewrote_the_table_is_delivered_in_pieces() {
        let world = World::new();
        for ids in [0..2, 2..3, 3..MANY] {
            world.append(ids).await;
        }
        world.rewrite().await;
        let mut feed = world.feed_after(3).await;
        assert!(matches!(feed.next().await.unwrap(), Step::Unclear { version: 4 }));
        let (mut delivered, mut pieces) = (Vec::new(), 0);
        loop {
            let step = feed.next().await.unwrap();
            if let Step::Cleared { version } = step {
                assert_eq!(version, 4);
                break;
            }
            let Step::Some(Rows { ref batch, .. }) = step else { panic!("{step:?}") };
            // A small file, or part of a larger one: what is held does not grow with the table.
            assert!(batch.get_array_memory_size() < 2 * usize::try_from(SMALL_FILE_BYTES).unwrap());
            pieces += 1;
            delivered.extend(ids(step));
        }
        delivered.sort_unstable();
        assert!(delivered.iter().copied().eq(0..MANY) && pieces > 5, "{pieces} pieces");
        assert!(matches!(feed.next().await.unwrap(), Step::AtHead));
    }

    #[tokio::test]
    async fn rows_that_were_moved_out_of_a_rewritten_commit_come_with_the_contents() {
        let world = World::new();
        for ids in [0..2, 2..3, 3..7] {
            world.append(ids).await;
        }
        let copies = world.rewrite().await;
        world.rewrite().await;
        let mut feed = world.feed_after(3).await;
        assert!(matches!(feed.next().await.unwrap(), Step::Unclear { version: 4 }));
        // Nothing was read of it yet.
        world.storage.delete(&copies[1]).await.unwrap();
        let first = ids(feed.next().await.unwrap());
        assert!(!first.is_empty());
        assert!(matches!(feed.next().await.unwrap(), Step::Abandoned { version: 4 }));
        assert!(matches!(feed.next().await.unwrap(), Step::Unclear { version: 5 }));
        let mut delivered = Vec::new();
        for _ in 0..3 {
            delivered.extend(ids(feed.next().await.unwrap()));
        }
        delivered.sort_unstable();
        assert!(delivered.into_iter().eq(0..7));
        assert!(matches!(feed.next().await.unwrap(), Step::Cleared { version: 5 }));
        assert!(matches!(feed.next().await.unwrap(), Step::AtHead));
        // Their positions are good from then on.
        let fetched = feed.fetch(vec![RowPosition { version: 5, file: 0, row: 0 }]).await.unwrap();
        assert_eq!(fetched.unwrap().len(), 1);
    }
}
