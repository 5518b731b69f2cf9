//! Finds the file and line of findings that only name an update.

use std::collections::HashMap;

use arrow::array::Array;

use super::report::{Check, Finding};
use super::source::{Source, integer, moment};
use crate::clock::Timestamp;
use crate::error::Result;

const COLUMNS: [&str; 5] = ["bot_id", "update_id", "_received_at", "_source_file", "_source_row"];

type Key = (i64, i64, Timestamp);

/// Adds segment and line to findings, as bronze has them. Only reads bronze if there are findings.
pub(super) async fn name<'a>(bronze: &mut Source, checks: impl IntoIterator<Item = &'a mut Check>) -> Result<()> {
    let mut nameless: HashMap<Key, Vec<&mut Finding>> = HashMap::new();
    for finding in checks.into_iter().flat_map(|check| &mut check.rows) {
        if let (None, Some(bot_id), Some(update_id), Some(received)) =
            (&finding.file, finding.bot_id, finding.update_id, finding.received)
        {
            nameless.entry((bot_id, update_id, received)).or_default().push(finding);
        }
    }
    let moments = || nameless.keys().map(|(.., received)| *received);
    let (Some(first), Some(last)) = (moments().min(), moments().max()) else { return Ok(()) };
    bronze
        .read((first, last), &COLUMNS, |rows, _| {
            let (bots, updates) = (rows.integers("bot_id")?, rows.integers("update_id")?);
            let (received, files) = (rows.moments("_received_at")?, rows.strings("_source_file")?);
            let lines = rows.integers("_source_row")?;
            for row in 0..rows.len() {
                let (Some(bot_id), Some(update_id)) = (integer(bots, row), integer(updates, row)) else { continue };
                let key = (bot_id, update_id, moment(received, row));
                for finding in nameless.get_mut(&key).into_iter().flatten() {
                    finding.file = files.is_valid(row).then(|| files.value(row).to_owned());
                    finding.line = integer(lines, row);
                }
            }
            Ok(())
        })
        .await
}
