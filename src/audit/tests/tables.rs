//! Files, logs and tables that are not what they must be.

use super::*;

#[tokio::test]
async fn a_torn_file_is_named_and_its_rows_are_not_called_lost() {
    for table in [BRONZE, SILVER, REPLIES] {
        let world = World::new();
        world.clean().await;
        let (_, location) = world.file(table).await;
        let bytes = world.storage.get(&location).await.unwrap().unwrap();
        world.storage.put_overwrite(&location, bytes.slice(..bytes.len() / 2)).await.unwrap();
        let audit = world.audit().await;
        assert!(only(&audit, &["files"]), "{table}: {:?}", counts(&audit));
        let found = broken(&audit, "files");
        assert!(
            found[0].starts_with("a file is corrupt, it has ") && found[0].ends_with(location.as_ref()),
            "{found:?}"
        );
        assert!(audit.checks.iter().any(|check| check.unproven > 0), "{table}");
        // The size may be right and the content wrong.
        world.storage.put_overwrite(&location, vec![0; bytes.len()].into()).await.unwrap();
        let audit = world.audit().await;
        assert!(only(&audit, &["files"]), "{table}: {:?}", counts(&audit));
        let mut spoilt = bytes.to_vec();
        spoilt[4..40].fill(0xff);
        world.storage.put_overwrite(&location, spoilt.into()).await.unwrap();
        let audit = world.audit().await;
        assert!(only(&audit, &["files"]), "{table}: {:?}", counts(&audit));
    }
}

#[tokio::test]
async fn a_file_that_is_gone_or_has_other_rows_than_the_log_says_is_named() {
    let world = World::new();
    world.clean().await;
    let (file, location) = world.file(BRONZE).await;
    let bytes = world.storage.get(&location).await.unwrap().unwrap();
    world.storage.delete(&location).await.unwrap();
    let audit = world.audit().await;
    assert_eq!(broken(&audit, "files"), [format!("a file is missing: {location}")]);
    assert_eq!(counts(&audit)[0], ("raw lines", [4, 0, 0, 4]));
    assert_eq!(counts(&audit)[2], ("silver rows", [0, 0, 0, 3]));
    assert!(only(&audit, &["files"]));

    world.storage.put_new(&location, bytes.clone()).await.unwrap();
    let stats = r#"{"numRecords": 9}"#.to_owned();
    let actions =
        [Action::Remove(Remove::of(&file, 1, false)), Action::Add(Add::new(&file.path, bytes.len(), 1, stats, false))];
    let version = world.version(BRONZE).await + 1;
    world.commit(BRONZE, version, &actions).await;
    let audit = world.audit().await;
    assert_eq!(broken(&audit, "files"), [format!("a file is corrupt, it has 4 rows, but the log says 9: {location}")]);
}

#[tokio::test]
async fn a_hole_in_the_log_is_a_finding_and_proves_nothing_else_wrong() {
    let world = World::new();
    world.clean().await;
    let version = world.version(BRONZE).await;
    world.commit(BRONZE, version + 2, &[]).await;
    let audit = world.audit().await;
    assert!(only(&audit, &["files"]), "{:?}", counts(&audit));
    let found = broken(&audit, "files");
    assert!(found[0].contains("has a gap after version") && found[0].ends_with(BRONZE), "{found:?}");
    assert_eq!(counts(&audit)[0], ("raw lines", [4, 0, 0, 4]));
}

#[tokio::test]
async fn where_nothing_is_there_yet_nothing_is_broken_and_raw_lines_wait() {
    let world = World::new();
    assert!(!world.audit().await.is_broken());
    world.put("a", HOUR, &update(1)).await;
    let audit = world.audit().await;
    assert_eq!(counts(&audit)[0], ("raw lines", [1, 1, 0, 0]));
    assert!(!audit.is_broken() && audit.tables.iter().all(|table| table.version.is_none()));
}

#[tokio::test]
async fn a_table_that_is_gone_leaves_what_stands_on_it_unproven() {
    let world = World::new();
    world.clean().await;
    let log = StorageKey::Log { table: Path::from(BRONZE) }.path();
    for object in world.storage.list_after(&log, None, 100).await.unwrap() {
        world.storage.delete(&object.location).await.unwrap();
    }
    let audit = world.audit().await;
    assert_eq!(counts(&audit)[2], ("silver rows", [0, 0, 0, 3]));
    assert_eq!(counts(&audit)[5], ("progress", [2, 0, 1, 1]));
    assert!(broken(&audit, "progress")[0].contains("does not exist, while its silver table"));
}
