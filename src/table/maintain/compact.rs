//! Compaction: files of about one size become one, so that each row is rewritten a few times in all.

use std::collections::BTreeMap;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::rewrite::rewrite;
use super::{MaintainOptions, MaintainSummary};
use crate::error::Result;
use crate::id::random_id;
use crate::storage::StorageKey;
use crate::table::commit::{Landing, News, Provenance, PutEnd};
use crate::table::log::{Action, Add, Remove};
use crate::table::parquet::Encoded;
use crate::table::{DataFile, LakeTable};

/// Files up to this size are of the first tier; each further tier is eight times larger.
const FIRST_TIER_BYTES: u64 = 128 * 1_024;
const TIER_FACTOR: u64 = 8;

/// Rewrites what has gathered, a commit a group.
///
/// Each group is chosen from the files as they are at the head: the check of a commit covers what was committed after
/// the files were listed, and what was passed on the way to an earlier group's version must not escape it.
pub(super) async fn compact(
    table: &mut LakeTable,
    options: &MaintainOptions,
    summary: &mut MaintainSummary,
    stop: &CancellationToken,
) -> Result<()> {
    while !stop.is_cancelled() {
        table.refresh().await?;
        let Some(group) = next_group(table.files().await?, options) else { return Ok(()) };
        let merged = rewrite(table, &group).await?;
        if !swap(table, &group, &merged).await? {
            // Somebody else is at work on these files or columns; the next round will see what came of it.
            return Ok(());
        }
        summary.files_compacted += group.len();
        summary.files_written += 1;
    }
    Ok(())
}

/// Files to rewrite together, the oldest first: of the smallest size of which enough have gathered.
fn next_group(files: Vec<DataFile>, options: &MaintainOptions) -> Option<Vec<DataFile>> {
    let mut tiers: BTreeMap<u32, Vec<DataFile>> = BTreeMap::new();
    // Any two files below half the target fit one file, so that every group makes the table smaller.
    for file in files.into_iter().filter(|file| size(file) < options.target_bytes / 2) {
        tiers.entry(tier(size(&file))).or_default().push(file);
    }
    let mut gathered = tiers.into_values().find(|tier| tier.len() >= options.compact_at_files.max(2))?;
    gathered.sort_by(|one, other| (one.modification_millis, &one.path).cmp(&(other.modification_millis, &other.path)));
    let mut bytes = 0;
    let fits = |file: &DataFile| {
        bytes += size(file);
        bytes <= options.target_bytes
    };
    Some(gathered.into_iter().take_while(fits).collect())
}

fn size(file: &DataFile) -> u64 {
    u64::try_from(file.size_bytes).unwrap_or(0)
}

fn tier(bytes: u64) -> u32 {
    let (mut tier, mut limit) = (0, FIRST_TIER_BYTES);
    while bytes >= limit {
        tier += 1;
        limit = limit.saturating_mul(TIER_FACTOR);
    }
    tier
}

/// Puts a rewritten file beside its inputs, then takes their place in one commit that changes no data. `false` when
/// somebody took an input or changed the columns meanwhile: what was put is then left to vacuum.
async fn swap(table: &mut LakeTable, group: &[DataFile], merged: &Encoded) -> Result<bool> {
    let name = format!("part-{}.parquet", random_id());
    let key = StorageKey::TableFile { table: table.log.table.clone(), file: name.clone() };
    if !matches!(table.put_patiently(&key.path(), merged.bytes.clone()).await?, PutEnd::Created { .. }) {
        return Ok(false);
    }
    let now = table.clock.now().as_millis();
    let mut actions: Vec<Action> = group.iter().map(|file| Action::Remove(Remove::of(file, now, false))).collect();
    // Readers take the files of a snapshot in the order of these times: the rows are as old as they were.
    let written = group.iter().map(|file| file.modification_millis).max().unwrap_or(now);
    actions.push(Action::Add(Add::new(&name, merged.bytes.len(), written, merged.stats.clone(), false)));
    let provenance = Provenance {
        operation: "OPTIMIZE",
        parameters: json!({}),
        metrics: json!({"numRemovedFiles": group.len().to_string(), "numAddedFiles": "1"}),
        blind_append: false,
    };
    let landing = table.land(&provenance, |_, news| Ok((!is_overtaken(news, group)).then(|| actions.clone()))).await?;
    if landing == Landing::Expired {
        settle(table, &name, merged).await?;
    }
    Ok(matches!(landing, Landing::Landed { .. }))
}

/// Whether somebody has removed an input or changed the columns since the plan.
fn is_overtaken(news: &News, group: &[DataFile]) -> bool {
    let News::Commits(passed) = news else { return true };
    passed.iter().flat_map(|passed| &passed.actions).any(|action| match action {
        Action::Remove(remove) => group.iter().any(|file| file.path == remove.path),
        Action::MetaData(_) | Action::Protocol(_) => true,
        _ => false,
    })
}

/// After a commit whose fate nobody knows: when it counts after all, its file must be there. Vacuum may have taken it
/// for an orphan while this process slept.
async fn settle(table: &LakeTable, name: &str, merged: &Encoded) -> Result<()> {
    let Some(fresh) = LakeTable::open_existing(&table.log.storage, &table.log.table, &table.clock).await? else {
        return Ok(());
    };
    let files = fresh.files().await?;
    if let Some(file) = files.iter().find(|file| file.path == name) {
        let location = file.location(&table.log.table)?;
        if table.log.storage.head(&location).await?.is_none() {
            let put = table.log.storage.put_new(&location, merged.bytes.clone()).await?;
            tracing::warn!(file = %location, ?put, "put a vacuumed file again");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn file(path: &str, size_bytes: i64, modification_millis: i64) -> DataFile {
        DataFile {
            path: path.to_owned(),
            size_bytes,
            modification_millis,
            num_records: None,
            min_values: Value::Null,
            max_values: Value::Null,
        }
    }

    fn options(target_bytes: u64) -> MaintainOptions {
        MaintainOptions { compact_at_files: 2, target_bytes, ..MaintainOptions::default() }
    }

    fn paths(group: Option<Vec<DataFile>>) -> Option<Vec<String>> {
        group.map(|group| group.into_iter().map(|file| file.path).collect())
    }

    #[test]
    fn too_few_or_too_large_files_are_left_alone() {
        assert_eq!(next_group(Vec::new(), &options(1_000)), None);
        let alone = vec![file("small", 10, 0), file("large", 500, 0), file("larger", 5_000, 0)];
        assert_eq!(next_group(alone, &options(1_000)), None);
    }

    #[test]
    fn only_files_of_about_one_size_are_rewritten_together_the_oldest_first() {
        let files =
            vec![file("a", 10, 3), file("b", 20, 1), file("c", 500_000, 0), file("d", 30, 2), file("e", 600_000, 0)];
        assert_eq!(paths(next_group(files, &options(10_000_000))), Some(vec!["b".into(), "d".into(), "a".into()]));
    }

    #[test]
    fn a_group_stays_below_the_target() {
        let files = (0..5).map(|number| file(&number.to_string(), 100, number)).collect();
        assert_eq!(paths(next_group(files, &options(250))), Some(vec!["0".into(), "1".into()]));
    }

    proptest! {
        #[test]
        fn every_group_makes_the_table_smaller(sizes in prop::collection::vec(0..2_000_i64, 0..20), target in 1..3_000_u64) {
            let files = (0..).zip(&sizes).map(|(number, size)| file(&number.to_string(), *size, number)).collect();
            if let Some(group) = next_group(files, &options(target)) {
                prop_assert!(group.len() >= 2);
                prop_assert!(group.iter().map(size).sum::<u64>() <= target);
            }
        }
    }
}
