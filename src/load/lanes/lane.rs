//! Lanes: the position of each, what is ingested beyond it, and when it is listed next.

use std::collections::BTreeMap;
use std::time::Duration;

use object_store::path::Path;
use roaring::RoaringTreemap;

use crate::clock::Timestamp;
use crate::id::{BotId, Name};
use crate::retry::Backoff;
use crate::sabotage::{Sabotage, is_on};
use crate::storage::{Storage, StorageKey};
use crate::table::{LakeTable, TxnId};

const DAY: Duration = Duration::from_secs(86_400);
/// How often a lane is listed while its receiver sends hints, and while it does not.
const HINTED_EVERY: Duration = Duration::from_secs(30);
const UNHINTED_EVERY: Duration = Duration::from_secs(5);
/// The same for a lane that has been silent for two days, and for thirty.
const SILENT_EVERY: Duration = Duration::from_secs(60);
const ABANDONED_EVERY: Duration = Duration::from_secs(3_600);
/// A lane with an unreadable segment is listed again after this, with growing delays up to the maximum.
const UNREAD_AGAIN: (Duration, Duration) = (Duration::from_millis(200), HINTED_EVERY);
/// Keys per page of a listing.
pub(super) const PAGE: usize = 1_000;

/// The folder of one receiver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneId {
    /// The pipeline whose folder it is in: the one being loaded, or one that it took over.
    pub(super) pipeline: Name,
    pub(super) bot_id: BotId,
    pub(super) lane: Name,
}

/// A segment of a lane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SegmentKey {
    pub(super) lane: LaneId,
    pub(super) micros: Timestamp,
}

/// A segment from a hint or a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) key: SegmentKey,
    pub(super) path: Path,
    /// 0 if unknown until it is read.
    pub(super) size_bytes: u64,
    /// The store's last-modified time.
    pub(super) modified: Timestamp,
}

/// A page of a listing.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) found: Vec<Found>,
    /// Where the next page begins; `None` at the end.
    pub(super) next: Option<Path>,
}

impl SegmentKey {
    /// The segment at `path`; `None` if it is not one.
    pub(super) fn parse(path: &Path) -> Option<Self> {
        match StorageKey::parse(path)? {
            StorageKey::Segment { pipeline, bot_id, lane, micros } if micros > Timestamp::default() => {
                Some(Self { lane: LaneId { pipeline, bot_id, lane }, micros })
            }
            _ => None,
        }
    }
}

impl LaneId {
    /// Its folder.
    pub(super) fn folder(&self) -> Path {
        let Self { pipeline, bot_id, lane } = self.clone();
        StorageKey::Lane { pipeline, bot_id, lane }.path()
    }

    /// Where to list from to see what comes after `micros`; `None` is from the start.
    pub(super) fn after(&self, micros: Timestamp) -> Option<Path> {
        let Self { pipeline, bot_id, lane } = self.clone();
        let key = StorageKey::Segment { pipeline, bot_id, lane, micros };
        (micros > Timestamp::default()).then(|| key.path())
    }
}

/// The position of each lane.
pub(super) fn positions(table: &LakeTable) -> Vec<(LaneId, Timestamp)> {
    let lane = |(id, micros)| match id {
        TxnId::Position { pipeline, bot_id, lane } => {
            Some((LaneId { pipeline, bot_id, lane }, Timestamp::from_micros(micros)))
        }
        _ => None,
    };
    table.progress().into_iter().filter_map(lane).collect()
}

/// A page of the segments of a lane after `after`. Other objects are ignored: only a receiver's key says when a line
/// was received.
///
/// # Errors
/// When the store fails.
pub(super) async fn list(storage: &Storage, lane: &LaneId, after: Option<&Path>) -> crate::error::Result<Page> {
    let objects = storage.list_after(&lane.folder(), after, PAGE).await?;
    let next = objects.last().filter(|_| objects.len() == PAGE).map(|object| object.location.clone());
    let mut found = Vec::with_capacity(objects.len());
    for object in objects {
        let modified = Timestamp::from_micros(object.last_modified.timestamp_micros());
        match SegmentKey::parse(&object.location).filter(|key| key.lane == *lane) {
            Some(key) => found.push(Found { key, path: object.location, size_bytes: object.size, modified }),
            None => tracing::debug!(path = %object.location, "not a segment of this lane; ignored"),
        }
    }
    Ok(Page { found, next })
}

/// Timestamps as a compact set.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Moments(RoaringTreemap);

impl Moments {
    pub(super) fn insert(&mut self, moment: Timestamp) {
        self.0.insert(moment.as_micros().max(0).unsigned_abs());
    }

    pub(super) fn contains(&self, moment: Timestamp) -> bool {
        self.0.contains(moment.as_micros().max(0).unsigned_abs())
    }

    fn forget_to(&mut self, moment: Timestamp) {
        self.0.remove_range(..=moment.as_micros().max(0).unsigned_abs());
    }
}

/// What is known about one lane.
#[derive(Clone, Debug, Default)]
pub(super) struct Lane {
    /// Every key up to it is ingested.
    position: Timestamp,
    /// Keys above the position that are ingested.
    ingested: Moments,
    /// When it was last heard from, or was found.
    heard_at: Timestamp,
    is_hinted: bool,
    listed_at: Option<Duration>,
    /// Whether one of its segments could not be read since the last listing.
    is_unread: bool,
    /// When it is listed again after such a failure, counted from the last listing.
    retry: Option<(Backoff, Duration)>,
}

impl Lane {
    pub(super) fn position(&self) -> Timestamp {
        self.position
    }

    pub(super) fn is_ingested(&self, micros: Timestamp) -> bool {
        micros <= self.position || self.ingested.contains(micros)
    }

    pub(super) fn ingested(&mut self, micros: Timestamp) {
        self.heard(micros);
        if micros > self.position {
            self.ingested.insert(micros);
        }
    }

    /// Moves the position forward, never back.
    pub(super) fn advance(&mut self, position: Timestamp) {
        if position > self.position {
            self.position = position;
            self.ingested.forget_to(position);
            self.heard(position);
        }
    }

    pub(super) fn heard(&mut self, moment: Timestamp) {
        self.heard_at = self.heard_at.max(moment);
    }

    pub(super) fn hinted(&mut self) {
        self.is_hinted = true;
    }

    /// One of its segments could not be read now: only the next listing finds it again.
    pub(super) fn unread(&mut self) {
        self.is_unread = true;
        self.retry.get_or_insert_with(|| {
            let mut backoff = Backoff::new(UNREAD_AGAIN.0, UNREAD_AGAIN.1);
            let delay = backoff.next_delay();
            (backoff, delay)
        });
    }

    pub(super) fn listed(&mut self, now: Duration) {
        self.listed_at = Some(now);
        match &mut self.retry {
            Some((backoff, delay)) if self.is_unread => *delay = backoff.next_delay(),
            retry => *retry = None,
        }
        self.is_unread = false;
    }

    /// Makes the next listing due immediately.
    pub(super) fn doubt(&mut self) {
        self.listed_at = None;
    }

    /// How long until it is listed next, on the monotonic clock; the wall clock says how long it has been silent.
    pub(super) fn due_in(&self, now: Duration, wall: Timestamp) -> Duration {
        let Some(listed_at) = self.listed_at else { return Duration::ZERO };
        let every = match wall.since(self.heard_at) {
            silence if silence > 30 * DAY => ABANDONED_EVERY,
            silence if silence > 2 * DAY => SILENT_EVERY,
            _ if self.is_hinted => HINTED_EVERY,
            _ => UNHINTED_EVERY,
        };
        let every = self.retry.as_ref().map_or(every, |(_, delay)| every.min(*delay));
        (listed_at + every).saturating_sub(now)
    }
}

/// All lanes of a pipeline.
pub(super) type Lanes = BTreeMap<LaneId, Lane>;

/// Follows a listing in key order to find the position of a lane: up to the first key that is not ingested or was put
/// less than the settle time ago, since another put below it may still be in flight.
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
        let passable = ingested || is_on(Sabotage::Contiguous);
        self.broken |= !passable || modified > self.settled_before;
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
        assert_eq!((lane.position(), lane.ingested.0.len()), (at(5), 1));
        assert!(lane.is_ingested(at(4)) && lane.is_ingested(at(9)) && !lane.is_ingested(at(7)));
    }

    #[test]
    fn a_key_filed_elsewhere_is_no_segment() {
        let parse = |path: &str| SegmentKey::parse(&Path::from(path));
        let path = "raw/p/1/a/2025-10-09/08/00001760000000123456.json";
        assert_eq!(parse(path).unwrap().micros, at(1_760_000_000_123_456));
        assert_eq!(parse(&path.replace("/08/", "/09/")), None);
        assert_eq!(parse("raw/p/1/a/1970-01-01/00/00000000000000000000.json"), None);
        assert_eq!(parse("raw/p/1/a/README.txt"), None);
    }

    #[test]
    fn a_silent_lane_is_listed_ever_more_rarely_and_a_new_one_is_not_silent() {
        let now = Duration::from_secs(1_000);
        let mut lane = Lane::default();
        lane.heard(at(7));
        assert_eq!(lane.due_in(now, at(0)), Duration::ZERO);
        lane.listed(now);
        let after = |days: u32| at(7).plus(days * DAY);
        assert_eq!(lane.due_in(now, after(0)), UNHINTED_EVERY);
        assert_eq!(lane.due_in(now, after(3)), SILENT_EVERY);
        assert_eq!(lane.due_in(now, after(31)), ABANDONED_EVERY);
        lane.hinted();
        assert_eq!(lane.due_in(now, after(0)), HINTED_EVERY);
        lane.heard(after(31));
        assert_eq!(lane.due_in(now + Duration::from_secs(31), after(31)), Duration::ZERO);
    }

    #[test]
    fn a_lane_with_a_segment_that_cannot_be_read_is_listed_again_soon_then_later_and_as_ever_once_it_can() {
        let now = Duration::from_secs(1_000);
        let mut lane = Lane::default();
        lane.hinted();
        lane.listed(now);
        lane.unread();
        assert!(lane.due_in(now, at(0)) <= UNREAD_AGAIN.0);
        for _ in 0..20 {
            lane.unread();
            lane.listed(now);
        }
        let due = lane.due_in(now, at(0));
        assert!(due >= HINTED_EVERY / 2 && due <= HINTED_EVERY, "{due:?}");
        lane.listed(now);
        assert_eq!(lane.due_in(now, at(0)), HINTED_EVERY);
    }

    #[test]
    fn what_lies_below_the_position_takes_no_memory() {
        let mut lane = Lane::default();
        for second in 1..=5_000 {
            let at = Timestamp::default().plus(Duration::from_secs(second));
            lane.ingested(at);
            lane.advance(at.minus(Duration::from_secs(600)));
            assert!(lane.ingested.0.len() <= 600, "only the settle time is remembered key by key");
        }
        assert!(lane.is_ingested(Timestamp::from_micros(1)), "all of it is still known");
    }
}
