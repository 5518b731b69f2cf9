//! One conformance suite for the stores, and what only the local one promises.

pub(crate) mod intercepted;
pub(crate) mod simulated;
pub(crate) mod troubled;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, ObjectStoreExt, PutMode, RenameOptions, UpdateVersion,
};
use proptest::prelude::*;

use self::intercepted::{Inner, Intercept};
use self::simulated::{CutAt, Lies, Moment, SimulatedDisk};
use super::disk::OperatingSystem;
use super::fault::{failed_call, not_persisted, store_error};
use super::folders::Folders;
use super::staging::{copy_file, finish_staged};
use super::{PutNew, Storage};
use crate::clock::Clock;
use crate::error::ErrorKind;

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
    let length = |path: &Path| Some(path.as_ref().len());
    assert_eq!(storage.greatest_below(&Path::from("raw"), length).await.unwrap(), Some("raw/a-b/1.json".len()));
    assert_eq!(storage.greatest_below(&Path::from("nowhere"), length).await.unwrap(), None);

    storage.put_overwrite(&key, Bytes::from_static(b"three")).await.unwrap();
    assert_eq!(storage.get(&key).await.unwrap(), Some(Bytes::from_static(b"three")));
    storage.delete(&key).await.unwrap();
    storage.delete(&key).await.unwrap();
    assert_eq!(storage.head(&key).await.unwrap(), None);
    copies_conform(&storage).await;
    parts_conform(&storage).await;
}

async fn copies_conform(storage: &Storage) {
    let store = storage.object_store();
    let (from, to) = (Path::from("copy/from"), Path::from("copy/to"));
    storage.put_new(&from, Bytes::from_static(b"one")).await.unwrap();
    let create = || CopyOptions::new().with_mode(CopyMode::Create);
    store.copy_opts(&from, &to, create()).await.unwrap();
    let again = store.copy_opts(&from, &to, create()).await.unwrap_err();
    assert!(matches!(again, object_store::Error::AlreadyExists { .. }), "{again}");
    storage.put_overwrite(&from, Bytes::from_static(b"two")).await.unwrap();
    store.rename_opts(&from, &to, RenameOptions::default()).await.unwrap();
    assert_eq!(storage.get(&from).await.unwrap(), None);
    assert_eq!(storage.get(&to).await.unwrap(), Some(Bytes::from_static(b"two")));
    assert!(store.rename_opts(&from, &to, RenameOptions::default()).await.is_err(), "what is gone cannot be renamed");
}

async fn parts_conform(storage: &Storage) {
    let store = storage.object_store();
    let path = Path::from("parts/large");
    let mut upload = store.put_multipart(&path).await.unwrap();
    // Parts may finish in any order.
    let (first, second) = (upload.put_part("one".into()), upload.put_part("two".into()));
    second.await.unwrap();
    first.await.unwrap();
    assert_eq!(storage.get(&path).await.unwrap(), None, "an upload under way is not seen");
    upload.complete().await.unwrap();
    assert_eq!(storage.get(&path).await.unwrap(), Some(Bytes::from_static(b"onetwo")));
    assert_eq!(store.get_range(&path, 2..4).await.unwrap(), Bytes::from_static(b"et"));
    let mut upload = store.put_multipart(&path).await.unwrap();
    upload.put_part("three".into()).await.unwrap();
    upload.abort().await.unwrap();
    assert_eq!(storage.get(&path).await.unwrap(), Some(Bytes::from_static(b"onetwo")));
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

#[tokio::test]
async fn a_folder_on_a_simulated_disk_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SimulatedDisk::new(folder.path(), Lies::default()).unwrap();
    conforms(Storage::open_folder_on(Arc::new(disk), &folder.path().join("made/here")).unwrap()).await;
}

#[tokio::test]
async fn what_was_put_survives_whatever_the_process_before_had_left_unsynced() {
    let path = Path::from("raw/a/1.json");
    for nth in 1..=12 {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("made/here");
        let dying = SimulatedDisk::new(folder.path(), Lies::default()).unwrap();
        dying.cut_at(CutAt { operation: None, nth, moment: Moment::Before });
        dying.never_block_this_thread();
        if let Ok(storage) = Storage::open_folder_on(Arc::new(dying.clone()), &root) {
            let put = tokio::spawn(async move { storage.put_new(&Path::from("raw/a/0.json"), Bytes::new()).await });
            dying.out().cancelled().await;
            dying.release();
            assert!(put.await.unwrap().is_err());
        }
        let disk = dying.for_the_next_process();
        let storage = Storage::open_folder_on(Arc::new(disk.clone()), &root).unwrap();
        storage.put_new(&path, Bytes::from_static(b"x")).await.unwrap();
        for seed in 0..30 {
            let rebooted = tempfile::tempdir().unwrap();
            disk.write_survivors(rebooted.path(), seed).unwrap();
            let object = rebooted.path().join("made/here/raw/a/1.json");
            assert_eq!(std::fs::read(object).ok().as_deref(), Some(&b"x"[..]), "died at call {nth}, seed {seed}");
        }
    }
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
    assert!(error.to_string().contains("cannot use the folder"), "{error}");
}

#[tokio::test]
async fn a_page_that_ends_in_a_longer_name_does_not_begin_again() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(folder.path().to_str().unwrap()).unwrap();
    for name in ["raw/part", "raw/part-1", "raw/part-10"] {
        storage.put_new(&Path::from(name), Bytes::from_static(b"x")).await.unwrap();
    }
    let after = Path::from("raw/part-10");
    assert!(storage.list_after(&Path::from("raw"), Some(&after), 10).await.unwrap().is_empty());
}

#[test]
fn a_file_url_is_decoded_and_one_with_a_host_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(&format!("file://{}/a%20b", folder.path().display())).unwrap();
    assert!(storage.local_root().unwrap().ends_with("a b"));
    assert_eq!(Storage::open("file://elsewhere/x").unwrap_err().exit_code(), 2);
}

/// Replaces an object before it is read.
#[derive(Debug)]
struct Replacing;

#[async_trait]
impl Intercept for Replacing {
    async fn get(&self, inner: &Inner, from: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        if !options.head {
            inner.put(from, "another".into()).await?;
        }
        inner.get_opts(from, options).await
    }
}

#[tokio::test]
async fn bytes_and_mark_are_of_the_same_object_and_a_mark_is_the_same_however_it_is_learned() {
    let folder = tempfile::tempdir().unwrap();
    for storage in [Storage::memory(), Storage::open(folder.path().to_str().unwrap()).unwrap()] {
        let path = Path::from("t/_delta_log/00000000000000000001.json");
        let (_, put) = storage.put_new_marked(&path, Bytes::from_static(b"one")).await.unwrap();
        assert_eq!(put.is_some(), storage.is_local());
        let mark = storage.mark(&path).await.unwrap();
        assert_eq!(put.or(mark.clone()), mark);
        assert_eq!(storage.get_with_mark(&path).await.unwrap(), mark.clone().map(|mark| ("one".into(), Some(mark))));
        let found = storage.clone().intercepted(Replacing).get_marked(&path).await.unwrap().unwrap();
        let another = storage.mark(&path).await.unwrap();
        assert_ne!(another, mark);
        assert_eq!(Some(found), another.map(|mark| (Bytes::from_static(b"another"), mark)));
        assert_eq!(storage.mark(&Path::from("t/nothing")).await.unwrap(), None);
        assert_eq!(storage.mark(&path.join("below")).await.unwrap(), None, "nothing is below an object");
    }
}

#[tokio::test]
async fn a_put_that_expects_a_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Storage::open(folder.path().to_str().unwrap()).unwrap().object_store();
    let update = PutMode::Update(UpdateVersion { e_tag: None, version: None });
    assert!(store.put_opts(&Path::from("x"), "x".into(), update.into()).await.is_err());
}

#[tokio::test]
async fn a_put_below_a_file_fails_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(folder.path().to_str().unwrap()).unwrap();
    std::fs::write(folder.path().join("file"), b"").unwrap();
    let put = storage.put_new(&Path::from("file/object"), Bytes::from_static(b"x")).await;
    assert_ne!(put.unwrap_err().kind(), ErrorKind::Fatal);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_file_that_no_second_name_can_be_given_is_copied_and_never_over_another() {
    let folder = tempfile::tempdir().unwrap();
    let folders = Folders::new(folder.path().to_owned(), Arc::new(OperatingSystem::default()));
    let (from, to) = (folder.path().join("from"), folder.path().join("deep/to"));
    std::fs::write(&from, vec![b'x'; (2 << 20) + 1]).unwrap();
    copy_file(&folders, &from, &to).unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), std::fs::read(&from).unwrap());
    std::fs::write(&from, b"other").unwrap();
    assert!(matches!(copy_file(&folders, &from, &to), Err(object_store::Error::AlreadyExists { .. })));
    assert_eq!(std::fs::read(&to).unwrap().len(), (2 << 20) + 1);
    assert_eq!(std::fs::read_dir(folder.path().join("deep")).unwrap().count(), 1, "nothing is left behind");
}

#[tokio::test]
async fn a_folder_that_was_removed_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(folder.path().to_str().unwrap()).unwrap();
    let path = Path::from("raw/a/1.json");
    for _ in 0..2 {
        assert_eq!(storage.put_new(&path, Bytes::from_static(b"x")).await.unwrap(), PutNew::Created);
        std::fs::remove_dir_all(folder.path().join("raw")).unwrap();
    }
}

#[test]
fn a_full_disk_is_a_failed_put_and_a_failed_fsync_is_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let staging = folder.path().join("staging");
    std::fs::write(&staging, b"torn").unwrap();
    let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
    let broken = std::io::Error::other("input/output error");
    let kind = |error| failed_call(error, "put", &Path::from("x")).kind();
    assert_eq!(kind(store_error(&staging, full())), ErrorKind::Unavailable);
    assert_eq!(kind(not_persisted(&staging, full())), ErrorKind::Unavailable);
    assert_eq!(kind(not_persisted(&staging, broken)), ErrorKind::Fatal);
    assert!(
        finish_staged(&OperatingSystem::default(), &staging, &staging, Err::<(), _>(store_error(&staging, full())))
            .is_err()
    );
    assert!(!staging.exists(), "what was staged gives its space back");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_folder_lists_as_memory_does(
        names in proptest::collection::btree_set("[ab][-1.]?(/[ab1][-b]?){0,2}", 0..12),
        prefix in "[ab]?",
        offset in "[ab]?[-1./]?[ab1]?",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let (local, memory) = (Storage::open(folder.path().to_str().unwrap()).unwrap(), Storage::memory());
            for name in names.iter().map(|name| Path::from(name.as_str())) {
                // A name that is a folder for another one cannot be a file as well.
                if local.put_new(&name, Bytes::new()).await.is_ok() {
                    memory.put_new(&name, Bytes::new()).await.unwrap();
                }
            }
            let (prefix, offset) = (Path::from(prefix.as_str()), Path::from(offset.as_str()));
            let mut found = Vec::new();
            for store in [local.object_store(), memory.object_store()] {
                let listed: Vec<_> = store.list_with_offset(Some(&prefix), &offset).try_collect().await.unwrap();
                found.push(listed.into_iter().map(|meta| meta.location).collect::<Vec<_>>());
            }
            assert_eq!(found[0], found[1]);
        });
    }
}

#[cfg(feature = "cloud")]
#[test]
fn what_is_told_about_a_place_holds_no_credentials() {
    for wrong in [
        "s3:/bucket/x",
        "s3:bucket",
        "file:/var/x",
        "https:/me:s3cret@host",
        "s3://KEY:a/s3cret@bucket/x",
        "ftp://me:s3cret@host/x?key=s3cret",
        "http://me:s3cret@host/x",
        "file://host/s3cret",
    ] {
        let error = Storage::open(wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(!error.to_string().contains("s3cret"), "{error}");
        assert!(Storage::open_to_read(wrong).is_err() && Storage::open_foreign(wrong).is_err());
    }
    assert!(["s3:", "s3:bucket", "file:", "https:"].iter().all(|folder| !std::path::Path::new(folder).exists()));
    let storage = Storage::open("s3://KEY:s3cret@bucket/x?key=s3cret#s3cret").unwrap();
    assert_eq!(storage.place(), "s3://bucket/x");
    let folder = tempfile::tempdir().unwrap();
    let local = Storage::open(folder.path().to_str().unwrap()).unwrap();
    assert_eq!(local.place(), local.url().as_str());
}

#[tokio::test]
async fn what_is_written_is_for_nobody_else_unless_the_mask_says_so() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("any"), "").unwrap();
    // What the process itself lets through.
    let own = mode(&folder.path().join("any"));
    let own = own | (own & 0o444) >> 2;
    for (umask, of_files, of_folders) in [(None, 0o600, 0o700), (Some(0o027), 0o640, 0o750), (Some(0), 0o666, 0o777)] {
        let root = folder.path().join(format!("{umask:?}"));
        let url = root.to_str().unwrap();
        let storage = umask.map_or_else(|| Storage::open(url), |umask| Storage::open_masked(url, umask)).unwrap();
        let [new, over, large, copy] = ["raw/a/1", "raw/b/2", "raw/c/3", "raw/d/4"].map(Path::from);
        storage.put_new(&new, Bytes::from_static(b"x")).await.unwrap();
        storage.put_overwrite(&over, Bytes::from_static(b"x")).await.unwrap();
        let mut upload = storage.object_store().put_multipart(&large).await.unwrap();
        upload.put_part(Bytes::from_static(b"x").into()).await.unwrap();
        upload.complete().await.unwrap();
        storage.copy_new(&new, &copy).await.unwrap();
        for path in [new, over, large, copy] {
            assert_eq!(mode(&root.join(path.as_ref())), of_files & own, "{path} {umask:?}");
        }
        for path in ["", "raw", "raw/a", "raw/c"] {
            assert_eq!(mode(&root.join(path)), of_folders & own, "{path} {umask:?}");
        }
    }
}
