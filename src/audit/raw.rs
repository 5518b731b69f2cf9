//! Compares raw lines with bronze rows: every line is one row, or a redelivery of one.

use std::collections::HashMap;

use arrow::array::Array;
use object_store::path::Path;

use super::chunk::{Chunk, Content, Fit, Rowless};
use super::redelivery::{self, Pool};
use super::report::{Check, Finding};
use super::source::{ALWAYS, Columns, File, Source, integer, moment};
use super::walk::{LaneName, Lanes, LinePosition, Walk};
use super::{Progress, Scope};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::Name;
use crate::pipeline::clean::LOOK_BACK;
use crate::storage::StorageKey;
use crate::table::TxnId;

const COLUMNS: [&str; 7] =
    ["bot_id", "update_id", "payload", "_corrupt_record", "_source_file", "_source_row", "_received_at"];
/// Approximate bronze rows per chunk; if raw segments were cleaned, only their positions are kept.
const ROWS: u64 = if cfg!(test) { 2 } else { 400_000 };
const MICROSECOND: std::time::Duration = std::time::Duration::from_micros(1);

/// The two checks that lines and rows belong to.
pub(super) struct Checks<'a> {
    pub(super) raw: &'a mut Check,
    pub(super) unique: &'a mut Check,
}

/// The work on one pipeline.
struct Raw<'a> {
    scope: &'a Scope<'a>,
    /// The pipeline, and what it was called before.
    pipelines: Vec<Name>,
    lanes: Lanes,
    positions: HashMap<u32, Timestamp>,
    /// Rows whose segment is missing: how many, and the newest.
    gone: (u64, Option<Timestamp>),
    /// Rows whose segment was removed by `clean_source`.
    cleaned: u64,
    /// Rows that do not name a segment of this pipeline.
    foreign: u64,
}

/// A row whose segment is missing.
type Gone = (LinePosition, Option<i64>);

/// Checks every line and every row.
pub(super) async fn check(
    scope: &Scope<'_>,
    bronze: &mut Source,
    checks: &mut Checks<'_>,
    progress: &Progress<'_>,
) -> Result<()> {
    let mut lanes = Lanes::default();
    let pipelines: Vec<Name> = std::iter::once(scope.pipeline().clone()).chain(bronze.former_pipelines()).collect();
    // Listed after bronze was read: whatever lands later only counts as waiting.
    let mut walk = Walk::new(&scope.audit.storage, &pipelines, scope.since, &mut lanes).await?;
    let positions = positions(bronze, &mut lanes);
    let mut raw = Raw { scope, pipelines, lanes, positions, gone: (0, None), cleaned: 0, foreign: 0 };
    let mut pool = Pool::default();
    let last = cuts(&bronze.files, ROWS);
    let mut from = scope.since.unwrap_or(ALWAYS.0);
    for to in last.into_iter().chain([ALWAYS.1]).filter(|to| scope.since.is_none_or(|since| *to >= since)) {
        while from <= to {
            let storage = &scope.audit.storage;
            let mut chunk = Chunk::read(storage, &raw.lanes, &mut walk, (from, to)).await?;
            raw.check_chunk(&mut chunk, bronze, checks, progress).await?;
            for rowless in chunk.rowless() {
                match rowless.update_id {
                    Some(update_id) => pool.add(raw.lanes.bot(rowless.place.lane), update_id, rowless),
                    None => raw.judge(&rowless, bronze, checks.raw),
                }
            }
            if pool.is_full() {
                raw.settle(&mut pool, bronze, checks.raw).await?;
            }
            let end = chunk.span.1;
            if end == ALWAYS.1 {
                break;
            }
            from = end.plus(MICROSECOND);
        }
    }
    raw.settle(&mut pool, bronze, checks.raw).await?;
    raw.tell_unproven(checks.raw);
    Ok(())
}

impl Raw<'_> {
    /// Compares the rows of a chunk's time span with its lines.
    async fn check_chunk(
        &mut self,
        chunk: &mut Chunk,
        bronze: &mut Source,
        checks: &mut Checks<'_>,
        progress: &Progress<'_>,
    ) -> Result<()> {
        checks.raw.checked += chunk.lines();
        let mut gone: Vec<Gone> = Vec::new();
        let span = chunk.span;
        let take = |rows: &Columns<'_>, _: &File| {
            progress.add(rows.len());
            self.take_rows(rows, chunk, checks, &mut gone)
        };
        bronze.read(span, &COLUMNS, take).await?;
        gone.sort_unstable();
        let twice = gone.windows(2).filter_map(|pair| match pair {
            // Duplicate updates are found by id.
            [one, other] if one.0 == other.0 && !(one.1 == other.1 && one.1.is_some()) => Some(*other),
            _ => None,
        });
        for (place, update_id) in twice {
            checks.unique.broken(self.finding("a line has two rows", place, update_id));
        }
        let all = gone.len();
        gone.retain(|(place, _)| !self.is_cleaned(*place));
        self.cleaned += (all - gone.len()) as u64;
        let newest = gone.iter().map(|(place, _)| place.micros).max();
        self.gone = (self.gone.0 + gone.len() as u64, newest.max(self.gone.1));
        Ok(())
    }

    fn take_rows(
        &mut self,
        rows: &Columns<'_>,
        chunk: &mut Chunk,
        checks: &mut Checks<'_>,
        gone: &mut Vec<Gone>,
    ) -> Result<()> {
        let (bots, updates) = (rows.integers("bot_id")?, rows.integers("update_id")?);
        let (payloads, corrupt) = (rows.strings("payload")?, rows.strings("_corrupt_record")?);
        let (files, lines) = (rows.strings("_source_file")?, rows.integers("_source_row")?);
        let received = rows.moments("_received_at")?;
        for row in 0..rows.len() {
            let at = moment(received, row);
            if at < chunk.span.0 || at > chunk.span.1 {
                continue;
            }
            let update_id = integer(updates, row);
            let file = if files.is_valid(row) { files.value(row) } else { "" };
            let (Some((lane, micros)), Some(line)) = (self.segment(file), integer(lines, row)) else {
                self.foreign += 1;
                continue;
            };
            let place = LinePosition { lane, micros, line };
            if at != micros || integer(bots, row) != self.lanes.bot(lane) {
                let what = "a row has another bot or time than its segment";
                checks.raw.broken(self.finding(what, place, update_id));
                continue;
            }
            let content = match (payloads.is_valid(row), corrupt.is_valid(row)) {
                (true, false) => Content::update(update_id, payloads.value(row)),
                (false, true) if update_id.is_none() => Content::corrupt(corrupt.value(row)),
                _ => Content::update(None, ""),
            };
            match chunk.fit(place, content) {
                Fit::Right => {}
                Fit::Differs => checks.raw.broken(self.finding("a row differs from its line", place, update_id)),
                Fit::NoLine => checks.raw.broken(self.finding("a row has no line", place, update_id)),
                // Duplicate updates are found by id.
                Fit::Second if update_id.is_some() => {}
                Fit::Second => checks.unique.broken(self.finding("a line has two rows", place, update_id)),
                Fit::NoSegment => gone.push((place, update_id)),
            }
        }
        Ok(())
    }

    fn segment(&mut self, file: &str) -> Option<(u32, Timestamp)> {
        match StorageKey::parse(&Path::from(file))? {
            StorageKey::Segment { pipeline, bot_id, lane, micros } if self.pipelines.contains(&pipeline) => {
                Some((self.lanes.number(&LaneName { pipeline, bot_id, lane }), micros))
            }
            _ => None,
        }
    }

    /// Looks up the rows that redelivered lines repeat, and judges the lines that repeat none.
    async fn settle(&self, pool: &mut Pool, bronze: &mut Source, check: &mut Check) -> Result<()> {
        let rowless = redelivery::without_a_twin(pool, bronze, self.scope.window()).await?;
        let (waiting, rest): (Vec<_>, Vec<_>) = rowless.into_iter().partition(|line| self.waits(line));
        waiting.iter().for_each(|line| self.judge(line, bronze, check));
        let rest = rest.into_iter().map(|line| (self.lanes.bot(line.place.lane), line)).collect();
        for line in redelivery::without_like_content(rest, bronze).await? {
            self.judge(&line, bronze, check);
        }
        Ok(())
    }

    /// Whether the loader has still to come by.
    fn waits(&self, line: &Rowless) -> bool {
        let position = self.positions.get(&line.place.lane).copied().unwrap_or_default();
        !line.is_loaded && line.place.micros > position
    }

    /// A line that has no row and repeats none: it is waiting, or lost, or cannot be proven.
    fn judge(&self, line: &Rowless, bronze: &Source, check: &mut Check) {
        let (place, same) = (line.place, redelivery::reach(self.scope.window()));
        if bronze.is_blind((place.micros.minus(same), place.micros.plus(same))) {
            return check.unproven(1, "the bronze file that may have the row of a line cannot be read");
        }
        if self.waits(line) {
            return check.waits(place.micros, self.scope.now);
        }
        let what = match line.is_loaded {
            true => "a line is lost: other lines of its segment have rows",
            false => "a line is lost: its lane is ingested beyond it",
        };
        check.broken(self.finding(what, place, line.update_id));
    }

    /// Whether a missing segment is one that `clean_source` may have removed.
    fn is_cleaned(&self, place: LinePosition) -> bool {
        let settings = &self.scope.pipeline.bronze.clean_source;
        let position = self.positions.get(&place.lane).copied().unwrap_or_default();
        let limit = self.scope.now.minus(settings.after).min(position.minus(LOOK_BACK));
        settings.is_on() && place.micros < limit
    }

    fn tell_unproven(&self, check: &mut Check) {
        check.cleaned += self.cleaned;
        if let (count, Some(newest)) = self.gone {
            check.unproven(count, format!("the segments of rows are missing, cleaned up to {newest}"));
        }
        check.unproven(self.foreign, "rows do not name a segment of this pipeline");
    }

    fn finding(&self, what: &str, place: LinePosition, update_id: Option<i64>) -> Finding {
        Finding {
            bot_id: self.lanes.bot(place.lane),
            update_id,
            file: Some(self.lanes.path(place.lane, place.micros).to_string()),
            line: Some(place.line),
            ..Finding::new(what)
        }
    }
}

/// The position of each lane.
fn positions(bronze: &Source, lanes: &mut Lanes) -> HashMap<u32, Timestamp> {
    let Some(table) = &bronze.table else { return HashMap::new() };
    let mut positions = HashMap::new();
    for (id, micros) in table.progress() {
        if let TxnId::Position { pipeline, bot_id, lane } = id {
            positions.insert(lanes.number(&LaneName { pipeline, bot_id, lane }), Timestamp::from_micros(micros));
        }
    }
    positions
}

/// Times that divide the rows of these files into spans of about this many rows.
fn cuts(files: &[File], rows: u64) -> Vec<Timestamp> {
    let mut pieces = Vec::new();
    for file in files {
        let count = (4 * file.rows / rows.max(1)).max(1);
        let (from, to) = (i128::from(file.span.0.as_micros()), i128::from(file.span.1.as_micros()));
        for piece in 1..=count {
            let end = from + (to - from) * i128::from(piece) / i128::from(count);
            pieces.push((i64::try_from(end).unwrap_or(i64::MAX), file.rows / count));
        }
    }
    pieces.sort_unstable();
    let (mut cuts, mut gathered) = (Vec::new(), 0);
    for (end, count) in pieces {
        gathered += count;
        if gathered >= rows {
            cuts.push(Timestamp::from_micros(end));
            gathered = 0;
        }
    }
    cuts.dedup();
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_into_stretches_of_about_so_many_whatever_the_files() {
        let at = |micros| Timestamp::from_micros(micros);
        let file = |from, to, rows| File::spanning((at(from), at(to)), rows);
        assert!(cuts(&[file(0, 10, 3), file(11, 20, 3)], 10).is_empty());
        assert_eq!(cuts(&[file(0, 10, 6), file(11, 20, 6), file(21, 30, 6)], 12), [at(20)]);
        let large = cuts(&[file(0, 1_000, 100)], 10);
        assert_eq!((large.len(), large[0], large[7]), (8, at(125), at(1_000)), "in quarters of a stretch");
        assert!(cuts(&[File::spanning(ALWAYS, 100)], 10).is_sorted(), "statistics may say nothing");
    }
}
