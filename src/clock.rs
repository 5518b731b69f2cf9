//! The only door to time: wall clock, monotonic clock, sleep and time-outs.
//!
//! Everything that needs the time takes a [`Clock`], so that a test can step the wall clock or make time run faster.
//! Clippy rejects the direct calls everywhere else.
#![allow(clippy::disallowed_methods)]

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};

/// A moment in UTC, in whole microseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From microseconds since 1970.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970, the unit of every timestamp column.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since 1970, the unit of the Delta log.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// The moment `span` later; saturates at the end of time.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros_of(span)))
    }

    /// The moment `span` earlier; saturates at the beginning of time.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(micros_of(span)))
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As a calendar date and time; `None` outside the years chrono can hold.
    pub fn to_datetime(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_datetime() {
            Some(time) => write!(formatter, "{}", time.format("%Y-%m-%dT%H:%M:%S%.6fZ")),
            None => write!(formatter, "{} µs", self.0),
        }
    }
}

fn micros_of(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// Wall clock, monotonic clock and timers. Cheap to clone; clones share a test's steps.
#[derive(Clone, Debug)]
pub struct Clock {
    started: tokio::time::Instant,
    step_micros: Arc<AtomicI64>,
    /// How many times faster than real time it runs; 1 except in tests of what takes minutes.
    pace: u32,
}

impl Clock {
    /// The clock of this machine.
    pub fn system() -> Self {
        Self { started: tokio::time::Instant::now(), step_micros: Arc::default(), pace: 1 }
    }

    /// A clock on which time runs `pace` times as fast, timers and time-outs included.
    #[cfg(test)]
    pub(crate) fn fast(pace: u32) -> Self {
        Self { pace, ..Self::system() }
    }

    /// The wall clock. It may stand still, jump or run backwards: never order by it, never measure with it.
    pub fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ahead = micros_of(self.started.elapsed().saturating_mul(self.pace - 1));
        let stepped = self.step_micros.load(Ordering::Relaxed);
        Timestamp(micros_of(since_epoch).saturating_add(ahead).saturating_add(stepped))
    }

    /// A clock that runs as this one and shows another time. Steps of one do not move the other.
    #[must_use]
    pub fn showing(&self, now: Timestamp) -> Self {
        let stepped = self.step_micros.load(Ordering::Relaxed);
        let step = stepped.saturating_add(now.0.saturating_sub(self.now().0));
        Self { step_micros: Arc::new(AtomicI64::new(step)), ..self.clone() }
    }

    /// Time since this clock was made, on a clock that never steps back.
    pub fn monotonic(&self) -> Duration {
        self.started.elapsed().saturating_mul(self.pace)
    }

    /// Returns after `span`.
    pub fn sleep(&self, span: Duration) -> impl Future<Output = ()> + Send + 'static {
        tokio::time::sleep(span / self.pace)
    }

    /// The value of `future`, or `None` if it is not ready after `span`.
    pub async fn timeout<F: Future>(&self, span: Duration, future: F) -> Option<F::Output> {
        tokio::time::timeout(span / self.pace, future).await.ok()
    }

    /// Steps the wall clock of this clock and its clones by this many microseconds, to test clock problems.
    pub fn step(&self, micros: i64) {
        self.step_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// A time on both clocks: the wall clock may step back, and the monotonic one may stop while the machine sleeps.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    wall: Timestamp,
    monotonic: Duration,
}

impl Moment {
    /// The current time.
    pub fn now(clock: &Clock) -> Self {
        Self { wall: clock.now(), monotonic: clock.monotonic() }
    }

    /// How long ago it was, by whichever clock says longer.
    pub fn age(self, clock: &Clock) -> Duration {
        clock.now().since(self.wall).max(clock.monotonic().saturating_sub(self.monotonic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_prints_as_rfc_3339_in_utc() {
        let moment = Timestamp::from_micros(1_760_000_000_123_456);
        assert_eq!(moment.to_string(), "2025-10-09T08:53:20.123456Z");
    }

    #[tokio::test]
    async fn a_fast_clock_agrees_with_itself() {
        let clock = Clock::fast(1_000);
        let (wall, monotonic) = (clock.now(), clock.monotonic());
        clock.sleep(Duration::from_secs(60)).await;
        assert!(clock.now().since(wall) >= Duration::from_secs(60));
        assert!(clock.monotonic() - monotonic >= Duration::from_secs(60));
        assert!(clock.timeout(Duration::from_secs(5), std::future::pending::<()>()).await.is_none());
    }

    #[tokio::test]
    async fn a_step_moves_the_wall_clock_of_every_clone_and_not_the_monotonic_one() {
        let clock = Clock::system();
        let clone = clock.clone();
        let before = clone.now();
        clock.step(-600_000_000);
        assert!(clone.now() < before);
        assert!(clone.monotonic() < Duration::from_secs(60));
    }
}
