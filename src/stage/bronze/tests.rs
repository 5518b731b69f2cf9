//! The loader on a store in memory: discovery, redelivery, restarts, twins, and a reference model of it all.

use std::collections::BTreeSet;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use proptest::prelude::*;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::hint::key_hints;
use crate::id::BotId;
use crate::schema;
use crate::table::LakeTable;

struct World {
    storage: Storage,
    clock: Clock,
}

impl World {
    fn new() -> Self {
        Self { storage: Storage::memory(), clock: Clock::system() }
    }

    async fn stage(&self) -> BronzeStage {
        let settings = crate::pipeline::load::built_in().unwrap().bronze;
        BronzeStage::open(BronzeOptions {
            storage: self.storage.clone(),
            pipeline: Name::new("p").unwrap(),
            settings,
            schema: schema::built_in(schema::MESSAGES).unwrap(),
            clock: self.clock.clone(),
            telemetry: Telemetry::new(),
            committed: watch::Sender::new(-1),
        })
        .await
        .unwrap()
    }

    async fn load(&self) -> BronzeSummary {
        self.stage().await.work_until_idle(&CancellationToken::new()).await.unwrap()
    }

    /// Puts a segment of a lane, so many microseconds before the present.
    async fn put(&self, lane: &str, age_micros: i64, lines: &str) -> Path {
        let micros = Timestamp::from_micros(self.clock.now().as_micros() - age_micros);
        self.put_at(lane, micros, lines).await
    }

    async fn put_at(&self, lane: &str, micros: Timestamp, lines: &str) -> Path {
        let (pipeline, lane) = (Name::new("p").unwrap(), Name::new(lane).unwrap());
        let path = StorageKey::Segment { pipeline, bot_id: BotId(1), lane, micros }.path();
        self.storage.put_new(&path, Bytes::copy_from_slice(lines.as_bytes())).await.unwrap();
        path
    }

    async fn table(&self) -> LakeTable {
        let path = Path::from("bronze/telegram_messages");
        LakeTable::open_existing(&self.storage, &path, &self.clock).await.unwrap().unwrap()
    }

    async fn update_ids(&self) -> Vec<Option<i64>> {
        let table = self.table().await;
        let mut ids = Vec::new();
        for file in table.files().await.unwrap() {
            let batch = table.read_file(&file, Some(&["update_id"])).await.unwrap();
            ids.extend(batch.column(0).as_primitive::<Int64Type>().iter());
        }
        ids.sort();
        ids
    }

    async fn position(&self, lane: &str) -> Option<i64> {
        self.table().await.txn(&format!("lakegram/p/lane/1/{lane}"))
    }
}

fn update(id: i64) -> String {
    format!("{{\"update_id\": {id}, \"message\": {{\"text\": \"m{id}\"}}}}\n")
}

fn some(ids: impl IntoIterator<Item = i64>) -> Vec<Option<i64>> {
    ids.into_iter().map(Some).collect()
}

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;

#[tokio::test]
async fn every_line_is_a_row_and_a_second_run_adds_none() {
    let world = World::new();
    world.put("a", 2 * MINUTE, &(update(2) + &update(1) + "\n  \n")).await;
    world.put("b", MINUTE, &update(3)).await;
    let summary = world.load().await;
    assert_eq!((summary.files, summary.rows), (2, 3));
    assert_eq!(world.update_ids().await, some(1..=3));
    assert_eq!(world.load().await.rows, 0);
}

#[tokio::test]
async fn corrupt_lines_are_rows_once() {
    let world = World::new();
    world.put("a", MINUTE, "not json\n{\"_corrupt_record\": \"x\"}\n[1]\n").await;
    let summary = world.load().await;
    assert_eq!((summary.rows, summary.corrupt), (3, 3));
    world.load().await;
    assert_eq!(world.update_ids().await, [None, None, None]);
}

#[tokio::test]
async fn a_redelivery_makes_no_row_in_one_file_in_another_lane_or_after_a_restart() {
    let world = World::new();
    world.put("a", 5 * MINUTE, &(update(1) + &update(1))).await;
    world.put("b", 4 * MINUTE, &update(1)).await;
    assert_eq!(world.load().await.rows, 1);
    world.put("a", MINUTE, &(update(1) + &update(2))).await;
    assert_eq!(world.load().await.rows, 1);
    // A segment of nothing but redeliveries leaves no trace, and loading it again adds nothing.
    assert_eq!(world.load().await.rows, 0);
    assert_eq!(world.update_ids().await, some([1, 2]));
}

#[tokio::test]
async fn a_segment_older_than_the_window_is_asked_of_the_table() {
    let world = World::new();
    world.put("a", 50 * HOUR, &update(1)).await;
    world.put("a", MINUTE, &update(7)).await;
    let mut stage = world.stage().await;
    stage.work_until_idle(&CancellationToken::new()).await.unwrap();
    // A receiver that was cut off for four days turns up with what it had landed.
    world.put("late", 100 * HOUR, &(update(1) + &update(2))).await;
    let summary = stage.work_until_idle(&CancellationToken::new()).await.unwrap();
    assert_eq!(summary.redeliveries, 1);
    assert_eq!(world.update_ids().await, some([1, 2, 7]));
}

#[tokio::test]
async fn a_hinted_key_does_not_hide_an_older_one_that_was_never_hinted() {
    let world = World::new();
    let (hinter, hints) = key_hints();
    let stop = CancellationToken::new();
    let stage = world.stage().await;
    let committed = stage.committed.subscribe();
    let running = tokio::spawn(stage.run(hints, stop.clone()));
    world.put("a", 2 * MINUTE, &update(1)).await;
    let hinted = world.put("a", MINUTE, &update(2)).await;
    hinter.hint(hinted);
    let mut committed = committed;
    committed.wait_for(|version| *version >= 0).await.unwrap();
    stop.cancel();
    running.await.unwrap().unwrap();
    assert!(world.update_ids().await.contains(&Some(2)));
    world.load().await;
    assert_eq!(world.update_ids().await, some([1, 2]));
}

#[tokio::test]
async fn the_position_stays_settled_behind_the_present_and_never_goes_back() {
    let world = World::new();
    world.put("a", 30 * MINUTE, &update(1)).await;
    world.load().await;
    assert_eq!(world.position("a").await, None, "the store says it was put just now");
    world.clock.step(20 * MINUTE);
    world.load().await;
    let position = world.position("a").await.unwrap();
    // A key below the position that turns up after all is for the look-back.
    world.put_at("a", Timestamp::from_micros(position - 5), &update(2)).await;
    world.put("a", MINUTE, &update(3)).await;
    world.load().await;
    assert!(world.position("a").await.unwrap() >= position);
    assert_eq!(world.update_ids().await, some([1, 3]));
    let mut stage = world.stage().await;
    stage.look_back(&CancellationToken::new()).await.unwrap();
    assert_eq!(world.update_ids().await, some([1, 2, 3]));
    stage.look_back(&CancellationToken::new()).await.unwrap();
    assert_eq!(world.update_ids().await, some([1, 2, 3]));
}

#[tokio::test]
async fn two_loaders_on_one_table_make_each_update_one_row() {
    let world = World::new();
    for id in 0..40 {
        world.put("a", (100 - id) * 1_000, &(update(id) + "corrupt\n")).await;
    }
    let (mut one, mut other) = (world.stage().await, world.stage().await);
    one.settings.max_files = 3;
    other.settings.max_files = 5;
    let stop = CancellationToken::new();
    let (first, second) = tokio::join!(one.work_until_idle(&stop), other.work_until_idle(&stop));
    assert_eq!(first.unwrap().rows + second.unwrap().rows, 80);
    let ids = world.update_ids().await;
    assert_eq!(ids.iter().flatten().count(), 40);
    assert_eq!(ids.iter().filter(|id| id.is_none()).count(), 40);
    assert_eq!(ids.iter().flatten().collect::<BTreeSet<_>>().len(), 40);
}

#[tokio::test]
async fn a_segment_that_cannot_be_read_now_is_loaded_later() {
    let world = World::new();
    let path = world.put("a", MINUTE, &update(1)).await;
    let mut stage = world.stage().await;
    let keys = VecDeque::from([(SegmentKey::of(StorageKey::parse(&path).unwrap()).unwrap(), path.clone())]);
    world.storage.delete(&path).await.unwrap();
    stage.load(keys, &CancellationToken::new()).await.unwrap();
    world.storage.put_new(&path, Bytes::from(update(1))).await.unwrap();
    stage.work_until_idle(&CancellationToken::new()).await.unwrap();
    assert_eq!(world.update_ids().await, some([1]));
}

#[tokio::test]
async fn a_batch_is_bounded_in_files_and_bytes_and_a_segment_is_never_split() {
    let world = World::new();
    for id in 0..6 {
        world.put("a", 1_000 - id, &update(id)).await;
    }
    let mut stage = world.stage().await;
    stage.settings.max_files = 4;
    assert_eq!(stage.work_until_idle(&CancellationToken::new()).await.unwrap().commits, 2);
    let mut other = World::new().stage().await;
    other.storage = world.storage.clone();
    other.settings.max_bytes = bytesize::ByteSize::b(1);
    let mut keys: VecDeque<_> = world
        .storage
        .list_after(&Path::from("raw/p"), None, 10)
        .await
        .unwrap()
        .into_iter()
        .map(|object| (SegmentKey::of(StorageKey::parse(&object.location).unwrap()).unwrap(), object.location))
        .collect();
    assert_eq!(other.read_batch(&mut keys).await.unwrap().len(), 1);
    assert_eq!(keys.len(), 5);
}

#[derive(Clone, Debug)]
enum Step {
    /// Lane, age in seconds, update, whether it is hinted.
    Put(u8, i64, i64, bool),
    Sweep,
    Restart,
    Pass(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let put = (0_u8..3, 0_i64..500, 0_i64..30, any::<bool>());
    let step = prop_oneof![
        6 => put.prop_map(|(lane, age, id, hinted)| Step::Put(lane, age, id, hinted)),
        2 => Just(Step::Sweep),
        1 => Just(Step::Restart),
        1 => (0_i64..900).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_comes_when_each_update_is_one_row(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let stop = CancellationToken::new();
            let mut stage = world.stage().await;
            let mut expected = BTreeSet::new();
            let mut taken = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Put(lane, age, id, hinted) => {
                        if !taken.insert((lane, world.clock.now().as_micros() / 1_000 - age * 1_000)) {
                            continue;
                        }
                        let path = world.put(&format!("lane{lane}"), age * 1_000_000, &update(id)).await;
                        expected.insert(id);
                        if hinted {
                            let hinted = HintedKeys { keys: vec![path], overflowed: false };
                            stage.load_hinted(hinted, &stop).await.unwrap();
                        }
                    }
                    Step::Sweep => drop(stage.work_until_idle(&stop).await.unwrap()),
                    Step::Restart => stage = world.stage().await,
                    // The store's clock is the machine's: seen from a later present, what was put is settled.
                    Step::Pass(seconds) => world.clock.step(seconds * 1_000_000),
                }
            }
            stage.work_until_idle(&stop).await.unwrap();
            stage.look_back(&stop).await.unwrap();
            let ids = world.update_ids().await;
            prop_assert_eq!(ids, some(expected));
            Ok(())
        })?;
    }
}
