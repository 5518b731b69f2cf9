//! The folder of a local store as an identity: whether what is at its path is still what was opened.
//!
//! A path is only a name. A volume may be unmounted under the process, exposing the disk below, or another folder may
//! take its name. Whatever is written then goes to the wrong place, is acknowledged, and is lost once the right one is
//! back.

use std::fs::{self, File};
use std::io::{self, ErrorKind as IoKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use object_store::Result;

use super::disk::Disk;
use super::fault::{not_the_root_error, store_error};
use super::folders::{Folders, make_root};
use super::key::StorageKey;
use super::root_state::{RootFile, RootState};
use super::staging::create_file;
use crate::clock::Timestamp;
use crate::id::random_id;

/// Identifies a folder whatever its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inode {
    device: u64,
    number: u64,
}

/// The folder that was opened.
#[derive(Debug)]
struct Pinned {
    /// Kept open: until it is closed the file system gives its inode number to no other folder, and it can be asked
    /// whether it was deleted.
    handle: File,
    folder: Inode,
    parent: Option<Inode>,
    /// Whether the folder was created by this process and has no id yet.
    is_unnamed: bool,
}

/// The root of a local store, and its folders.
#[derive(Debug)]
pub(super) struct Root {
    folders: Folders,
    state: Arc<RootState>,
    /// `None` if the folder belongs to someone else, who may replace it at will.
    pinned: Option<RwLock<Pinned>>,
}

impl Inode {
    fn of(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), number: metadata.ino() }
    }

    /// What is at a path; `None` if nothing is. Links are followed: a folder that was moved and linked back is the same
    /// folder.
    fn at(path: &FilePath) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self::of(&metadata))),
            Err(error) if matches!(error.kind(), IoKind::NotFound | IoKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Pinned {
    fn open(path: &FilePath) -> io::Result<Self> {
        let handle = File::open(path)?;
        let folder = Inode::of(&handle.metadata()?);
        let parent = path.parent().map(Inode::at).transpose()?.flatten();
        Ok(Self { handle, folder, parent, is_unnamed: false })
    }

    /// Whether the folder was removed. One that was renamed or unmounted still has its name somewhere.
    fn is_deleted(&self) -> bool {
        self.handle.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }
}

impl Root {
    /// The folder at `path`, which exists.
    pub(super) fn open(path: PathBuf, disk: Arc<dyn Disk>, state: Arc<RootState>, is_guarded: bool) -> Result<Self> {
        let pinned = is_guarded.then(|| Pinned::open(&path)).transpose().map_err(|error| store_error(&path, error))?;
        if is_guarded && let Some(file) = read_file(&path) {
            state.set(file.id);
        }
        Ok(Self { folders: Folders::new(path, disk), state, pinned: pinned.map(RwLock::new) })
    }

    pub(super) fn folders(&self) -> &Folders {
        &self.folders
    }

    pub(super) fn path(&self) -> &FilePath {
        self.folders.root()
    }

    /// Runs a write, in the folder that was opened and no other. The folder is checked once more afterwards, so that
    /// nothing counts as written that may be elsewhere.
    pub(super) fn guarded<T>(&self, work: impl FnOnce(&Folders) -> Result<T>) -> Result<T> {
        self.ensure()?;
        self.guarded_after(work)
    }

    /// The same after a look that has found one of the folder's own files at its path.
    pub(super) fn guarded_after<T>(&self, work: impl FnOnce(&Folders) -> Result<T>) -> Result<T> {
        let epoch = self.state.epoch();
        let done = work(&self.folders)?;
        match self.is_in_place() && self.state.epoch() == epoch {
            true => Ok(done),
            false => Err(self.not_the_root(true)),
        }
    }

    /// Makes sure that the folder is the one that was opened. One that was deleted is created again.
    pub(super) fn ensure(&self) -> Result<()> {
        match &self.pinned {
            Some(pinned) if !self.is_in_place() || read(pinned).is_unnamed => self.recover(pinned),
            _ => Ok(()),
        }
    }

    /// Whether something that is not found here does not exist: in another folder it may be missing just because it is
    /// another folder. In a folder that was deleted, everything is gone.
    ///
    /// # Errors
    /// When another folder has the path.
    pub(super) fn look(&self) -> Result<()> {
        let Some(pinned) = self.pinned.as_ref().filter(|_| !self.is_in_place()) else { return Ok(()) };
        let is_gone = read(pinned).is_deleted() && self.is_vacant();
        if is_gone || self.is_same_by_id() {
            return Ok(());
        }
        Err(self.not_the_root(false))
    }

    fn is_in_place(&self) -> bool {
        let Some(pinned) = &self.pinned else { return true };
        Inode::at(self.path()).is_ok_and(|there| there == Some(read(pinned).folder))
    }

    /// Whether there is nothing at the path, or an empty folder.
    fn is_vacant(&self) -> bool {
        match fs::read_dir(self.path()) {
            Ok(mut names) => names.next().is_none(),
            Err(error) => error.kind() == IoKind::NotFound,
        }
    }

    fn is_same_by_id(&self) -> bool {
        let known = self.state.id();
        known.is_some() && read_file(self.path()).map(|file| file.id) == known
    }

    fn recover(&self, pinned: &RwLock<Pinned>) -> Result<()> {
        let mut pinned = pinned.write().unwrap_or_else(PoisonError::into_inner);
        let there = Inode::at(self.path()).map_err(|error| store_error(self.path(), error))?;
        if there == Some(pinned.folder) {
            return self.name_if_unnamed(&mut pinned);
        }
        if self.is_same_by_id() {
            *pinned = self.pin_anew()?;
            tracing::warn!(folder = %self.path().display(), "the data folder was mounted or copied again; continuing in it");
            return Ok(());
        }
        let parent = self.path().parent().map(Inode::at).transpose().ok().flatten().flatten();
        if !(self.is_vacant() && pinned.is_deleted() && parent.is_some() && parent == pinned.parent) {
            return Err(self.not_the_root(false));
        }
        make_root(self.folders.disk(), self.path())?;
        // From here on the folder is ours, even if the disk is too full to write its id: the next try goes on with it.
        *pinned = Pinned { is_unnamed: true, ..self.pin_anew()? };
        tracing::error!(
            folder = %self.path().display(),
            "the data folder was deleted while in use and was created again, empty: its content is gone; restore it \
             from a backup if you have one"
        );
        self.name_if_unnamed(&mut pinned)
    }

    /// Gives a recreated root its own id, unless it has one.
    fn name_if_unnamed(&self, pinned: &mut Pinned) -> Result<()> {
        if pinned.is_unnamed {
            self.name_anew()?;
            pinned.is_unnamed = false;
        }
        Ok(())
    }

    /// From now on treats what is at the path as the root.
    fn pin_anew(&self) -> Result<Pinned> {
        let pinned = Pinned::open(self.path()).map_err(|error| store_error(self.path(), error))?;
        self.folders.forget();
        self.state.epoch.fetch_add(1, Ordering::SeqCst);
        Ok(pinned)
    }

    /// Writes a new id, or takes the one that another process has written to the same folder. The file system's clock
    /// says when it was created.
    fn name_anew(&self) -> Result<()> {
        let made = fs::metadata(self.path()).map_err(|error| store_error(self.path(), error))?;
        let made_at = made.mtime().saturating_mul(1_000_000).saturating_add(made.mtime_nsec() / 1_000);
        let file = RootFile::new(random_id().to_string(), Timestamp::from_micros(made_at));
        let path = self.path().join(StorageKey::Root.path().as_ref());
        let named = match create_file(&self.folders, &path, &file.bytes().into()) {
            Err(error @ object_store::Error::AlreadyExists { .. }) => read_file(self.path()).ok_or(error)?,
            created => created.map(|()| file)?,
        };
        self.state.set(named.id);
        Ok(())
    }

    fn not_the_root(&self, in_doubt: bool) -> object_store::Error {
        not_the_root_error(self.path(), in_doubt)
    }
}

fn read(pinned: &RwLock<Pinned>) -> RwLockReadGuard<'_, Pinned> {
    pinned.read().unwrap_or_else(PoisonError::into_inner)
}

fn read_file(root: &FilePath) -> Option<RootFile> {
    RootFile::parse(&fs::read(root.join(StorageKey::Root.path().as_ref())).ok()?)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    use bytes::Bytes;
    use object_store::ObjectStoreExt;
    use object_store::path::Path;

    use super::super::disk::OperatingSystem;
    use super::super::{Beside, PutNew, Storage};
    use super::*;
    use crate::clock::Clock;
    use crate::error::{ErrorKind, Result};

    /// A data folder in a folder of its own, with an object in it.
    struct Scene {
        folder: tempfile::TempDir,
        root: PathBuf,
        aside: PathBuf,
        storage: Storage,
    }

    impl Scene {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (root, aside) = (folder.path().join("data"), folder.path().join("aside"));
            let storage = Storage::open(root.to_str().unwrap()).unwrap();
            storage.identify(&Clock::system()).await.unwrap();
            let scene = Self { folder, root, aside, storage };
            scene.put("before").await.unwrap();
            scene
        }

        async fn put(&self, name: &str) -> Result<PutNew> {
            self.storage.put_new(&Path::from("raw/a").join(name), Bytes::from_static(b"x")).await
        }

        fn files(&self) -> usize {
            fs::read_dir(self.root.join("raw/a")).map_or(0, Iterator::count)
        }

        async fn is_refused(&self) {
            let error = self.put("meanwhile").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.to_string().contains("is not the one that was opened"), "{error}");
            let path = Path::from("raw/a/before");
            assert!(self.storage.put_overwrite(&path, Bytes::new()).await.is_err());
            assert!(self.storage.delete(&path).await.is_err());
            assert!(self.storage.copy_new(&path, &Path::from("raw/a/copy")).await.is_err());
            assert!(self.storage.try_lock(&Path::from("raw/a/.lock")).is_err());
            assert!(
                self.storage.get(&Path::from("raw/a/nothing")).await.is_err(),
                "nothing is not there in another root"
            );
            assert!(self.storage.list_after(&Path::from("raw"), None, 9).await.is_err());
            assert!(self.storage.list_folders(&Path::from("raw")).await.is_err());
        }
    }

    #[tokio::test]
    async fn another_folder_at_the_path_is_written_to_never_and_the_right_one_is_again() {
        let scene = Scene::new().await;
        fs::rename(&scene.root, &scene.aside).unwrap();
        scene.is_refused().await;
        assert!(!scene.root.exists(), "a folder that was renamed away is not made again");
        fs::create_dir(&scene.root).unwrap();
        scene.is_refused().await;
        fs::create_dir_all(scene.root.join("raw/a")).unwrap();
        scene.is_refused().await;
        assert_eq!(scene.files(), 0);
        fs::remove_dir_all(&scene.root).unwrap();
        fs::rename(&scene.aside, &scene.root).unwrap();
        assert_eq!(scene.put("meanwhile").await.unwrap(), PutNew::Created);
        assert_eq!((scene.files(), scene.storage.root_epoch()), (2, 0));
    }

    #[tokio::test]
    async fn what_is_put_beside_an_object_goes_to_no_other_folder() {
        let scene = Scene::new().await;
        let [commit, next, last] = [1, 2, 3].map(|version| Path::from(format!("t/_delta_log/{version:020}.json")));
        let (_, mark) = scene.storage.put_new_marked(&commit, Bytes::from_static(b"x")).await.unwrap();
        let beside = Beside { path: commit.clone(), mark: mark.unwrap() };
        let put = async |path| scene.storage.put_new_beside(path, Bytes::new(), beside.clone()).await;
        assert!(matches!(put(&next).await.unwrap(), Some((PutNew::Created, Some(_)))));
        fs::rename(&scene.root, &scene.aside).unwrap();
        assert_eq!(put(&last).await.unwrap_err().kind(), ErrorKind::Unavailable);
        fs::create_dir_all(scene.root.join("t/_delta_log")).unwrap();
        fs::copy(scene.aside.join(commit.as_ref()), scene.root.join(commit.as_ref())).unwrap();
        assert_eq!(put(&last).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(fs::read_dir(scene.root.join("t/_delta_log")).unwrap().count(), 1);
        fs::remove_dir_all(&scene.root).unwrap();
        fs::rename(&scene.aside, &scene.root).unwrap();
        scene.storage.put_overwrite(&commit, Bytes::from_static(b"x")).await.unwrap();
        assert!(put(&last).await.unwrap().is_none(), "it is another one with the same content");
        assert_eq!(scene.storage.head(&last).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_root_with_another_id_is_refused_and_a_copy_with_the_same_id_is_gone_on_with() {
        let scene = Scene::new().await;
        fs::rename(&scene.root, &scene.aside).unwrap();
        let other = Storage::open(scene.root.to_str().unwrap()).unwrap();
        other.identify(&Clock::system()).await.unwrap();
        assert_ne!(other.root_id(), scene.storage.root_id());
        scene.is_refused().await;
        fs::copy(scene.aside.join("_lakegram/root.json"), scene.root.join("_lakegram/root.json")).unwrap();
        scene.put("after").await.unwrap();
        assert_eq!((scene.files(), scene.storage.root_epoch()), (1, 1));
    }

    #[tokio::test]
    async fn a_root_that_was_deleted_whole_is_made_again_under_another_id() {
        let scene = Scene::new().await;
        let id = scene.storage.root_id();
        for (round, is_made_by_hand) in (1..).zip([false, true, false]) {
            fs::remove_dir_all(&scene.root).unwrap();
            assert_eq!(scene.storage.head(&Path::from("raw/a/before")).await.unwrap(), None, "it is gone for good");
            if is_made_by_hand {
                fs::create_dir(&scene.root).unwrap();
            }
            scene.put("after").await.unwrap();
            assert_eq!((scene.files(), scene.storage.root_epoch()), (1, round));
            assert_ne!(scene.storage.root_id(), id);
            assert_eq!(read_file(&scene.root).map(|file| file.id), scene.storage.root_id());
        }
    }

    #[tokio::test]
    async fn a_deleted_root_is_not_made_again_where_its_parent_is_another_or_somebody_has_filled_it() {
        let scene = Scene::new().await;
        let outer = scene.folder.path().join("outer");
        let storage = Storage::open(outer.join("data").to_str().unwrap()).unwrap();
        fs::remove_dir(outer.join("data")).unwrap();
        fs::rename(&outer, scene.folder.path().join("unmounted")).unwrap();
        fs::create_dir(&outer).unwrap();
        assert!(storage.put_new(&Path::from("x"), Bytes::new()).await.is_err());
        assert_eq!(fs::read_dir(&outer).unwrap().count(), 0);

        fs::remove_dir_all(&scene.root).unwrap();
        fs::create_dir_all(scene.root.join("somebody's")).unwrap();
        scene.is_refused().await;
    }

    #[tokio::test]
    async fn a_folder_of_somebody_else_may_be_replaced_at_will() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("in");
        let storage = Storage::open_foreign(root.to_str().unwrap()).unwrap();
        fs::rename(&root, folder.path().join("aside")).unwrap();
        fs::create_dir(&root).unwrap();
        fs::write(root.join("new"), b"x").unwrap();
        assert_eq!(storage.list_after(&Path::default(), None, 9).await.unwrap().len(), 1);
        storage.delete(&Path::from("new")).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_only_reads_makes_neither_folder_nor_id() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data");
        let storage = Storage::open_to_read(root.to_str().unwrap()).unwrap();
        assert!(storage.list_after(&Path::default(), None, 9).await.unwrap().is_empty());
        assert!(!root.exists());
        assert_eq!(storage.url().to_file_path().unwrap(), root);
        fs::create_dir(&root).unwrap();
        Storage::open_to_read(root.to_str().unwrap()).unwrap();
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn an_id_is_given_once_and_a_file_that_holds_none_is_corrupt() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        storage.identify(&clock).await.unwrap();
        let id = storage.root_id();
        storage.identify(&clock).await.unwrap();
        assert_eq!(storage.root_id(), id);
        storage.put_overwrite(&StorageKey::Root.path(), Bytes::from_static(b"{}")).await.unwrap();
        assert_eq!(storage.identify(&clock).await.unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[tokio::test]
    async fn in_the_cloud_another_root_is_noticed_at_the_next_look_and_so_is_the_right_one() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        storage.look_at_root(&clock).await.unwrap();
        let (path, id) = (StorageKey::Root.path(), storage.root_id());
        let right = storage.get(&path).await.unwrap().unwrap();
        let put = async |bytes: Bytes| drop(storage.object_store().put(&path, bytes.into()).await.unwrap());
        put(RootFile::new("another".to_owned(), clock.now()).bytes()).await;
        storage.look_at_root(&clock).await.unwrap();
        let refused = storage.put_new(&Path::from("x"), Bytes::new()).await.unwrap_err();
        assert!(refused.to_string().contains("is not the one that was opened"), "{refused}");
        put(right).await;
        storage.look_at_root(&clock).await.unwrap();
        storage.put_new(&Path::from("x"), Bytes::new()).await.unwrap();
        assert_eq!((storage.root_id(), storage.root_epoch()), (id.clone(), 0));
        // The file alone is put back; a root that is gone whole is another one.
        storage.delete(&path).await.unwrap();
        storage.look_at_root(&clock).await.unwrap();
        assert_eq!((storage.root_id(), storage.root_epoch()), (id.clone(), 0));
        storage.delete(&path).await.unwrap();
        storage.delete(&Path::from("x")).await.unwrap();
        storage.look_at_root(&clock).await.unwrap();
        assert_ne!(storage.root_id(), id);
        assert_eq!(storage.root_epoch(), 1);
    }

    /// Puts another folder in the root's place while a file gets its name, and can be full.
    #[derive(Debug, Default)]
    struct TroubledDisk {
        swap: Mutex<Option<(PathBuf, PathBuf)>>,
        is_full: AtomicBool,
    }

    impl Disk for TroubledDisk {
        fn create(&self, path: &FilePath) -> io::Result<File> {
            match self.is_full.load(Ordering::SeqCst) {
                true => Err(IoKind::StorageFull.into()),
                false => OperatingSystem::default().create(path),
            }
        }
        fn write(&self, file: &File, path: &FilePath, bytes: &[u8]) -> io::Result<()> {
            OperatingSystem::default().write(file, path, bytes)
        }
        fn sync_file(&self, file: &File, path: &FilePath) -> io::Result<()> {
            OperatingSystem::default().sync_file(file, path)
        }
        fn link(&self, from: &FilePath, to: &FilePath) -> io::Result<()> {
            OperatingSystem::default().link(from, to)?;
            if let Some((root, aside)) = self.swap.lock().unwrap().take() {
                fs::rename(&root, aside)?;
                fs::create_dir(&root)?;
            }
            Ok(())
        }
        fn rename(&self, from: &FilePath, to: &FilePath) -> io::Result<()> {
            OperatingSystem::default().rename(from, to)
        }
        fn sync_folder(&self, folder: &File, path: &FilePath) -> io::Result<()> {
            OperatingSystem::default().sync_folder(folder, path)
        }
        fn unlink(&self, path: &FilePath) -> io::Result<()> {
            OperatingSystem::default().unlink(path)
        }
        fn make_folder(&self, path: &FilePath) -> io::Result<()> {
            OperatingSystem::default().make_folder(path)
        }
    }

    #[tokio::test]
    async fn a_root_whose_id_could_not_be_written_when_it_was_made_again_gets_it_with_the_next_write() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data");
        let disk = Arc::new(TroubledDisk::default());
        let storage = Storage::open_folder_on(Arc::clone(&disk) as Arc<dyn Disk>, &root).unwrap();
        storage.identify(&Clock::system()).await.unwrap();
        let id = storage.root_id();
        let put = async || storage.put_new(&Path::from("x"), Bytes::from_static(b"x")).await;
        fs::remove_dir_all(&root).unwrap();
        disk.is_full.store(true, Ordering::SeqCst);
        for _ in 0..2 {
            assert_eq!(put().await.unwrap_err().kind(), ErrorKind::Unavailable);
            assert!(!root.join("x").exists(), "nothing is written to a root without an id");
        }
        disk.is_full.store(false, Ordering::SeqCst);
        assert_eq!(put().await.unwrap(), PutNew::Created);
        assert_ne!(storage.root_id(), id);
        assert_eq!((read_file(&root).map(|file| file.id), storage.root_epoch()), (storage.root_id(), 1));
    }

    #[tokio::test]
    async fn what_was_written_while_the_root_changed_hands_is_in_doubt_and_settled_by_a_second_try() {
        let folder = tempfile::tempdir().unwrap();
        let (root, aside) = (folder.path().join("data"), folder.path().join("aside"));
        let disk = Arc::new(TroubledDisk::default());
        let storage = Storage::open_folder_on(Arc::clone(&disk) as Arc<dyn Disk>, &root).unwrap();
        *disk.swap.lock().unwrap() = Some((root.clone(), aside.clone()));
        let put = async || storage.put_new(&Path::from("x"), Bytes::from_static(b"x")).await;
        assert_eq!(put().await.unwrap_err().kind(), ErrorKind::Unknown);
        assert_eq!(put().await.unwrap_err().kind(), ErrorKind::Unavailable);
        fs::remove_dir_all(&root).unwrap();
        fs::rename(&aside, &root).unwrap();
        assert_eq!(put().await.unwrap(), PutNew::Created);
    }
}
