//! From `LAKEGRAM_DATA` to an object store, and the few operations the rest is built of.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};
use url::Url;

use super::{PutNew, Storage};
use crate::clock::Clock;
use crate::error::Result;

/// An exclusive lock of this process on a path, released on drop.
#[derive(Debug)]
pub struct StorageLock {
    _file: Option<std::fs::File>,
}

impl Storage {
    /// Opens a folder (`./data`, `/var/lib/lakegram`), `file://`, `memory://`, `s3://`, `gs://`, `az://` or
    /// `abfss://`. A missing local folder is made.
    ///
    /// # Errors
    /// A configuration error when the URL or its credentials cannot be used.
    pub fn open(_url: &str) -> Result<Self> {
        todo!()
    }

    /// An empty storage in memory.
    pub fn memory() -> Self {
        todo!()
    }

    /// The same storage with its object store wrapped, for stores that count, fail or are slow.
    #[must_use]
    pub fn decorated(self, _wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        todo!()
    }

    /// The object store itself, for libraries that take one.
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// The URL of the root.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The folder on this machine, when it is one.
    pub fn local_root(&self) -> Option<&FilePath> {
        todo!()
    }

    /// Puts an object that must not be there yet, in one attempt. After `AlreadyExists`, and after any error that
    /// leaves the outcome open, reads back and compares the bytes.
    ///
    /// # Errors
    /// Unavailable: nothing is there now, the same bytes may be put again. Unknown: it could not be read back
    /// either. Fatal: the disk failed to persist it.
    pub async fn put_new(&self, _path: &Path, _bytes: Bytes) -> Result<PutNew> {
        todo!()
    }

    /// Puts an object in the place of whatever is there.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put_overwrite(&self, _path: &Path, _bytes: Bytes) -> Result<()> {
        todo!()
    }

    /// The bytes of an object; `None` when there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get(&self, _path: &Path) -> Result<Option<Bytes>> {
        todo!()
    }

    /// Size and last-modified time of an object; `None` when there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn head(&self, _path: &Path) -> Result<Option<ObjectMeta>> {
        todo!()
    }

    /// Deletes an object. Deleting what is gone is success.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete(&self, _path: &Path) -> Result<()> {
        todo!()
    }

    /// Up to `limit` objects below `prefix` whose path is greater than `after`, in path order. A local listing
    /// walks only the folders that can hold them.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_after(&self, _prefix: &Path, _after: Option<&Path>, _limit: usize) -> Result<Vec<ObjectMeta>> {
        todo!()
    }

    /// The folders directly below `prefix`, sorted.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_folders(&self, _prefix: &Path) -> Result<Vec<Path>> {
        todo!()
    }

    /// Makes durable what another process has put beside `path`, before we act on it. Cloud stores are durable
    /// when their put returns, so only a local folder has work to do here.
    ///
    /// # Errors
    /// Fatal when the disk fails.
    pub async fn persist_folder_of(&self, _path: &Path) -> Result<()> {
        todo!()
    }

    /// Takes the lock file at `path` for this process; `None` when another process holds it. Cloud stores have no
    /// such lock: there it is always given.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn try_lock(&self, _path: &Path) -> Result<Option<StorageLock>> {
        todo!()
    }

    /// Removes what interrupted puts left behind longer than `older_than` ago; returns how many files.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub async fn sweep_staging(&self, _clock: &Clock, _older_than: Duration) -> Result<usize> {
        todo!()
    }
}
