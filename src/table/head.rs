//! How fresh our knowledge of a head is, and what was passed to get there.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Commit, Fence};
use crate::clock::{Clock, Timestamp};

/// How long an attempt lives from reading the head to its put's return. Clean-up and vacuum wait a day at least, so
/// within it "not found" means "not there yet", and a file that was put is still there.
pub(crate) const LIFE: Duration = Duration::from_secs(600);
/// A head older than this is read afresh before an attempt, so that half of its life at least is left for the puts.
pub(crate) const FRESH: Duration = Duration::from_secs(300);
/// Commits kept to tell a planner what it missed.
const RECENT_LIMIT: usize = 256;

/// A moment on both clocks: the wall may step back, and the monotonic one may stand while the machine sleeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    wall: Timestamp,
    monotonic: Duration,
}

impl Moment {
    pub(crate) fn now(clock: &Clock) -> Self {
        Self { wall: clock.now(), monotonic: clock.monotonic() }
    }

    /// How long ago it was, by whichever clock says longer.
    pub(crate) fn age(self, clock: &Clock) -> Duration {
        clock.now().since(self.wall).max(clock.monotonic().saturating_sub(self.monotonic))
    }
}

/// The commits passed last, ours included, and the txns before them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    base: BTreeMap<String, i64>,
    commits: VecDeque<Commit>,
}

impl Recent {
    /// Nothing passed yet, at a state with these txns.
    pub(crate) fn from(txns: &BTreeMap<String, i64>) -> Self {
        Self { base: txns.clone(), commits: VecDeque::new() }
    }

    /// Remembers a commit, and forgets the oldest one when there are too many.
    pub(crate) fn push(&mut self, commit: Commit) {
        self.commits.push_back(commit);
        if self.commits.len() > RECENT_LIMIT
            && let Some(oldest) = self.commits.pop_front()
        {
            self.base.extend(oldest.txns);
        }
    }

    /// Every commit after the one that gave the fence the value its planner saw; `None` when that is too long ago.
    pub(crate) fn since(&self, fence: &Fence) -> Option<Vec<Commit>> {
        let raised =
            |commit: &Commit| commit.txns.iter().any(|(id, value)| *id == fence.app_id && *value == fence.seen);
        let at_base = self.base.get(&fence.app_id).copied().unwrap_or(0) == fence.seen;
        let start = self.commits.iter().rposition(raised).map(|index| index + 1).or(at_base.then_some(0))?;
        Some(self.commits.iter().skip(start).cloned().collect())
    }
}
