//! Notices that this process has slept: it was stopped, or its machine was suspended.
//!
//! Requests from before the sleep are still in its sockets and queues, and Telegram has long delivered them elsewhere.
//! A redelivery is only recognized within a window; landed now, after days, it would be a new update and be answered
//! again. So after a long sleep nothing is landed for a while: whoever is still waiting comes back.

use std::time::Duration;

use crate::clock::{Clock, Timestamp};

/// Well below the window, and well above clock errors and store latency.
const LONG: Duration = Duration::from_secs(6 * 3_600);
/// Longer than it takes to work through the requests from before.
const AFTERWARDS: Duration = Duration::from_secs(10);
/// Often enough that a quiet period is not mistaken for sleep.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(60);

/// When the clocks were last checked.
#[derive(Debug)]
pub(super) struct Slumber {
    wall: Timestamp,
    monotonic: Duration,
    /// On the monotonic clock.
    awake_from: Duration,
}

impl Slumber {
    pub(super) fn new(clock: &Clock) -> Self {
        Self { wall: clock.now(), monotonic: clock.monotonic(), awake_from: Duration::ZERO }
    }

    /// Checks the clocks; returns whether what arrives now may be from before a long sleep. The monotonic clock may
    /// stop while a machine sleeps, and the wall clock may step back: whichever says longer counts.
    pub(super) fn look(&mut self, clock: &Clock) -> bool {
        let (wall, monotonic) = (clock.now(), clock.monotonic());
        let passed = wall.since(self.wall).max(monotonic.saturating_sub(self.monotonic));
        (self.wall, self.monotonic) = (wall, monotonic);
        if passed >= LONG {
            tracing::warn!(
                hours = passed.as_secs() / 3_600,
                "the process was asleep for a long time; requests from before that are not landed"
            );
            self.awake_from = monotonic + AFTERWARDS;
        }
        monotonic < self.awake_from
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_long_sleep_is_noticed_once_and_silence_is_none() {
        let clock = Clock::fast(1_000);
        let mut slumber = Slumber::new(&clock);
        for _ in 0..12 * 60 {
            clock.step(60_000_000);
            assert!(!slumber.look(&clock), "it looked every minute");
        }
        clock.step(-12 * 3_600_000_000);
        assert!(!slumber.look(&clock), "a clock that steps back");
        clock.step(7 * 3_600_000_000);
        assert!(slumber.look(&clock));
        clock.sleep(AFTERWARDS).await;
        assert!(!slumber.look(&clock));
    }
}
