//! The order of a lane's keys, whatever the clock, the store and other processes do.

use bytes::Bytes;

use super::store::Puts;
use super::*;
use crate::clock::Timestamp;
use crate::error::ErrorKind;

const HOUR_MICROS: i64 = 3_600_000_000;

impl Lane {
    async fn land(&self, text: &'static str) {
        self.writer.land_pulled(Bytes::from_static(text.as_bytes())).await.unwrap();
    }

    /// The lane is closed as at the end of the process.
    async fn close(self) -> (Storage, Clock) {
        drop(self.writer);
        self.task.await.unwrap().unwrap();
        (self.storage, self.clock)
    }
}

#[tokio::test]
async fn keys_increase_when_the_clock_steps_back() {
    let lane = LaneSetup::default().open().await;
    lane.land("{\"a\": 1}").await;
    lane.clock.step(-HOUR_MICROS);
    lane.land("{\"a\": 2}").await;
    lane.land("{\"a\": 3}").await;
    let keys = keys(&lane.storage).await;
    assert_eq!([micros(&keys[1]), micros(&keys[2])], [micros(&keys[0]) + 1, micros(&keys[0]) + 2]);
    assert_eq!(segments(&lane.storage).await, ["{\"a\": 1}\n", "{\"a\": 2}\n", "{\"a\": 3}\n"]);
}

#[tokio::test]
async fn a_restart_takes_up_after_the_newest_key() {
    let lane = LaneSetup::default().open().await;
    lane.land("{\"a\": 1}").await;
    lane.clock.step(HOUR_MICROS);
    lane.land("{\"a\": 2}").await;
    let newest = keys(&lane.storage).await.remove(1);
    let (storage, clock) = lane.close().await;
    // What is no segment says nothing about the lane, wherever it sorts.
    for stray in [format!("{newest}.bak"), "raw/telegram/42/edge/9999-99-99/99/notes.txt".to_owned()] {
        storage.put_new(&Path::from(stray), Bytes::new()).await.unwrap();
    }
    clock.step(-100 * HOUR_MICROS);
    let lane = LaneSetup { storage, clock, ..LaneSetup::default() }.open().await;
    lane.land("{\"a\": 3}").await;
    let next = keys(&lane.storage).await.into_iter().filter_map(|key| StorageKey::parse(&key).map(|_| micros(&key)));
    assert_eq!(next.max(), Some(micros(&newest) + 1));
}

#[tokio::test]
async fn what_came_before_a_long_sleep_is_not_landed_after_it() {
    let lane = LaneSetup { clock: Clock::fast(20), ..LaneSetup::default() }.open().await;
    lane.land("{\"a\": 1}").await;
    // As a stopped process finds it when it is woken: the body was in its queue all the time.
    lane.clock.step(49 * HOUR_MICROS);
    assert!(lane.writer.land_pulled(Bytes::from_static(b"{\"a\": 2}")).await.is_err());
    lane.clock.sleep(Duration::from_secs(11)).await;
    lane.land("{\"a\": 3}").await;
    assert_eq!(segments(&lane.storage).await, ["{\"a\": 1}\n", "{\"a\": 3}\n"]);
}

#[tokio::test]
async fn a_key_that_is_taken_is_passed_over() {
    let lane = LaneSetup::default().open().await;
    lane.clock.step(HOUR_MICROS);
    lane.land("{\"a\": 1}").await;
    lane.clock.step(-HOUR_MICROS);
    // Another process writes the lane by mistake, where no lock keeps it off.
    let newest = keys(&lane.storage).await.remove(0);
    let taken = StorageKey::Segment {
        pipeline: Name::new("telegram").unwrap(),
        bot_id: BotId(42),
        lane: Name::new("edge").unwrap(),
        micros: Timestamp::from_micros(micros(&newest) + 1),
    };
    lane.storage.put_new(&taken.path(), Bytes::from_static(b"{\"theirs\": 1}\n")).await.unwrap();
    lane.land("{\"a\": 2}").await;
    assert_eq!(segments(&lane.storage).await, ["{\"a\": 1}\n", "{\"theirs\": 1}\n", "{\"a\": 2}\n"]);
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_is_one_segment() {
    let lane = LaneSetup::default().open().await;
    lane.control.set(Puts::LoseAnswers);
    lane.land("{\"a\": 1}").await;
    assert_eq!(segments(&lane.storage).await, ["{\"a\": 1}\n"]);
}

#[tokio::test]
async fn a_put_that_failed_is_tried_again_under_its_key() {
    let lane = LaneSetup::default().open().await;
    lane.control.set(Puts::Fail);
    let landing = lane.land("{\"a\": 1}");
    let repairing = async {
        lane.control.begun(2).await;
        let now = lane.clock.now().as_micros();
        lane.control.set(Puts::Work);
        now
    };
    let ((), repaired) = tokio::join!(landing, repairing);
    assert!(micros(&keys(&lane.storage).await[0]) < repaired, "the key is from before the trouble");
    assert!(lane.telemetry.render().contains("lakegram_receive_updates_total 1"));
}

#[tokio::test]
async fn what_was_pulled_is_landed_or_said_not_to_be() {
    let lane = LaneSetup { max_in_flight: 10, patience: SHORT, ..LaneSetup::default() }.open().await;
    lane.control.set(Puts::Fail);
    let error = lane.writer.land_pulled(Bytes::from_static(b"{\"a\": 1}")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(lane.writer.readiness()().is_err());
    lane.control.set(Puts::Work);
    until(&lane.clock, async || lane.writer.readiness()().is_ok()).await;
    lane.land("{\"a\": 2}").await;
    assert!(lane.writer.land_pulled(Bytes::from_static(b"more than ten")).await.is_err());
}

#[tokio::test]
async fn a_lane_has_one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(folder.path().to_str().unwrap()).unwrap();
    let lane = LaneSetup { storage: storage.clone(), ..LaneSetup::default() }.open().await;
    let second = LaneSetup { storage: storage.clone(), clock: lane.clock.clone(), ..LaneSetup::default() };
    let error = LaneWriter::open(second.options()).map(drop).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("lane `edge` is in use"), "{error}");
    lane.land("{\"a\": 1}").await;
    lane.close().await;
    let lane = LaneSetup { storage, ..LaneSetup::default() }.open().await;
    lane.land("{\"a\": 2}").await;
    assert_eq!(segments(&lane.storage).await, ["{\"a\": 1}\n", "{\"a\": 2}\n"]);
}

#[tokio::test]
async fn in_a_root_that_was_made_anew_the_lane_is_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    let storage = Storage::open(root.to_str().unwrap()).unwrap();
    let lane = LaneSetup { storage: storage.clone(), ..LaneSetup::default() }.open().await;
    lane.land("{\"a\": 1}").await;
    std::fs::remove_dir_all(&root).unwrap();
    lane.land("{\"a\": 2}").await;
    lane.land("{\"a\": 3}").await;
    assert_eq!(segments(&lane.storage).await, ["{\"a\": 2}\n", "{\"a\": 3}\n"]);
    assert!(storage.try_lock(&lane_lock()).unwrap().is_none(), "the lock is held in the new root");
}

fn lane_lock() -> Path {
    let (pipeline, lane) = (Name::new("telegram").unwrap(), Name::new("edge").unwrap());
    StorageKey::LaneLock { pipeline, bot_id: BotId(42), lane }.path()
}

#[tokio::test]
async fn a_lane_that_somebody_else_has_in_the_new_root_is_taken_as_soon_as_it_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    let storage = Storage::open(root.to_str().unwrap()).unwrap();
    let lane = LaneSetup { storage, patience: SHORT, ..LaneSetup::default() }.open().await;
    lane.land("{\"a\": 1}").await;
    std::fs::remove_dir_all(&root).unwrap();
    lane.land("{\"a\": 2}").await;
    let theirs = Storage::open(root.to_str().unwrap()).unwrap().try_lock(&lane_lock()).unwrap().unwrap();
    assert!(lane.writer.land_pulled(Bytes::from_static(b"{\"a\": 3}")).await.is_err());
    assert!(lane.writer.readiness()().is_err());
    drop(theirs);
    // A receiver that is not ready gets no updates: it must find out by itself.
    until(&lane.clock, async || lane.writer.readiness()().is_ok()).await;
    lane.land("{\"a\": 4}").await;
    assert_eq!(segments(&lane.storage).await, ["{\"a\": 2}\n", "{\"a\": 4}\n"]);
}

#[tokio::test]
async fn a_root_that_is_replaced_while_the_lane_is_opened_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    let storage = Storage::open(root.to_str().unwrap()).unwrap();
    let setup = LaneSetup { storage: storage.clone(), ..LaneSetup::default() };
    let (writer, opening) = LaneWriter::open(setup.options()).unwrap();
    std::fs::remove_dir_all(&root).unwrap();
    storage.put_new(&Path::from("raw/x"), Bytes::new()).await.unwrap();
    let task = tokio::spawn(opening);
    writer.land_pulled(Bytes::from_static(b"{}")).await.unwrap();
    assert!(storage.try_lock(&lane_lock()).unwrap().is_none(), "the lock is held in the new root");
    drop(writer);
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_batch_is_split_where_a_segment_is_full() {
    let lane = LaneSetup { max_in_flight: 64 << 20, ..LaneSetup::default() }.open().await;
    let large: Bytes = format!("\"{}\"", "x".repeat(3 << 20)).into();
    let landings = (0..6).map(|_| lane.writer.land_pulled(large.clone()));
    let landed = futures::future::join_all(landings).await;
    assert!(landed.into_iter().all(|landed| landed.is_ok()));
    let lines: Vec<_> = segments(&lane.storage).await.iter().map(|text| text.lines().count()).collect();
    assert_eq!(lines, [2, 2, 2]);
}
