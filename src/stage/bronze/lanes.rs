//! Lanes: how far each is ingested for good, what is ingested beyond, and when it is listed next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::id::{BotId, Name};
use crate::storage::StorageKey;

const DAY: Duration = Duration::from_secs(86_400);
/// Listed this often while its receiver hints, and this often while nobody does.
const HINTED_EVERY: Duration = Duration::from_secs(30);
const UNHINTED_EVERY: Duration = Duration::from_secs(5);
/// A lane that has been silent for two days, and for thirty.
const SILENT_EVERY: Duration = Duration::from_secs(60);
const ABANDONED_EVERY: Duration = Duration::from_secs(3_600);

/// The folder of one receiver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneId {
    pub(super) bot_id: BotId,
    pub(super) lane: Name,
}

/// A segment of a lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SegmentKey {
    pub(super) lane: LaneId,
    pub(super) micros: Timestamp,
}

impl SegmentKey {
    pub(super) fn of(key: StorageKey) -> Option<Self> {
        match key {
            StorageKey::Segment { bot_id, lane, micros, .. } => Some(Self { lane: LaneId { bot_id, lane }, micros }),
            _ => None,
        }
    }
}

/// What is known of one lane.
#[derive(Clone, Debug, Default)]
pub(super) struct Lane {
    /// Every key up to it is ingested for good.
    position: Timestamp,
    /// Keys above the position that are ingested.
    ingested: BTreeSet<Timestamp>,
    newest: Timestamp,
    hinted_at: Option<Duration>,
    listed_at: Option<Duration>,
}

impl Lane {
    pub(super) fn position(&self) -> Timestamp {
        self.position
    }

    pub(super) fn is_ingested(&self, micros: Timestamp) -> bool {
        micros <= self.position || self.ingested.contains(&micros)
    }

    pub(super) fn ingested(&mut self, micros: Timestamp) {
        self.newest = self.newest.max(micros);
        if micros > self.position {
            self.ingested.insert(micros);
        }
    }

    /// Moves the position forward, never back.
    pub(super) fn advance(&mut self, position: Timestamp) {
        if position > self.position {
            self.position = position;
            self.newest = self.newest.max(position);
            self.ingested = self.ingested.split_off(&Timestamp::from_micros(position.as_micros() + 1));
        }
    }

    pub(super) fn hinted(&mut self, now: Duration) {
        self.hinted_at = Some(now);
    }

    pub(super) fn listed(&mut self, now: Duration) {
        self.listed_at = Some(now);
    }

    /// The next listing is due at once.
    pub(super) fn doubt(&mut self) {
        self.listed_at = None;
    }

    /// How long until it is listed next, on the monotonic clock; the wall clock says how silent it is.
    pub(super) fn due_in(&self, now: Duration, wall: Timestamp) -> Duration {
        let Some(listed_at) = self.listed_at else { return Duration::ZERO };
        let silence = wall.since(self.newest);
        let every = match self.hinted_at {
            _ if silence > 30 * DAY => ABANDONED_EVERY,
            _ if silence > 2 * DAY => SILENT_EVERY,
            Some(hinted_at) if now.saturating_sub(hinted_at) < 2 * HINTED_EVERY => HINTED_EVERY,
            _ => UNHINTED_EVERY,
        };
        (listed_at + every).saturating_sub(now)
    }
}

/// All lanes of a pipeline.
pub(super) type Lanes = BTreeMap<LaneId, Lane>;

/// Follows a listing in key order to find how far a lane is ingested for good: up to the first key that is not
/// ingested or was put less than the settle time ago, below which another put may still be on its way.
#[derive(Debug)]
pub(super) struct Contiguous {
    settled_before: Timestamp,
    broken: bool,
    position: Option<Timestamp>,
}

impl Contiguous {
    pub(super) fn new(settled_before: Timestamp) -> Self {
        Self { settled_before, broken: false, position: None }
    }

    /// The next key of the listing, with the store's last-modified time.
    pub(super) fn follow(&mut self, micros: Timestamp, modified: Timestamp, ingested: bool) {
        self.broken |= !ingested || modified > self.settled_before;
        if !self.broken {
            self.position = Some(micros);
        }
    }

    pub(super) fn position(&self) -> Option<Timestamp> {
        self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn the_position_stops_before_the_first_key_that_is_not_ingested_or_not_settled() {
        let mut contiguous = Contiguous::new(at(100));
        contiguous.follow(at(1), at(1), true);
        contiguous.follow(at(2), at(50), true);
        assert_eq!(contiguous.position(), Some(at(2)));
        contiguous.follow(at(3), at(101), true);
        contiguous.follow(at(4), at(60), true);
        assert_eq!(contiguous.position(), Some(at(2)));
        let mut gap = Contiguous::new(at(100));
        gap.follow(at(1), at(1), false);
        gap.follow(at(2), at(1), true);
        assert_eq!(gap.position(), None);
    }

    #[test]
    fn a_position_never_goes_back_and_takes_what_is_below_it_along() {
        let mut lane = Lane::default();
        lane.ingested(at(5));
        lane.ingested(at(9));
        lane.advance(at(5));
        lane.advance(at(3));
        assert_eq!((lane.position(), lane.ingested.len()), (at(5), 1));
        assert!(lane.is_ingested(at(4)) && lane.is_ingested(at(9)) && !lane.is_ingested(at(7)));
    }

    #[test]
    fn a_silent_lane_is_listed_ever_more_rarely() {
        let now = Duration::from_secs(1_000);
        let mut lane = Lane::default();
        assert_eq!(lane.due_in(now, at(0)), Duration::ZERO);
        lane.listed(now);
        let after = |days: u64| at(0).plus(days as u32 * DAY);
        assert_eq!(lane.due_in(now, after(0)), UNHINTED_EVERY);
        assert_eq!(lane.due_in(now, after(3)), SILENT_EVERY);
        assert_eq!(lane.due_in(now, after(31)), ABANDONED_EVERY);
        lane.hinted(now);
        assert_eq!(lane.due_in(now, after(0)), HINTED_EVERY);
    }
}
