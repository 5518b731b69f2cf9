//! Bronze rows and silver rows.

use super::*;
use crate::table::maintain::{MaintainOptions, maintain};

#[tokio::test]
async fn a_row_that_silver_has_not_passed_waits_and_one_that_it_has_is_lost() {
    let world = World::new();
    let path = world.put("a", HOUR, &(update(1) + &update(2))).await;
    world.load().await;
    let audit = world.audit().await;
    assert_eq!(counts(&audit)[2], ("silver rows", [2, 2, 0, 0]), "silver is not there yet");
    assert!(!audit.is_broken());
    world.answer(&[Answer(1, HOUR, 1, 0)], -1).await;
    let audit = world.audit().await;
    assert_eq!(counts(&audit)[2], ("silver rows", [2, 1, 0, 0]));
    assert_eq!(check(&audit, "silver rows").waiting_seconds, Some(3_600 + 86_400));
    world.answer(&[Answer(1, HOUR, 2, 0)], world.version(BRONZE).await).await;
    let audit = world.audit().await;
    assert!(only(&audit, &["silver rows"]));
    let what = "a bronze row is lost: silver has passed it without writing a row: bot 1, update 2";
    assert_eq!(broken(&audit, "silver rows"), [format!("{what}, {path} line 2")]);
}

#[tokio::test]
async fn an_attempt_with_two_rows_and_a_row_of_no_update_are_named() {
    let world = World::new();
    let path = world.clean().await;
    let watermark = world.version(BRONZE).await;
    let answers = [Answer(2, HOUR, 1, 0), Answer(3, HOUR, 2, 0), Answer(77, HOUR, 1, 0)];
    world.answer(&answers, watermark).await;
    let audit = world.audit().await;
    assert!(only(&audit, &["silver rows"]));
    let double = format!("an attempt has two silver rows: bot 1, update 2, attempt 1, {path} line 2");
    let orphan = "a silver row has no bronze row: bot 1, update 77, attempt 1".to_owned();
    assert_eq!(broken(&audit, "silver rows"), [double, orphan]);
}

#[tokio::test]
async fn an_id_that_comes_again_after_a_week_is_another_update_with_a_row_of_its_own() {
    let world = World::new();
    world.put("a", 10 * DAY, &update(1)).await;
    world.load().await;
    world.put("a", HOUR, "{\"update_id\":1,\"message\":{}}\n").await;
    world.load().await;
    let watermark = world.version(BRONZE).await;
    world.answer(&[Answer(1, 10 * DAY, 1, 0)], watermark).await;
    let audit = world.audit().await;
    assert!(only(&audit, &["silver rows"]));
    assert_eq!(check(&audit, "silver rows").broken, 1);
    world.answer(&[Answer(1, HOUR, 1, 0)], watermark).await;
    assert!(!world.audit().await.is_broken());
}

#[tokio::test]
async fn a_row_that_waits_still_waits_after_compaction_and_clean_up() {
    let world = World::new();
    for id in 1..4 {
        world.put("a", HOUR - Duration::from_secs(id), &update(i64::try_from(id).unwrap())).await;
        world.load().await;
    }
    let answered = Answer(1, HOUR - Duration::from_secs(1), 1, 0);
    world.answer(&[answered], world.version(BRONZE).await - 4).await;
    let mut options =
        MaintainOptions { compact_at_files: 2, checkpoint_every: 1, clean: false, ..MaintainOptions::default() };
    let stop = CancellationToken::new();
    for clean in [false, true] {
        options.clean = clean;
        if clean {
            world.clock.step(i64::try_from((40 * DAY).as_micros()).unwrap());
        }
        maintain(&world.storage, &Path::from(BRONZE), &options, &world.clock, &stop).await.unwrap();
        let audit = world.audit().await;
        assert_eq!(counts(&audit)[2], ("silver rows", [3, 2, 0, 0]), "cleaned: {clean}");
        assert!(!audit.is_broken());
    }
}

#[tokio::test]
async fn a_watermark_beyond_its_table_is_named() {
    let world = World::new();
    world.clean().await;
    world.answer(&[Answer(1, HOUR, 2, 0)], 99).await;
    let audit = world.audit().await;
    assert!(only(&audit, &["progress"]));
    let head = world.version(BRONZE).await;
    let found = format!("the watermark of silver is 99, beyond the head of bronze at {head}");
    assert_eq!(broken(&audit, "progress"), [found]);
}
