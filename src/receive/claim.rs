//! A lane claimed by this process: its lock, and the key after which it continues.

use super::landing::LaneOptions;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::id::{BotId, Name};
use crate::storage::{Storage, StorageKey, StorageLock};

/// Claims the lane of `options` for this process, for as long as the lock is held.
///
/// # Errors
/// A configuration error when another process has the lane.
pub(super) fn take(options: &LaneOptions) -> Result<StorageLock> {
    let LaneOptions { storage, pipeline, bot_id, lane, .. } = options;
    let lock = StorageKey::LaneLock { pipeline: pipeline.clone(), bot_id: *bot_id, lane: lane.clone() };
    storage.try_lock(&lock.path())?.ok_or_else(|| {
        Error::configuration(format!(
            "lane `{lane}` is in use by another process; stop that process, or set receive.lane to another name for this one"
        ))
    })
}

/// The newest key of the lane, found by walking only its newest folders. Other files do not count.
pub(super) async fn newest_key(options: &LaneOptions) -> Result<Timestamp> {
    let LaneOptions { storage, pipeline, bot_id, lane, .. } = options;
    newest_key_of(storage, pipeline, *bot_id, lane).await
}

/// As the newest key that a receiver goes on after, for whoever looks at a lane from outside.
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
