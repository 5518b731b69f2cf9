//! Whoever is shown a commit may act on it: it survives a power cut, even when the process that made it died first.

use tempfile::TempDir;

use super::*;
use crate::storage::tests::simulated::{Lies, REBOOTS, SimulatedDisk};
use crate::table::{Tail, TailStep};

const COMMIT: &str = "bronze/messages/_delta_log/00000000000000000001.json";

/// A table of version 0 and a commit of version 1, whose writer died before its name was durable. Everything is done by
/// processes of their own.
struct Scene {
    folder: TempDir,
    disk: SimulatedDisk,
    /// Opened at version 0.
    early: LakeTable,
}

fn storage_on(disk: &SimulatedDisk, folder: &TempDir) -> Storage {
    Storage::open_folder_on(Arc::new(disk.clone()), folder.path()).unwrap()
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = SimulatedDisk::new(folder.path(), Lies::default()).unwrap();
        let mut writer = open(&storage_on(&disk, &folder), &Clock::system()).await;
        let disk_of_others = disk.for_the_next_process();
        let early = open(&storage_on(&disk_of_others, &folder), &Clock::system()).await;
        // The first sync is that of the data file's folder.
        let disk = disk.after_a_death(2, async move { drop(append(&mut writer, STAGE, rows([1])).await) }).await;
        Self { folder, disk, early }
    }

    fn storage(&self) -> Storage {
        storage_on(&self.disk, &self.folder)
    }
}

#[tokio::test]
async fn what_nobody_was_shown_may_be_lost() {
    let scene = Scene::new().await;
    assert!((1..REBOOTS).contains(&scene.disk.reboots_that_find(COMMIT)));
}

#[tokio::test]
async fn what_an_opened_table_shows_is_durable() {
    let scene = Scene::new().await;
    let opened = LakeTable::open_existing(&scene.storage(), &table_path(), &Clock::system()).await.unwrap().unwrap();
    assert_eq!(opened.version(), 1);
    assert_eq!(scene.disk.reboots_that_find(COMMIT), REBOOTS);
}

#[tokio::test]
async fn what_a_handle_reads_on_to_is_durable() {
    let mut scene = Scene::new().await;
    assert_eq!(scene.early.refresh().await.unwrap().len(), 1);
    assert_eq!(scene.disk.reboots_that_find(COMMIT), REBOOTS);
}

#[tokio::test]
async fn what_a_tail_brings_is_durable() {
    let scene = Scene::new().await;
    let mut tail = Tail::new(&scene.storage(), &table_path(), 0, &["id"], &Clock::system());
    assert!(matches!(tail.next().await.unwrap(), TailStep::Rows { version: 1, .. }));
    assert_eq!(scene.disk.reboots_that_find(COMMIT), REBOOTS);
}
