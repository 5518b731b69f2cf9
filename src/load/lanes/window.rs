//! The redelivery window: which updates were seen recently, in a few bits each.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::time::Duration;

use roaring::RoaringTreemap;

use crate::clock::Timestamp;
use crate::id::BotId;

const HOUR_MICROS: i64 = 3_600_000_000;
/// Two updates with the same id whose keys are at most this far apart are the same update, whatever their content.
/// Telegram repeats an update for a day, so 48 hours would be enough; but a machine may sleep with an update in its
/// sockets, and a wrong clock makes wrong keys. Ids only jump at random after a week without any, so up to six days there
/// is no risk. Beyond that, content decides: see `far`.
const SAME: Duration = Duration::from_secs(6 * 86_400);

/// Updates seen within a span of time, by bot and hour. The order of ids means nothing here.
#[derive(Debug)]
pub(super) struct Window {
    same: Duration,
    floor: Timestamp,
    hours: BTreeMap<i64, HashMap<BotId, RoaringTreemap>>,
}

/// The hours of a window in which ids of a range were seen. They are looked up once per batch: out of hundreds of hours,
/// only a few, if any, contain the ids of new updates.
#[derive(Debug)]
pub(super) struct Near<'a> {
    same: Duration,
    hours: Vec<(i64, &'a HashMap<BotId, RoaringTreemap>)>,
}

impl Window {
    /// An empty window for everything received since `floor`. It recognizes an update for at least `span`.
    pub(super) fn new(span: Duration, floor: Timestamp) -> Self {
        Self { same: span.max(SAME), floor, hours: BTreeMap::new() }
    }

    /// The window may not know what was received before this.
    pub(super) fn floor(&self) -> Timestamp {
        self.floor
    }

    /// How far apart two deliveries of one update may be.
    pub(super) fn same(&self) -> Duration {
        self.same
    }

    /// What the window says about updates with ids in this range.
    pub(super) fn near(&self, ids: &RangeInclusive<i64>) -> Near<'_> {
        let (first, last) = (as_bits(*ids.start()), as_bits(*ids.end()));
        let overlaps = |seen: &RoaringTreemap| {
            seen.min().is_some_and(|smallest| smallest <= last) && seen.max().is_some_and(|largest| largest >= first)
        };
        let hours = self.hours.iter().filter(|(_, bots)| bots.values().any(overlaps));
        Near { same: self.same, hours: hours.map(|(hour, bots)| (*hour, bots)).collect() }
    }

    pub(super) fn insert(&mut self, bot_id: BotId, update_id: i64, received_at: Timestamp) {
        let seen = self.hours.entry(hour(received_at)).or_default().entry(bot_id).or_default();
        seen.insert(as_bits(update_id));
    }

    /// Forgets the hours that ended before `horizon`, and returns what was seen in them. The newest hour stays: a single
    /// clock that runs ahead must not make everything else look old.
    pub(super) fn forget_before(&mut self, horizon: Timestamp) -> Vec<(BotId, RoaringTreemap)> {
        let Some((newest, _)) = self.hours.last_key_value() else { return Vec::new() };
        let first = hour(horizon).min(*newest);
        let mut forgotten = Vec::new();
        if self.hours.keys().next().is_some_and(|oldest| *oldest < first) {
            let kept = self.hours.split_off(&first);
            forgotten.extend(std::mem::replace(&mut self.hours, kept).into_values().flatten());
        }
        // Even if there was nothing to forget: the floor must not promise more than is kept from now on.
        self.floor = self.floor.max(Timestamp::from_micros(first.saturating_mul(HOUR_MICROS)));
        forgotten
    }
}

impl Near<'_> {
    /// Whether an update received at `received_at` was seen around that time.
    pub(super) fn contains(&self, bot_id: BotId, update_id: i64, received_at: Timestamp) -> bool {
        let around = hour(received_at.minus(self.same))..=hour(received_at.plus(self.same));
        self.any(bot_id, update_id, |hour| around.contains(&hour))
    }

    /// Whether an update was seen at any time that the window holds.
    pub(super) fn holds(&self, bot_id: BotId, update_id: i64) -> bool {
        self.any(bot_id, update_id, |_| true)
    }

    fn any(&self, bot_id: BotId, update_id: i64, at: impl Fn(i64) -> bool) -> bool {
        let bits = as_bits(update_id);
        let mut hours = self.hours.iter().filter(|(hour, _)| at(*hour));
        hours.any(|(_, bots)| bots.get(&bot_id).is_some_and(|seen| seen.contains(bits)))
    }
}

fn hour(moment: Timestamp) -> i64 {
    moment.as_micros().div_euclid(HOUR_MICROS)
}

/// A mapping of any id to bits, in the order of ids.
pub(super) fn as_bits(update_id: i64) -> u64 {
    u64::from_ne_bytes(update_id.to_ne_bytes()) ^ (1 << 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(48 * 3_600);
    const DAY: Duration = Duration::from_secs(86_400);

    fn contains(window: &Window, bot_id: BotId, update_id: i64, at: Timestamp) -> bool {
        let (alone, wide) = (window.near(&(update_id..=update_id)), window.near(&(i64::MIN..=i64::MAX)));
        assert_eq!(alone.holds(bot_id, update_id), wide.holds(bot_id, update_id));
        assert_eq!(alone.contains(bot_id, update_id, at), wide.contains(bot_id, update_id, at));
        wide.contains(bot_id, update_id, at)
    }

    #[test]
    fn an_update_is_known_for_its_bot_alone_whatever_its_id() {
        let mut window = Window::new(SPAN, Timestamp::default());
        let at = Timestamp::from_micros(10);
        for update_id in [5, i64::MAX, i64::MIN, -1] {
            window.insert(BotId(1), update_id, at);
            assert!(contains(&window, BotId(1), update_id, at) && !contains(&window, BotId(2), update_id, at));
        }
    }

    #[test]
    fn a_like_id_after_a_silent_week_is_another_update() {
        let mut window = Window::new(SPAN, Timestamp::default());
        let at = Timestamp::default().plus(20 * DAY);
        window.insert(BotId(1), 1, at);
        assert!(contains(&window, BotId(1), 1, at.plus(SPAN)) && contains(&window, BotId(1), 1, at.minus(SPAN)));
        assert!(
            !contains(&window, BotId(1), 1, at.plus(7 * DAY)) && !contains(&window, BotId(1), 1, at.minus(7 * DAY))
        );
    }

    #[test]
    fn only_hours_with_ids_of_a_batch_are_looked_at() {
        let mut window = Window::new(SPAN, Timestamp::default());
        for id in -50..50 {
            window.insert(
                BotId(1),
                id,
                Timestamp::default().plus(DAY).plus(u32::try_from(id + 50).unwrap() * DAY / 12),
            );
        }
        assert_eq!(window.near(&(50..=i64::MAX)).hours.len(), 0);
        assert_eq!(window.near(&(i64::MIN..=-51)).hours.len(), 0);
        assert_eq!(window.near(&(-1..=1)).hours.len(), 3);
        assert_eq!(window.near(&(-100..=100)).hours.len(), 100);
    }

    #[test]
    fn what_is_forgotten_is_said_to_be() {
        let mut window = Window::new(SPAN, Timestamp::default());
        let at = |days: u32| Timestamp::default().plus(days * DAY);
        window.insert(BotId(1), 1, at(0));
        window.insert(BotId(1), 2, at(3));
        window.forget_before(at(0));
        assert_eq!(window.floor(), Timestamp::default());
        window.forget_before(at(2));
        assert!(!contains(&window, BotId(1), 1, at(0)) && contains(&window, BotId(1), 2, at(3)));
        assert_eq!(window.floor(), at(2));
        window.forget_before(at(1_000));
        assert!(contains(&window, BotId(1), 2, at(3)), "a clock that runs ahead takes nothing away");
        assert_eq!(window.floor(), at(3));
    }

    #[test]
    fn what_is_older_than_the_window_takes_no_memory() {
        let mut window = Window::new(SPAN, Timestamp::default());
        let (mut update_id, mut largest) = (0, 0);
        for hours in 0..10 * 24 {
            let at = Timestamp::default().plus(hours * Duration::from_secs(3_600));
            for _ in 0..5_000 {
                window.insert(BotId(1), update_id, at);
                update_id += 1;
            }
            window.forget_before(at.minus(SPAN));
            let bitmaps = window.hours.values().flat_map(HashMap::values);
            largest = largest.max(bitmaps.map(RoaringTreemap::serialized_size).sum::<usize>());
            assert!(window.hours.len() <= 49, "{} hours are held", window.hours.len());
        }
        assert!(largest < 600_000, "{largest} bytes for the 245,000 updates of a window");
    }
}
