//! Statistics over all runs: where the power went out, and the fate of the messages.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use crate::storage::tests::simulated::{Moment, Operation};

/// Sums over seeds.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) seeds: u64,
    pub(super) cuts: BTreeMap<(Operation, Moment), u64>,
    /// Cuts after everything was done and the disk had come to rest.
    pub(super) cuts_at_rest: u64,
    /// Deaths of the process alone, at some call: the next one continues with what was not synced.
    pub(super) kills: u64,
    pub(super) messages: u64,
    /// Updates acknowledged with 200 when the power went out.
    pub(super) at_stake: u64,
    pub(super) sent: u64,
    pub(super) unknown: u64,
}

impl Tally {
    /// How often the least-cut kind of call was cut, before or after.
    pub(super) fn rarest_cut(&self) -> u64 {
        let cells =
            Operation::ALL.iter().flat_map(|&operation| [(operation, Moment::Before), (operation, Moment::After)]);
        cells.map(|cell| self.cuts.get(&cell).copied().unwrap_or(0)).min().unwrap_or(0)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        for (cell, count) in other.cuts {
            *self.cuts.entry(cell).or_default() += count;
        }
        self.seeds += other.seeds;
        self.cuts_at_rest += other.cuts_at_rest;
        self.kills += other.kills;
        self.messages += other.messages;
        self.at_stake += other.at_stake;
        self.sent += other.sent;
        self.unknown += other.unknown;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, messages, at_stake, sent, unknown, cuts_at_rest, kills, .. } = self;
        let cuts = self.cuts.values().sum::<u64>() + cuts_at_rest;
        writeln!(
            formatter,
            "seeds {seeds}, messages {messages}, cuts {cuts}, of them at rest {cuts_at_rest}, kills {kills}"
        )?;
        writeln!(formatter, "answered 200 before a cut {at_stake}, replies sent {sent}, unknown {unknown}")?;
        writeln!(formatter, "{:<12}{:>8}{:>8}", "cut at", "before", "after")?;
        for operation in Operation::ALL {
            let cell = |moment| self.cuts.get(&(operation, moment)).copied().unwrap_or(0);
            let (before, after) = (cell(Moment::Before), cell(Moment::After));
            writeln!(formatter, "{:<12}{before:>8}{after:>8}", format!("{operation:?}"))?;
        }
        Ok(())
    }
}
