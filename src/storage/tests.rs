//! One conformance suite for the stores, and what only the local one promises.

use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;

use super::{PutNew, Storage};
use crate::clock::Clock;

async fn conforms(storage: Storage) {
    let key = Path::from("raw/a/1.json");
    let bytes = Bytes::from_static(b"one");
    assert_eq!(storage.get(&key).await.unwrap(), None);
    assert_eq!(storage.put_new(&key, bytes.clone()).await.unwrap(), PutNew::Created);
    assert_eq!(storage.put_new(&key, bytes.clone()).await.unwrap(), PutNew::Created, "the same bytes are ours");
    assert_eq!(storage.put_new(&key, Bytes::from_static(b"two")).await.unwrap(), PutNew::Taken);
    assert_eq!(storage.get(&key).await.unwrap(), Some(bytes));
    assert_eq!(storage.head(&key).await.unwrap().unwrap().size, 3);

    for name in ["raw/a/2.json", "raw/a-b/1.json", "raw/b/1.json", "other/1.json"] {
        storage.put_new(&Path::from(name), Bytes::from_static(b"x")).await.unwrap();
    }
    let list = async |after: Option<&str>, limit| {
        let after = after.map(Path::from);
        let found = storage.list_after(&Path::from("raw"), after.as_ref(), limit).await.unwrap();
        found.into_iter().map(|meta| meta.location.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(list(None, 10).await, ["raw/a-b/1.json", "raw/a/1.json", "raw/a/2.json", "raw/b/1.json"]);
    assert_eq!(list(Some("raw/a/1.json"), 10).await, ["raw/a/2.json", "raw/b/1.json"]);
    assert_eq!(list(Some("raw/a/15"), 1).await, ["raw/a/2.json"]);
    assert_eq!(list(Some("raw/z"), 10).await, Vec::<String>::new());
    let folders = storage.list_folders(&Path::from("raw")).await.unwrap();
    assert_eq!(folders, ["raw/a", "raw/a-b", "raw/b"].map(Path::from));
    assert!(storage.list_folders(&Path::from("nowhere")).await.unwrap().is_empty());

    storage.put_overwrite(&key, Bytes::from_static(b"three")).await.unwrap();
    assert_eq!(storage.get(&key).await.unwrap(), Some(Bytes::from_static(b"three")));
    storage.delete(&key).await.unwrap();
    storage.delete(&key).await.unwrap();
    assert_eq!(storage.head(&key).await.unwrap(), None);
}

#[tokio::test]
async fn memory_conforms() {
    conforms(Storage::memory()).await;
}

#[tokio::test]
async fn a_folder_conforms() {
    let folder = tempfile::tempdir().unwrap();
    conforms(Storage::open(folder.path().join("made/here").to_str().unwrap()).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_creates_of_one_key_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(folder.path().to_str().unwrap()).unwrap();
    let puts = (0..16).map(|number| {
        let storage = storage.clone();
        tokio::spawn(
            async move { storage.put_new(&Path::from("x/key"), Bytes::from(format!("{number}"))).await.unwrap() },
        )
    });
    let outcomes = futures::future::join_all(puts).await;
    let winners = outcomes.into_iter().filter(|outcome| *outcome.as_ref().unwrap() == PutNew::Created);
    assert_eq!(winners.count(), 1);
    let names: Vec<_> = std::fs::read_dir(folder.path().join("x")).unwrap().collect();
    assert_eq!(names.len(), 1, "staging files are gone");
}

#[tokio::test]
async fn staging_files_are_hidden_and_only_old_ones_are_swept() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(folder.path().to_str().unwrap()).unwrap();
    storage.put_new(&Path::from("raw/1.json"), Bytes::from_static(b"x")).await.unwrap();
    std::fs::write(folder.path().join("raw/.lakegram-staging-dead"), b"torn").unwrap();
    assert_eq!(storage.list_after(&Path::from("raw"), None, 10).await.unwrap().len(), 1);
    let clock = Clock::system();
    assert_eq!(storage.sweep_staging(&clock, Duration::from_secs(3_600)).await.unwrap(), 0);
    clock.step(7_200_000_000);
    assert_eq!(storage.sweep_staging(&clock, Duration::from_secs(3_600)).await.unwrap(), 1);
    assert!(storage.get(&Path::from("raw/1.json")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_lock_is_held_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(folder.path().to_str().unwrap()).unwrap();
    let path = Path::from("raw/p/1/.lane.lock");
    let held = storage.try_lock(&path).unwrap().unwrap();
    assert!(storage.try_lock(&path).unwrap().is_none());
    drop(held);
    assert!(storage.try_lock(&path).unwrap().is_some());
}

#[test]
fn a_scheme_nobody_knows_is_refused() {
    let error = Storage::open("ftp://host/x").unwrap_err().to_string();
    assert!(error.contains("s3://bucket/prefix"), "{error}");
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), b"").unwrap();
    let error = Storage::open(folder.path().join("file/data").to_str().unwrap()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("cannot be used"), "{error}");
}
