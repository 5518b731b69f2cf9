//! The one back-off: how long to wait before retrying something that failed transiently.

use std::time::Duration;

use crate::id::random_fraction;

/// Exponential delays with full jitter on their upper half, up to a maximum.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    tries: u32,
}

impl Backoff {
    /// Delays that start around `first` and double up to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, tries: 0 }
    }

    /// The delay before the next try. Grows with each call.
    pub fn next_delay(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(self.tries.min(30)).unwrap_or(u32::MAX));
        self.tries = self.tries.saturating_add(1);
        doubled.min(self.longest).mul_f64(0.5 + random_fraction() / 2.0)
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// How many delays were handed out since the start or the last reset.
    pub fn tries(&self) -> u32 {
        self.tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_longest_and_start_over_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let delays: Vec<_> = (0..40).map(|_| backoff.next_delay()).collect();
        assert!(delays[0] <= Duration::from_millis(100));
        assert!(delays[39] >= Duration::from_secs(1) && delays[39] <= Duration::from_secs(2));
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }
}
