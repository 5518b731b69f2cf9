//! Rows that the next stage has not produced anything for: are they waiting, or lost?

use super::Scope;
use super::report::{Check, Finding};
use super::source::{Source, Span, integer, moment};
use crate::clock::Timestamp;
use crate::error::Result;

/// A row without its counterpart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Missing {
    pub(super) bot_id: i64,
    pub(super) update_id: i64,
    pub(super) received: Timestamp,
    /// Silver's attempt; 0 of a bronze row.
    pub(super) attempt: u32,
    /// The part of the reply that is missing; 0 if a silver row is missing.
    pub(super) part: u32,
    /// Whether the next stage may not have read the row yet.
    pub(super) is_fresh: bool,
}

/// What a table is missing, and where it would have to be.
pub(super) struct Judge<'a> {
    pub(super) scope: &'a Scope<'a>,
    /// The table with the rows.
    pub(super) of: &'a Source,
    /// The columns that identify a row: bot, update, time and, if there is one, attempt.
    pub(super) columns: &'a [&'a str],
    /// The table that lacks the counterparts.
    pub(super) lacks: &'a Source,
    pub(super) what: &'static str,
}

impl Judge<'_> {
    /// Decides for each whether it is waiting, is lost, or cannot be told.
    pub(super) async fn judge(&self, mut missing: Vec<Missing>, check: &mut Check) -> Result<()> {
        missing.sort_unstable();
        let all_wait = self.of.is_forgotten();
        let mut is_known = true;
        if !all_wait && self.of.has_moved() && missing.iter().any(|row| !row.is_fresh) {
            is_known = self.find_moved(&mut missing).await?;
        }
        for row in missing {
            if row.is_fresh || all_wait {
                check.waits(row.received, self.scope.now);
            } else if self.lacks.is_blind(self.span(&row)) {
                check.unproven(1, format!("a file of {} that may have the row cannot be read", self.lacks.name));
            } else if !is_known {
                let text = format!("files of {} were removed before the next stage had read them", self.of.name);
                check.unproven(1, text);
            } else {
                check.broken(row.finding(self.what));
            }
        }
        Ok(())
    }

    /// Where the missing row would be: silver has the time of bronze, a reply is sent later.
    fn span(&self, row: &Missing) -> Span {
        match row.part {
            0 => (row.received, row.received),
            _ => (row.received, Timestamp::from_micros(i64::MAX)),
        }
    }

    /// Compaction moves rows; the files they came with tell which are fresh.
    async fn find_moved(&self, missing: &mut [Missing]) -> Result<bool> {
        let take = |rows: &super::source::Columns<'_>| {
            let [bot, update, received, rest @ ..] = self.columns else { return Ok(()) };
            let (bots, updates) = (rows.integers(bot)?, rows.integers(update)?);
            let received = rows.moments(received)?;
            let attempts = rest.first().map(|attempt| rows.integers(attempt)).transpose()?;
            for row in 0..rows.len() {
                let (Some(bot_id), Some(update_id)) = (integer(bots, row), integer(updates, row)) else { continue };
                let attempt = attempts.map_or(0, |column| integer(column, row).unwrap_or(1));
                let key = (bot_id, update_id, moment(received, row), attempt);
                let first = missing.partition_point(|missing| missing.key() < key);
                for missing in missing.iter_mut().skip(first).take_while(|missing| missing.key() == key) {
                    missing.is_fresh = true;
                }
            }
            Ok(())
        };
        self.of.read_moved(self.columns, take).await
    }
}

impl Missing {
    fn key(&self) -> (i64, i64, Timestamp, i64) {
        (self.bot_id, self.update_id, self.received, i64::from(self.attempt))
    }

    fn finding(&self, what: &str) -> Finding {
        let some = |number: u32| (number > 0).then(|| i64::from(number));
        Finding {
            bot_id: Some(self.bot_id),
            update_id: Some(self.update_id),
            attempt: some(self.attempt),
            part: some(self.part),
            received: Some(self.received),
            ..Finding::new(what)
        }
    }
}
