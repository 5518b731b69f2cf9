//! From `LAKEGRAM_DATA` to an object store, and the few operations the rest is built of.

use std::fs::TryLockError;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutResult};
use url::Url;

use super::disk::{Disk, OTHERS, OperatingSystem};
use super::fault::{failed_call, is_persist_failure, not_the_root};
use super::root_state::RootState;
use super::{DurableLocal, Mark, PutNew, Storage, cloud, origin};
use crate::clock::Clock;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sabotage::{Sabotage, is_on};

/// What a URL may begin with.
const SCHEMES: [&str; 14] =
    ["s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss", "wasb", "wasbs", "file", "memory", "http", "https"];

/// An exclusive lock of this process on a path, released on drop.
#[derive(Debug)]
pub struct StorageLock {
    _file: Option<std::fs::File>,
}

impl Storage {
    /// Opens a folder (`./data`, `/var/lib/lakegram`), `file://`, `memory://`, `s3://`, `gs://`, `az://` or
    /// `abfss://`. A missing local folder is made. Nobody but the user of this process may read its files.
    ///
    /// # Errors
    /// A configuration error when the URL or its credentials cannot be used.
    pub fn open(url: &str) -> Result<Self> {
        Self::open_masked(url, OTHERS)
    }

    /// Like [`Storage::open`], where new files and folders lack these bits of their mode.
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub fn open_masked(url: &str, umask: u32) -> Result<Self> {
        Self::open_guarded(url, OperatingSystem { umask }, true)
    }

    /// Like [`Storage::open`], for a folder that belongs to someone else, who may replace it at any time. The data root
    /// is different: whatever is written to it goes to the folder that was opened, or nowhere.
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub fn open_foreign(url: &str) -> Result<Self> {
        Self::open_guarded(url, OperatingSystem { umask: 0 }, false)
    }

    /// Like [`Storage::open`], for commands that only read: a missing folder is not created, and reads as empty.
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub fn open_to_read(url: &str) -> Result<Self> {
        match local_folder(url)? {
            Some(folder) if !folder.exists() => {
                let folder = std::path::absolute(&folder).unwrap_or(folder);
                let url = Url::from_directory_path(folder).map_err(|()| Error::configuration("no folder"))?;
                Ok(Self { url, ..Self::memory() })
            }
            _ => Self::open(url),
        }
    }

    fn open_guarded(url: &str, disk: OperatingSystem, is_guarded: bool) -> Result<Self> {
        if let Some(folder) = local_folder(url)? {
            return Self::open_disk(Arc::new(disk), &folder, is_guarded);
        }
        let url = parsed(url)?;
        if url.scheme() == "memory" {
            return Ok(Self::memory());
        }
        let (store, prefix) = cloud::open(&url)?;
        Ok(Self::in_cloud(store, prefix, url))
    }

    /// Opens an `s3://` URL through a given client, which decides how requests are made.
    #[cfg(all(test, feature = "cloud"))]
    pub(crate) fn open_amazon(url: &str, client: object_store::aws::AmazonS3Builder) -> Result<Self> {
        let url = parsed(url)?;
        let (store, prefix) = cloud::open_with(&url, client)?;
        Ok(Self::in_cloud(store, prefix, url))
    }

    fn in_cloud(store: Arc<dyn ObjectStore>, prefix: Path, url: Url) -> Self {
        let store: Arc<dyn ObjectStore> = match prefix.as_ref().is_empty() {
            true => store,
            false => Arc::new(PrefixStore::new(store, prefix)),
        };
        Self { store, url, local: None, recent: Some(Arc::default()), root_state: Arc::default() }
    }

    /// Opens a folder on a given disk.
    #[cfg(test)]
    pub(crate) fn open_folder_on(disk: Arc<dyn Disk>, folder: &FilePath) -> Result<Self> {
        Self::open_disk(disk, folder, true)
    }

    fn open_disk(disk: Arc<dyn Disk>, folder: &FilePath, is_guarded: bool) -> Result<Self> {
        let unusable = format!("cannot use the folder {}; make it writable or use another one", folder.display());
        let root_state = Arc::<RootState>::default();
        let local = DurableLocal::open_on(disk, folder, Arc::clone(&root_state), is_guarded);
        let local = local.context(ErrorKind::Configuration, unusable.clone())?;
        let url = Url::from_directory_path(local.root()).map_err(|()| Error::configuration(unusable))?;
        let local = Arc::new(local);
        let store = Arc::clone(&local) as Arc<dyn ObjectStore>;
        Ok(Self { store, url, local: Some(local), recent: Some(Arc::default()), root_state })
    }

    /// An empty storage in memory.
    pub fn memory() -> Self {
        #[allow(clippy::expect_used)]
        let url = Url::parse("memory:///").expect("a constant URL parses");
        Self { store: Arc::new(InMemory::new()), url, local: None, recent: None, root_state: Arc::default() }
    }

    /// The same storage with its object store wrapped, for stores that count, fail or are slow.
    #[must_use]
    pub fn decorated(self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        Self { store: wrap(self.store), recent: None, ..self }
    }

    /// The object store itself, for libraries that take one.
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// The URL of the root. It may hold credentials: [`Storage::place`] is for people.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Where the root is, in words for people.
    pub fn place(&self) -> String {
        format!("{}{}", origin(&self.url), self.url.path())
    }

    /// Whether it is a folder on a disk of this machine, where a look costs no request.
    pub fn is_local(&self) -> bool {
        self.local.is_some()
    }

    /// The local folder, if there is one.
    pub fn local_root(&self) -> Option<&FilePath> {
        self.local.as_deref().map(DurableLocal::root)
    }

    /// Puts an object that must not exist yet, in one attempt. After `AlreadyExists`, and after any error that leaves
    /// the outcome open, reads it back and compares the bytes.
    ///
    /// Unavailable: nothing is there now, the same bytes may be put again. Unknown: it could not be read back either.
    /// Fatal: the disk failed to persist it.
    pub async fn put_new(&self, path: &Path, bytes: Bytes) -> Result<PutNew> {
        self.put_new_marked(path, bytes).await.map(|(put, _)| put)
    }

    pub(super) async fn put_ended(
        &self,
        path: &Path,
        bytes: &Bytes,
        put: object_store::Result<PutResult>,
    ) -> Result<(PutNew, Option<Mark>)> {
        match put {
            Ok(put) => {
                let tag = put.e_tag.filter(|_| self.is_local());
                let mark = tag.map(|tag| Mark { size_bytes: bytes.len() as u64, modified_nanos: None, tag: Some(tag) });
                self.remember(path, bytes, mark.clone());
                Ok((PutNew::Created, mark))
            }
            Err(failed) => self.read_back(path, bytes, failed).await.map(|put| (put, None)),
        }
    }

    /// How a failed put has ended.
    async fn read_back(&self, path: &Path, bytes: &Bytes, failed: object_store::Error) -> Result<PutNew> {
        // What is in another folder says nothing about ours, so it is not read back either.
        if is_persist_failure(&failed) || not_the_root(&failed).is_some() {
            return Err(failed_call(failed, "put", path));
        }
        if is_on(Sabotage::ReadBack) {
            let is_taken = matches!(failed, object_store::Error::AlreadyExists { .. });
            return if is_taken { Ok(PutNew::Taken) } else { Err(failed_call(failed, "put", path)) };
        }
        match self.get_from_store(path).await {
            Ok(Some(there)) if there == *bytes => {
                // The name may exist without being durable: an earlier try of ours died before it was.
                self.persist_folder_of(path).await?;
                Ok(PutNew::Created)
            }
            Ok(Some(_)) => Ok(PutNew::Taken),
            Ok(None) => Err(failed_call(failed, "put", path)),
            Err(error) => {
                Err(Error::new(ErrorKind::Unknown, format!("put {path}: the outcome is unknown")).caused_by(error))
            }
        }
    }

    /// Puts an object, replacing whatever is there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put_overwrite(&self, path: &Path, bytes: Bytes) -> Result<()> {
        self.check_root()?;
        self.forget(path);
        let put = self.store.put_opts(path, bytes.into(), PutMode::Overwrite.into()).await;
        put.map(drop).map_err(|error| failed_call(error, "put", path))
    }

    /// The bytes of an object; `None` if it does not exist. What this process has just created comes from memory.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(&self, path: &Path) -> Result<Option<Bytes>> {
        match self.recent.as_ref().and_then(|recent| recent.take(path)) {
            Some((bytes, _)) => Ok(Some(bytes)),
            None => self.get_from_store(path).await,
        }
    }

    async fn get_from_store(&self, path: &Path) -> Result<Option<Bytes>> {
        let found = match self.store.get(path).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        existing(found, "get", path)
    }

    /// Size and last-modified time of an object; `None` if it does not exist.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn head(&self, path: &Path) -> Result<Option<ObjectMeta>> {
        existing(self.store.head(path).await, "look at", path)
    }

    /// Deletes an object. Deleting a missing one is success.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete(&self, path: &Path) -> Result<()> {
        self.check_root()?;
        self.forget(path);
        existing(self.store.delete(path).await, "delete", path).map(drop)
    }

    /// Up to `limit` objects below `prefix` whose path is greater than `after`, in path order. A local listing
    /// walks only the folders that can hold them.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_after(&self, prefix: &Path, after: Option<&Path>, limit: usize) -> Result<Vec<ObjectMeta>> {
        let listing = match after {
            Some(after) => self.store.list_with_offset(Some(prefix), after),
            None => self.store.list(Some(prefix)),
        };
        listing.take(limit).try_collect().await.map_err(|error| failed_call(error, "list", prefix))
    }

    /// The greatest value that `pick` finds among the paths below `prefix`, in one pass.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn greatest_below<T: Ord>(&self, prefix: &Path, pick: impl Fn(&Path) -> Option<T>) -> Result<Option<T>> {
        let mut listing = self.store.list(Some(prefix));
        let mut greatest = None;
        while let Some(meta) = listing.try_next().await.map_err(|error| failed_call(error, "list", prefix))? {
            greatest = greatest.max(pick(&meta.location));
        }
        Ok(greatest)
    }

    /// The folders directly below `prefix`, sorted.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_folders(&self, prefix: &Path) -> Result<Vec<Path>> {
        let listing = self.store.list_with_delimiter(Some(prefix)).await;
        let mut folders = listing.map_err(|error| failed_call(error, "list", prefix))?.common_prefixes;
        folders.sort();
        Ok(folders)
    }

    /// Makes durable what another process has put beside `path`, before we act on it. Cloud stores are durable when the
    /// put returns, so this only concerns local folders.
    ///
    /// # Errors
    /// Fatal when the disk fails.
    pub async fn persist_folder_of(&self, path: &Path) -> Result<()> {
        match &self.local {
            Some(local) => local.persist_folder_of(path).await.map_err(|error| failed_call(error, "persist", path)),
            None => Ok(()),
        }
    }

    /// Makes durable an object that is about to be acted on; what this process has created is durable already.
    ///
    /// # Errors
    /// Fatal when the disk fails.
    pub async fn persist(&self, path: &Path) -> Result<()> {
        match self.recent.as_ref().is_some_and(|recent| recent.is_durable(path)) {
            true => Ok(()),
            false => self.persist_folder_of(path).await,
        }
    }

    fn remember(&self, path: &Path, bytes: &Bytes, mark: Option<Mark>) {
        if let Some(recent) = &self.recent {
            recent.created(path, bytes, mark);
        }
    }

    fn forget(&self, path: &Path) {
        if let Some(recent) = &self.recent {
            recent.forget(path);
        }
    }

    /// Locks the file at `path` for this process; `None` if another process holds the lock. Cloud stores have no such
    /// lock: there it always succeeds.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn try_lock(&self, path: &Path) -> Result<Option<StorageLock>> {
        let Some(local) = &self.local else { return Ok(Some(StorageLock { _file: None })) };
        let context = || format!("cannot create the lock file {path}");
        let file = local.open_lock_file(path).context(ErrorKind::Unavailable, context())?;
        match file.try_lock() {
            Ok(()) => Ok(Some(StorageLock { _file: Some(file) })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Error::unavailable(context()).caused_by(error)),
        }
    }

    /// Removes what interrupted puts left behind more than `older_than` ago; returns how many files.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn sweep_staging(&self, clock: &Clock, older_than: Duration) -> Result<usize> {
        match &self.local {
            Some(local) => {
                local.sweep(clock, older_than).await.map_err(|error| failed_call(error, "sweep", &Path::default()))
            }
            None => Ok(0),
        }
    }
}

/// Errors do not repeat the text, which may hold credentials.
fn parsed(text: &str) -> Result<Url> {
    Url::parse(text)
        .context(ErrorKind::Configuration, "it is not a URL; write a folder, or a URL like s3://bucket/prefix")
}

/// The local folder that a URL or a plain path refers to; `None` if it is elsewhere.
fn local_folder(text: &str) -> Result<Option<PathBuf>> {
    if !text.contains("://") {
        return match text.split_once(':') {
            // As a folder it would be in the current one, and the data in the wrong place.
            Some((scheme, _)) if SCHEMES.contains(&scheme) => Err(Error::configuration(format!(
                "two slashes are missing behind `{scheme}:`; write {scheme}://…, or ./{scheme}:… for a folder so named"
            ))),
            _ => Ok(Some(PathBuf::from(text))),
        };
    }
    let url = parsed(text)?;
    if url.scheme() != "file" {
        return Ok(None);
    }
    let wrong = "it is not a folder on this machine; write it like file:///var/lib/lakegram";
    url.to_file_path().map(Some).map_err(|()| Error::configuration(wrong))
}

/// A missing object is a value, not an error.
pub(super) fn existing<T>(found: object_store::Result<T>, doing: &str, path: &Path) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(failed_call(error, doing, path)),
    }
}
