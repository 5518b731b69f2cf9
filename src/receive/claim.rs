//! A lane claimed by this process: its lock, and the key after which it continues.

use super::landing::LaneOptions;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::id::{BotId, Name};
use crate::storage::{Storage, StorageKey, StorageLock};

/// A claim of a lane, for as long as it is held.
#[derive(Debug)]
pub(super) struct Claim {
    _lock: StorageLock,
    /// The root that the lock is in.
    pub(super) root_epoch: u64,
}

/// Claims the lane of `options` for this process.
///
/// # Errors
/// A configuration error when another process has the lane.
pub(super) fn take(options: &LaneOptions) -> Result<Claim> {
    let LaneOptions { storage, pipeline, bot_id, lane, .. } = options;
    let key = StorageKey::LaneLock { pipeline: pipeline.clone(), bot_id: *bot_id, lane: lane.clone() };
    loop {
        let root_epoch = storage.root_epoch();
        let lock = storage.try_lock(&key.path())?.ok_or_else(|| {
            Error::configuration(format!(
                "lane `{lane}` is in use by another process; stop that process, or set receive.lane to another name for this one"
            ))
        })?;
        // If the root was replaced meanwhile, nobody knows which of the two the lock is in.
        if storage.root_epoch() == root_epoch {
            return Ok(Claim { _lock: lock, root_epoch });
        }
    }
}

/// The newest key of the lane, found by walking only its newest folders. Other files do not count.
pub(super) async fn newest_key(options: &LaneOptions) -> Result<Timestamp> {
    let LaneOptions { storage, pipeline, bot_id, lane, .. } = options;
    newest_key_of(storage, pipeline, *bot_id, lane).await
}

/// The newest key of a lane, after which its receiver continues; for callers that do not write the lane.
///
/// # Errors
/// When the store fails.
pub async fn newest_key_of(storage: &Storage, pipeline: &Name, bot_id: BotId, lane: &Name) -> Result<Timestamp> {
    let lane = StorageKey::Lane { pipeline: pipeline.clone(), bot_id, lane: lane.clone() }.path();
    let micros_of = |path: &_| match StorageKey::parse(path) {
        Some(StorageKey::Segment { micros, .. }) => Some(micros),
        _ => None,
    };
    for day in storage.list_folders(&lane).await?.into_iter().rev() {
        for hour in storage.list_folders(&day).await?.into_iter().rev() {
            if let Some(newest) = storage.greatest_below(&hour, micros_of).await? {
                return Ok(newest);
            }
        }
    }
    Ok(Timestamp::default())
}
