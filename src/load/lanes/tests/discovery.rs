//! What is found, in which order, and how far a position goes.

use super::*;

fn micros(path: &Path) -> i64 {
    SegmentKey::parse(path).unwrap().micros.as_micros()
}

#[tokio::test]
async fn a_backlog_over_several_lanes_is_loaded_in_the_order_it_was_received() {
    let mut world = World::new();
    world.settings.max_files = 2;
    for id in 0..9 {
        world.put(["a", "b", "c"][id as usize % 3], (100 - id) * MINUTE, &update(id)).await;
    }
    world.load().await;
    assert_eq!(world.in_order().await, some(0..9));
}

#[tokio::test]
async fn a_listing_of_several_pages_is_walked_to_its_end() {
    let mut world = World::new();
    world.settings.max_files = 700;
    for id in 0..2_100 {
        world.put(if id % 7 == 0 { "b" } else { "a" }, 9_000 - id, &update(id)).await;
    }
    assert_eq!(world.load().await, BronzeSummary { files: 2_100, rows: 2_100, commits: 3, ..BronzeSummary::default() });
    world.pass(20 * MINUTE);
    world.load().await;
    assert!(world.position("a").await.is_some() && world.position("b").await.is_some());
    world.script.calls();
    assert_eq!(world.load().await.files, 0);
    let calls = world.script.calls();
    assert!(!calls.iter().any(|call| call.starts_with("get raw")), "{calls:?}");
}

#[tokio::test]
async fn a_hinted_key_hides_neither_an_older_one_nor_moves_the_position() {
    let world = World::new();
    let mut stage = world.stage().await;
    world.put("a", 2 * MINUTE, &update(1)).await;
    let newer = world.put("a", MINUTE, &update(2)).await;
    stage.load_hinted(hinted([newer]), &never()).await.unwrap();
    assert_eq!(world.update_ids().await, some([2]));
    world.pass(20 * MINUTE);
    stage.ledger.commit(&[], true).await.unwrap();
    assert_eq!(world.position("a").await, None, "only a listing moves it");
    stage.work_until_idle(&never()).await.unwrap();
    assert_eq!(world.update_ids().await, some([1, 2]));
}

#[tokio::test]
async fn a_key_that_appears_below_others_within_the_settle_time_is_found() {
    let world = World::new();
    let mut stage = world.stage().await;
    world.put("a", 20 * MINUTE, &update(1)).await;
    world.pass(11 * MINUTE);
    let newer = world.put("a", 0, &update(3)).await;
    stage.work_until_idle(&never()).await.unwrap();
    assert!(world.position("a").await.unwrap() < micros(&newer));
    world.put("a", 9 * MINUTE, &update(2)).await;
    assert_eq!(stage.work_until_idle(&never()).await.unwrap().rows, 1);
    assert_eq!(world.load().await.rows, 0);
    assert_eq!(world.update_ids().await, some(1..=3));
}

#[tokio::test]
async fn the_position_rides_along_stays_settled_and_never_goes_back() {
    let world = World::new();
    world.put("a", 30 * MINUTE, &update(1)).await;
    world.load().await;
    assert_eq!(world.position("a").await, None, "the store says it was put just now");
    world.pass(20 * MINUTE);
    let version = world.version().await;
    world.put("a", 0, &update(2)).await;
    world.load().await;
    let position = world.position("a").await.unwrap();
    // What follows it is the commit of the first look-back: there is a position to look below now.
    let commit = StorageKey::Commit { table: Path::from(TABLE), version: version + 1 }.path();
    let commit = String::from_utf8(world.storage.get(&commit).await.unwrap().unwrap().to_vec()).unwrap();
    assert!(commit.contains("{\"add\":") && commit.contains("lakegram/lane/p/1/a"), "it rode along: {commit}");
    assert!(world.version().await <= version + 2);
    world.pass(-15 * MINUTE);
    world.put("a", 0, &update(3)).await;
    world.load().await;
    assert!(world.position("a").await.unwrap() >= position);
    assert_eq!(world.update_ids().await, some(1..=3));
}

#[tokio::test]
async fn a_position_never_passes_a_segment_that_cannot_be_read() {
    let world = World::new();
    world.put("a", 5 * MINUTE, &update(1)).await;
    let bad = world.put("a", 4 * MINUTE, &update(2)).await;
    world.put("a", 3 * MINUTE, &update(3)).await;
    world.pass(20 * MINUTE);
    let mut stage = world.stage().await;
    let name: &'static str = Box::leak(bad.filename().unwrap().to_owned().into_boxed_str());
    world.script.fail("get", name, Fault::Refuse, 2);
    for _ in 0..2 {
        let error = stage.work_until_idle(&never()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(world.update_ids().await, some([1, 3]));
        assert!(world.position("a").await.unwrap() < micros(&bad));
    }
    stage.work_until_idle(&never()).await.unwrap();
    assert_eq!(world.update_ids().await, some(1..=3));
    assert!(world.position("a").await.unwrap() > micros(&bad));
}

#[tokio::test]
async fn a_hinted_segment_that_is_gone_is_left_to_the_listing() {
    let world = World::new();
    let (gone, there) = (world.put("a", MINUTE, &update(1)).await, world.put("a", 0, &update(2)).await);
    let mut stage = world.stage().await;
    world.storage.delete(&gone).await.unwrap();
    stage.load_hinted(hinted([gone.clone(), there]), &never()).await.unwrap();
    assert_eq!(world.update_ids().await, some([2]));
    world.storage.put_new(&gone, Bytes::from(update(1))).await.unwrap();
    stage.work_until_idle(&never()).await.unwrap();
    assert_eq!(world.update_ids().await, some([1, 2]));
}

#[tokio::test]
async fn what_is_no_segment_of_this_pipeline_is_passed_over() {
    let world = World::new();
    let now = world.clock.now();
    let (pipeline, lane) = (Name::new("other").unwrap(), Name::new("a").unwrap());
    let other = StorageKey::Segment { pipeline, bot_id: BotId(1), lane, micros: now }.path();
    for path in [other.as_ref(), "raw/p/1/a/0000.json", "raw/p/1/a/README.txt", "raw/p/x/a/1.json", "raw/p/1/.a.lock"] {
        world.storage.put_new(&Path::from(path), Bytes::from(update(9))).await.unwrap();
    }
    world.put("a", MINUTE, &update(1)).await;
    let mut stage = world.stage().await;
    stage.load_hinted(hinted([other, Path::from("raw/p/1/a/README.txt")]), &never()).await.unwrap();
    stage.work_until_idle(&never()).await.unwrap();
    assert_eq!(world.update_ids().await, some([1]));
}

/// A world with a loaded segment of update 1, a stage, and the position that the segment has given its lane.
async fn with_position() -> (World, BronzeStage, i64) {
    let world = World::new();
    world.put("a", 30 * MINUTE, &update(1)).await;
    world.pass(20 * MINUTE);
    let mut stage = world.stage().await;
    stage.work_until_idle(&never()).await.unwrap();
    let position = world.position("a").await.unwrap();
    (world, stage, position)
}

#[tokio::test]
async fn the_look_back_finds_what_appears_below_the_position_once() {
    let (world, mut stage, position) = with_position().await;
    // The first look-back comes with the first position; the next one is a day later.
    stage.work_until_idle(&never()).await.unwrap();
    let below = |micros: i64| Timestamp::from_micros(position - micros);
    let hidden = world.put_at("a", below(HOUR), &(update(2) + "odd\n")).await;
    world.put_at("a", below(50 * HOUR), &update(4)).await;
    // A hint for a key below the position is believed to be ingested, until a look-back knows better.
    stage.load_hinted(hinted([hidden]), &never()).await.unwrap();
    world.load().await;
    assert_eq!(world.update_ids().await, some([1]));
    world.pass(25 * HOUR);
    world.put("a", 0, &update(3)).await;
    stage.work_until_idle(&never()).await.unwrap();
    assert_eq!(world.update_ids().await, [None, Some(1), Some(2), Some(3)], "and no further than two days");
    world.pass(25 * HOUR);
    stage.work_until_idle(&never()).await.unwrap();
    world.load().await;
    assert_eq!(world.update_ids().await, [None, Some(1), Some(2), Some(3)]);
}

#[tokio::test]
async fn a_look_back_that_could_not_read_a_segment_is_not_done_with_it_and_holds_nothing_else_up() {
    let (world, mut stage, position) = with_position().await;
    let below = |micros: i64| Timestamp::from_micros(position - micros);
    let bad = world.put_at("a", below(2 * HOUR), &update(2)).await;
    world.put_at("a", below(HOUR), &update(3)).await;
    let name: &'static str = Box::leak(bad.filename().unwrap().to_owned().into_boxed_str());
    world.script.fail("get", name, Fault::Refuse, 2);
    for _ in 0..2 {
        let error = stage.work_until_idle(&never()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(world.update_ids().await, some([1, 3]));
        assert_eq!(world.txn(&TxnId::LookBack).await, None);
    }
    stage.work_until_idle(&never()).await.unwrap();
    assert_eq!(world.update_ids().await, some(1..=3));
    assert!(world.txn(&TxnId::LookBack).await.is_some());
}

#[tokio::test]
async fn a_look_back_comes_once_a_day_over_restarts_and_never_when_nothing_moves() {
    let world = World::new();
    world.put("a", 0, &update(1)).await;
    world.pass(20 * MINUTE);
    world.load().await;
    assert!(world.txn(&TxnId::LookBack).await.is_none(), "there was no position yet");
    world.load().await;
    let first = world.txn(&TxnId::LookBack).await.unwrap();
    world.pass(20 * HOUR);
    world.put("a", 0, &update(2)).await;
    world.load().await;
    assert_eq!(world.txn(&TxnId::LookBack).await, Some(first));
    world.pass(5 * HOUR);
    world.load().await;
    world.load().await;
    let second = world.txn(&TxnId::LookBack).await.unwrap();
    assert!(second > first);
    for _ in 0..10 {
        world.pass(25 * HOUR);
        world.load().await;
    }
    let version = world.version().await;
    for _ in 0..10 {
        world.pass(25 * HOUR);
        world.load().await;
    }
    assert_eq!(world.version().await, version, "idle costs nothing");
}
