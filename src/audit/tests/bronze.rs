//! Raw lines and bronze rows.

use super::*;

#[tokio::test]
async fn a_clean_pipeline_passes_every_check() {
    let world = World::new();
    world.clean().await;
    let audit = world.audit().await;
    let expected = [
        ("raw lines", [4, 0, 0, 0]),
        ("bronze rows", [4, 0, 0, 0]),
        ("silver rows", [3, 0, 0, 0]),
        ("replies", [3, 0, 0, 0]),
        ("files", [3, 0, 0, 0]),
        ("progress", [2, 0, 0, 0]),
    ];
    assert_eq!(counts(&audit), expected);
    assert!(!audit.is_broken() && audit.unknown.count == 0);
}

#[tokio::test]
async fn what_has_just_landed_waits_and_what_lies_below_the_position_is_lost() {
    let world = World::new();
    world.clean().await;
    world.put("a", Duration::from_secs(60), &(update(7) + &update(8))).await;
    world.put("new", 2 * HOUR, &update(9)).await;
    let audit = world.audit().await;
    let raw = check(&audit, "raw lines");
    assert_eq!((raw.checked, raw.waiting, raw.broken), (7, 3, 0));
    assert_eq!(raw.waiting_seconds, Some(2 * 3_600 + 86_400), "the clock was stepped by a day");
    let path = world.put("a", 2 * HOUR, &(update(9) + "corrupt\n")).await;
    let audit = world.audit().await;
    assert!(only(&audit, &["raw lines"]));
    let what = "a line is lost: its lane is ingested beyond it: bot 1";
    let found = broken(&audit, "raw lines");
    assert_eq!(found, [format!("{what}, {path} line 2"), format!("{what}, update 9, {path} line 1")]);
}

#[tokio::test]
async fn a_line_that_stands_in_bronze_from_another_line_is_a_redelivery() {
    let world = World::new();
    world.put("a", 10 * DAY, &update(1)).await;
    world.put("a", HOUR, &(update(2) + &update(3))).await;
    world.put("b", 2 * HOUR, &update(2)).await;
    world.load().await;
    let audit = world.audit().await;
    assert_eq!(counts(&audit)[0], ("raw lines", [4, 0, 0, 0]));
    assert_eq!(counts(&audit)[1], ("bronze rows", [3, 0, 0, 0]));
    // The same number a week and a half later is another update.
    let path = world.put("a", 2 * HOUR, "{\"update_id\":1,\"message\":{}}\n").await;
    let audit = world.audit().await;
    assert_eq!(broken(&audit, "raw lines").len(), 1, "{path}");
    // One that says the very same is the same, and a clock has stepped.
    world.storage.delete(&Path::from(path.as_str())).await.unwrap();
    world.put("a", 2 * HOUR, &update(1)).await;
    assert!(!world.audit().await.is_broken());
}

#[tokio::test]
async fn a_row_that_was_deleted_is_named_by_its_line_and_by_what_silver_made_of_it() {
    let world = World::new();
    let path = world.clean().await;
    world.rewrite(BRONZE, |id| id != 2, |_| false).await;
    let audit = world.audit().await;
    assert!(only(&audit, &["raw lines", "silver rows"]));
    let lost = format!("a line is lost: other lines of its segment have rows: bot 1, update 2, {path} line 2");
    assert_eq!(broken(&audit, "raw lines"), [lost]);
    assert_eq!(broken(&audit, "silver rows"), ["a silver row has no bronze row: bot 1, update 2, attempt 1"]);
}

#[tokio::test]
async fn a_row_that_stands_twice_is_named_once_also_when_its_segment_is_gone() {
    for is_gone in [false, true] {
        let world = World::new();
        let path = world.clean().await;
        // Id 0 stands for the corrupt line.
        world.rewrite(BRONZE, |_| true, |id| id == 3 || id == 0).await;
        if is_gone {
            world.storage.delete(&Path::from(path.as_str())).await.unwrap();
        }
        let audit = world.audit().await;
        assert!(only(&audit, &["bronze rows"]));
        let line = format!("a line has two rows: bot 1, {path} line 5");
        let update = format!("an update has two bronze rows: bot 1, update 3, {path} line 4");
        assert_eq!(broken(&audit, "bronze rows"), [line, update]);
    }
}

#[tokio::test]
async fn rows_whose_segment_was_cleaned_are_not_passed_as_proven() {
    let world = World::new();
    let path = world.clean().await;
    world.storage.delete(&Path::from(path)).await.unwrap();
    let audit = world.audit().await;
    assert!(!audit.is_broken());
    let raw = check(&audit, "raw lines");
    assert_eq!((raw.checked, raw.unproven), (0, 4));
    let why = raw.unproven_because.keys().next().unwrap();
    assert!(why.ends_with(&format!("cleaned up to {}", world.now.minus(HOUR))), "{why}");
}

#[tokio::test]
async fn rows_whose_segment_was_cleaned_as_asked_are_counted_and_a_lost_line_is_still_found() {
    let mut world = World::new();
    world.pipeline.bronze.clean_source = toml::from_str("action = \"delete\"\nafter = \"5d\"").unwrap();
    let old = world.put("a", 9 * DAY, &(update(1) + &update(2))).await;
    let young = world.put("a", 2 * DAY, &update(3)).await;
    world.put("a", HOUR, &update(4)).await;
    world.load().await;
    for path in [old, young] {
        world.storage.delete(&Path::from(path)).await.unwrap();
    }
    let audit = world.audit().await;
    assert!(!audit.is_broken());
    let raw = check(&audit, "raw lines");
    assert_eq!((raw.checked, raw.cleaned, raw.unproven), (1, 2, 1), "what is young was not cleaned");
    world.put("a", 3 * HOUR, &update(5)).await;
    assert_eq!(broken(&world.audit().await, "raw lines").len(), 1);
}

#[tokio::test]
async fn a_row_that_says_other_than_its_line_is_named() {
    let world = World::new();
    let path = world.clean().await;
    let changed = update(1) + &update(2) + "\n" + &update(3).replace("m3", "m4") + "odd\n";
    world.storage.put_overwrite(&Path::from(path.as_str()), changed.into()).await.unwrap();
    let audit = world.audit().await;
    assert!(only(&audit, &["raw lines"]));
    let found = format!("a row differs from its line: bot 1, update 3, {path} line 4");
    assert_eq!(broken(&audit, "raw lines"), [found]);
    world.storage.put_overwrite(&Path::from(path.as_str()), update(1).into()).await.unwrap();
    assert_eq!(check(&world.audit().await, "raw lines").broken, 3, "rows without lines");
}

#[tokio::test]
async fn since_leaves_out_what_was_received_before() {
    let world = World::new();
    world.put("a", 3 * DAY, &update(1)).await;
    world.put("a", HOUR, &update(2)).await;
    world.load().await;
    world.put("a", 2 * DAY, &update(3)).await;
    assert!(world.audit().await.is_broken());
    let audit = world.audit_since(Some(world.now.minus(DAY))).await;
    assert!(!audit.is_broken());
    assert_eq!(counts(&audit)[0], ("raw lines", [1, 0, 0, 0]));
    assert_eq!(counts(&audit)[1], ("bronze rows", [1, 0, 0, 0]));
    assert_eq!(counts(&audit)[2], ("silver rows", [1, 1, 0, 0]));
    assert_eq!(audit.since, Some(world.now.minus(DAY).to_string()));
}
