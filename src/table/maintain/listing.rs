//! A folder in path order, a page at a time, for steps that look at every object once.

use std::time::Duration;

use object_store::ObjectMeta;
use object_store::path::Path;

use crate::clock::Timestamp;
use crate::error::Result;
use crate::storage::Storage;

const PAGE: usize = 1_000;

/// A listing under way.
pub(super) struct Listing {
    storage: Storage,
    folder: Path,
    after: Option<Path>,
    ended: bool,
}

impl Listing {
    /// Of everything below `folder`.
    pub(super) fn new(storage: &Storage, folder: Path) -> Self {
        Self { storage: storage.clone(), folder, after: None, ended: false }
    }

    /// The next objects; `None` after the last.
    pub(super) async fn next_page(&mut self) -> Result<Option<Vec<ObjectMeta>>> {
        if self.ended {
            return Ok(None);
        }
        let page = self.storage.list_after(&self.folder, self.after.as_ref(), PAGE).await?;
        self.ended = page.len() < PAGE;
        self.after = page.last().map(|last| last.location.clone());
        Ok(Some(page))
    }
}

/// How long ago an object was put, by the store's clock.
pub(super) fn age(object: &ObjectMeta, now: Timestamp) -> Duration {
    now.since(Timestamp::from_micros(object.last_modified.timestamp_micros()))
}
