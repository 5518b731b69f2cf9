//! Checkpoints, log clean-up and vacuum: what anybody may still need stays.

use super::*;
use crate::storage::StorageKey;
use crate::table::maintain::clean::clean_log;

fn commit(version: i64) -> Path {
    StorageKey::Commit { table: path(), version }.path()
}

async fn versions(world: &World) -> Vec<i64> {
    let mut versions = Vec::new();
    for version in 0..100 {
        versions.extend(world.storage.head(&commit(version)).await.unwrap().map(|_| version));
    }
    versions
}

/// Only checkpoints and clean-up of the log, so that versions are those of the appends.
fn no_compaction() -> MaintainOptions {
    MaintainOptions { compact_at_files: usize::MAX, vacuum: false, ..eager() }
}

#[tokio::test]
async fn a_checkpoint_holds_every_txn_and_is_named() {
    let mut world = World::new(Storage::memory()).await;
    world.append(3).await;
    let version = world.maintain(&eager()).await.checkpoint.unwrap();
    for version in 0..version {
        world.storage.delete(&commit(version)).await.unwrap();
    }
    let reopened = world.opened().await;
    assert_eq!((reopened.txn("stage"), reopened.txn("position")), (Some(3), Some(3)));
    let delta = delta_table(&world.storage, &path()).await.unwrap();
    let txn = delta.snapshot().unwrap().transaction_version(delta.log_store().as_ref(), "position").await.unwrap();
    assert_eq!(txn, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_waits_for_enough_commits() {
    let mut world = World::new(Storage::memory()).await;
    let options = MaintainOptions { checkpoint_every: 4, ..no_compaction() };
    world.append(2).await;
    assert_eq!(world.maintain(&options).await.checkpoint, None);
    world.append(1).await;
    assert_eq!(world.maintain(&options).await.checkpoint, Some(3));
    world.append(3).await;
    assert_eq!(world.maintain(&options).await.checkpoint, None);
    world.append(1).await;
    assert_eq!(world.maintain(&options).await.checkpoint, Some(7));
}

#[tokio::test]
async fn the_log_begins_with_a_checkpoint_that_every_version_in_it_stands_upon() {
    let mut world = World::new(Storage::memory()).await;
    for _ in 0..3 {
        world.append(3).await;
        world.maintain(&no_compaction()).await;
    }
    world.clock.step(8 * DAY_MICROS);
    let unread = MaintainOptions { reader_watermark: Some(2), ..no_compaction() };
    assert_eq!(world.maintain(&unread).await.log_entries_deleted, 3, "there is a checkpoint of version 3");
    let unread = MaintainOptions { reader_watermark: Some(4), ..no_compaction() };
    assert_eq!(world.maintain(&unread).await.log_entries_deleted, 0, "version 5 stands upon version 3");
    assert_eq!(versions(&world).await, (3..10).collect::<Vec<_>>());
    let mut delta = delta_table(&world.storage, &path()).await.unwrap();
    for version in 3..10 {
        delta.load_version(version).await.unwrap();
    }
    assert_eq!(world.maintain(&no_compaction()).await.log_entries_deleted, 8, "six commits and two checkpoints");
    assert_eq!((versions(&world).await, world.ids().await), (vec![9], world.expected()));
    world.table = world.opened().await;
    world.append(1).await;
    assert_eq!(world.ids().await, world.expected());
}

#[tokio::test]
async fn a_clean_up_that_is_cut_short_leaves_a_table_that_can_be_read() {
    let mut world = World::new(Storage::memory()).await;
    for _ in 0..2 {
        world.append(3).await;
        world.maintain(&no_compaction()).await;
    }
    let log = StorageKey::Log { table: path() }.path();
    let entries = world.storage.list_after(&log, None, 100).await.unwrap();
    for entry in entries.iter().take_while(|entry| !entry.location.as_ref().contains("6.")) {
        world.storage.delete(&entry.location).await.unwrap();
        assert_eq!(world.ids().await, world.expected());
        assert_eq!(delta_table(&world.storage, &path()).await.unwrap().version(), Some(6));
    }
}

#[tokio::test]
async fn nothing_is_deleted_on_the_word_of_a_checkpoint_that_cannot_be_read() {
    let mut world = World::new(Storage::memory()).await;
    world.append(3).await;
    world.maintain(&no_compaction()).await;
    world.clock.step(8 * DAY_MICROS);
    let checkpoint = commit(3).as_ref().replace(".json", ".checkpoint.parquet");
    world.storage.put_overwrite(&Path::from(checkpoint.as_str()), "torn".into()).await.unwrap();
    let table = world.table;
    let cleaned = clean_log(&table, &no_compaction(), &CancellationToken::new()).await.unwrap();
    assert_eq!(cleaned, 0);
    world.storage.delete(&Path::from(checkpoint)).await.unwrap();
    let cleaned = clean_log(&table, &no_compaction(), &CancellationToken::new()).await.unwrap();
    assert_eq!(cleaned, 0);
}

async fn waits_for_its_time_and_for_the_reader(storage: Storage) {
    let mut world = World::new(storage).await;
    for _ in 0..2 {
        world.append(3).await;
        world.maintain(&no_compaction()).await;
    }
    let fresh = world.maintain(&eager()).await;
    assert_eq!((fresh.files_compacted, fresh.log_entries_deleted, fresh.files_vacuumed), (6, 0, 0));
    world.clock.step(8 * DAY_MICROS);
    let behind = MaintainOptions { reader_watermark: Some(4), ..eager() };
    let mut tail = Tail::new(&world.storage, &path(), 4, &["id"], &world.clock);
    let held = world.maintain(&behind).await;
    assert_eq!(held.log_entries_deleted, 3, "a checkpoint of version 3 is the newest before version 5");
    assert_eq!(held.files_vacuumed, 4, "the files of versions 1 to 4");
    assert_eq!(tailed(&mut tail).await, [4, 5]);
    let free = world.maintain(&MaintainOptions { reader_watermark: Some(100), ..eager() }).await;
    assert!(free.log_entries_deleted > 0 && free.files_vacuumed == 2, "{free:?}");
    assert_eq!((world.ids().await, world.data_files().await.len()), (world.expected(), 1));
    let delta = delta_table(&world.storage, &path()).await.unwrap();
    let txn = delta.snapshot().unwrap().transaction_version(delta.log_store().as_ref(), "stage").await.unwrap();
    assert_eq!((delta.version(), txn, delta.get_file_uris().unwrap().count()), (Some(7), Some(6), 1));
    world.table = world.opened().await;
    world.append(1).await;
    assert_eq!(world.ids().await, world.expected());
}

#[tokio::test]
async fn clean_up_waits_for_its_time_and_for_the_reader() {
    waits_for_its_time_and_for_the_reader(Storage::memory()).await;
}

#[tokio::test]
async fn so_it_does_on_local_disk() {
    let folder = tempfile::tempdir().unwrap();
    waits_for_its_time_and_for_the_reader(Storage::open(folder.path().to_str().unwrap()).unwrap()).await;
}

#[tokio::test]
async fn a_reader_that_stands_still_for_a_month_no_longer_holds_clean_up() {
    let mut world = World::new(Storage::memory()).await;
    world.append(4).await;
    world.maintain(&eager()).await;
    world.clock.step(31 * DAY_MICROS);
    let summary = world.maintain(&MaintainOptions { reader_watermark: Some(-1), ..eager() }).await;
    assert!(summary.log_entries_deleted > 0 && summary.files_vacuumed == 4, "{summary:?}");
    let mut tail = Tail::new(&world.storage, &path(), -1, &["id"], &world.clock);
    assert!(matches!(tail.next().await.unwrap(), TailStep::Lost));
}

#[tokio::test]
async fn a_tail_sees_each_row_once_while_compaction_and_clean_up_run() {
    let mut world = World::new(Storage::memory()).await;
    let mut tail = Tail::new(&world.storage, &path(), -1, &["id"], &world.clock);
    let (mut seen, mut deleted) = (Vec::new(), 0);
    for _ in 0..5 {
        world.append(4).await;
        let options = MaintainOptions { reader_watermark: Some(tail.version()), ..eager() };
        let (rows, done) = tokio::join!(tailed(&mut tail), world.maintain(&options));
        seen.extend(rows);
        deleted += done.log_entries_deleted + done.files_vacuumed;
        world.clock.step(8 * DAY_MICROS);
    }
    seen.extend(tailed(&mut tail).await);
    assert!(deleted > 20, "{deleted}");
    assert_eq!((&seen, world.ids().await), (&world.expected(), world.expected()));
}

#[tokio::test]
async fn vacuum_takes_orphans_of_its_own_table_and_nothing_else() {
    let mut world = World::new(Storage::memory()).await;
    world.append(2).await;
    let (orphan, nested) = (path().join("part-orphan.parquet"), path().join("other").join("part-1.parquet"));
    let note = path().join("README.md");
    for path in [&orphan, &nested, &note] {
        world.storage.put_new(path, "x".into()).await.unwrap();
    }
    assert_eq!(world.maintain(&MaintainOptions { compact_at_files: 100, ..eager() }).await.files_vacuumed, 0);
    world.clock.step(8 * DAY_MICROS);
    // What compaction takes out now may be in the hands of a reader, however old the files are.
    let done = world.maintain(&eager()).await;
    assert_eq!((done.files_compacted, done.files_vacuumed), (2, 1));
    assert!(world.storage.head(&orphan).await.unwrap().is_none());
    for kept in [&nested, &note] {
        assert!(world.storage.head(kept).await.unwrap().is_some(), "{kept}");
    }
    assert_eq!(world.ids().await, world.expected());
}

#[tokio::test]
async fn a_reader_that_is_too_far_behind_to_name_its_files_keeps_them_for_a_month() {
    let mut world = World::new(Storage::memory()).await;
    world.append(3).await;
    world.maintain(&eager()).await;
    world.clock.step(8 * DAY_MICROS);
    let behind = MaintainOptions { reader_watermark: Some(-1_000_000), ..eager() };
    assert_eq!(world.maintain(&behind).await.files_vacuumed, 0);
    world.clock.step(23 * DAY_MICROS);
    assert_eq!(world.maintain(&behind).await.files_vacuumed, 3);
    assert_eq!(world.ids().await, world.expected());
}
