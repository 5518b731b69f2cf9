//! Compaction: merges small files without changing what readers see.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use object_store::path::Path;
use serde_json::json;

use super::Work;
use super::merge::merge;
use crate::error::{Error, Result};
use crate::id::random_id;
use crate::storage::StorageKey;
use crate::table::commit::{Landing, News, Provenance, PutEnd};
use crate::table::head::{LIFE, Moment};
use crate::table::log::{Action, Add, Remove};
use crate::table::parquet::Encoded;
use crate::table::snapshot::Want;
use crate::table::{DataFile, LakeTable};

/// What others did to the files being rewritten.
#[derive(Debug, Default)]
struct Ground {
    removed: BTreeSet<String>,
    /// The columns or the protocol have changed, or that is unknown.
    lost: bool,
}

/// The merged file of a group, before the log refers to it.
struct Rewritten {
    add: Add,
    location: Path,
    bytes: Bytes,
    put_at: Moment,
}

impl Work<'_> {
    /// Rewrites the small files, one commit per group; returns how many were rewritten and into how many.
    pub(super) async fn compact(&self, table: &mut LakeTable, files: Vec<DataFile>) -> Result<(usize, usize)> {
        let (mut compacted, mut written) = (0, 0);
        let small_bytes = self.options.target_bytes / 2;
        let mut waiting = VecDeque::from(choose(files, small_bytes, self.options.compact_at_files));
        let mut ground = Ground::default();
        while !self.stop.is_cancelled() && !ground.lost && !waiting.is_empty() {
            let Some(files) = gather(&mut waiting, self.options.target_bytes, &ground) else { continue };
            let Some(merged) = merge(table, &files, self.stop).await? else { break };
            let Some(rewritten) = put(table, &files, merged, &mut ground).await? else { break };
            match commit(table, &files, &rewritten, &mut ground).await? {
                Landing::Landed { earlier: false, .. } => {
                    compacted += files.len();
                    written += 1;
                }
                // Commits of others behind ours were not seen: the next maintenance starts over.
                Landing::Landed { earlier: true, .. } => return Ok((compacted + files.len(), written + 1)),
                // Vacuum deletes the new file.
                Landing::Withdrawn => {
                    tracing::info!(table = %self.log.table, "abandoned a compaction: another commit won")
                }
                Landing::Expired => {
                    self.settle(&rewritten).await?;
                    break;
                }
            }
        }
        Ok((compacted, written))
    }

    /// After a commit whose outcome is unknown: if it succeeded, its file must exist, and vacuum may have deleted it as
    /// an orphan while this process slept.
    async fn settle(&self, rewritten: &Rewritten) -> Result<()> {
        let live = self.log.snapshot(Want { files: true, at: None }).await?;
        let counts = live.is_some_and(|live| live.files.contains_key(&rewritten.add.path));
        if counts && self.log.storage.head(&rewritten.location).await?.is_none() {
            let put = self.log.storage.put_new(&rewritten.location, rewritten.bytes.clone()).await?;
            tracing::warn!(file = %rewritten.location, ?put, "restored a vacuumed file");
        }
        Ok(())
    }
}

/// The files worth rewriting, in the order they were added; none if fewer than `at_least` are small.
///
/// A file larger than all smaller ones together waits until they have caught up, so that a row is rewritten about as
/// often as its table doubles, not with every compaction.
fn choose(files: Vec<DataFile>, small_bytes: u64, at_least: usize) -> Vec<DataFile> {
    let at_least = at_least.max(2);
    let mut small: Vec<DataFile> = files.into_iter().filter(|file| bytes_of(file) < small_bytes).collect();
    if small.len() < at_least {
        return Vec::new();
    }
    small.sort_by_key(bytes_of);
    let mut total: u64 = small.iter().map(bytes_of).sum();
    while let Some(largest) = small.last().map(bytes_of)
        && small.len() > at_least / 2 + 1
        && largest > total - largest
    {
        total -= largest;
        small.pop();
    }
    small.sort_by(|one, other| (one.modification_millis, &one.path).cmp(&(other.modification_millis, &other.path)));
    small
}

/// Takes files that are still in the table, up to the target size; `None` when fewer than two came together.
fn gather(waiting: &mut VecDeque<DataFile>, target_bytes: u64, ground: &Ground) -> Option<Vec<DataFile>> {
    let (mut group, mut bytes) = (Vec::new(), 0);
    while let Some(file) = waiting.pop_front() {
        if ground.removed.contains(&file.path) {
            continue;
        }
        bytes += bytes_of(&file);
        if !group.is_empty() && bytes > target_bytes {
            waiting.push_front(file);
            break;
        }
        group.push(file);
    }
    (group.len() > 1).then_some(group)
}

fn bytes_of(file: &DataFile) -> u64 {
    u64::try_from(file.size_bytes).unwrap_or(0)
}

/// Writes the merged file of a group; `None` if there was no time for it or its basis is gone.
async fn put(
    table: &mut LakeTable,
    files: &[DataFile],
    merged: Encoded,
    ground: &mut Ground,
) -> Result<Option<Rewritten>> {
    ground.take(&table.freshen().await?);
    if ground.lost {
        return Ok(None);
    }
    let name = format!("part-{}.parquet", random_id());
    let location = StorageKey::TableFile { table: table.log.table.clone(), file: name.clone() }.path();
    let put_at = Moment::now(&table.clock);
    match table.put_patiently(&location, merged.bytes.clone(), None).await? {
        PutEnd::Expired | PutEnd::Displaced => Ok(None),
        PutEnd::Taken => Err(Error::corrupt(format!("{location} does not contain the bytes that were written"))),
        PutEnd::Created { .. } => {
            // Readers order the files of a snapshot by these times, and the rows are as old as they were.
            let newest = files.iter().map(|file| file.modification_millis).max().unwrap_or_default();
            let add = Add::new(&name, merged.bytes.len(), newest, merged.stats, false);
            Ok(Some(Rewritten { add, location, bytes: merged.bytes, put_at }))
        }
    }
}

/// Replaces the old files with the new one, unless someone has touched one of them.
async fn commit(
    table: &mut LakeTable,
    files: &[DataFile],
    rewritten: &Rewritten,
    ground: &mut Ground,
) -> Result<Landing> {
    let provenance = Provenance {
        operation: "OPTIMIZE",
        parameters: json!({ "predicate": "[]", "auto": "true" }),
        metrics: json!({
            "numRemovedFiles": files.len().to_string(),
            "numRemovedBytes": files.iter().map(bytes_of).sum::<u64>().to_string(),
            "numAddedFiles": "1",
            "numAddedBytes": rewritten.bytes.len().to_string(),
        }),
        blind_append: false,
    };
    let clock = table.clock.clone();
    let landing = table.land(&provenance, |_, news| {
        ground.take(news);
        // After a long sleep vacuum may have deleted the new file as an orphan.
        if !ground.bears(files) || rewritten.put_at.age(&clock) >= LIFE {
            return Ok(None);
        }
        let now = clock.now().as_millis();
        let removes = files.iter().map(|file| Action::Remove(Remove::of(file, now, false)));
        Ok(Some(removes.chain([Action::Add(rewritten.add.clone())]).collect()))
    });
    landing.await
}

impl Ground {
    fn take(&mut self, news: &News) {
        let News::Commits(passed) = news else {
            self.lost = true;
            return;
        };
        for action in passed.iter().flat_map(|passed| &passed.actions) {
            match action {
                Action::Remove(remove) => {
                    self.removed.insert(remove.path.clone());
                }
                Action::MetaData(_) | Action::Protocol(_) => self.lost = true,
                Action::Add(_) | Action::Txn(_) | Action::CommitInfo(_) => {}
            }
        }
    }

    /// Whether all of these files are still in the table, unchanged.
    fn bears(&self, files: &[DataFile]) -> bool {
        !self.lost && !files.iter().any(|file| self.removed.contains(&file.path))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;
    use tokio_util::sync::CancellationToken;

    use super::super::tests;
    use super::*;
    use crate::clock::Clock;
    use crate::storage::Storage;
    use crate::table::snapshot::TableLog;

    fn file(size_bytes: i64, modification_millis: i64) -> DataFile {
        let path = format!("{modification_millis}.parquet");
        let (min_values, max_values) = (Value::Null, Value::Null);
        DataFile { path, size_bytes, modification_millis, num_records: None, min_values, max_values }
    }

    fn sizes(files: &[DataFile]) -> Vec<i64> {
        files.iter().map(|file| file.size_bytes).collect()
    }

    #[test]
    fn too_few_small_files_are_left_alone() {
        assert_eq!(choose(vec![file(1, 1), file(1, 2), file(100, 3)], 100, 3), []);
        assert_eq!(choose(vec![file(1, 1)], 100, 0), []);
    }

    #[test]
    fn small_files_come_in_the_order_they_were_added() {
        let files = vec![file(3, 30), file(2, 10), file(100, 15), file(1, 20)];
        assert_eq!(sizes(&choose(files, 100, 2)), [2, 1, 3]);
    }

    #[test]
    fn a_file_that_outweighs_the_others_waits() {
        let files = (0..40).map(|index| file(if index == 0 { 90 } else { 1 }, index)).collect();
        assert_eq!(choose(files, 100, 32).len(), 39);
        // Two that were asked for are two.
        assert_eq!(sizes(&choose(vec![file(90, 1), file(1, 2)], 100, 2)), [90, 1]);
    }

    #[tokio::test]
    async fn a_file_that_the_table_names_and_vacuum_took_is_put_again() {
        let (storage, clock, stop) = (Storage::memory(), Clock::system(), CancellationToken::new());
        let mut table = tests::filled(&storage, &clock, 3).await;
        let options = tests::only_compact();
        let work = Work { log: TableLog::new(&storage, &tests::path()), options: &options, clock: &clock, stop: &stop };
        let (mut ground, mut waiting) = (Ground::default(), table.files().await.unwrap().into());
        let files = gather(&mut waiting, options.target_bytes, &ground).unwrap();
        let merged = merge(&table, &files, &stop).await.unwrap().unwrap();
        let rewritten = put(&mut table, &files, merged, &mut ground).await.unwrap().unwrap();
        // Nobody misses an orphan.
        storage.delete(&rewritten.location).await.unwrap();
        work.settle(&rewritten).await.unwrap();
        assert_eq!(storage.get(&rewritten.location).await.unwrap(), None);
        commit(&mut table, &files, &rewritten, &mut ground).await.unwrap();
        work.settle(&rewritten).await.unwrap();
        assert_eq!(tests::rows(&storage).await, tests::expected(3));
    }

    #[tokio::test]
    async fn a_plan_that_slept_is_withdrawn() {
        let (storage, clock, stop) = (Storage::memory(), Clock::system(), CancellationToken::new());
        let mut table = tests::filled(&storage, &clock, 3).await;
        let options = tests::only_compact();
        let (mut ground, mut waiting) = (Ground::default(), table.files().await.unwrap().into());
        let files = gather(&mut waiting, options.target_bytes, &ground).unwrap();
        let merged = merge(&table, &files, &stop).await.unwrap().unwrap();
        let rewritten = put(&mut table, &files, merged, &mut ground).await.unwrap().unwrap();
        clock.step(2 * 86_400_000_000);
        let landing = commit(&mut table, &files, &rewritten, &mut ground).await.unwrap();
        assert_eq!(landing, Landing::Withdrawn);
        assert_eq!(tests::rows(&storage).await, tests::expected(3));
    }

    proptest! {
        #[test]
        fn whatever_is_chosen_is_small_and_of_the_table(
            sizes in proptest::collection::vec(0_i64..200, 0..60), at_least in 0_usize..40,
        ) {
            let files: Vec<DataFile> = sizes.iter().zip(0..).map(|(size, index)| file(*size, index)).collect();
            let chosen = choose(files.clone(), 100, at_least);
            prop_assert!(chosen.len() != 1);
            prop_assert!(chosen.is_sorted_by_key(|file| file.modification_millis));
            prop_assert!(chosen.iter().all(|file| file.size_bytes < 100 && files.contains(file)));
        }
    }
}
