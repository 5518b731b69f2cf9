//! The flow with work that panics or fails, on rows of one integer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use object_store::{GetOptions, GetResult, PutOptions, PutPayload, PutResult};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::key::UpdateKey;
use super::ledger::{ExistingRow, Ledger, LedgerOptions, LedgerRow, Parts};
use super::work::{Desk, Item, Work};
use super::{Flow, FlowOptions, KEPT_CAPACITY};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::id::BotId;
use crate::storage::tests::intercepted::{Inner, Intercept, Listing, listing};
use crate::storage::{Storage, disk_failure};
use crate::table::{Append, Fence, LakeTable, TableRole, TableSpec};

/// The work on this row always panics.
const POISON: i64 = 3;
/// The work on this one panics once.
const FLUKE: i64 = 4;

/// The work on this one ends when the flow winds down, while [`Numbers::is_broken`].
const SLOW: i64 = 20;
/// The work on this one fails while [`Numbers::is_broken`].
const FAILING: i64 = 21;
/// The work on this one fails when the flow winds down, while [`Numbers::is_broken`].
const FAILING_LATE: i64 = 22;
/// The work on this one then finds that the disk has failed.
const DISK: i64 = 23;
/// The work on this one ends once [`Numbers::released`] is.
const GATED: i64 = 60;
/// A batch with this one cannot be read while [`Numbers::is_broken`].
const BROKEN: i64 = 30;

#[derive(Clone, Debug)]
struct Number {
    id: i64,
    version: i64,
}

#[derive(Clone, Debug)]
struct Done {
    id: i64,
    error: Option<String>,
}

#[derive(Default)]
struct Numbers {
    begun: Arc<AtomicUsize>,
    is_broken: bool,
    winds_down: CancellationToken,
    has_failed_late: CancellationToken,
    released: CancellationToken,
    /// How many rows wait or are in progress.
    waiting: watch::Sender<usize>,
}

/// Counts the listings of the upstream table, and notices when nothing is found after version 2 of it.
#[derive(Clone, Debug, Default)]
struct Listings {
    count: Arc<AtomicUsize>,
    is_at_head: CancellationToken,
}

#[async_trait]
impl Intercept for Listings {
    async fn get(&self, inner: &Inner, from: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        let found = inner.get_opts(from, options).await;
        if found.is_err() && from.as_ref() == "upstream/_delta_log/00000000000000000003.json" {
            self.is_at_head.cancel();
        }
        found
    }

    fn list(&self, inner: &Inner, prefix: Option<&Path>, offset: Option<&Path>) -> Listing {
        self.count
            .fetch_add(usize::from(prefix.is_some_and(|at| at.as_ref().starts_with("upstream"))), Ordering::SeqCst);
        listing(inner, prefix, offset)
    }
}

/// A disk that fails once the flow winds down.
#[derive(Debug)]
struct FailingDisk(CancellationToken);

#[async_trait]
impl Intercept for FailingDisk {
    async fn put(
        &self,
        inner: &Inner,
        to: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        match self.0.is_cancelled() {
            true => Err(disk_failure()),
            false => inner.put_opts(to, payload, options).await,
        }
    }
}

fn key(update_id: i64) -> UpdateKey {
    UpdateKey { bot_id: BotId(1), update_id, attempt: 1 }
}

fn ids(batch: &RecordBatch) -> Vec<i64> {
    batch.column_by_name("update_id").unwrap().as_primitive::<Int64Type>().values().to_vec()
}

fn spec(path: &str) -> TableSpec {
    let fields = vec![Field::new("update_id", DataType::Int64, true), Field::new("error", DataType::Utf8, true)];
    let stats_columns = vec!["update_id".to_owned()];
    TableSpec { path: Path::from(path), schema: Arc::new(Schema::new(fields)), stats_columns, id: None }
}

impl Item for Number {
    fn key(&self) -> UpdateKey {
        key(self.id)
    }

    fn chat_id(&self) -> i64 {
        self.id % 2
    }

    fn version(&self) -> i64 {
        self.version
    }
}

impl LedgerRow for Done {
    type Part = ();
    type State = ();
    const COLUMNS: &'static [&'static str] = &["update_id"];

    fn key(&self) -> UpdateKey {
        key(self.id)
    }

    fn part(&self) {}

    fn state(&self) {}

    fn to_batch(schema: &SchemaRef, rows: &[Self]) -> Result<RecordBatch> {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.id)));
        let errors: ArrayRef = Arc::new(rows.iter().map(|row| row.error.as_deref()).collect::<StringArray>());
        Ok(RecordBatch::try_new(Arc::clone(schema), vec![ids, errors]).unwrap())
    }

    fn known(batch: &RecordBatch) -> Result<Vec<ExistingRow<Self>>> {
        Ok(ids(batch).into_iter().map(|id| ExistingRow { key: key(id), part: (), state: () }).collect())
    }
}

impl Work for Numbers {
    type Row = Done;
    type Item = Number;

    fn items(&self, batch: &RecordBatch, version: i64) -> Result<Vec<Option<Number>>> {
        if self.is_broken && ids(batch).contains(&BROKEN) {
            return Err(Error::corrupt("a column has another type"));
        }
        Ok(ids(batch).into_iter().map(|id| Some(Number { id, version })).collect())
    }

    fn settle(&mut self, _: &Number) -> Option<Done> {
        None
    }

    fn begin(&mut self, item: Number, desk: Desk<Done>) -> BoxFuture<'static, Result<bool>> {
        let begun = self.begun.fetch_add(usize::from(item.id == FLUKE), Ordering::Relaxed);
        let (winds_down, is_broken) = (self.winds_down.clone(), self.is_broken);
        let (has_failed_late, released) = (self.has_failed_late.clone(), self.released.clone());
        let work = async move {
            if item.id == SLOW && is_broken {
                winds_down.cancelled().await;
            }
            if item.id == FAILING && is_broken {
                return Err(Error::corrupt("the work fails"));
            }
            if item.id == GATED {
                released.cancelled().await;
            }
            if item.id == FAILING_LATE && is_broken {
                winds_down.cancelled().await;
                has_failed_late.cancel();
                return Err(Error::corrupt("the work fails late"));
            }
            if item.id == DISK && is_broken {
                has_failed_late.cancelled().await;
                return Err(Error::new(ErrorKind::Fatal, "the disk fails"));
            }
            assert!(item.id != POISON, "poison in row {}", item.id);
            assert!(item.id != FLUKE || begun > 0, "a fluke");
            Ok(desk.record(Done { id: item.id, error: None }, true).await.is_ok())
        };
        work.boxed()
    }

    fn set_aside(&mut self, item: &Number, _: &Parts<Done>, panic: &str) -> Done {
        Done { id: item.id, error: Some(panic.to_owned()) }
    }

    fn committed(&mut self, _: &[Done], _: i64) {}

    fn waiting(&self, rows: usize) {
        self.waiting.send_replace(rows);
    }

    fn wind_down(&self) {
        self.winds_down.cancel();
    }
}

async fn open(storage: &Storage, clock: &Clock, work: Numbers) -> Flow<Numbers> {
    open_bounded(storage, clock, work, 100).await
}

async fn open_bounded(storage: &Storage, clock: &Clock, work: Numbers, max_waiting: usize) -> Flow<Numbers> {
    let settles = |rows: &Parts<Done>| !rows.is_empty();
    let (role, spec) = (TableRole::Silver, spec("own"));
    let options = LedgerOptions { storage: storage.clone(), spec, role, settles, clock: clock.clone() };
    let (ledger, _) = Ledger::open(options).await.unwrap();
    let upstream = &Path::from("upstream");
    let flow = FlowOptions { storage, upstream, columns: &["update_id"], max_waiting, clock };
    Flow::new(work, ledger, &flow)
}

/// Appends rows to the upstream table in one commit.
async fn append(storage: &Storage, clock: &Clock, ids: impl IntoIterator<Item = i64>) {
    let mut upstream = LakeTable::open(storage, &spec("upstream"), clock).await.unwrap();
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
    let rows = RecordBatch::try_from_iter_with_nullable([("update_id", ids, true)]).unwrap();
    let fence = Fence { role: TableRole::Bronze, seen: upstream.fence(TableRole::Bronze) };
    upstream.append(Append { rows: Some(rows), fence, progress: Vec::new() }).await.unwrap();
}

/// The stage's own table, and its rows with their errors.
async fn recorded(storage: &Storage, clock: &Clock) -> (LakeTable, Vec<(i64, Option<String>)>) {
    let table = LakeTable::open(storage, &spec("own"), clock).await.unwrap();
    let mut found = Vec::new();
    for file in table.files().await.unwrap() {
        let batch = table.read_file(&file, None).await.unwrap();
        let errors = batch.column_by_name("error").unwrap().as_string::<i32>().clone();
        found.extend(ids(&batch).into_iter().zip(errors.iter().map(|error| error.map(str::to_owned))));
    }
    found.sort();
    (table, found)
}

/// What is in progress when a stage fails is recorded, whatever else fails with it, and what could not be read is not
/// counted as done.
#[tokio::test]
async fn a_stage_that_fails_records_what_is_in_progress_and_passes_nothing() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    append(&storage, &clock, [SLOW]).await;
    append(&storage, &clock, [BROKEN]).await;
    append(&storage, &clock, [BROKEN + 1]).await;
    for _ in 0..3 {
        let flow = open(&storage, &clock, Numbers { is_broken: true, ..Numbers::default() }).await;
        let (_hints, versions) = watch::channel(-1);
        let error = flow.run(versions, CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.to_string(), "a column has another type");
        let (_, found) = recorded(&storage, &clock).await;
        assert_eq!(found, [(SLOW, None)]);
    }
    // Once it can be read, all that is left is done.
    let mut flow = open(&storage, &clock, Numbers::default()).await;
    flow.work_until_idle(&CancellationToken::new()).await.unwrap();
    let (_, found) = recorded(&storage, &clock).await;
    assert_eq!(found, [SLOW, BROKEN, BROKEN + 1].map(|id| (id, None)));
}

/// An older copy of the upstream table takes its place while the stage runs, and goes on from there.
#[tokio::test]
async fn rows_of_an_older_copy_of_the_upstream_table_are_done_once_each() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, clock) = (Storage::open(folder.path().to_str().unwrap()).unwrap(), Clock::system());
    let (table, aside) = (folder.path().join("upstream"), folder.path().join("aside"));
    append(&storage, &clock, [40]).await;
    let copied = std::process::Command::new("cp").arg("-r").args([&table, &aside]).status().unwrap();
    assert!(copied.success());
    append(&storage, &clock, [41]).await;
    append(&storage, &clock, [42]).await;
    let mut flow = open(&storage, &clock, Numbers::default()).await;
    flow.work_until_idle(&CancellationToken::new()).await.unwrap();
    std::fs::remove_dir_all(&table).unwrap();
    std::fs::rename(&aside, &table).unwrap();
    for id in [41, 50, 51] {
        append(&storage, &clock, [id]).await;
    }
    flow.work_until_idle(&CancellationToken::new()).await.unwrap();
    assert_eq!(recorded(&storage, &clock).await.1, [40, 41, 42, 50, 51].map(|id| (id, None)));
}

/// A stage with one item in progress and three rows that wait as positions, when an older copy of the upstream table
/// takes its place.
struct Overtaken {
    folder: tempfile::TempDir,
    storage: Storage,
    clock: Clock,
    listings: Listings,
    released: CancellationToken,
    waiting: watch::Receiver<usize>,
    hints: watch::Sender<i64>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<()>>,
}

impl Overtaken {
    /// The copy has a commit of these rows for each that was read, and one more.
    async fn by(copied: [[i64; 3]; 2]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (storage, clock) = (Storage::open(folder.path().to_str().unwrap()).unwrap(), Clock::system());
        let (table, aside) = (folder.path().join("upstream"), folder.path().join("aside"));
        append(&storage, &clock, [GATED]).await;
        let moved = std::process::Command::new("cp").arg("-r").args([&table, &aside]).status().unwrap();
        assert!(moved.success());
        let (listings, stop) = (Listings::default(), CancellationToken::new());
        let (hints, versions) = watch::channel(-1);
        let work = Numbers::default();
        let (released, mut waiting) = (work.released.clone(), work.waiting.subscribe());
        let counted = storage.clone().intercepted(listings.clone());
        let flow = open_bounded(&counted, &clock, work, 1).await;
        let running = tokio::spawn(flow.run(versions, stop.clone()));
        waiting.wait_for(|rows| *rows == 1).await.unwrap();
        append(&storage, &clock, [62, 64, 66]).await;
        hints.send(2).unwrap();
        waiting.wait_for(|rows| *rows == 4).await.unwrap();
        listings.is_at_head.cancelled().await;
        std::fs::remove_dir_all(&table).unwrap();
        std::fs::rename(&aside, &table).unwrap();
        for rows in copied {
            append(&storage, &clock, rows).await;
        }
        Self { folder, storage, clock, listings, released, waiting, hints, stop, running }
    }

    /// What was recorded once nothing is left to do.
    async fn end(mut self, rows: usize) -> Vec<i64> {
        let mut found = Vec::new();
        while found.len() < rows {
            self.waiting.wait_for(|rows| *rows == 0).await.unwrap();
            found = recorded(&self.storage, &self.clock).await.1;
            tokio::task::yield_now().await;
        }
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
        drop(self.folder);
        found.into_iter().map(|(id, _)| id).collect()
    }
}

#[tokio::test]
async fn rows_that_wait_as_positions_of_another_copy_come_with_the_one_comparison_that_follows() {
    let mut stage = Overtaken::by([[70, 62, 72], [74, 76, 78]]).await;
    stage.hints.send(3).unwrap();
    // What only the copy that is gone had will not come back.
    let expected = [GATED, 62, 70, 72, 74, 76, 78];
    stage.waiting.wait_for(|rows| *rows >= expected.len()).await.unwrap();
    let listings = Arc::clone(&stage.listings.count);
    let listed = listings.load(Ordering::SeqCst);
    stage.released.cancel();
    assert_eq!(stage.end(expected.len()).await, expected);
    assert_eq!(listings.load(Ordering::SeqCst), listed, "the contents were compared twice");
}

#[tokio::test]
async fn a_row_of_another_copy_is_not_taken_for_the_one_that_waited_at_its_position() {
    for copied in [[[70, 62, 72], [74, 76, 78]], [[70, 72, 74], [62, 76, 78]]] {
        let stage = Overtaken::by(copied).await;
        // Nothing has told the feed yet.
        stage.released.cancel();
        assert_eq!(stage.end(7).await, [GATED, 62, 70, 72, 74, 76, 78]);
    }
}

#[tokio::test]
async fn an_item_that_fails_keeps_no_other_from_finishing() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    append(&storage, &clock, [SLOW, FAILING]).await;
    let flow = open(&storage, &clock, Numbers { is_broken: true, ..Numbers::default() }).await;
    let (_hints, versions) = watch::channel(-1);
    let error = flow.run(versions, CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.to_string(), "the work fails");
    assert_eq!(recorded(&storage, &clock).await.1, [(SLOW, None)]);
}

/// Whatever ended the stage before: a disk that fails must end the process.
#[tokio::test]
async fn a_disk_that_fails_while_a_failed_stage_winds_down_is_what_is_reported() {
    for first in [[SLOW, FAILING].as_slice(), &[FAILING_LATE, DISK]] {
        let (storage, clock) = (Storage::memory(), Clock::system());
        append(&storage, &clock, first.iter().copied()).await;
        append(&storage, &clock, [BROKEN]).await;
        let work = Numbers { is_broken: true, ..Numbers::default() };
        let storage = storage.intercepted(FailingDisk(work.winds_down.clone()));
        let flow = open(&storage, &clock, work).await;
        let (_hints, versions) = watch::channel(-1);
        let error = flow.run(versions, CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fatal, "{first:?}: {error}");
    }
}

#[tokio::test]
async fn memory_that_a_backlog_took_is_released() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    append(&storage, &clock, 100..5_100).await;
    let mut flow = open_bounded(&storage, &clock, Numbers::default(), 10_000).await;
    flow.work_until_idle(&CancellationToken::new()).await.unwrap();
    assert_eq!(flow.waiting(), 0);
    let maps = [flow.taken.capacity(), flow.under_way.capacity(), flow.tasks.capacity()];
    let lists = [flow.settled.capacity(), flow.settled_items.capacity()];
    let others = [flow.queue.capacity(), flow.ledger.capacity()];
    for capacity in [&maps[..], &lists, &others].concat() {
        assert!(capacity < 2 * KEPT_CAPACITY, "{maps:?} {lists:?} {others:?}");
    }
}

#[tokio::test]
async fn a_row_whose_work_panics_is_tried_once_more_and_then_set_aside() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    append(&storage, &clock, 1..9).await;
    let mut flow = open(&storage, &clock, Numbers::default()).await;
    flow.work_until_idle(&CancellationToken::new()).await.unwrap();
    assert_eq!(flow.waiting(), 0);
    let (table, found) = recorded(&storage, &clock).await;
    let expected: Vec<_> = (1..9).map(|id| (id, (id == POISON).then(|| "poison in row 3".to_owned()))).collect();
    assert_eq!(found, expected);
    // The next start goes on behind it.
    let mut flow = open(&storage, &clock, Numbers::default()).await;
    flow.work_until_idle(&CancellationToken::new()).await.unwrap();
    assert_eq!(table.version(), LakeTable::open(&storage, &spec("own"), &clock).await.unwrap().version());
}
