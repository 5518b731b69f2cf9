//! Clean-up of the log: entries that nobody needs once a checkpoint stands in for them.

use object_store::ObjectMeta;
use object_store::path::Path;
use tokio_util::sync::CancellationToken;

use super::listing::{Listing, age};
use super::{LONGEST_STAND, MaintainOptions};
use crate::error::Result;
use crate::storage::StorageKey;
use crate::table::LakeTable;
use crate::table::checkpoint::{self, Checkpoint, Newest, split_version};
use crate::table::log::Action;

/// Deletes log entries below the newest checkpoint that every entry to be kept stands upon, so that each kept version
/// can still be read. The oldest go first and leave no hole: what a crash leaves is a log that begins later. Returns
/// how many.
pub(super) async fn clean_log(table: &LakeTable, options: &MaintainOptions, stop: &CancellationToken) -> Result<usize> {
    let Some(base) = base(table, options).await? else { return Ok(0) };
    if !is_sound(table, base).await? {
        tracing::warn!(table = %table.log.table, version = base.version, "a checkpoint is broken; the log stays whole");
        return Ok(0);
    }
    let mut listing = Listing::new(&table.log.storage, folder(table));
    let mut deleted = 0;
    while let Some(page) = listing.next_page().await? {
        for object in &page {
            let Some((version, _)) = split(object) else { continue };
            if version >= base.version || stop.is_cancelled() {
                return Ok(deleted);
            }
            table.log.storage.delete(&object.location).await?;
            deleted += 1;
        }
    }
    Ok(deleted)
}

/// The checkpoint that the log may begin with: the newest one before everything that is young or unread; `None` when
/// nothing stands before it. Never beyond the one that is named: whoever finds a version missing relies on that.
async fn base(table: &LakeTable, options: &MaintainOptions) -> Result<Option<Checkpoint>> {
    let Some(named) = table.log.last_checkpoint().await? else { return Ok(None) };
    let now = table.clock.now();
    let (mut newest, mut first) = (Newest::default(), None);
    let mut listing = Listing::new(&table.log.storage, folder(table));
    'log: while let Some(page) = listing.next_page().await? {
        for object in &page {
            let Some((version, rest)) = split(object) else { continue };
            if version > named.version {
                break 'log;
            }
            first = first.or(Some(version));
            newest.take(version, rest);
            // A checkpoint may be made late; the entries it stands in for are as old as they are.
            if rest.starts_with("checkpoint") {
                continue;
            }
            let age = age(object, now);
            let is_read = options.reader_watermark.is_none_or(|watermark| version <= watermark);
            if age <= options.log_retention || (!is_read && age <= LONGEST_STAND) {
                break 'log;
            }
        }
    }
    Ok(newest.complete().filter(|base| first.is_some_and(|first| first < base.version)))
}

/// Whether the table can be read from a checkpoint: nothing is deleted on the word of a name.
async fn is_sound(table: &LakeTable, base: Checkpoint) -> Result<bool> {
    let (mut protocol, mut metadata) = (false, false);
    for path in base.paths(&folder(table)) {
        let Some(bytes) = table.log.storage.get(&path).await? else { return Ok(false) };
        let Ok(actions) = checkpoint::actions(bytes, false) else { return Ok(false) };
        protocol |= actions.iter().any(|action| matches!(action, Action::Protocol(_)));
        metadata |= actions.iter().any(|action| matches!(action, Action::MetaData(_)));
    }
    Ok(protocol && metadata)
}

fn folder(table: &LakeTable) -> Path {
    StorageKey::Log { table: table.log.table.clone() }.path()
}

fn split(object: &ObjectMeta) -> Option<(i64, &str)> {
    split_version(object.location.filename()?)
}
