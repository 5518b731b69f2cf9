//! The same update again: in one file, in another lane, after a restart, long ago, by another process.

use super::*;

const DAY: i64 = 24 * HOUR;

#[tokio::test]
async fn a_redelivery_makes_no_row_in_one_file_in_another_lane_or_after_a_restart() {
    let world = World::new();
    world.put("a", 5 * MINUTE, &(update(1) + &update(1))).await;
    world.put("b", 4 * MINUTE, &update(1)).await;
    assert_eq!(world.load().await, BronzeSummary { files: 2, rows: 1, redeliveries: 2, corrupt: 0, commits: 1 });
    world.put("a", MINUTE, &(update(1) + &update(2))).await;
    assert_eq!(world.load().await.rows, 1);
    assert_eq!(world.update_ids().await, some([1, 2]));
}

#[tokio::test]
async fn a_segment_of_nothing_but_redeliveries_leaves_no_trace_and_does_not_hold_up_the_position() {
    let world = World::new();
    world.put("a", 3 * MINUTE, &update(1)).await;
    world.load().await;
    let twin = world.put("a", 2 * MINUTE, &update(1)).await;
    let empty = world.put("a", MINUTE, " \n").await;
    assert_eq!(world.load().await.redeliveries, 1);
    assert_eq!(world.load().await.redeliveries, 1, "the set has forgotten it, and loading it again adds nothing");
    world.pass(20 * MINUTE);
    world.load().await;
    let key = |path: &Path| SegmentKey::parse(path).unwrap().micros.as_micros();
    assert!(world.position("a").await.unwrap() > key(&twin));
    assert_eq!(world.position("a").await.unwrap(), key(&empty));
    let looked_back = BronzeSummary { files: 2, redeliveries: 1, ..BronzeSummary::default() };
    assert_eq!(world.load().await, looked_back, "without a trace a look-back reads them once more, and adds nothing");
    assert_eq!(world.load().await.files, 0);
    assert_eq!(world.update_ids().await, some([1]));
}

#[tokio::test]
async fn a_redelivery_is_known_two_days_later_and_after_a_restart() {
    let world = World::new();
    world.put("a", 0, &update(1)).await;
    let mut stage = world.stage().await;
    stage.work_until_idle(&never()).await.unwrap();
    world.pass(47 * HOUR);
    world.put("b", 0, &(update(1) + &update(2))).await;
    assert_eq!(world.load().await.redeliveries, 1);
    assert_eq!(stage.work_until_idle(&never()).await.unwrap().rows, 0);
    assert_eq!(world.update_ids().await, some([1, 2]));
}

#[tokio::test]
async fn a_segment_older_than_the_window_is_asked_of_the_table() {
    let world = World::new();
    world.put("a", 50 * HOUR, &update(1)).await;
    world.put("a", MINUTE, &update(7)).await;
    let mut stage = world.stage().await;
    stage.work_until_idle(&never()).await.unwrap();
    // A receiver that was cut off for four days turns up with what it had landed.
    world.put("late", 100 * HOUR, &(update(1) + &update(2))).await;
    assert_eq!(stage.work_until_idle(&never()).await.unwrap().redeliveries, 1);
    assert_eq!(world.update_ids().await, some([1, 2, 7]));
    assert_eq!(world.load().await.rows, 0);
}

#[tokio::test]
async fn a_lane_that_was_away_at_the_start_is_not_loaded_twice() {
    let world = World::new();
    let (old, odd) = (world.put("away", 200 * HOUR, &update(1)).await, world.put("away", 199 * HOUR, "odd\n").await);
    world.load().await;
    for path in [&old, &odd] {
        world.storage.delete(path).await.unwrap();
    }
    let mut stage = world.stage().await;
    for (path, line) in [(&old, update(1)), (&odd, "odd\n".to_owned())] {
        world.storage.put_new(path, Bytes::from(line)).await.unwrap();
    }
    stage.work_until_idle(&never()).await.unwrap();
    assert_eq!(world.update_ids().await, [None, Some(1)]);
}

#[tokio::test]
async fn a_like_id_after_a_silent_week_is_another_update() {
    let world = World::new();
    world.put("a", 20 * DAY, &update(5)).await;
    world.put("a", 12 * DAY, &update(5)).await;
    let mut stage = world.stage().await;
    assert_eq!(stage.work_until_idle(&never()).await.unwrap().rows, 2);
    // Also when it is asked of the table.
    world.put("late", 40 * DAY, &update(5)).await;
    assert_eq!(stage.work_until_idle(&never()).await.unwrap().rows, 1);
    assert_eq!(world.load().await.rows, 0);
}

#[tokio::test]
async fn one_receiver_with_a_mad_clock_makes_the_others_neither_slow_nor_double() {
    let world = World::new();
    world.put("mad", -400 * DAY, &update(100)).await;
    world.put("a", MINUTE, &update(1)).await;
    let mut stage = world.stage().await;
    stage.work_until_idle(&never()).await.unwrap();
    let path = world.put("a", 0, &(update(1) + &update(2))).await;
    world.script.calls();
    stage.load_hinted(hinted([path]), &never()).await.unwrap();
    assert_eq!(world.script.calls().len(), 3, "the table was not asked");
    assert_eq!(world.update_ids().await, some([1, 2, 100]));
}

#[tokio::test]
async fn two_loaders_on_one_table_make_each_update_one_row() {
    let mut world = World::new();
    for id in 0..40 {
        world.put("a", (100 - id) * 1_000, &(update(id) + "corrupt\n")).await;
    }
    world.settings.max_files = 3;
    let mut one = world.stage().await;
    world.settings.max_files = 5;
    let mut other = world.stage().await;
    let stop = never();
    let (first, second) = tokio::join!(one.work_until_idle(&stop), other.work_until_idle(&stop));
    assert_eq!(first.unwrap().rows + second.unwrap().rows, 80);
    let sources = world.sources().await;
    assert_eq!(sources.len(), 80);
    assert_eq!(sources.iter().collect::<BTreeSet<_>>().len(), 80);
}

#[tokio::test]
async fn a_twin_that_passes_our_position_hides_nothing_that_we_have_under_way() {
    let world = World::new();
    let (mut one, mut other) = (world.stage().await, world.stage().await);
    let path = world.put("a", MINUTE, &(update(1) + "odd\n")).await;
    world.pass(30 * MINUTE);
    other.work_until_idle(&never()).await.unwrap();
    world.put("a", 0, &update(2)).await;
    other.work_until_idle(&never()).await.unwrap();
    assert!(world.position("a").await.is_some());
    one.load_hinted(hinted([path]), &never()).await.unwrap();
    one.work_until_idle(&never()).await.unwrap();
    assert_eq!(world.update_ids().await, [None, Some(1), Some(2)]);
    assert_eq!(one.summary.rows, 0);
}
