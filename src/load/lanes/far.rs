//! Updates that were seen so far away that only their content tells a redelivery from another update with the same id.
//!
//! The times in keys cannot be trusted that far: a clock may have stepped by days or years between two deliveries of one
//! update, before a restart or after it. So ids are remembered whenever they were seen, and an update whose id was seen
//! far away is compared with what the table has of it.

use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use roaring::RoaringTreemap;

use super::rows::Line;
use super::window::as_bits;
use crate::error::{Error, Result};
use crate::id::BotId;
use crate::table::{DataFile, LakeTable};

const COLUMNS: [&str; 3] = ["bot_id", "update_id", "payload"];
/// The ids of a file whose statistics do not say.
const ANY: RangeInclusive<i64> = i64::MIN..=i64::MAX;

/// Ids of updates that the window does not hold, or holds far away.
#[derive(Debug, Default)]
pub(super) struct Far {
    /// A bit for each id that is in the table and has left the window.
    ids: HashMap<BotId, RoaringTreemap>,
    /// The files of the table that were not read, by path, with the ids that they span.
    unread: HashMap<String, RangeInclusive<i64>>,
}

/// What is known about ids in the range of a batch.
#[derive(Debug)]
pub(super) struct NearFar<'a> {
    ids: &'a HashMap<BotId, RoaringTreemap>,
    unread: Vec<&'a RangeInclusive<i64>>,
}

/// What the table has of the requested ids.
#[derive(Debug, Default)]
pub(super) struct Contents(HashMap<(BotId, i64), Vec<String>>);

impl Far {
    /// A file of the table whose rows were not read. One without statistics is not known by its ids.
    pub(super) fn add_file(&mut self, file: &DataFile) {
        self.unread.extend(span(file).map(|ids| (file.path.clone(), ids)));
    }

    /// These ids have left the window.
    pub(super) fn add(&mut self, bot_id: BotId, ids: RoaringTreemap) {
        *self.ids.entry(bot_id).or_default() |= ids;
    }

    /// What is known about ids in this range.
    pub(super) fn near(&self, ids: &RangeInclusive<i64>) -> NearFar<'_> {
        NearFar { ids: &self.ids, unread: self.unread.values().filter(|unread| overlap(unread, ids)).collect() }
    }

    /// Reads what the table, whose files these are, has of the `wanted` ids. The ids in the files read for that are known
    /// one by one from then on.
    ///
    /// # Errors
    /// When a file is gone or cannot be read.
    pub(super) async fn ask(
        &mut self,
        table: &LakeTable,
        files: Vec<DataFile>,
        wanted: &HashSet<(BotId, i64)>,
    ) -> Result<Contents> {
        self.follow_compaction(&files);
        let mut contents = Contents::default();
        for file in files {
            let ids = span(&file).unwrap_or(ANY);
            if !wanted.iter().any(|(_, id)| ids.contains(id)) {
                continue;
            }
            let mut scan = table.scan(&file, &COLUMNS, None).await?;
            while let Some(rows) = scan.next().await? {
                self.take(&rows, wanted, &mut contents)?;
            }
            self.unread.remove(&file.path);
        }
        Ok(contents)
    }

    /// Compaction moves the rows of an unread file into others: any of those that may have them is unread instead.
    fn follow_compaction(&mut self, files: &[DataFile]) {
        let there: HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let gone: Vec<_> = self.unread.extract_if(|path, _| !there.contains(path.as_str())).collect();
        for file in files {
            let ids = span(file).unwrap_or(ANY);
            if gone.iter().any(|(_, gone)| overlap(gone, &ids)) {
                self.unread.insert(file.path.clone(), ids);
            }
        }
    }

    fn take(
        &mut self,
        rows: &arrow::array::RecordBatch,
        wanted: &HashSet<(BotId, i64)>,
        contents: &mut Contents,
    ) -> Result<()> {
        let odd = || Error::corrupt("a column of the bronze table has another type");
        let integers = |name| rows.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let (bots, updates) = (integers("bot_id").ok_or_else(odd)?, integers("update_id").ok_or_else(odd)?);
        let payloads = rows.column_by_name("payload").and_then(|column| column.as_string_opt::<i32>());
        let payloads = payloads.ok_or_else(odd)?;
        for row in (0..rows.num_rows()).filter(|row| bots.is_valid(*row) && updates.is_valid(*row)) {
            let key = (BotId(bots.value(row)), updates.value(row));
            self.ids.entry(key.0).or_default().insert(as_bits(key.1));
            if wanted.contains(&key) && payloads.is_valid(row) {
                contents.0.entry(key).or_default().push(payloads.value(row).to_owned());
            }
        }
        Ok(())
    }
}

impl NearFar<'_> {
    /// Whether the table may have a row of this id. It has none of a new update: ids increase.
    pub(super) fn may_hold(&self, bot_id: BotId, update_id: i64) -> bool {
        self.unread.iter().any(|ids| ids.contains(&update_id))
            || self.ids.get(&bot_id).is_some_and(|ids| ids.contains(as_bits(update_id)))
    }
}

impl Contents {
    /// Whether the table has this very update: Telegram repeats an update unchanged, including its date, while another
    /// update with the same id has other content.
    pub(super) fn has(&self, line: &Line) -> bool {
        let there = line.update_id().and_then(|update_id| self.0.get(&(line.bot_id, update_id)));
        there.is_some_and(|there| there.iter().any(|payload| Some(payload.as_str()) == line.payload()))
    }
}

/// The smallest and the largest id of a file, where its statistics say.
fn span(file: &DataFile) -> Option<RangeInclusive<i64>> {
    Some(file.min_values.get("update_id")?.as_i64()?..=file.max_values.get("update_id")?.as_i64()?)
}

fn overlap(one: &RangeInclusive<i64>, other: &RangeInclusive<i64>) -> bool {
    one.start() <= other.end() && other.start() <= one.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, ids: Option<RangeInclusive<i64>>) -> DataFile {
        let bounds =
            |id: Option<i64>| id.map_or_else(|| serde_json::json!({}), |id| serde_json::json!({"update_id": id}));
        DataFile {
            path: path.to_owned(),
            size_bytes: 1,
            modification_millis: 0,
            num_records: None,
            min_values: bounds(ids.as_ref().map(|ids| *ids.start())),
            max_values: bounds(ids.as_ref().map(|ids| *ids.end())),
        }
    }

    #[test]
    fn what_compaction_has_moved_from_an_unread_file_is_unread_where_it_is_now() {
        let mut far = Far::default();
        far.add_file(&file("a", Some(1..=10)));
        far.add_file(&file("b", Some(5..=7)));
        far.add_file(&file("c", Some(40..=60)));
        let unread = |far: &Far| {
            let mut paths: Vec<_> = far.unread.keys().cloned().collect();
            paths.sort();
            paths
        };
        far.follow_compaction(&[
            file("b", Some(5..=7)),
            file("c", Some(40..=60)),
            file("d", Some(-5..=3)),
            file("e", Some(11..=30)),
        ]);
        assert_eq!(unread(&far), ["b", "c", "d"]);
        let may_hold = |id| far.near(&(id..=id)).may_hold(BotId(1), id);
        assert_eq!([2, 6, 50, 25].map(may_hold), [true, true, true, false]);
        far.follow_compaction(&[file("f", None), file("b", Some(5..=7))]);
        assert_eq!(unread(&far), ["b", "f"]);
    }
}
