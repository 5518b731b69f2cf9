//! Telegram's pace: one message a second per chat, twenty a minute per group, and what `retry_after` says.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// <https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this>
const CHAT_GAP: Duration = Duration::from_secs(1);
const GROUP_WINDOW: Duration = Duration::from_secs(60);
const GROUP_LIMIT: usize = 20;
/// Chats are forgotten once so many are known and they have been quiet for a window.
const FORGET_AT: usize = 10_000;

/// When each chat may be sent to again.
#[derive(Debug, Default)]
pub(super) struct Pace {
    chats: Mutex<HashMap<i64, ChatPace>>,
}

#[derive(Debug, Default)]
struct ChatPace {
    not_before: Duration,
    recent: VecDeque<Duration>,
}

impl Pace {
    /// Takes the next turn of a chat, or says how long to wait before asking again. Times are monotonic.
    pub(super) fn take_turn(&self, chat_id: i64, now: Duration) -> Result<(), Duration> {
        let mut chats = self.chats.lock().unwrap_or_else(PoisonError::into_inner);
        if chats.len() >= FORGET_AT {
            chats.retain(|_, pace| pace.not_before + GROUP_WINDOW > now);
        }
        let pace = chats.entry(chat_id).or_default();
        while pace.recent.front().is_some_and(|&sent| sent + GROUP_WINDOW <= now) {
            pace.recent.pop_front();
        }
        let mut ready = pace.not_before;
        // Groups and channels have negative ids.
        if chat_id < 0 && pace.recent.len() >= GROUP_LIMIT {
            ready = ready.max(pace.recent.front().copied().unwrap_or_default() + GROUP_WINDOW);
        }
        if ready > now {
            return Err(ready - now);
        }
        pace.not_before = now + CHAT_GAP;
        if chat_id < 0 {
            pace.recent.push_back(now);
        }
        Ok(())
    }

    /// Holds a chat for as long as Telegram asked for.
    pub(super) fn hold(&self, chat_id: i64, now: Duration, wait: Duration) {
        let mut chats = self.chats.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = chats.entry(chat_id).or_default();
        pace.not_before = pace.not_before.max(now + wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_chat_gets_one_message_a_second_and_others_are_free() {
        let pace = Pace::default();
        assert_eq!(pace.take_turn(1, seconds(10)), Ok(()));
        assert_eq!(pace.take_turn(1, seconds(10)), Err(seconds(1)));
        assert_eq!(pace.take_turn(2, seconds(10)), Ok(()));
        assert_eq!(pace.take_turn(1, seconds(11)), Ok(()));
    }

    #[test]
    fn a_group_gets_twenty_a_minute() {
        let pace = Pace::default();
        for second in 0..20 {
            assert_eq!(pace.take_turn(-5, seconds(second)), Ok(()));
        }
        assert_eq!(pace.take_turn(-5, seconds(20)), Err(seconds(40)));
        assert_eq!(pace.take_turn(-5, seconds(60)), Ok(()));
    }

    #[test]
    fn retry_after_holds_a_chat() {
        let pace = Pace::default();
        pace.hold(1, seconds(0), seconds(30));
        assert_eq!(pace.take_turn(1, seconds(1)), Err(seconds(29)));
    }
}
