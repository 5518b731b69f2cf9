//! Vacuum: data files that no version needs any more, and those that never came to be of one.

use std::collections::HashSet;

use object_store::path::Path;
use tokio_util::sync::CancellationToken;

use super::listing::{Listing, age};
use super::{LONGEST_STAND, MaintainOptions};
use crate::error::Result;
use crate::storage::StorageKey;
use crate::table::checkpoint;
use crate::table::log::{Action, Remove};
use crate::table::{Commit, LakeTable};

/// For a reader further behind than this many commits every file may be one it has not read.
const MAX_BEHIND: i64 = 10_000;

/// Deletes data files that the table no longer has, once nobody can be reading or writing them. Returns how many.
pub(super) async fn vacuum(table: &LakeTable, options: &MaintainOptions, stop: &CancellationToken) -> Result<usize> {
    let Some(needed) = needed(table, options).await? else { return Ok(0) };
    let now = table.clock.now();
    let mut listing = Listing::new(&table.log.storage, table.log.table.clone());
    let mut deleted = 0;
    while let Some(page) = listing.next_page().await? {
        for object in &page {
            if stop.is_cancelled() {
                return Ok(deleted);
            }
            let age = age(object, now);
            let is_old = age > options.vacuum_retention && is_data_file(&table.log.table, &object.location);
            let unread = || needed.reader.as_ref().is_none_or(|files| files.contains(&object.location));
            if is_old && !needed.table.contains(&object.location) && !(age <= LONGEST_STAND && unread()) {
                table.log.storage.delete(&object.location).await?;
                deleted += 1;
            }
        }
    }
    Ok(deleted)
}

/// Whether an object can be a data file of this table. They stand in its folder itself, for it has no partitions:
/// what lies deeper may be another table's.
fn is_data_file(table: &Path, location: &Path) -> bool {
    let Some(mut parts) = location.prefix_match(table) else { return false };
    let (Some(name), None) = (parts.next(), parts.next()) else { return false };
    name.as_ref().ends_with(".parquet") && !name.as_ref().starts_with(['_', '.'])
}

/// What vacuum must leave.
struct Needed {
    /// Files of the current version, and those that a retained version had lately.
    table: HashSet<Path>,
    /// Files of commits that the reader has not read; `None` when they are too many to name.
    reader: Option<HashSet<Path>>,
}

/// What vacuum must leave; `None` when a checkpoint went away meanwhile.
async fn needed(table: &LakeTable, options: &MaintainOptions) -> Result<Option<Needed>> {
    let checkpoint = table.log.last_checkpoint().await?;
    let mut removes = Vec::new();
    if let Some(checkpoint) = checkpoint {
        for path in checkpoint.paths(&StorageKey::Log { table: table.log.table.clone() }.path()) {
            let Some(bytes) = table.log.storage.get(&path).await? else { return Ok(None) };
            removes.extend(checkpoint::removes(bytes)?);
        }
    }
    let read_to = options.reader_watermark.unwrap_or(i64::MAX);
    let is_near = table.version().saturating_sub(read_to) <= MAX_BEHIND;
    let mut first = checkpoint.map_or(0, |checkpoint| checkpoint.version + 1);
    if is_near {
        first = first.min(read_to.saturating_add(1)).max(0);
    }
    let mut reader = HashSet::new();
    for version in first..=table.version() {
        // One that is gone is below the checkpoint, and older than anybody may stand still.
        let Some(actions) = table.log.read(version).await? else { continue };
        if version > read_to {
            for file in Commit::from_actions(version, &actions).added {
                reader.insert(file.location(&table.log.table)?);
            }
        }
        removes.extend(actions.into_iter().filter_map(|action| match action {
            Action::Remove(remove) => Some(remove),
            _ => None,
        }));
    }
    Ok(Some(Needed { table: in_table(table, options, &removes).await?, reader: is_near.then_some(reader) }))
}

/// Files of the current version, and those that were taken out lately: who opened the table before may still read
/// them.
async fn in_table(table: &LakeTable, options: &MaintainOptions, removes: &[Remove]) -> Result<HashSet<Path>> {
    let retained_since = table.clock.now().minus(options.vacuum_retention).as_millis();
    let lately = |remove: &&Remove| remove.deletion_timestamp.is_none_or(|millis| millis > retained_since);
    let lately = removes.iter().filter(lately).map(|remove| remove.location(&table.log.table));
    let files = table.files().await?;
    files.iter().map(|file| file.location(&table.log.table)).chain(lately).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parquet_files_in_the_folder_itself_are_data_files() {
        let table = Path::from("bronze/messages");
        let is_data = |path: &str| is_data_file(&table, &Path::from(path));
        assert!(is_data("bronze/messages/part-1.parquet"));
        for other in [
            "bronze/messages/_delta_log/00000000000000000001.checkpoint.parquet",
            "bronze/messages/old/part-1.parquet",
            "bronze/messages/_index.parquet",
            "bronze/messages/notes.txt",
            "bronze/messages_2/part-1.parquet",
        ] {
            assert!(!is_data(other), "{other}");
        }
    }
}
