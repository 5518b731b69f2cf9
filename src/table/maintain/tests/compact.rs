//! Compaction: every row stays, once, whoever else is at work.

use std::collections::BTreeSet;

use super::gate::gated;
use super::*;
use crate::table::commit::{Landing, Provenance};
use crate::table::log::{Action, Add, Remove};

async fn keeps_everything(storage: Storage) {
    let mut world = World::new(storage).await;
    let mut tail = Tail::new(&world.storage, &path(), -1, &["id"], &world.clock);
    let mut seen = Vec::new();
    for round in 0..4 {
        world.append(5).await;
        if round % 2 == 0 {
            seen.extend(tailed(&mut tail).await);
        }
        let summary = world.maintain(&eager()).await;
        assert!(summary.files_compacted >= 5 && summary.files_written == 1, "{summary:?}");
        assert!(summary.checkpoint.is_some());
        assert_eq!(world.ids().await, world.expected());
    }
    seen.extend(tailed(&mut tail).await);
    assert_eq!(seen, world.expected());
    let delta = delta_table(&world.storage, &path()).await.unwrap();
    assert_eq!(delta.get_file_uris().unwrap().count(), 1);
}

#[tokio::test]
async fn compaction_keeps_every_row_and_a_tail_sees_each_once() {
    keeps_everything(Storage::memory()).await;
}

#[tokio::test]
async fn so_it_is_on_local_disk() {
    let folder = tempfile::tempdir().unwrap();
    keeps_everything(Storage::open(folder.path().to_str().unwrap()).unwrap()).await;
}

#[tokio::test]
async fn rows_stay_in_the_order_in_which_they_came_and_as_old_as_they_were() {
    let mut world = World::new(Storage::memory()).await;
    for _ in 0..5 {
        world.append(1).await;
        world.clock.step(1_000_000);
    }
    let newest = world.opened().await.files().await.unwrap().iter().map(|file| file.modification_millis).max();
    world.maintain(&eager()).await;
    let table = world.opened().await;
    let files = table.files().await.unwrap();
    assert_eq!((files.len(), Some(files[0].modification_millis)), (1, newest));
    assert_eq!((files[0].num_records, &files[0].max_values["id"]), (Some(5), &4.into()));
    let rows = table.read_file(&files[0], None).await.unwrap();
    assert_eq!(rows.column(0).as_primitive::<Int64Type>().values(), &[0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn appends_and_compaction_race_and_nothing_is_lost() {
    let mut world = World::new(Storage::memory()).await;
    world.append(4).await;
    let (storage, clock) = (world.storage.clone(), world.clock.clone());
    let compacting = async {
        for _ in 0..10 {
            maintain(&storage, &path(), &eager(), &clock, &CancellationToken::new()).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(compacting, world.append(40));
    let ids = world.ids().await;
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    assert_eq!(ids, world.expected());
}

#[tokio::test]
async fn two_compactors_do_not_double_rows() {
    let mut world = World::new(Storage::memory()).await;
    world.append(10).await;
    let (one, other) = (eager(), eager());
    tokio::join!(world.maintain(&one), world.maintain(&other));
    assert_eq!(world.ids().await, world.expected());
}

/// Compacts while somebody else does `other` just before the first commit is put.
async fn overtaken(
    world: &World,
    options: &MaintainOptions,
    other: impl Future<Output = ()> + Send + 'static,
) -> usize {
    let storage = gated(&world.storage, Box::pin(other));
    let done = maintain(&storage, &path(), options, &world.clock, &CancellationToken::new()).await.unwrap();
    done.files_compacted
}

#[tokio::test]
async fn a_compaction_whose_input_was_taken_is_abandoned() {
    let mut world = World::new(Storage::memory()).await;
    world.append(5).await;
    let (storage, clock) = (world.storage.clone(), world.clock.clone());
    let other = async move {
        let done = maintain(&storage, &path(), &eager(), &clock, &CancellationToken::new()).await.unwrap();
        assert_eq!(done.files_compacted, 5);
    };
    assert_eq!(overtaken(&world, &eager(), other).await, 0);
    assert_eq!(world.ids().await, world.expected());
}

#[tokio::test]
async fn a_compaction_that_lost_a_version_to_an_append_takes_the_next() {
    let mut world = World::new(Storage::memory()).await;
    world.append(5).await;
    let mut other =
        World { table: world.opened().await, storage: world.storage.clone(), clock: world.clock.clone(), next: 5 };
    let appending = async move { other.append(2).await };
    assert_eq!(overtaken(&world, &MaintainOptions { compact_at_files: 4, ..eager() }, appending).await, 5);
    world.next += 2;
    assert_eq!(world.ids().await, world.expected());
    assert_eq!(world.opened().await.version(), 8);
}

/// So small a target that a few files make a group, and a dozen of them several.
fn several_groups() -> MaintainOptions {
    MaintainOptions { target_bytes: 2_000, vacuum: false, ..eager() }
}

#[tokio::test]
async fn a_compactor_that_lost_a_race_for_one_group_knows_what_became_of_the_others() {
    let mut world = World::new(Storage::memory()).await;
    world.append(12).await;
    let mut table = world.opened().await;
    let mut files = table.files().await.unwrap();
    files.sort_by_key(|file| file.modification_millis);
    let storage = world.storage.clone();
    // Somebody moves the newest file, which is of the last group, and leaves the first group alone.
    let moving = async move {
        let (newest, moved) = (files.pop().unwrap(), "part-moved.parquet");
        let bytes = storage.get(&newest.location(&path()).unwrap()).await.unwrap().unwrap();
        storage.put_new(&path().join(moved), bytes).await.unwrap();
        let size = usize::try_from(newest.size_bytes).unwrap();
        let actions = vec![
            Action::Remove(Remove::of(&newest, 0, false)),
            Action::Add(Add::new(moved, size, newest.modification_millis, "{}".to_owned(), false)),
        ];
        let (parameters, metrics) = (serde_json::json!({}), serde_json::json!({}));
        let provenance = Provenance { operation: "OPTIMIZE", parameters, metrics, blind_append: false };
        let landing = table.land(&provenance, |_, _| Ok(Some(actions.clone()))).await.unwrap();
        assert!(matches!(landing, Landing::Landed { .. }));
    };
    assert!(overtaken(&world, &several_groups(), moving).await > 3, "more than one group");
    assert_eq!(world.ids().await, world.expected());
}

#[tokio::test]
async fn a_commit_that_landed_late_gets_back_the_file_that_vacuum_took_for_an_orphan() {
    let mut world = World::new(Storage::memory()).await;
    world.append(5).await;
    let live: BTreeSet<Path> = world.data_files().await.into_iter().collect();
    let (storage, clock) = (world.storage.clone(), world.clock.clone());
    let asleep = async move {
        clock.step(8 * DAY_MICROS);
        let objects = storage.list_after(&path(), None, 100).await.unwrap();
        let orphans = objects.into_iter().map(|object| object.location);
        for orphan in orphans.filter(|path| path.as_ref().ends_with(".parquet") && !live.contains(path)) {
            storage.delete(&orphan).await.unwrap();
        }
    };
    assert_eq!(overtaken(&world, &MaintainOptions { vacuum: false, ..eager() }, asleep).await, 0);
    assert_eq!(world.opened().await.files().await.unwrap().len(), 1, "the commit counts");
    assert_eq!(world.ids().await, world.expected());
}
