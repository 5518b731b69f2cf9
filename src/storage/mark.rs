//! What objects are recognized by: whether one at a path is still the one that was read or put.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::open::existing;
use super::{PutNew, Storage};
use crate::error::Result;

/// What tells an object from any other that is, or will be, at its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub(super) size_bytes: u64,
    /// `None` for a local file, whose tag says it.
    pub(super) modified_nanos: Option<i64>,
    /// The store's own name for its content; of a local file its device, number, size and time.
    pub(super) tag: Option<String>,
}

/// An object on a local disk that must be what it was when another one is put: then that goes to the right place.
#[derive(Clone, Debug)]
pub struct Beside {
    /// Where it is.
    pub path: Path,
    /// What it was.
    pub mark: Mark,
}

impl Storage {
    /// As [`Storage::put_new`]; also returns the mark of a commit that this very call has put on a local disk.
    pub async fn put_new_marked(&self, path: &Path, bytes: Bytes) -> Result<(PutNew, Option<Mark>)> {
        self.check_root()?;
        let put = self.store.put_opts(path, bytes.clone().into(), PutMode::Create.into()).await;
        self.put_ended(path, &bytes, put).await
    }

    /// As [`Storage::put_new_marked`], on a local disk, if what is `beside` it is what it was: one call looks and puts.
    /// `None` if it is not; nothing was put then.
    pub async fn put_new_beside(
        &self,
        path: &Path,
        bytes: Bytes,
        beside: Beside,
    ) -> Result<Option<(PutNew, Option<Mark>)>> {
        self.check_root()?;
        let mut options = PutOptions::from(PutMode::Create);
        options.extensions.insert(beside);
        match self.store.put_opts(path, bytes.clone().into(), options).await {
            Err(object_store::Error::Precondition { .. }) => Ok(None),
            put => self.put_ended(path, &bytes, put).await.map(Some),
        }
    }

    /// As [`Storage::get`], with the mark of the object that has these bytes.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get_with_mark(&self, path: &Path) -> Result<Option<(Bytes, Option<Mark>)>> {
        match self.recent.as_ref().and_then(|recent| recent.take(path)) {
            Some(found) => Ok(Some(found)),
            None => Ok(self.get_marked(path).await?.map(|(bytes, mark)| (bytes, Some(mark)))),
        }
    }

    /// The bytes of an object and its mark, both of the same one even if another takes its place meanwhile; `None` if
    /// it does not exist. Always asks the store.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn get_marked(&self, path: &Path) -> Result<Option<(Bytes, Mark)>> {
        let Some(found) = existing(self.store.get(path).await, "get", path)? else { return Ok(None) };
        let mark = self.mark_of(&found.meta);
        Ok(existing(found.bytes().await, "get", path)?.map(|bytes| (bytes, mark)))
    }

    /// What tells an object from any other at its path; `None` when there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn mark(&self, path: &Path) -> Result<Option<Mark>> {
        Ok(self.head(path).await?.map(|meta| self.mark_of(&meta)))
    }

    fn mark_of(&self, meta: &ObjectMeta) -> Mark {
        let modified_nanos = meta.last_modified.timestamp_nanos_opt().filter(|_| !self.is_local());
        Mark { size_bytes: meta.size, modified_nanos, tag: meta.e_tag.clone() }
    }
}
