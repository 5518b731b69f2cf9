//! What the loader knows about its table: learned from the table's recent files at the start, and updated by every
//! commit.

use std::collections::HashSet;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};

use super::batch::{Segment, range_of};
use super::far::Far;
use super::lane::{self, Lane, LaneId, Lanes, Moments, SegmentKey};
use super::rows::{self, KnownRow};
use super::window::Window;
use crate::clock::{Clock, Timestamp};
use crate::error::Result;
use crate::id::{BotId, Name};
use crate::pipeline::Evolution;
use crate::storage::{Storage, StorageKey};
use crate::table::{DataFile, LakeTable, TableRole, TableSpec, TxnId};

/// Folders listed, or files of the table read, at the same time.
const AT_ONCE: usize = 8;

/// What a loader is for, and where.
#[derive(Debug)]
pub(super) struct LedgerOptions {
    pub(super) storage: Storage,
    /// The pipelines whose raw folders are loaded: the one at hand first, then those that it took over.
    pub(super) pipelines: Vec<Name>,
    pub(super) spec: TableSpec,
    /// How long a redelivery is recognized.
    pub(super) span: Duration,
    pub(super) evolution: Evolution,
    pub(super) clock: Clock,
}

/// What is ingested. The table is the truth, and says the same after a restart.
#[derive(Debug)]
pub(super) struct Ingested {
    pub(super) lanes: Lanes,
    /// Its floor also says from when on the sets of the lanes are complete.
    pub(super) window: Window,
    /// What is in the table and outside of the window.
    pub(super) far: Far,
    /// The fence that this knowledge is based on.
    pub(super) seen: i64,
    /// What is just below the positions, while a look-back needs it.
    pub(super) late: Option<Late>,
}

/// Segments below the positions that have rows in the table.
#[derive(Debug)]
pub(super) struct Late {
    pub(super) lanes: Vec<LateLane>,
    /// Whether every file of the table has been looked at; until then, a segment missing here says nothing.
    pub(super) is_complete: bool,
}

/// The part of a lane that a look-back covers: above `from`, up to `to`.
#[derive(Clone, Debug)]
pub(super) struct LateLane {
    pub(super) id: LaneId,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    pub(super) with_rows: Moments,
}

impl LedgerOptions {
    /// The txn of a lane's position.
    pub(super) fn position_id(&self, lane: &LaneId) -> TxnId {
        let LaneId { pipeline, bot_id, lane } = lane.clone();
        TxnId::Position { pipeline, bot_id, lane }
    }

    /// The lanes that have a folder.
    pub(super) async fn lanes(&self) -> Result<Vec<LaneId>> {
        let mut lanes = Vec::new();
        for pipeline in &self.pipelines {
            let root = StorageKey::RawPipeline { pipeline: pipeline.clone() }.path();
            for bot in self.storage.list_folders(&root).await? {
                let Some(bot_id) = bot.filename().and_then(|name| name.parse().ok()).map(BotId) else { continue };
                let folders = self.storage.list_folders(&bot).await?;
                let names = folders.iter().filter_map(|folder| Name::new(folder.filename()?).ok());
                lanes.extend(names.map(|lane| LaneId { pipeline: pipeline.clone(), bot_id, lane }));
            }
        }
        Ok(lanes)
    }

    /// The oldest segment above the positions.
    async fn oldest(&self, lanes: &Lanes) -> Result<Option<Timestamp>> {
        let walks = lanes.iter().map(|(id, lane)| self.first_above(id, lane.position()).boxed());
        let walks: Vec<_> = walks.collect();
        let firsts: Vec<_> = stream::iter(walks).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(firsts.into_iter().flatten().min())
    }

    async fn first_above(&self, id: &LaneId, position: Timestamp) -> Result<Option<Timestamp>> {
        let mut after = id.after(position);
        loop {
            let page = lane::list(&self.storage, id, after.as_ref()).await?;
            if let Some(first) = page.found.first() {
                return Ok(Some(first.key.micros));
            }
            after = page.next;
            if after.is_none() {
                return Ok(None);
            }
        }
    }

    /// What the rows of a table file say.
    pub(super) async fn rows_of(&self, table: &LakeTable, file: &DataFile) -> Result<Vec<KnownRow>> {
        rows::known_rows(&table.read_file(file, Some(&rows::KNOWN_COLUMNS)).await?)
    }

    /// What the rows of these table files say, file by file.
    pub(super) fn read<'a>(
        &'a self,
        table: &'a LakeTable,
        files: Vec<DataFile>,
    ) -> BoxStream<'a, Result<Vec<KnownRow>>> {
        let reads = files.into_iter().map(move |file| async move { self.rows_of(table, &file).await }.boxed());
        stream::iter(reads).buffered(AT_ONCE).boxed()
    }
}

impl Ingested {
    /// Learns what the table has in `files`, as at a start: positions from its log, then the sets above them and the
    /// window from its recent files.
    pub(super) async fn learn(place: &LedgerOptions, table: &LakeTable, files: Vec<DataFile>) -> Result<Self> {
        let now = place.clock.now();
        let seen = table.fence(TableRole::Bronze);
        let mut known =
            Self { lanes: Lanes::new(), window: Window::new(place.span, now), far: Far::default(), seen, late: None };
        known.take_positions(place, table);
        place.lanes().await?.into_iter().for_each(|lane| known.found(lane, now));
        let oldest = place.oldest(&known.lanes).await?.unwrap_or(now).min(now);
        let from = oldest.minus(place.span);
        known.window = Window::new(place.span, from);
        let (files, old): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| received(file).1 >= from);
        old.iter().for_each(|file| known.far.add_file(file));
        let mut reads = place.read(table, files);
        while let Some(rows) = reads.try_next().await? {
            known.take_rows(rows);
        }
        Ok(known)
    }

    /// Adopts the positions in the table's log.
    pub(super) fn take_positions(&mut self, place: &LedgerOptions, table: &LakeTable) {
        let ours = |(id, _): &(LaneId, _)| place.pipelines.contains(&id.pipeline);
        for (id, position) in lane::positions(table).into_iter().filter(ours) {
            self.lanes.entry(id).or_default().advance(position);
        }
    }

    /// Adds rows of the table.
    pub(super) fn take_rows(&mut self, rows: Vec<KnownRow>) {
        for row in rows {
            if let Some(update_id) = row.update_id {
                self.window.insert(row.bot_id, update_id, row.received_at);
            }
            if let Some(key) = &row.segment {
                self.ingested(key, true);
            }
        }
    }

    /// Keeps the window bounded. Of what leaves it, the ids are still known.
    pub(super) fn forget_before(&mut self, horizon: Timestamp) {
        for (bot_id, ids) in self.window.forget_before(horizon) {
            self.far.add(bot_id, ids);
        }
    }

    /// The updates in these segments that the window does not know around their times, and that may be in the table all
    /// the same.
    pub(super) fn seen_far(&self, segments: &[Segment]) -> HashSet<(BotId, i64)> {
        let ids = range_of(segments);
        let (window, far) = (self.window.near(&ids), self.far.near(&ids));
        let fresh = segments.iter().filter(|segment| !self.is_ingested(&segment.key));
        let lines = fresh.flat_map(|segment| &segment.lines).filter_map(|line| Some((line, line.update_id()?)));
        let seen = lines.filter(|(line, update_id)| {
            !window.contains(line.bot_id, *update_id, line.received_at)
                && (far.may_hold(line.bot_id, *update_id) || window.holds(line.bot_id, *update_id))
        });
        seen.map(|(line, update_id)| (line.bot_id, update_id)).collect()
    }

    /// Marks a segment as ingested. One with only redeliveries has no rows.
    pub(super) fn ingested(&mut self, key: &SegmentKey, has_rows: bool) {
        self.lane(&key.lane).ingested(key.micros);
        if let Some(late) = &mut self.late
            && has_rows
        {
            late.take(key);
        }
    }

    /// Adds a lane that has a folder. A new one counts as just heard from.
    pub(super) fn found(&mut self, lane: LaneId, now: Timestamp) {
        self.lanes.entry(lane).or_insert_with(|| {
            let mut lane = Lane::default();
            lane.heard(now);
            lane
        });
    }

    pub(super) fn lane(&mut self, id: &LaneId) -> &mut Lane {
        self.lanes.entry(id.clone()).or_default()
    }

    /// Whether a segment is ingested, as far as is known: about anything older than the window's floor and above the
    /// position, only the table can tell.
    pub(super) fn is_ingested(&self, key: &SegmentKey) -> bool {
        let Some(lane) = self.lanes.get(&key.lane) else { return false };
        lane.is_ingested(key.micros) && !self.late.as_ref().is_some_and(|late| late.misses(key))
    }
}

impl Late {
    /// Remembers a segment with rows.
    pub(super) fn take(&mut self, key: &SegmentKey) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.covers(key)) {
            lane.with_rows.insert(key.micros);
        }
    }

    /// Whether a segment is being looked for and the table has no row from it.
    pub(super) fn misses(&self, key: &SegmentKey) -> bool {
        let lane = self.lanes.iter().find(|lane| lane.covers(key));
        self.is_complete && lane.is_some_and(|lane| !lane.with_rows.contains(key.micros))
    }
}

impl LateLane {
    fn covers(&self, key: &SegmentKey) -> bool {
        self.from < key.micros && key.micros <= self.to && self.id == key.lane
    }
}

/// The time range in which the rows of a file were received; all of time if its statistics do not say.
pub(super) fn received(file: &DataFile) -> (Timestamp, Timestamp) {
    file.span("_received_at")
}
