//! What is cleaned from the lanes, and that nothing is loaded again for it.

use super::*;
use crate::load::clean::Cleaned;

const DAY: i64 = 24 * HOUR;

async fn cleaned(world: &World, settings: &str, is_dry: bool) -> Cleaned {
    try_clean(world, settings, is_dry).await.unwrap()
}

async fn try_clean(world: &World, settings: &str, is_dry: bool) -> Result<Cleaned> {
    let mut pipeline = crate::pipeline::load::built_in().unwrap();
    pipeline.name = Name::new("p").unwrap();
    pipeline.bronze.clean_source = toml::from_str(settings).unwrap();
    let (clock, telemetry) = (world.clock.clone(), world.telemetry.clone());
    let options = CleanOptions { storage: world.storage.clone(), pipeline, clock, telemetry };
    clean(options, is_dry, &never()).await
}

const DELETE: &str = "action = \"delete\"\nafter = \"5d\"";

async fn is_there(world: &World, path: &Path) -> bool {
    world.storage.head(path).await.unwrap().is_some()
}

/// Loads, and again once what was loaded has settled, so that positions follow.
async fn settle(world: &World) {
    world.load().await;
    world.pass(20 * MINUTE);
    world.load().await;
}

/// Three old segments, the last of them of nothing but a redelivery, and one of today.
async fn aged() -> (World, [Path; 4]) {
    let world = World::new();
    let first = world.put("a", 3 * MINUTE, &update(1)).await;
    let second = world.put("a", 2 * MINUTE, &(update(2) + "odd\n")).await;
    let again = world.put("a", MINUTE, &update(1)).await;
    settle(&world).await;
    world.pass(6 * DAY);
    let today = world.put("a", MINUTE, &update(4)).await;
    settle(&world).await;
    (world, [first, second, again, today])
}

#[tokio::test]
async fn segments_with_rows_that_no_loader_looks_at_any_more_go_and_none_is_loaded_again() {
    let (world, [first, second, again, today]) = aged().await;
    let rows = world.sources().await;
    let dry = cleaned(&world, DELETE, true).await;
    assert!(is_there(&world, &first).await, "a dry run changes nothing");
    assert!(cleaned(&world, "action = \"keep\"", false).await.is_nothing());
    let done = cleaned(&world, DELETE, false).await;
    assert_eq!((done.files, &done.names), (2, &vec![first.to_string(), second.to_string()]));
    assert_eq!(done, dry);
    assert!(!is_there(&world, &first).await && !is_there(&world, &second).await);
    assert!(is_there(&world, &again).await, "the table has no row of it");
    assert!(is_there(&world, &today).await);
    world.put("a", 0, "{\"update_id\":2,\"message\":{}}\n").await;
    world.pass(2 * DAY);
    settle(&world).await;
    let mut with_late: Vec<_> = world.sources().await;
    with_late.retain(|source| rows.contains(source));
    assert_eq!(with_late, rows, "the look-back of another day finds nothing missing");
    assert_eq!(world.update_ids().await, [None, Some(1), Some(2), Some(2), Some(4)], "days later it is a new update");
}

#[tokio::test]
async fn what_is_young_or_not_below_the_reach_of_the_look_back_stays() {
    let (world, paths) = aged().await;
    assert!(cleaned(&world, "action = \"delete\"\nafter = \"7d\"", false).await.is_nothing(), "too young");
    let still = World::new();
    let older = still.put("a", 2 * HOUR, &update(1)).await;
    still.put("a", HOUR, &update(2)).await;
    settle(&still).await;
    still.pass(40 * DAY);
    assert!(cleaned(&still, DELETE, false).await.is_nothing(), "a silent lane is looked at two days back");
    let unread = still.put("b", 39 * DAY, &update(3)).await;
    assert!(cleaned(&still, DELETE, false).await.is_nothing(), "its lane has no position");
    for path in paths.iter() {
        assert!(is_there(&world, path).await);
    }
    assert!(is_there(&still, &older).await && is_there(&still, &unread).await);
}

#[tokio::test]
async fn any_row_is_old_enough_if_no_age_is_asked_for_though_the_clock_of_the_store_is_behind() {
    let (mut world, [first, second, again, today]) = aged().await;
    let now = world.clock.now();
    world.clock = world.clock.showing(now.minus(Duration::from_micros(7 * DAY.unsigned_abs())));
    assert!(cleaned(&world, "action = \"delete\"\nafter = \"1ms\"", false).await.is_nothing());
    let done = cleaned(&world, "action = \"delete\"\nafter = \"0s\"", false).await;
    assert_eq!(done.names, [first.to_string(), second.to_string()]);
    assert!(is_there(&world, &again).await && is_there(&world, &today).await, "what else is asked for still is");
}

#[tokio::test]
async fn the_newest_segment_of_a_lane_stays_whatever_its_position_says() {
    let (world, [first, second, again, today]) = aged().await;
    for path in [&second, &again, &today] {
        world.storage.delete(path).await.unwrap();
    }
    assert!(cleaned(&world, DELETE, false).await.is_nothing());
    assert!(is_there(&world, &first).await, "a receiver takes up after it");
}

#[tokio::test]
async fn a_segment_that_changed_since_stays_and_a_move_keeps_its_path() {
    let (world, [first, second, ..]) = aged().await;
    world.storage.put_overwrite(&second, Bytes::from(update(9))).await.unwrap();
    let done = cleaned(&world, "action = \"move\"\nafter = \"5d\"\nto = \"archive\"", false).await;
    assert_eq!((done.files, done.changed), (1, 1));
    let below = first.as_ref().strip_prefix("raw/p/").unwrap();
    assert!(is_there(&world, &Path::from(format!("archive/{below}"))).await);
    assert!(!is_there(&world, &first).await && is_there(&world, &second).await);
}

#[tokio::test]
async fn segments_in_the_folder_of_a_former_pipeline_are_moved_as_well_each_to_its_own_path() {
    let mut world = World::new();
    world.own.former_pipelines = vec![Name::new("former").unwrap()];
    let at = |world: &World, age: i64| Timestamp::from_micros(world.clock.now().as_micros() - age);
    let mut paths = Vec::new();
    for id in 1..=3 {
        paths.push(world.put_for("former", "a", at(&world, 10 * MINUTE - id), &update(id)).await);
    }
    settle(&world).await;
    world.pass(6 * DAY);
    world.put_for("former", "a", at(&world, MINUTE), &update(4)).await;
    let ours = world.put("a", MINUTE, &update(5)).await;
    settle(&world).await;
    let done = cleaned(&world, "action = \"move\"\nafter = \"5d\"\nto = \"archive\"", false).await;
    assert_eq!((done.files, done.taken), (3, 0));
    for path in &paths {
        let below = path.as_ref().strip_prefix("raw/former/").unwrap();
        assert!(is_there(&world, &Path::from(format!("archive/{below}"))).await, "{below}");
        assert!(!is_there(&world, path).await);
    }
    assert!(is_there(&world, &ours).await);
    settle(&world).await;
    assert_eq!(world.update_ids().await, some(1..=5));
}

#[tokio::test]
async fn segments_are_not_moved_to_where_the_root_keeps_its_own_files() {
    let (world, paths) = aged().await;
    for to in ["_lakegram", "_lakegram/old", "intents", "raw/old", TABLE] {
        let settings = format!("action = \"move\"\nafter = \"5d\"\nto = \"{to}\"");
        let error = try_clean(&world, &settings, false).await.unwrap_err();
        assert!(error.to_string().contains("use separate folders"), "{to}: {error}");
    }
    for path in &paths {
        assert!(is_there(&world, path).await);
    }
}

#[tokio::test]
async fn pages_of_segments_of_a_lane_go_in_one_pass() {
    let world = World::new();
    for id in 0..2_100 {
        world.put("a", HOUR - id, &update(id)).await;
    }
    settle(&world).await;
    world.pass(6 * DAY);
    world.put("a", MINUTE, &update(5_000)).await;
    settle(&world).await;
    assert_eq!(cleaned(&world, DELETE, false).await.files, 2_100);
}
