//! Clean-up: log entries that a checkpoint has made superfluous, and data files that no version needs.

use std::collections::HashSet;
use std::time::Duration;

use object_store::ObjectMeta;
use object_store::path::Path;
use tokio_util::sync::CancellationToken;

use super::{LONGEST_STAND, MaintainOptions};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::storage::StorageKey;
use crate::table::checkpoint::{self, split_version};
use crate::table::log::Action;
use crate::table::{Commit, LakeTable};

const PAGE: usize = 1_000;
/// A reader further behind than this many commits holds up vacuum altogether.
const MAX_BEHIND: i64 = 10_000;

/// Deletes log entries below the checkpoint that is named, the oldest first and without leaving a hole: what a crash
/// leaves is a log that begins later. Returns how many.
pub(super) async fn clean_log(table: &LakeTable, options: &MaintainOptions, stop: &CancellationToken) -> Result<usize> {
    let Some(checkpoint) = table.log.last_checkpoint().await? else { return Ok(0) };
    let now = table.clock.now();
    let folder = StorageKey::Log { table: table.log.table.clone() }.path();
    let (mut after, mut deleted) = (None, 0);
    loop {
        let page = table.log.storage.list_after(&folder, after.as_ref(), PAGE).await?;
        for object in &page {
            let name = object.location.filename().unwrap_or_default();
            let Some((version, _)) = split_version(name) else { continue };
            let is_read = options.reader_watermark.is_none_or(|watermark| version <= watermark);
            let age = age(object, now);
            let may_go =
                version < checkpoint.version && age > options.log_retention && (is_read || age > LONGEST_STAND);
            if !may_go || stop.is_cancelled() {
                return Ok(deleted);
            }
            table.log.storage.delete(&object.location).await?;
            deleted += 1;
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.location.clone()),
            _ => return Ok(deleted),
        }
    }
}

/// Deletes data files that the table no longer has, once nobody can be reading or writing them. Returns how many.
pub(super) async fn vacuum(table: &LakeTable, options: &MaintainOptions, stop: &CancellationToken) -> Result<usize> {
    let Some(needed) = needed(table, options).await? else { return Ok(0) };
    let now = table.clock.now();
    let log = StorageKey::Log { table: table.log.table.clone() }.path();
    let (mut after, mut deleted) = (None, 0);
    loop {
        let page = table.log.storage.list_after(&table.log.table, after.as_ref(), PAGE).await?;
        for object in &page {
            if stop.is_cancelled() {
                return Ok(deleted);
            }
            let is_data = !object.location.prefix_matches(&log) && object.location.as_ref().ends_with(".parquet");
            let age = age(object, now);
            if !is_data || age <= options.vacuum_retention || needed.table.contains(&object.location) {
                continue;
            }
            if needed.reader.contains(&object.location) && age <= LONGEST_STAND {
                continue;
            }
            table.log.storage.delete(&object.location).await?;
            deleted += 1;
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.location.clone()),
            _ => return Ok(deleted),
        }
    }
}

struct Needed {
    /// Files of the current version, and those that a retained version had lately.
    table: HashSet<Path>,
    /// Files of commits that the reader has not read.
    reader: HashSet<Path>,
}

/// What vacuum must leave; `None` when the reader is so far behind that nothing may be said.
async fn needed(table: &LakeTable, options: &MaintainOptions) -> Result<Option<Needed>> {
    let mut needed = Needed { table: HashSet::new(), reader: HashSet::new() };
    for file in table.files().await? {
        needed.table.insert(file.location(&table.log.table)?);
    }
    // A file that was taken out lately may still be read by who opened the table before.
    let retained_since = table.clock.now().minus(options.vacuum_retention).as_millis();
    let checkpoint = table.log.last_checkpoint().await?;
    let mut removes = Vec::new();
    if let Some(checkpoint) = checkpoint {
        for path in checkpoint.paths(&StorageKey::Log { table: table.log.table.clone() }.path()) {
            let Some(bytes) = table.log.storage.get(&path).await? else { return Ok(None) };
            removes.extend(checkpoint::removes(bytes)?);
        }
    }
    let read_to = options.reader_watermark.unwrap_or(i64::MAX);
    let first = checkpoint.map_or(0, |checkpoint| checkpoint.version + 1).min(read_to.saturating_add(1)).max(0);
    if table.version() - first > MAX_BEHIND {
        return Ok(None);
    }
    for version in first..=table.version() {
        // One that is gone is below the checkpoint, and older than anybody may stand still.
        let Some(actions) = table.log.read(version).await? else { continue };
        if version > read_to {
            for file in Commit::from_actions(version, &actions).added {
                needed.reader.insert(file.location(&table.log.table)?);
            }
        }
        removes.extend(actions.into_iter().filter_map(|action| match action {
            Action::Remove(remove) => Some(remove),
            _ => None,
        }));
    }
    for remove in removes {
        if remove.deletion_timestamp.is_none_or(|millis| millis > retained_since) {
            needed.table.insert(remove.location(&table.log.table)?);
        }
    }
    Ok(Some(needed))
}

/// How long ago an object was put, by the store's clock.
fn age(object: &ObjectMeta, now: Timestamp) -> Duration {
    now.since(Timestamp::from_micros(object.last_modified.timestamp_micros()))
}
