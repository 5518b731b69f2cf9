//! The loader against a store that fails, dies and dates its objects by the test's clock.

mod clean;
mod discovery;
mod durable;
mod evolution;
mod model;
mod redelivery;
mod serving;
mod store;
mod trouble;

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use bytes::Bytes;

use self::store::{Fault, Script, scripted};
use super::*;
use crate::error::ErrorKind;
use crate::hint::{KeyHinter, key_hints};
use crate::id::{BotId, Name};
use crate::schema;
use crate::storage::{Storage, StorageKey};
use crate::table::{LakeTable, OwnTable, Tail, TailStep, TxnId};

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const TABLE: &str = "bronze/telegram_messages";

pub(super) struct World {
    storage: Storage,
    clock: Clock,
    script: Arc<Script>,
    settings: BronzeSettings,
    schema: SchemaRef,
    own: OwnTable,
    telemetry: Telemetry,
}

/// A stage at work, and the ways to it.
struct Running {
    hinter: KeyHinter,
    committed: watch::Receiver<i64>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl World {
    fn new() -> Self {
        Self::on(Storage::memory())
    }

    fn on(storage: Storage) -> Self {
        let clock = Clock::system();
        let (storage, script) = scripted(storage, &clock);
        let settings = crate::pipeline::load::built_in().unwrap().bronze;
        let schema = schema::built_in(schema::MESSAGES).unwrap();
        Self { storage, clock, script, settings, schema, own: OwnTable::default(), telemetry: Telemetry::new() }
    }

    fn options(&self) -> BronzeOptions {
        BronzeOptions {
            storage: self.storage.clone(),
            pipeline: Name::new("p").unwrap(),
            settings: self.settings.clone(),
            schema: Arc::clone(&self.schema),
            own: self.own.clone(),
            clock: self.clock.clone(),
            telemetry: self.telemetry.clone(),
            committed: watch::Sender::new(-1),
        }
    }

    async fn stage(&self) -> BronzeStage {
        BronzeStage::open(self.options()).await.unwrap()
    }

    async fn load(&self) -> BronzeSummary {
        self.stage().await.work_until_idle(&CancellationToken::new()).await.unwrap()
    }

    async fn serve(&self) -> Running {
        let (hinter, hints) = key_hints();
        let (options, stop) = (self.options(), CancellationToken::new());
        let committed = options.committed.subscribe();
        let stage = BronzeStage::open(options).await.unwrap();
        let task = tokio::spawn(stage.run(hints, stop.clone()));
        Running { hinter, committed, stop, task }
    }

    /// Puts a segment of a lane, so many microseconds before the present.
    async fn put(&self, lane: &str, age_micros: i64, lines: &str) -> Path {
        self.put_at(lane, Timestamp::from_micros(self.clock.now().as_micros() - age_micros), lines).await
    }

    async fn put_at(&self, lane: &str, micros: Timestamp, lines: &str) -> Path {
        self.put_for("p", lane, micros, lines).await
    }

    async fn put_for(&self, pipeline: &str, lane: &str, micros: Timestamp, lines: &str) -> Path {
        let (pipeline, lane) = (Name::new(pipeline).unwrap(), Name::new(lane).unwrap());
        let path = StorageKey::Segment { pipeline, bot_id: BotId(1), lane, micros }.path();
        self.storage.put_new(&path, Bytes::copy_from_slice(lines.as_bytes())).await.unwrap();
        path
    }

    /// Time goes by.
    fn pass(&self, micros: i64) {
        self.clock.step(micros);
    }

    async fn table(&self) -> LakeTable {
        LakeTable::open_existing(&self.storage, &Path::from(TABLE), &self.clock).await.unwrap().unwrap()
    }

    async fn version(&self) -> i64 {
        self.table().await.version()
    }

    async fn txn(&self, id: &TxnId) -> Option<i64> {
        self.table().await.txn(id)
    }

    async fn position(&self, lane: &str) -> Option<i64> {
        let lane = Name::new(lane).unwrap();
        self.txn(&TxnId::Position { pipeline: Name::cleaned("p"), bot_id: BotId(1), lane }).await
    }

    /// The rows of the table in the order of their commits.
    async fn rows(&self) -> Vec<RecordBatch> {
        let columns = ["update_id", "_source_file", "_source_row"];
        let mut tail = Tail::new(&self.storage, &Path::from(TABLE), -1, &columns, &self.clock);
        let mut found = Vec::new();
        while let TailStep::Rows { batches, .. } = tail.next().await.unwrap() {
            found.extend(batches);
        }
        found
    }

    /// The updates in the order of their rows; `None` for a corrupt one.
    async fn in_order(&self) -> Vec<Option<i64>> {
        let rows = self.rows().await;
        rows.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>()).collect()
    }

    /// The updates, sorted.
    async fn update_ids(&self) -> Vec<Option<i64>> {
        let mut ids = self.in_order().await;
        ids.sort();
        ids
    }

    /// Where each row comes from, sorted.
    async fn sources(&self) -> Vec<(String, i64)> {
        let mut sources = Vec::new();
        for batch in self.rows().await {
            let (files, rows) = (batch.column(1).as_string::<i32>(), batch.column(2).as_primitive::<Int64Type>());
            sources.extend((0..batch.num_rows()).map(|row| (files.value(row).to_owned(), rows.value(row))));
        }
        sources.sort();
        sources
    }
}

impl Running {
    /// Waits until a version after `version` is told.
    async fn committed_after(&mut self, version: i64) -> i64 {
        let told = self.committed.wait_for(|told| *told > version);
        *Clock::system().timeout(Duration::from_secs(20), told).await.expect("nothing was committed").unwrap()
    }

    async fn end(self) -> Result<()> {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

/// Waits for something that is on its way, a bounded while.
async fn eventually(mut holds: impl AsyncFnMut() -> bool) {
    let clock = Clock::system();
    while clock.monotonic() < Duration::from_secs(20) {
        if holds().await {
            return;
        }
        clock.sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not come true");
}

fn update(id: i64) -> String {
    format!("{{\"update_id\": {id}, \"message\": {{\"text\": \"m{id}\"}}}}\n")
}

fn some(ids: impl IntoIterator<Item = i64>) -> Vec<Option<i64>> {
    ids.into_iter().map(Some).collect()
}

fn hinted(keys: impl IntoIterator<Item = Path>) -> HintedKeys {
    HintedKeys { keys: keys.into_iter().collect(), overflowed: false }
}

fn never() -> CancellationToken {
    CancellationToken::new()
}

#[tokio::test]
async fn every_line_is_a_row_and_a_second_run_costs_no_commit() {
    let world = World::new();
    world.put("a", 2 * MINUTE, &(update(2) + &update(1) + "\n  \n")).await;
    world.put("b", MINUTE, &update(3)).await;
    let summary = world.load().await;
    assert_eq!(summary, BronzeSummary { files: 2, rows: 3, commits: 1, ..BronzeSummary::default() });
    assert_eq!(world.in_order().await, some(1..=3), "a batch is sorted by update");
    let version = world.version().await;
    assert_eq!(world.load().await, BronzeSummary::default());
    assert_eq!(world.version().await, version);
}

#[tokio::test]
async fn a_folder_on_disk_serves_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::on(Storage::open(folder.path().to_str().unwrap()).unwrap());
    world.put("a", 40 * HOUR, &update(1)).await;
    world.put("b", MINUTE, &(update(2) + "odd\n")).await;
    assert_eq!(world.load().await.rows, 3);
    assert_eq!(world.load().await.rows, 0);
    assert_eq!(world.update_ids().await, [None, Some(1), Some(2)]);
}

#[tokio::test]
async fn corrupt_lines_are_rows_once_even_when_hinted_twice() {
    let world = World::new();
    let path = world.put("a", MINUTE, "not json\n{\"_corrupt_record\": \"x\"}\n[1]\n").await;
    let mut stage = world.stage().await;
    stage.load_hinted(hinted([path.clone(), path.clone()]), &never()).await.unwrap();
    stage.load_hinted(hinted([path]), &never()).await.unwrap();
    assert_eq!((stage.summary.rows, stage.summary.corrupt), (3, 3));
    stage.work_until_idle(&never()).await.unwrap();
    world.load().await;
    assert_eq!(world.update_ids().await, [None, None, None]);
}

#[tokio::test]
async fn a_batch_is_bounded_in_files_and_bytes_and_a_segment_is_never_split() {
    let mut world = World::new();
    for id in 0..6 {
        world.put("a", 1_000 - id, &(update(id) + &update(10 + id))).await;
    }
    world.settings.max_files = 4;
    assert_eq!(world.load().await.commits, 2);
    let mut bytes = World::new();
    bytes.settings.max_bytes = bytesize::ByteSize::b(100);
    let mut paths = Vec::new();
    for id in 0..5 {
        paths.push(bytes.put("a", 1_000 - id, &(update(id) + &update(10 + id))).await);
    }
    assert!(update(10).len() * 3 > 100 && update(1).len() * 2 < 100);
    assert_eq!(bytes.load().await.commits, 3, "two segments exceed a hundred bytes");
    // The sizes of hinted segments are not known before they are read.
    let mut hints = World::on(Storage::memory());
    hints.settings.max_bytes = bytesize::ByteSize::b(100);
    for id in 0..5 {
        paths[id as usize] = hints.put("a", 1_000 - id, &(update(id) + &update(10 + id))).await;
    }
    let mut stage = hints.stage().await;
    stage.load_hinted(hinted(paths), &never()).await.unwrap();
    assert_eq!((stage.summary.commits, stage.summary.rows), (3, 10));
}

#[tokio::test]
async fn columns_that_a_table_has_besides_are_null() {
    let mut world = World::new();
    let shipped = Arc::clone(&world.schema);
    let mut fields: Vec<_> = shipped.fields().iter().cloned().collect();
    fields.insert(3, Arc::new(Field::new("note", DataType::Utf8, true)));
    world.schema = Arc::new(Schema::new(fields));
    world.stage().await;
    world.schema = shipped;
    world.put("a", MINUTE, &update(1)).await;
    world.load().await;
    let table = world.table().await;
    let rows = table.read_file(&table.files().await.unwrap()[0], Some(&["note", "text"])).await.unwrap();
    assert_eq!((rows.column(0).null_count(), rows.column(1).as_string::<i32>().value(0)), (1, "m1"));
}

#[tokio::test]
async fn a_schema_without_what_exactly_once_needs_is_refused() {
    let mut world = World::new();
    let kept = world.schema.fields().iter().filter(|field| field.name() != "_source_file").cloned();
    world.schema = Arc::new(Schema::new(kept.collect::<Vec<_>>()));
    let error = BronzeStage::open(world.options()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("_source_file"), "{error}");
}
