//! Maintenance against tables that move, are read and are raced for.

mod clean;
mod compact;
mod gate;

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

    /// The table as somebody who has just come finds it.
    async fn opened(&self) -> LakeTable {
        LakeTable::open_existing(&self.storage, &path(), &self.clock).await.unwrap().unwrap()
    }

    async fn ids(&self) -> Vec<i64> {
        let table = self.opened().await;
        let mut ids = Vec::new();
        for file in table.files().await.unwrap() {
            let batch = table.read_file(&file, None).await.unwrap();
            ids.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
        }
        ids.sort_unstable();
        ids
    }

    async fn data_files(&self) -> Vec<Path> {
        let objects = self.storage.list_after(&path(), None, 10_000).await.unwrap();
        let paths = objects.into_iter().map(|object| object.location);
        paths.filter(|path| !path.as_ref().contains("_delta_log")).collect()
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

#[tokio::test]
async fn a_short_retention_is_refused() {
    let world = World::new(Storage::memory()).await;
    for options in [
        MaintainOptions { vacuum_retention: Duration::from_secs(60), ..eager() },
        MaintainOptions { log_retention: Duration::ZERO, ..eager() },
    ] {
        let stop = CancellationToken::new();
        let error = maintain(&world.storage, &path(), &options, &world.clock, &stop).await.unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }
}

#[tokio::test]
async fn a_table_that_is_not_there_needs_nothing() {
    let stop = CancellationToken::new();
    let done = maintain(&Storage::memory(), &path(), &eager(), &Clock::system(), &stop).await.unwrap();
    assert_eq!(done, MaintainSummary::default());
}

#[tokio::test]
async fn nothing_is_begun_after_stop() {
    let mut world = World::new(Storage::memory()).await;
    world.append(5).await;
    world.clock.step(40 * DAY_MICROS);
    let stop = CancellationToken::new();
    stop.cancel();
    let done = maintain(&world.storage, &path(), &eager(), &world.clock, &stop).await.unwrap();
    assert_eq!(done, MaintainSummary::default());
}
