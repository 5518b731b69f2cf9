//! Maintenance against tables that move, are read and are raced for.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use super::*;
use crate::table::{Append, CommitOutcome, Fence, TableSpec, Tail, TailStep};

const DAY_MICROS: i64 = 86_400_000_000;

struct World {
    storage: Storage,
    clock: Clock,
    table: LakeTable,
    next: i64,
}

fn path() -> Path {
    Path::from("t")
}

impl World {
    async fn new(storage: Storage) -> Self {
        let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
        let spec = TableSpec { path: path(), schema, stats_columns: vec!["id".to_owned()] };
        let clock = Clock::system();
        let table = LakeTable::open(&storage, &spec, &clock).await.unwrap();
        Self { storage, clock, table, next: 0 }
    }

    async fn append(&mut self, commits: i64) {
        for _ in 0..commits {
            let schema = Schema::new(vec![Field::new("id", DataType::Int64, true)]);
            let ids = Int64Array::from(vec![self.next]);
            self.next += 1;
            let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::new(ids)]).unwrap();
            let fence = Fence { app_id: "stage".to_owned(), seen: self.table.txn("stage").unwrap_or(0) };
            let append = Append { rows: Some(rows), fence, progress: vec![("position".to_owned(), self.next)] };
            assert!(matches!(self.table.append(append).await.unwrap(), CommitOutcome::Committed { .. }));
        }
    }

    async fn maintain(&self, options: &MaintainOptions) -> MaintainSummary {
        maintain(&self.storage, &path(), options, &self.clock, &CancellationToken::new()).await.unwrap()
    }

    async fn ids(&self) -> Vec<i64> {
        let table = LakeTable::open_existing(&self.storage, &path(), &self.clock).await.unwrap().unwrap();
        let mut ids = Vec::new();
        for file in table.files().await.unwrap() {
            let batch = table.read_file(&file, None).await.unwrap();
            ids.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
        }
        ids.sort_unstable();
        ids
    }

    async fn data_files(&self) -> usize {
        let objects = self.storage.list_after(&path(), None, 10_000).await.unwrap();
        objects.iter().filter(|object| !object.location.as_ref().contains("_delta_log")).count()
    }

    fn expected(&self) -> Vec<i64> {
        (0..self.next).collect()
    }
}

fn eager() -> MaintainOptions {
    MaintainOptions { compact_at_files: 2, checkpoint_every: 1, ..MaintainOptions::default() }
}

async fn tailed(tail: &mut Tail) -> Vec<i64> {
    let mut ids = Vec::new();
    while let TailStep::Rows { batches, rewritten, .. } = tail.next().await.unwrap() {
        assert!(!rewritten);
        batches.iter().for_each(|batch| ids.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values()));
    }
    ids
}

async fn keeps_everything(storage: Storage) {
    let mut world = World::new(storage).await;
    let mut tail = Tail::new(&world.storage, &path(), -1, &["id"], &world.clock);
    let mut seen = Vec::new();
    for round in 0..4 {
        world.append(5).await;
        if round % 2 == 0 {
            seen.extend(tailed(&mut tail).await);
        }
        let summary = world.maintain(&eager()).await;
        assert!(summary.files_compacted >= 5 && summary.files_written == 1, "{summary:?}");
        assert!(summary.checkpoint.is_some());
        assert_eq!(world.ids().await, world.expected());
    }
    seen.extend(tailed(&mut tail).await);
    assert_eq!(seen, world.expected());
    let delta = delta_table(&world.storage, &path()).await.unwrap();
    assert_eq!(delta.get_file_uris().unwrap().count(), 1);
}

#[tokio::test]
async fn compaction_keeps_every_row_and_a_tail_sees_each_once() {
    keeps_everything(Storage::memory()).await;
}

#[tokio::test]
async fn so_it_is_on_local_disk() {
    let folder = tempfile::tempdir().unwrap();
    keeps_everything(Storage::open(folder.path().to_str().unwrap()).unwrap()).await;
}

#[tokio::test]
async fn a_checkpoint_holds_every_txn() {
    let mut world = World::new(Storage::memory()).await;
    world.append(3).await;
    let version = world.maintain(&eager()).await.checkpoint.unwrap();
    for version in 0..version {
        let key = crate::storage::StorageKey::Commit { table: path(), version };
        world.storage.delete(&key.path()).await.unwrap();
    }
    let reopened = LakeTable::open_existing(&world.storage, &path(), &world.clock).await.unwrap().unwrap();
    assert_eq!((reopened.txn("stage"), reopened.txn("position")), (Some(3), Some(3)));
}

#[tokio::test]
async fn clean_up_waits_for_its_time_and_for_the_reader() {
    let mut world = World::new(Storage::memory()).await;
    world.append(6).await;
    let fresh = world.maintain(&eager()).await;
    assert_eq!((fresh.log_entries_deleted, fresh.files_vacuumed), (0, 0));
    world.clock.step(8 * DAY_MICROS);
    let behind = MaintainOptions { reader_watermark: Some(2), ..eager() };
    let mut tail = Tail::new(&world.storage, &path(), 2, &["id"], &world.clock);
    let held = world.maintain(&behind).await;
    assert_eq!(held.log_entries_deleted, 3, "versions 0 to 2 are read");
    assert_eq!(held.files_vacuumed, 2, "the files of versions 1 and 2");
    assert_eq!(tailed(&mut tail).await, [2, 3, 4, 5]);
    let free = world.maintain(&MaintainOptions { reader_watermark: Some(100), ..eager() }).await;
    assert!(free.log_entries_deleted > 0 && free.files_vacuumed == 4, "{free:?}");
    assert_eq!((world.ids().await, world.data_files().await), (world.expected(), 1));
    assert_eq!(delta_table(&world.storage, &path()).await.unwrap().version(), Some(7));
    world.table = LakeTable::open_existing(&world.storage, &path(), &world.clock).await.unwrap().unwrap();
    world.append(1).await;
    assert_eq!(world.ids().await, world.expected());
}

#[tokio::test]
async fn a_reader_that_stands_still_for_a_month_no_longer_holds_clean_up() {
    let mut world = World::new(Storage::memory()).await;
    world.append(4).await;
    world.maintain(&eager()).await;
    world.clock.step(31 * DAY_MICROS);
    let summary = world.maintain(&MaintainOptions { reader_watermark: Some(-1), ..eager() }).await;
    assert!(summary.log_entries_deleted > 0 && summary.files_vacuumed == 4, "{summary:?}");
    let mut tail = Tail::new(&world.storage, &path(), -1, &["id"], &world.clock);
    assert!(matches!(tail.next().await.unwrap(), TailStep::Lost));
}

#[tokio::test]
async fn appends_and_compaction_race_and_nothing_is_lost() {
    let mut world = World::new(Storage::memory()).await;
    world.append(4).await;
    let (storage, clock) = (world.storage.clone(), world.clock.clone());
    let compacting = async {
        for _ in 0..10 {
            maintain(&storage, &path(), &eager(), &clock, &CancellationToken::new()).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(compacting, world.append(40));
    let ids = world.ids().await;
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    assert_eq!(ids, world.expected());
}

#[tokio::test]
async fn two_compactors_do_not_double_rows() {
    let mut world = World::new(Storage::memory()).await;
    world.append(10).await;
    let (one, other) = (eager(), eager());
    tokio::join!(world.maintain(&one), world.maintain(&other));
    assert_eq!(world.ids().await, world.expected());
}

#[tokio::test]
async fn a_short_retention_is_refused() {
    let world = World::new(Storage::memory()).await;
    let options = MaintainOptions { vacuum_retention: Duration::from_secs(60), ..eager() };
    let stop = CancellationToken::new();
    let error = maintain(&world.storage, &path(), &options, &world.clock, &stop).await.unwrap_err();
    assert_eq!(error.exit_code(), 2);
}
