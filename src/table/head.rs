//! How fresh our knowledge of a head is, and which commits led there.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Commit, Fence, txn};
use crate::clock::{self, Clock};
use crate::sabotage::{Sabotage, is_on};

/// How long an attempt lives from reading the head to its put's return. Clean-up and vacuum wait at least a day, so
/// within this time "not found" means "not there yet", and a file that was written still exists.
pub(crate) const LIFE: Duration = Duration::from_secs(600);
/// A head older than this is read again before an attempt, so that at least half of its life is left for the puts.
pub(crate) const FRESH: Duration = Duration::from_secs(300);
/// Commits kept to tell a planner what it missed.
const RECENT_LIMIT: usize = 256;

/// When a head was known to be the head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment(clock::Moment);

impl Moment {
    pub(crate) fn now(clock: &Clock) -> Self {
        Self(clock::Moment::now(clock))
    }

    /// How long ago it was, by whichever clock says longer.
    pub(crate) fn age(self, clock: &Clock) -> Duration {
        if is_on(Sabotage::StaleHead) { Duration::ZERO } else { self.0.age(clock) }
    }
}

/// The latest commits, ours included, and the txns before them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    base: BTreeMap<String, i64>,
    commits: VecDeque<Commit>,
}

impl Recent {
    /// No commits yet, at a state with these txns.
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

    /// Every commit after the one that gave the fence the value its planner saw; `None` if that is too long ago.
    pub(crate) fn since(&self, fence: &Fence) -> Option<Vec<Commit>> {
        let mut txns = self.base.clone();
        let mut commits = self.commits.iter();
        while txn::fence_value(&txns, fence.role) != fence.seen {
            txns.extend(commits.next()?.txns.iter().cloned());
        }
        Some(commits.cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TableRole, TxnId};
    use super::*;

    fn commit(version: i64, fence: Option<i64>) -> Commit {
        let txns = fence.map(|value| (TxnId::Fence(TableRole::Bronze).to_string(), value)).into_iter().collect();
        Commit { version, txns, ..Commit::default() }
    }

    fn since(recent: &Recent, seen: i64) -> Option<Vec<i64>> {
        let commits = recent.since(&Fence { role: TableRole::Bronze, seen })?;
        Some(commits.iter().map(|commit| commit.version).collect())
    }

    #[test]
    fn what_a_planner_missed_starts_after_the_commit_it_saw_last() {
        let mut recent = Recent::from(&BTreeMap::from([(TxnId::Fence(TableRole::Bronze).to_string(), 7)]));
        for (version, fence) in [(11, None), (12, Some(8)), (13, None), (14, Some(9))] {
            recent.push(commit(version, fence));
        }
        assert_eq!(since(&recent, 7), Some(vec![11, 12, 13, 14]));
        assert_eq!(since(&recent, 8), Some(vec![13, 14]));
        assert_eq!(since(&recent, 9), Some(vec![]));
        assert_eq!((since(&recent, 6), since(&recent, 10)), (None, None));
    }

    #[test]
    fn old_commits_are_forgotten_and_then_missed() {
        let limit = i64::try_from(RECENT_LIMIT).unwrap();
        let mut recent = Recent::from(&BTreeMap::new());
        (1..=limit + 5).for_each(|value| recent.push(commit(value, Some(value))));
        assert_eq!(recent.commits.len(), RECENT_LIMIT);
        assert_eq!(since(&recent, 4), None);
        assert_eq!(since(&recent, 5).map(|missed| missed.len()), Some(RECENT_LIMIT));
    }

    #[tokio::test]
    async fn age_follows_the_clock_that_says_longer() {
        let clock = Clock::system();
        let moment = Moment::now(&clock);
        clock.step(-3_600_000_000);
        assert!(moment.age(&clock) < LIFE);
        clock.step(2 * 3_600_000_000);
        assert!(moment.age(&clock) > LIFE);
    }
}
