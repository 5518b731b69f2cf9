//! The redelivery window: which updates were seen lately, in a few bits each.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use roaring::RoaringTreemap;

use crate::clock::Timestamp;
use crate::id::BotId;

const HOUR_MICROS: i64 = 3_600_000_000;

/// Updates seen within a span of time, by bot and hour. Ids jump at random after a silent week, so nothing is
/// concluded from their order.
#[derive(Debug)]
pub(super) struct Window {
    span: Duration,
    floor: Timestamp,
    newest: Timestamp,
    hours: BTreeMap<i64, HashMap<BotId, RoaringTreemap>>,
}

impl Window {
    /// An empty window that knows everything received from `floor` on.
    pub(super) fn new(span: Duration, floor: Timestamp) -> Self {
        Self { span, floor, newest: floor, hours: BTreeMap::new() }
    }

    /// What was received before this may not be known here.
    pub(super) fn floor(&self) -> Timestamp {
        self.floor
    }

    pub(super) fn contains(&self, bot_id: BotId, update_id: i64) -> bool {
        let bits = as_bits(update_id);
        self.hours.values().any(|bots| bots.get(&bot_id).is_some_and(|seen| seen.contains(bits)))
    }

    pub(super) fn insert(&mut self, bot_id: BotId, update_id: i64, received_at: Timestamp) {
        let hour = received_at.as_micros().div_euclid(HOUR_MICROS);
        self.hours.entry(hour).or_default().entry(bot_id).or_default().insert(as_bits(update_id));
        if received_at > self.newest {
            self.newest = received_at;
            self.forget();
        }
    }

    /// Forgets hours that ended before the window of what may still come: a segment may be a window old when it is
    /// found, and looks back a window from there.
    fn forget(&mut self) {
        let floor = self.newest.minus(self.span).minus(self.span);
        let first = floor.as_micros().div_euclid(HOUR_MICROS);
        if self.hours.keys().next().is_some_and(|hour| *hour < first) {
            self.hours = self.hours.split_off(&first);
            self.floor = self.floor.max(Timestamp::from_micros(first * HOUR_MICROS));
        }
    }
}

/// An order-free mapping of any id to bits.
fn as_bits(update_id: i64) -> u64 {
    u64::from_ne_bytes(update_id.to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(48 * 3_600);

    #[test]
    fn an_update_is_known_for_its_bot_alone_whatever_its_id() {
        let mut window = Window::new(SPAN, Timestamp::default());
        for update_id in [5, i64::MAX, -1] {
            window.insert(BotId(1), update_id, Timestamp::from_micros(10));
            assert!(window.contains(BotId(1), update_id) && !window.contains(BotId(2), update_id));
        }
    }

    #[test]
    fn what_is_older_than_two_windows_is_forgotten_and_said_to_be() {
        let mut window = Window::new(SPAN, Timestamp::default());
        window.insert(BotId(1), 1, Timestamp::from_micros(0));
        let later = Timestamp::default().plus(SPAN);
        window.insert(BotId(1), 2, later);
        assert!(window.contains(BotId(1), 1), "a redelivery may come two days later");
        window.insert(BotId(1), 3, later.plus(2 * SPAN));
        assert!(!window.contains(BotId(1), 1) && window.contains(BotId(1), 2));
        assert!(window.floor() > Timestamp::default());
    }
}
