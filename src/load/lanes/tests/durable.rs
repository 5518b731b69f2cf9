//! What is loaded survives a power cut, even when the receiver that wrote it died first.

use super::*;
use crate::storage::tests::simulated::{Lies, REBOOTS, SimulatedDisk};

#[tokio::test]
async fn a_segment_that_a_listing_has_found_is_durable_once_it_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SimulatedDisk::new(folder.path(), Lies::default()).unwrap();
    let on = |disk: &SimulatedDisk| World::on(Storage::open_folder_on(Arc::new(disk.clone()), folder.path()).unwrap());
    let receiver = on(&disk);
    let micros = receiver.clock.now();
    // Another segment makes the folders.
    receiver.put_at("lane", micros.minus(std::time::Duration::from_micros(1)), "{\"update_id\":1}\n").await;
    let (pipeline, lane) = (Name::new("p").unwrap(), Name::new("lane").unwrap());
    let path = StorageKey::Segment { pipeline, bot_id: BotId(1), lane, micros }.path();
    let dying = async move { drop(receiver.put_at("lane", micros, "{\"update_id\":2}\n").await) };
    let disk = disk.after_a_death(1, dying).await;
    assert!((1..REBOOTS).contains(&disk.reboots_that_find(path.as_ref())));
    assert_eq!(on(&disk).load().await.rows, 2);
    assert_eq!(disk.reboots_that_find(path.as_ref()), REBOOTS);
}
