//! Redeliveries: lines without their own row whose update has a row from another line.

use std::collections::HashMap;
use std::time::Duration;

use arrow::array::Array;

use super::chunk::{Content, Rowless};
use super::source::{ALWAYS, Source, integer, moment};
use crate::clock::Timestamp;
use crate::error::Result;

const COLUMNS: [&str; 3] = ["bot_id", "update_id", "_received_at"];
/// Lines looked up together.
const FULL: usize = if cfg!(test) { 2 } else { 200_000 };
/// The loader treats two updates with the same id as one within the redelivery window, and within six days if it still
/// remembers the other one: Telegram's ids only jump after a week without updates.
const SAME: Duration = Duration::from_secs(6 * 86_400);
/// It remembers by the hour.
const HOUR: Duration = Duration::from_secs(3_600);

/// Lines to be looked up.
#[derive(Default)]
pub(super) struct Pool {
    lines: Vec<Candidate>,
}

struct Candidate {
    bot_id: Option<i64>,
    update_id: i64,
    line: Rowless,
    has_twin: bool,
}

impl Pool {
    pub(super) fn add(&mut self, bot_id: Option<i64>, update_id: i64, line: Rowless) {
        self.lines.push(Candidate { bot_id, update_id, line, has_twin: false });
    }

    pub(super) fn is_full(&self) -> bool {
        self.lines.len() >= FULL
    }
}

/// How far apart in time a line and the row that it repeats may be.
pub(super) fn reach(window: Duration) -> Duration {
    window.max(SAME) + HOUR
}

/// Empties the pool; returns the lines that repeat no row.
pub(super) async fn without_a_twin(pool: &mut Pool, bronze: &mut Source, window: Duration) -> Result<Vec<Rowless>> {
    let mut lines = std::mem::take(&mut pool.lines);
    let moments = || lines.iter().map(|candidate| candidate.line.place.micros);
    let (Some(first), Some(last)) = (moments().min(), moments().max()) else { return Ok(Vec::new()) };
    let reach = reach(window);
    lines.sort_unstable_by_key(Candidate::key);
    let span = (first.minus(reach), last.plus(reach));
    bronze
        .read(span, &COLUMNS, |rows, _| {
            let (bots, updates) = (rows.integers("bot_id")?, rows.integers("update_id")?);
            let received = rows.moments("_received_at")?;
            for row in 0..rows.len() {
                let Some(update_id) = integer(updates, row) else { continue };
                let (key, at) = ((integer(bots, row), update_id), moment(received, row));
                let first = lines.partition_point(|candidate| candidate.key() < key);
                for candidate in lines.iter_mut().skip(first).take_while(|candidate| candidate.key() == key) {
                    candidate.has_twin |= apart(at, candidate.line.place.micros) <= reach;
                }
            }
            Ok(())
        })
        .await?;
    Ok(lines.into_iter().filter(|candidate| !candidate.has_twin).map(|candidate| candidate.line).collect())
}

/// Those of some lines, each with its bot, whose very content no row has, whenever it was received: clocks may have
/// stepped between two deliveries of an update. Reads all of the table.
pub(super) async fn without_like_content(
    lines: Vec<(Option<i64>, Rowless)>,
    bronze: &mut Source,
) -> Result<Vec<Rowless>> {
    let mut found: HashMap<(Option<i64>, Content), bool> =
        lines.iter().map(|(bot_id, line)| ((*bot_id, line.content), false)).collect();
    if found.is_empty() {
        return Ok(Vec::new());
    }
    bronze
        .read(ALWAYS, &["bot_id", "update_id", "payload"], |rows, _| {
            let (bots, updates) = (rows.integers("bot_id")?, rows.integers("update_id")?);
            let payloads = rows.strings("payload")?;
            for row in (0..rows.len()).filter(|row| payloads.is_valid(*row)) {
                let content = Content::update(integer(updates, row), payloads.value(row));
                if let Some(is_there) = found.get_mut(&(integer(bots, row), content)) {
                    *is_there = true;
                }
            }
            Ok(())
        })
        .await?;
    let is_missing = |(bot_id, line): &(Option<i64>, Rowless)| found.get(&(*bot_id, line.content)) != Some(&true);
    Ok(lines.into_iter().filter(is_missing).map(|(_, line)| line).collect())
}

impl Candidate {
    fn key(&self) -> (Option<i64>, i64) {
        (self.bot_id, self.update_id)
    }
}

/// The time between two timestamps.
pub(super) fn apart(one: Timestamp, other: Timestamp) -> Duration {
    one.since(other).max(other.since(one))
}
