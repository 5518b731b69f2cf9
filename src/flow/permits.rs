//! Concurrent calls to an outside system, shared so that chats in trouble leave most of them to others.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

/// The share of all permits that chats in trouble get.
const SLOW_SHARE: usize = 4;
/// The maximum number of chats remembered as in trouble.
const MAX_TROUBLED: usize = 10_000;

/// The permits.
#[derive(Debug)]
pub(crate) struct Permits {
    all: Semaphore,
    slow: Semaphore,
    /// Chats whose last call failed or hung.
    troubled: Mutex<HashSet<i64>>,
}

/// Allows a call while it is held.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    _one: SemaphorePermit<'a>,
    _slow: Option<SemaphorePermit<'a>>,
}

impl Permits {
    /// This many concurrent calls.
    pub(crate) fn new(count: usize) -> Self {
        let count = count.max(1);
        // With a single permit, only time can be shared.
        let slow = (count / SLOW_SHARE).max(1);
        Self { all: Semaphore::new(count), slow: Semaphore::new(slow), troubled: Mutex::default() }
    }

    /// Waits for a permit. `None` if there will be none any more.
    pub(crate) async fn acquire(&self, chat_id: i64) -> Option<Permit<'_>> {
        let slow = match self.is_troubled(chat_id) {
            true => Some(self.slow.acquire().await.ok()?),
            false => None,
        };
        Some(Permit { _one: self.all.acquire().await.ok()?, _slow: slow })
    }

    fn is_troubled(&self, chat_id: i64) -> bool {
        self.troubled.lock().unwrap_or_else(PoisonError::into_inner).contains(&chat_id)
    }

    /// Notes how a call for a chat went. `true` if this is news.
    pub(crate) fn note(&self, chat_id: i64, went_well: bool) -> bool {
        let mut troubled = self.troubled.lock().unwrap_or_else(PoisonError::into_inner);
        match went_well {
            true => troubled.remove(&chat_id),
            false if troubled.len() < MAX_TROUBLED => troubled.insert(chat_id),
            false => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    #[tokio::test]
    async fn chats_whose_calls_hang_leave_permits_to_others() {
        let (permits, clock) = (Permits::new(8), Clock::system());
        (0..40).for_each(|chat_id| assert!(permits.note(chat_id, false)));
        let mut held = Vec::new();
        for chat_id in 0..40 {
            match clock.timeout(Duration::from_millis(1), permits.acquire(chat_id)).await {
                Some(permit) => held.push(permit),
                None => break,
            }
        }
        assert_eq!(held.len(), 2);
        for chat_id in 100..106 {
            held.push(clock.timeout(Duration::from_secs(5), permits.acquire(chat_id)).await.unwrap());
        }
        assert!(permits.note(3, true) && !permits.note(3, true));
    }
}
