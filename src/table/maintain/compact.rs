//! Compaction: files of about one size become one, so that each row is rewritten a few times in all.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::compute::concat_batches;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{MaintainOptions, MaintainSummary};
use crate::error::{Context, ErrorKind, Result};
use crate::id::random_id;
use crate::storage::StorageKey;
use crate::table::commit::{Landing, News, Provenance, PutEnd};
use crate::table::log::{Action, Add, Remove};
use crate::table::{DataFile, LakeTable, parquet};

/// Files up to this size are of the first tier; each further tier is eight times larger.
const FIRST_TIER_BYTES: u64 = 128 * 1_024;
const TIER_FACTOR: u64 = 8;

/// Rewrites what has gathered, a commit a group.
pub(super) async fn compact(
    table: &mut LakeTable,
    options: &MaintainOptions,
    summary: &mut MaintainSummary,
    stop: &CancellationToken,
) -> Result<()> {
    let files = table.files().await?;
    for group in groups(files, options) {
        if stop.is_cancelled() || table.is_stale() {
            return Ok(());
        }
        if rewrite(table, &group).await? {
            summary.files_compacted += group.len();
            summary.files_written += 1;
        }
    }
    Ok(())
}

/// Files to rewrite together, the oldest first.
fn groups(files: Vec<DataFile>, options: &MaintainOptions) -> Vec<Vec<DataFile>> {
    let size = |file: &DataFile| u64::try_from(file.size_bytes).unwrap_or(0);
    let mut tiers: BTreeMap<u32, Vec<DataFile>> = BTreeMap::new();
    for file in files.into_iter().filter(|file| size(file) < options.target_bytes / 2) {
        tiers.entry(tier(size(&file))).or_default().push(file);
    }
    let mut groups = Vec::new();
    for mut tier in tiers.into_values().filter(|tier| tier.len() >= options.compact_at_files.max(2)) {
        tier.sort_by(|one, other| (one.modification_millis, &one.path).cmp(&(other.modification_millis, &other.path)));
        let (mut group, mut bytes) = (Vec::new(), 0);
        for file in tier {
            if bytes + size(&file) > options.target_bytes && !group.is_empty() {
                groups.push(std::mem::take(&mut group));
                bytes = 0;
            }
            bytes += size(&file);
            group.push(file);
        }
        groups.push(group);
    }
    groups.retain(|group| group.len() >= 2);
    groups
}

fn tier(bytes: u64) -> u32 {
    let (mut tier, mut limit) = (0, FIRST_TIER_BYTES);
    while bytes >= limit {
        tier += 1;
        limit = limit.saturating_mul(TIER_FACTOR);
    }
    tier
}

/// Writes the rows of a group aside, then swaps the files in one commit that changes no data. `false` when somebody
/// took an input or changed the columns meanwhile: what was written is then left to vacuum.
async fn rewrite(table: &mut LakeTable, group: &[DataFile]) -> Result<bool> {
    let context = || format!("compact table {}", table.log.table);
    let mut batches = Vec::with_capacity(group.len());
    for file in group {
        batches.push(table.read_file(file, None).await?);
    }
    let schema = table.schema();
    let (columns, wanted) = (table.stats_columns.clone(), Arc::clone(&schema));
    let encoding = tokio::task::spawn_blocking(move || {
        let rows = concat_batches(&wanted, &batches).context(ErrorKind::Corrupt, "join rows")?;
        parquet::encode(&rows, &columns)
    });
    let encoded = encoding.await.context(ErrorKind::Unavailable, context())??;
    let name = format!("part-{}.parquet", random_id());
    let key = StorageKey::TableFile { table: table.log.table.clone(), file: name.clone() };
    let size = encoded.bytes.len();
    if !matches!(table.put_patiently(&key.path(), encoded.bytes).await?, PutEnd::Created { .. }) {
        return Ok(false);
    }
    let now = table.clock.now().as_millis();
    let mut actions: Vec<Action> = group.iter().map(|file| Action::Remove(Remove::of(file, now, false))).collect();
    actions.push(Action::Add(Add::new(&name, size, now, encoded.stats, false)));
    let provenance = Provenance {
        operation: "OPTIMIZE",
        parameters: json!({}),
        metrics: json!({"numRemovedFiles": group.len().to_string(), "numAddedFiles": "1"}),
        blind_append: false,
    };
    let landing = table.land(&provenance, |_, news| Ok((!is_overtaken(news, group)).then(|| actions.clone()))).await?;
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn file(path: &str, size_bytes: i64) -> DataFile {
        DataFile {
            path: path.to_owned(),
            size_bytes,
            modification_millis: 0,
            num_records: None,
            min_values: Value::Null,
            max_values: Value::Null,
        }
    }

    #[test]
    fn only_files_of_about_one_size_are_rewritten_together_and_large_ones_never() {
        let options = MaintainOptions { compact_at_files: 2, target_bytes: 10_000_000, ..MaintainOptions::default() };
        let files = vec![file("a", 10), file("b", 20), file("c", 500_000), file("d", 9_000_000), file("e", 9_000_000)];
        let groups = groups(files, &options);
        let paths: Vec<Vec<&str>> =
            groups.iter().map(|group| group.iter().map(|file| file.path.as_str()).collect()).collect();
        assert_eq!(paths, [["a", "b"]]);
    }

    #[test]
    fn a_group_stays_below_the_target() {
        let options = MaintainOptions { compact_at_files: 2, target_bytes: 250, ..MaintainOptions::default() };
        let files = (0..5).map(|number| file(&number.to_string(), 100)).collect();
        let sizes: Vec<usize> = groups(files, &options).iter().map(Vec::len).collect();
        assert_eq!(sizes, [2, 2]);
    }
}
