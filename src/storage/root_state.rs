//! The id of a data root, and what happens to writes when the opened root is no longer there.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::{PutNew, Storage, StorageKey};
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, Result};
use crate::id::random_id;

/// The content of `_lakegram/root.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RootFile {
    pub(super) id: String,
    made_at: String,
}

/// What this process knows about the root.
#[derive(Debug, Default)]
pub(super) struct RootState {
    id: Mutex<Option<String>>,
    /// Incremented when the root was mounted or created anew: anything held outside this store, such as a lock, is in
    /// doubt.
    pub(super) epoch: AtomicU64,
    /// Whether the store was seen to refuse a second create.
    pub(super) refuses_creates: AtomicBool,
    /// In the cloud: another root has taken its place, as of the last check.
    is_another: AtomicBool,
}

impl RootFile {
    pub(super) fn new(id: String, made_at: Timestamp) -> Self {
        Self { id, made_at: made_at.to_string() }
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|file: &Self| !file.id.is_empty())
    }

    pub(super) fn bytes(&self) -> Bytes {
        serde_json::json!({"id": self.id, "made_at": self.made_at}).to_string().into()
    }
}

impl RootState {
    pub(super) fn id(&self) -> Option<String> {
        self.id.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, id: String) {
        *self.id.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }
}

impl Storage {
    /// The id of the data root; `None` until [`Storage::identify`] has found or created it.
    pub fn root_id(&self) -> Option<String> {
        self.root_state.id()
    }

    /// A different value means that the root was mounted or created anew: locks and other conclusions drawn from it
    /// must be renewed.
    pub fn root_epoch(&self) -> u64 {
        self.root_state.epoch()
    }

    /// Reads the id of the data root, and creates it if there is none. For commands that write.
    ///
    /// # Errors
    /// Corrupt when the file that holds it makes no sense; otherwise when the store fails.
    pub async fn identify(&self, clock: &Clock) -> Result<()> {
        let path = StorageKey::Root.path();
        loop {
            if let Some(found) = self.read_root_file(&path).await? {
                self.root_state.set(found.id);
                return Ok(());
            }
            let made = RootFile::new(random_id().to_string(), clock.now());
            if self.put_new(&path, made.bytes()).await? == PutNew::Created {
                self.root_state.set(made.id);
                return Ok(());
            }
        }
    }

    /// Checks whether the root is still the one that was opened. On a local disk every write does that; in the cloud it
    /// costs a request, so long-running processes do it now and then. While it is another one, every write fails.
    ///
    /// # Errors
    /// When the store fails; what was known before stays.
    pub async fn look_at_root(&self, clock: &Clock) -> Result<()> {
        let Some(known) = self.root_state.id() else { return self.identify(clock).await };
        if self.local_root().is_some() {
            return Ok(());
        }
        let path = StorageKey::Root.path();
        if let Some(found) = self.read_root_file(&path).await? {
            let is_another = found.id != known;
            if self.root_state.is_another.swap(is_another, Ordering::SeqCst) != is_another {
                match self.check_root() {
                    Err(error) => tracing::error!(%error, "nothing is written until it is back"),
                    Ok(()) => tracing::warn!("the data root is the one that was opened again; continuing"),
                }
            }
            return Ok(());
        }
        // Only we write it, so it was deleted: alone, or with everything else.
        let is_empty = self.list_after(&Path::default(), None, 1).await?.is_empty();
        let id = if is_empty { random_id().to_string() } else { known };
        let file = RootFile::new(id, clock.now());
        if self.put_new(&path, file.bytes()).await? == PutNew::Taken {
            return Ok(());
        }
        self.root_state.set(file.id);
        if is_empty {
            self.root_state.epoch.fetch_add(1, Ordering::SeqCst);
            tracing::error!(root = self.place(), "the data root was deleted while in use; continuing in an empty one");
        }
        Ok(())
    }

    /// # Errors
    /// Unavailable when another root has taken the place of the opened one, as of the last check.
    pub(super) fn check_root(&self) -> Result<()> {
        match self.root_state.is_another.load(Ordering::SeqCst) {
            false => Ok(()),
            true => Err(Error::unavailable(format!(
                "the data root {} is not the one that was opened: its {} holds another id; put it back and this \
                 process continues by itself, or restart it to use what is there now",
                self.place(),
                StorageKey::Root.path()
            ))),
        }
    }

    async fn read_root_file(&self, path: &Path) -> Result<Option<RootFile>> {
        let Some(bytes) = self.get(path).await? else { return Ok(None) };
        let wrong = || Error::corrupt(format!("{path} has no id; restore it, or delete it to give the root a new one"));
        RootFile::parse(&bytes).map(Some).ok_or_else(wrong)
    }
}
