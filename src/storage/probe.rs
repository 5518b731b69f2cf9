//! Whether a store keeps the one promise that everything rests on: of two creates of one name, the second is refused.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{PutNew, Storage, StorageKey};
use crate::error::{Error, Result};
use crate::id::random_id;

impl Storage {
    /// Creates an object twice and deletes it again, once per process. A local folder is known to refuse the second.
    ///
    /// # Errors
    /// A configuration error when the store puts one over the other: there, two processes would both land and commit,
    /// and rows be lost or doubled. Otherwise when the store fails, which says nothing.
    pub async fn check_creates(&self) -> Result<()> {
        if self.is_local() || self.root_state.refuses_creates.load(Ordering::Relaxed) {
            return Ok(());
        }
        let path = StorageKey::CreateProbe { id: random_id() }.path();
        let (one, other) = (Bytes::from_static(b"created"), Bytes::from_static(b"created again"));
        let first = self.put_new(&path, one).await;
        let second = self.put_new(&path, other).await;
        if let Err(error) = self.delete(&path).await {
            tracing::warn!(%error, "could not remove a probe of the store");
        }
        match (first?, second?) {
            (PutNew::Created, PutNew::Taken) => {
                self.root_state.refuses_creates.store(true, Ordering::Relaxed);
                Ok(())
            }
            _ => Err(Error::configuration(format!(
                "the store at {} ignores If-None-Match: it replaced an object that was to be created only if there was \
                 none; rows would be lost and doubled, so use a store with conditional puts, or a later release of it",
                self.place()
            ))),
        }
    }
}
