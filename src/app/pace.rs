//! When maintenance is due: after a number of commits, and otherwise by the clock.

use std::time::Duration;

use futures::future::select_all;
use tokio::sync::watch;

use crate::clock::Clock;

/// The longest pause between two rounds.
const LONGEST: Duration = Duration::from_secs(60);
/// How often progress is checked while tables change.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A table that has advanced by this many versions is worth a round: small files and log entries are what readers pay
/// for.
pub(super) const COMMITS: i64 = 1_000;

/// Follows the versions that the stages have committed.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    stages: Vec<Stage>,
    longest: Duration,
    look_every: Duration,
}

#[derive(Clone, Debug)]
struct Stage {
    version: watch::Receiver<i64>,
    /// Its version at the last round; `None` before the stage has reported anything.
    base: Option<i64>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { stages: Vec::new(), longest: LONGEST, look_every: LOOK_EVERY }
    }
}

impl Pace {
    /// Adds the versions that stages report.
    pub(super) fn follow(&mut self, versions: impl IntoIterator<Item = watch::Receiver<i64>>) {
        self.stages.extend(versions.into_iter().map(|version| Stage { version, base: None }));
    }

    /// Waits until the next round is due; returns whether it is due because of commits rather than the clock.
    pub(super) async fn due(&mut self, clock: &Clock) -> bool {
        let by_clock = clock.sleep(self.longest);
        let by_commits = async {
            while !self.has_moved() {
                self.moves().await;
                // Every commit wakes all listeners, and a round covers many commits.
                clock.sleep(self.look_every).await;
            }
        };
        let busy = tokio::select! {
            () = by_clock => false,
            () = by_commits => true,
        };
        for stage in &mut self.stages {
            stage.base = stage.newest().or(stage.base);
        }
        busy
    }

    fn has_moved(&mut self) -> bool {
        self.stages.iter_mut().any(|stage| {
            let Some(newest) = stage.newest() else { return false };
            newest - *stage.base.get_or_insert(newest) >= COMMITS
        })
    }

    /// Waits until some stage has committed; forever if none does any more.
    async fn moves(&mut self) {
        let changes = self.stages.iter_mut().map(|stage| {
            Box::pin(async {
                if stage.version.changed().await.is_err() {
                    std::future::pending().await
                }
            })
        });
        let changes: Vec<_> = changes.collect();
        if changes.is_empty() {
            std::future::pending().await
        }
        select_all(changes).await;
    }
}

impl Stage {
    fn newest(&mut self) -> Option<i64> {
        Some(*self.version.borrow_and_update()).filter(|version| *version >= 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn following(version: i64) -> (watch::Sender<i64>, Pace) {
        let (sender, receiver) = watch::channel(version);
        let longest = Duration::from_millis(300);
        let mut pace = Pace { longest, look_every: Duration::from_millis(1), ..Pace::default() };
        pace.follow([receiver]);
        (sender, pace)
    }

    #[tokio::test]
    async fn what_stands_still_is_looked_at_by_the_clock() {
        let clock = Clock::system();
        let (sender, mut pace) = following(-1);
        sender.send_replace(70_000);
        // The version at which a stage starts is not progress.
        assert!(!pace.due(&clock).await);
        drop(sender);
        assert!(!pace.due(&clock).await);
        pace.stages.clear();
        assert!(!pace.due(&clock).await);
    }

    #[tokio::test]
    async fn so_many_commits_are_a_round_and_fewer_are_none() {
        let clock = Clock::system();
        let (sender, mut pace) = following(5);
        assert!(!pace.due(&clock).await);
        sender.send_replace(5 + COMMITS - 1);
        assert!(!pace.due(&clock).await, "the rest waits for the clock");
        sender.send_replace(5 + 2 * COMMITS - 1);
        assert!(pace.due(&clock).await);
        assert!(!pace.due(&clock).await);
    }
}
