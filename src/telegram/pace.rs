//! Telegram's pace: one message a second per chat, twenty a minute per group, and what `retry_after` says.
//!
//! A chat has a slot every second, and a message that is a little late for its slot does not move the next one: if
//! measured from send to send, every delay would add to all that follow in a chat that is written to once a second. How
//! late a message may be is bounded, so a pause does not save up a burst.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// <https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this>
const CHAT_GAP: Duration = Duration::from_secs(1);
/// How late a message may be for its slot without moving the next: two messages are never closer than the gap minus
/// this, and n of them take at least n - 1 gaps minus this. Telegram allows short bursts.
const SLACK: Duration = Duration::from_millis(500);
const GROUP_WINDOW: Duration = Duration::from_secs(60);
const GROUP_LIMIT: usize = 20;
/// Once this many chats are known, those that can be forgotten are removed, and again when the number has doubled.
const FORGET_AT: usize = 10_000;

/// When each chat may be sent to again.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    chats: Mutex<Chats>,
}

#[derive(Debug)]
struct Chats {
    by_id: HashMap<i64, ChatPace>,
    forget_at: usize,
    /// No chat is sent to before this.
    held_until: Duration,
}

#[derive(Debug, Default)]
struct ChatPace {
    slot: Duration,
    recent: VecDeque<Duration>,
}

impl Default for Chats {
    fn default() -> Self {
        Self { by_id: HashMap::new(), forget_at: FORGET_AT, held_until: Duration::ZERO }
    }
}

impl Chats {
    /// The pace of a chat. From time to time forgets chats whose past no longer holds them back.
    fn pace(&mut self, chat_id: i64, now: Duration) -> &mut ChatPace {
        if self.by_id.len() >= self.forget_at {
            self.by_id.retain(|_, pace| {
                pace.slot + SLACK > now || pace.recent.back().is_some_and(|&sent| sent + GROUP_WINDOW > now)
            });
            self.forget_at = FORGET_AT.max(self.by_id.len() * 2);
        }
        self.by_id.entry(chat_id).or_default()
    }
}

impl Pace {
    /// Takes the next turn of a chat, or says how long to wait before asking again. Times are monotonic.
    pub(crate) fn take_turn(&self, chat_id: i64, now: Duration) -> Result<(), Duration> {
        let mut chats = self.chats.lock().unwrap_or_else(PoisonError::into_inner);
        let held_until = chats.held_until;
        let pace = chats.pace(chat_id, now);
        while pace.recent.front().is_some_and(|&sent| sent + GROUP_WINDOW <= now) {
            pace.recent.pop_front();
        }
        let mut ready = pace.slot.max(held_until);
        // Groups and channels have negative ids.
        if chat_id < 0 && pace.recent.len() >= GROUP_LIMIT {
            ready = ready.max(pace.recent.front().copied().unwrap_or_default() + GROUP_WINDOW);
        }
        if ready > now {
            return Err(ready - now);
        }
        pace.slot = pace.slot.max(now.saturating_sub(SLACK)) + CHAT_GAP;
        if chat_id < 0 {
            pace.recent.push_back(now);
        }
        Ok(())
    }

    /// Holds a chat for as long as Telegram asked.
    pub(crate) fn hold(&self, chat_id: i64, now: Duration, wait: Duration) {
        let mut chats = self.chats.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = chats.pace(chat_id, now);
        pace.slot = pace.slot.max(now + wait);
    }

    /// Holds all chats: what was refused would be refused for each of them.
    pub(crate) fn hold_all(&self, now: Duration, wait: Duration) {
        let mut chats = self.chats.lock().unwrap_or_else(PoisonError::into_inner);
        chats.held_until = chats.held_until.max(now + wait);
    }

    /// Whether all chats are held, including those that have taken their turn.
    pub(crate) fn holds_all(&self, now: Duration) -> bool {
        self.chats.lock().unwrap_or_else(PoisonError::into_inner).held_until > now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// When messages that are requested at these times are released, one after another.
    fn sent(pace: &Pace, chat_id: i64, asked: impl IntoIterator<Item = Duration>) -> Vec<Duration> {
        let (mut now, mut sent) = (Duration::ZERO, Vec::new());
        for asked in asked {
            now = now.max(asked);
            while let Err(wait) = pace.take_turn(chat_id, now) {
                now += wait;
            }
            sent.push(now);
        }
        sent
    }

    #[test]
    fn a_chat_gets_one_message_a_second_and_others_are_free() {
        let pace = Pace::default();
        assert_eq!(sent(&pace, 1, [seconds(10); 4]), [millis(10_000), millis(10_500), millis(11_500), millis(12_500)]);
        assert_eq!(pace.take_turn(2, seconds(10)), Ok(()));
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
    fn retry_after_holds_a_chat_and_leaves_it_no_credit() {
        let pace = Pace::default();
        pace.hold(1, seconds(0), seconds(30));
        assert_eq!(pace.take_turn(1, seconds(1)), Err(seconds(29)));
        assert_eq!(sent(&pace, 1, [seconds(30); 2]), [seconds(30), seconds(31)]);
    }

    #[test]
    fn a_hold_on_all_chats_holds_known_and_unknown_ones_and_passes() {
        let pace = Pace::default();
        assert_eq!(pace.take_turn(1, seconds(5)), Ok(()));
        pace.hold_all(seconds(10), seconds(60));
        pace.hold_all(seconds(10), seconds(1));
        for chat in [1, 2, -3] {
            assert_eq!(pace.take_turn(chat, seconds(11)), Err(seconds(59)));
        }
        assert!(pace.holds_all(seconds(69)) && !pace.holds_all(seconds(70)));
        for chat in [1, 2, -3] {
            assert_eq!(pace.take_turn(chat, seconds(70)), Ok(()));
        }
    }

    #[test]
    fn what_no_longer_holds_a_chat_back_is_forgotten() {
        let pace = Pace::default();
        for chat in 0..20_000 {
            assert_eq!(pace.take_turn(chat, seconds(u64::try_from(chat).unwrap())), Ok(()));
        }
        assert!(pace.chats.lock().unwrap().by_id.len() <= FORGET_AT);
        let group = -7;
        assert_eq!(pace.take_turn(group, seconds(20_000)), Ok(()));
        for chat in 0..30_000 {
            assert_eq!(pace.take_turn(chat, seconds(20_030)), Ok(()));
        }
        assert!(pace.chats.lock().unwrap().by_id.contains_key(&group), "a group is known for its minute");
    }

    proptest! {
        #[test]
        fn any_messages_keep_their_distance(gaps in proptest::collection::vec(0_u64..3_000, 1..60)) {
            let asked = gaps.iter().scan(Duration::ZERO, |at, gap| { *at += millis(*gap); Some(*at) });
            let sent = sent(&Pace::default(), 1, asked);
            for (first, start) in sent.iter().enumerate() {
                for (last, end) in sent.iter().enumerate().skip(first + 1) {
                    let gaps = u32::try_from(last - first).unwrap();
                    prop_assert!(*end - *start + SLACK >= CHAT_GAP * gaps, "{gaps} gaps in {:?}", *end - *start);
                }
            }
        }

        #[test]
        fn no_delay_within_the_slack_adds_up(late in proptest::collection::vec(0_u64..500, 1..100)) {
            let asked: Vec<_> = (10..).zip(&late).map(|(second, late)| seconds(second) + millis(*late)).collect();
            prop_assert_eq!(sent(&Pace::default(), 1, asked.clone()), asked);
        }
    }
}
