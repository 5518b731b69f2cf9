//! Updates that were seen so far away that only their content tells a redelivery from another update with a like id.
//!
//! Keys are no true time: a clock may have stepped by days or years between two deliveries of one update, before a
//! restart or after it. So ids are remembered whenever they were seen, and a like id from far away is held against what
//! the table has of it.

use std::collections::{HashMap, HashSet};

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use roaring::RoaringTreemap;

use super::rows::Line;
use super::window::as_bits;
use crate::error::{Error, Result};
use crate::id::BotId;
use crate::table::{DataFile, LakeTable};

const COLUMNS: [&str; 3] = ["bot_id", "update_id", "payload"];

/// Ids of updates that the window does not hold, or holds far away.
#[derive(Debug, Default)]
pub(super) struct Far {
    /// A bit for each id that is in the table and has left the window.
    ids: HashMap<BotId, RoaringTreemap>,
    /// Files of the table that were not read, with the ids that they span.
    unread: Vec<(i64, i64)>,
}

/// What the table has of ids that were asked for.
#[derive(Debug, Default)]
pub(super) struct Contents(HashMap<(BotId, i64), Vec<String>>);

impl Far {
    /// A file of the table whose rows were not read. One without statistics is not known by its ids.
    pub(super) fn add_file(&mut self, file: &DataFile) {
        self.unread.extend(span(file));
    }

    /// These ids have left the window.
    pub(super) fn add(&mut self, bot_id: BotId, ids: RoaringTreemap) {
        *self.ids.entry(bot_id).or_default() |= ids;
    }

    /// Whether the table may have a row of this id. Of a new update it has none: ids go up.
    pub(super) fn may_hold(&self, bot_id: BotId, update_id: i64) -> bool {
        self.unread.iter().any(|(first, last)| (*first..=*last).contains(&update_id))
            || self.ids.get(&bot_id).is_some_and(|ids| ids.contains(as_bits(update_id)))
    }

    /// Reads what the table has of these ids. What is read for that is known from then on, id by id.
    ///
    /// # Errors
    /// When a file is gone or cannot be read.
    pub(super) async fn ask(
        &mut self,
        table: &LakeTable,
        files: Vec<DataFile>,
        wanted: &HashSet<(BotId, i64)>,
    ) -> Result<Contents> {
        let mut contents = Contents::default();
        for file in files {
            let ids = span(&file).unwrap_or((i64::MIN, i64::MAX));
            if !wanted.iter().any(|(_, id)| (ids.0..=ids.1).contains(id)) {
                continue;
            }
            let mut scan = table.scan(&file, &COLUMNS, None).await?;
            while let Some(rows) = scan.next().await? {
                self.take(&rows, wanted, &mut contents)?;
            }
            // Compaction may have moved the rows of a file that was not read into this one.
            self.unread.retain(|(first, last)| *first < ids.0 || *last > ids.1);
        }
        Ok(contents)
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

impl Contents {
    /// Whether the table has this very update: Telegram repeats it as it was, with its own time in it, while another
    /// update with a like id says something else.
    pub(super) fn has(&self, line: &Line) -> bool {
        let there = line.update_id().and_then(|update_id| self.0.get(&(line.bot_id, update_id)));
        there.is_some_and(|there| there.iter().any(|payload| Some(payload.as_str()) == line.payload()))
    }
}

/// The smallest and the largest id of a file, where its statistics say.
fn span(file: &DataFile) -> Option<(i64, i64)> {
    Some((file.min_values.get("update_id")?.as_i64()?, file.max_values.get("update_id")?.as_i64()?))
}
