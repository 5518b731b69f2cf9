//! Intents: durable notes that "this process is about to send this part", created before any byte leaves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::outcome::PartKey;
use crate::clock::{Clock, Moment};
use crate::error::{Context, ErrorKind, Result};
use crate::id::Name;
use crate::retry::Backoff;
use crate::sabotage::{Sabotage, is_on};
use crate::storage::{PutNew, Storage, StorageKey};

/// How long after a failed deletion it may still take effect in a store behind a network: as long as a request may
/// take. It could delete an intent created within that time, and whoever then found none would send a second time.
const DELETION_MAY_BE_LATE: Duration = Duration::from_secs(30);

/// The content of an intent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IntentBody {
    /// The process that made it.
    pub(super) nonce: Uuid,
    /// Distinguishes intents that one process creates for the same part one after another.
    pub(super) id: Uuid,
    /// No byte leaves later than this after it was created.
    pub(super) ttl_ms: u64,
}

/// Whose an intent is, after trying to create it.
#[derive(Debug)]
pub(super) enum Claim {
    /// Ours, created at this time at the earliest.
    Ours {
        /// Before the put began.
        since: Moment,
    },
    /// Another process has one.
    Others,
}

/// The intents of one pipeline.
#[derive(Clone, Debug)]
pub(super) struct Intents {
    storage: Storage,
    pipeline: Name,
    /// Names it went by: intents that were made then count as those of another process.
    former: Vec<Name>,
    clock: Clock,
    /// When a deletion failed that may still be in flight; on our monotonic clock.
    failed_deletions: Arc<Mutex<HashMap<PartKey, Duration>>>,
}

impl Intents {
    pub(super) fn new(storage: &Storage, pipeline: &Name, former: Vec<Name>, clock: &Clock) -> Self {
        let (storage, pipeline, clock) = (storage.clone(), pipeline.clone(), clock.clone());
        Self { storage, pipeline, former, clock, failed_deletions: Arc::default() }
    }

    /// How long no intent may be created for a part, because a deletion of an earlier one may still arrive.
    pub(super) fn unsettled_for(&self, key: &PartKey) -> Option<Duration> {
        let failed = *self.failed_deletions.lock().unwrap_or_else(PoisonError::into_inner).get(key)?;
        let age = self.clock.monotonic().saturating_sub(failed);
        DELETION_MAY_BE_LATE.checked_sub(age).filter(|left| !left.is_zero())
    }

    /// Tries to create an intent. No deletion of an earlier one may still be [under way](Self::unsettled_for). While it
    /// is unknown whether a put succeeded, the same bytes are put again. An earlier intent of this process is deleted
    /// first: nothing was sent for it, its deletion failed, and nobody else would delete it before its time is up.
    pub(super) async fn claim(&self, key: &PartKey, body: &IntentBody) -> Result<Claim> {
        let path = self.key(key).path();
        let bytes = serde_json::to_vec(body).context(ErrorKind::Fatal, "cannot write an intent")?;
        let bytes = Bytes::from(bytes);
        let since = Moment::now(&self.clock);
        if is_on(Sabotage::Intent) {
            return Ok(Claim::Ours { since });
        }
        if self.has_former(key).await? {
            return Ok(Claim::Others);
        }
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            match self.storage.put_new(&path, bytes.clone()).await {
                Ok(PutNew::Created) => return Ok(Claim::Ours { since }),
                Ok(PutNew::Taken) if self.is_ours(key, body).await? => self.try_delete(key).await?,
                Ok(PutNew::Taken) => return Ok(Claim::Others),
                Err(error) if error.is_transient() => {
                    // Before its time to live is over, nobody could call this intent dead.
                    tracing::warn!(%error, "could not create an intent; retrying");
                    self.clock.sleep(backoff.next_delay()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the existing intent of a part was created by the process that made `body`.
    async fn is_ours(&self, key: &PartKey, body: &IntentBody) -> Result<bool> {
        let bytes = self.storage.get(&self.key(key).path()).await?;
        let there = bytes.and_then(|bytes| serde_json::from_slice::<IntentBody>(&bytes).ok());
        Ok(there.is_some_and(|there| there.nonce == body.nonce))
    }

    /// Whether a part has an intent, whoever created it.
    pub(super) async fn exists(&self, key: &PartKey) -> Result<bool> {
        Ok(self.storage.head(&self.key(key).path()).await?.is_some() || self.has_former(key).await?)
    }

    async fn has_former(&self, key: &PartKey) -> Result<bool> {
        for name in &self.former {
            if self.storage.head(&Self::key_of(name, key).path()).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Deletes an intent whose part has an outcome, or of which nothing left. A failure does no harm: the outcome is in
    /// the table, and the next start removes the rest.
    pub(super) async fn delete(&self, key: &PartKey) {
        if let Err(error) = self.try_delete(key).await {
            tracing::warn!(%error, "could not delete an intent; the next start will");
        }
    }

    async fn try_delete(&self, key: &PartKey) -> Result<()> {
        for name in &self.former {
            self.storage.delete(&Self::key_of(name, key).path()).await?;
        }
        let deleted = self.storage.delete(&self.key(key).path()).await;
        if deleted.is_err() {
            let now = self.clock.monotonic();
            let mut failed = self.failed_deletions.lock().unwrap_or_else(PoisonError::into_inner);
            failed.retain(|_, at| now.saturating_sub(*at) < DELETION_MAY_BE_LATE);
            failed.insert(key.clone(), now);
        }
        deleted
    }

    /// The parts of all existing intents.
    pub(super) async fn list(&self) -> Result<Vec<PartKey>> {
        let mut found = Vec::new();
        for name in std::iter::once(&self.pipeline).chain(&self.former) {
            found.extend(self.list_of(name).await?);
        }
        Ok(found)
    }

    async fn list_of(&self, pipeline: &Name) -> Result<Vec<PartKey>> {
        const PAGE: usize = 1_000;
        let folder = StorageKey::Intents { pipeline: pipeline.clone() }.path();
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = self.storage.list_after(&folder, after.as_ref(), PAGE).await?;
            for object in &page {
                let Some(StorageKey::Intent { bot_id, update_id, attempt, send, part, .. }) =
                    StorageKey::parse(&object.location)
                else {
                    continue;
                };
                found.push(PartKey { bot_id, update_id, attempt, send, part });
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.location.clone()),
                _ => return Ok(found),
            }
        }
    }

    fn key(&self, key: &PartKey) -> StorageKey {
        Self::key_of(&self.pipeline, key)
    }

    fn key_of(pipeline: &Name, key: &PartKey) -> StorageKey {
        StorageKey::Intent {
            pipeline: pipeline.clone(),
            bot_id: key.bot_id,
            update_id: key.update_id,
            attempt: key.attempt,
            send: key.send,
            part: key.part,
        }
    }
}
