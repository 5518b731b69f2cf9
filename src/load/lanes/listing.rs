//! A round of listings: the due lanes, walked together in the order of their keys.
//!
//! One chat may come through several lanes. So a backlog is loaded across lanes in the order it was received, not lane
//! by lane.

use std::collections::VecDeque;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path;

use super::batch::Bounds;
use super::known::{Ingested, LedgerOptions};
use super::lane::{self, Contiguous, Found, LaneId};
use crate::clock::Timestamp;
use crate::error::Result;

/// Lanes listed at the same time.
const AT_ONCE: usize = 8;

/// A round in progress.
#[derive(Debug)]
pub(super) struct Round {
    cursors: Vec<Cursor>,
    epoch: u64,
}

/// A walk through the listing of one lane.
#[derive(Debug)]
struct Cursor {
    lane: LaneId,
    page: VecDeque<Found>,
    after: Option<Path>,
    is_exhausted: bool,
    /// Keys passed since the first one of the current batch: they count once it is committed.
    passed: Vec<(Timestamp, Timestamp)>,
    contiguous: Contiguous,
}

impl Round {
    /// A round over these lanes. A change of epoch ends it.
    pub(super) fn new(known: &Ingested, epoch: u64, settled_before: Timestamp, lanes: Vec<LaneId>) -> Self {
        let cursor = |lane: LaneId| {
            let position = known.lanes.get(&lane).map(|known| known.position()).unwrap_or_default();
            Cursor {
                after: lane.after(position),
                lane,
                page: VecDeque::new(),
                is_exhausted: false,
                passed: Vec::new(),
                contiguous: Contiguous::new(settled_before),
            }
        };
        Self { cursors: lanes.into_iter().map(cursor).collect(), epoch }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = &LaneId> {
        self.cursors.iter().map(|cursor| &cursor.lane)
    }

    /// The next segments that are not ingested, oldest first, up to the bounds; none at the end of the round.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn next_batch(
        &mut self,
        place: &LedgerOptions,
        known: &Ingested,
        bounds: Bounds,
    ) -> Result<Vec<Found>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while !bounds.are_met(batch.len(), bytes) {
            self.fill(place).await?;
            let heads = self.cursors.iter_mut().filter_map(|cursor| Some((cursor.page.front()?.key.micros, cursor)));
            let Some((_, cursor)) = heads.min_by_key(|(micros, _)| *micros) else { break };
            let Some(found) = cursor.page.pop_front() else { break };
            if !known.is_ingested(&found.key) {
                cursor.passed.push((found.key.micros, found.modified));
                bytes += found.size_bytes;
                batch.push(found);
            } else if cursor.passed.is_empty() {
                cursor.contiguous.follow(found.key.micros, found.modified, true);
            } else {
                cursor.passed.push((found.key.micros, found.modified));
            }
        }
        Ok(batch)
    }

    /// Fetches the next pages where one is used up.
    async fn fill(&mut self, place: &LedgerOptions) -> Result<()> {
        let wanting = self.cursors.iter_mut().filter(|cursor| cursor.page.is_empty() && !cursor.is_exhausted);
        let fills: Vec<_> = wanting.map(|cursor| cursor.fill(place).boxed()).collect();
        stream::iter(fills).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Follows the keys of the last batch, now that what could be loaded of it is loaded.
    pub(super) fn settle(&mut self, known: &Ingested) {
        for cursor in &mut self.cursors {
            let Some(lane) = known.lanes.get(&cursor.lane) else { continue };
            for (micros, modified) in cursor.passed.drain(..) {
                cursor.contiguous.follow(micros, modified, lane.is_ingested(micros));
            }
        }
    }

    /// The position of each lane, as far as the round has come.
    pub(super) fn positions(&self) -> impl Iterator<Item = (&LaneId, Timestamp)> {
        self.cursors.iter().filter_map(|cursor| Some((&cursor.lane, cursor.contiguous.position()?)))
    }

    /// The oldest key that was not passed yet.
    pub(super) fn head(&self) -> Option<Timestamp> {
        self.cursors.iter().filter_map(|cursor| Some(cursor.page.front()?.key.micros)).min()
    }
}

impl Cursor {
    /// Lists pages until one has a segment or the end is reached.
    async fn fill(&mut self, place: &LedgerOptions) -> Result<()> {
        while self.page.is_empty() && !self.is_exhausted {
            let page = lane::list(&place.storage, &self.lane, self.after.as_ref()).await?;
            self.page = page.found.into();
            self.is_exhausted = page.next.is_none();
            self.after = page.next;
        }
        Ok(())
    }
}
