//! The bronze table as the loader's ledger: every commit adds rows, raises the fence and includes positions.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::TryStreamExt;

use super::batch::{Segment, range_of};
use super::far::Contents;
use super::fields;
use super::known::{Ingested, Late, LateLane, LedgerOptions, received};
use super::lane::{LaneId, Moments, SegmentKey};
use super::rows::{self, Line};
use super::window::Window;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::id::BotId;
use crate::load::message::Fields;
use crate::load::updates;
use crate::pipeline::clean::LOOK_BACK;
use crate::table::{Append, Commit, CommitOutcome, DataFile, Fence, LakeTable, TableRole, TxnId};

/// How often there is a look-back.
const DAY: Duration = Duration::from_secs(86_400);

/// The result of committing segments.
#[derive(Clone, Debug, Default)]
pub(super) struct Loaded {
    /// The version, when there were rows.
    pub(super) version: Option<i64>,
    /// Updates of the rows.
    pub(super) updates: Vec<(BotId, i64)>,
    pub(super) files: u64,
    pub(super) rows: u64,
    pub(super) redeliveries: u64,
    pub(super) corrupt: u64,
}

/// The table and what is known about it.
#[derive(Debug)]
pub(super) struct LanesLedger {
    place: LedgerOptions,
    table: LakeTable,
    pub(super) known: Ingested,
    /// Txns that are included in the next commit.
    pending: BTreeMap<TxnId, i64>,
    committed_at: Duration,
    /// Incremented when everything is learned anew: earlier conclusions may then be wrong.
    epoch: u64,
    is_paused: bool,
}

/// What a commit would add.
struct Plan<'a> {
    lines: Vec<&'a Line>,
    loaded: Loaded,
}

/// What the table says about segments that are older than what is known.
struct Old {
    ingested: HashSet<SegmentKey>,
    updates: Window,
}

impl LanesLedger {
    pub(super) async fn open(mut place: LedgerOptions) -> Result<Self> {
        let (table, known) = open(&place).await?;
        // Opened again it has to be the same table.
        place.spec.id = Some(table.table_id().to_owned());
        let committed_at = place.clock.monotonic();
        Ok(Self { place, table, known, pending: BTreeMap::new(), committed_at, epoch: 0, is_paused: false })
    }

    pub(super) fn place(&self) -> &LedgerOptions {
        &self.place
    }

    /// The version seen last.
    pub(super) fn version(&self) -> i64 {
        self.table.version()
    }

    /// A different value means that everything was learned anew.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the last commit was refused for a field that must stop the loader.
    pub(super) fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Finds lanes that are new since the last time.
    pub(super) async fn discover(&mut self) -> Result<()> {
        let now = self.place.clock.now();
        self.place.lanes().await?.into_iter().for_each(|lane| self.known.found(lane, now));
        Ok(())
    }

    /// Includes a position in the next commit.
    pub(super) fn propose(&mut self, id: &LaneId, position: Timestamp) {
        if self.known.lanes.get(id).is_some_and(|lane| position > lane.position()) {
            let highest = self.pending.entry(self.place.position_id(id)).or_default();
            *highest = (*highest).max(position.as_micros());
        }
    }

    /// How long until waiting progress gets a commit of its own; `None` if nothing is waiting.
    pub(super) fn progress_due_in(&self, settle: Duration) -> Option<Duration> {
        let due = (self.committed_at + settle).saturating_sub(self.place.clock.monotonic());
        (!self.pending.is_empty()).then_some(due)
    }

    /// Appends the rows of segments and the waiting progress in one commit. If there are no rows to add, progress alone
    /// is committed if `with_progress` says so.
    ///
    /// # Errors
    /// When the store fails or the table no longer matches; Configuration when a new field must stop the loader. The
    /// rows may be in the table all the same: a listing finds the segments again, and the fence tells.
    pub(super) async fn commit(&mut self, segments: &[Segment], with_progress: bool) -> Result<Loaded> {
        self.is_paused = false;
        loop {
            let Plan { lines, mut loaded } = self.plan(segments).await?;
            let progresses = with_progress && !self.pending.is_empty();
            if lines.is_empty() && !progresses {
                self.remember(segments, &lines);
                return Ok(loaded);
            }
            let rows = match lines.is_empty() {
                true => None,
                false => Some(self.rows(&lines).await?),
            };
            let progress = self.pending.iter().map(|(id, value)| (id.clone(), *value)).collect();
            let append = Append { rows, fence: self.fence(), progress };
            let made_for = self.table.schema();
            let appended = match self.table.append(append).await {
                // Someone has changed the columns since: a new one of ours may exist with another type.
                Err(error) if error.kind() == ErrorKind::Configuration && self.table.schema() != made_for => continue,
                appended => appended?,
            };
            match appended {
                CommitOutcome::Committed { version } | CommitOutcome::AlreadyCommitted { version } => {
                    loaded.version = (!lines.is_empty()).then_some(version);
                    self.remember(segments, &lines);
                    self.pending.clear();
                    self.committed_at = self.place.clock.monotonic();
                    // This is not what the table contains now: another process may have committed after us, unseen.
                    self.known.seen += self.table.fence_step(TableRole::Bronze);
                    self.known.take_positions(&self.place, &self.table);
                    return Ok(loaded);
                }
                CommitOutcome::Fenced { commits } => match self.take_in(&commits).await {
                    // After sleeping for days, this reports files that were merged and cleaned up since. If a file is
                    // missing that should exist, opening fails as well.
                    Err(error) if error.kind() == ErrorKind::Corrupt => self.reopen().await?,
                    taken => taken?,
                },
                CommitOutcome::Stale => self.reopen().await?,
            }
        }
    }

    /// Lines as rows, with the columns that they add.
    async fn rows(&mut self, lines: &[&Line]) -> Result<RecordBatch> {
        let mut extra = fields::of(&self.table.schema(), self.place.evolution, lines).await?;
        if matches!(extra, Some(Fields::New { .. })) {
            // Someone may have added the column meanwhile. Other commits are noticed by the fence.
            if let Err(error) = self.table.refresh().await {
                if self.table.is_stale() {
                    self.reopen().await?;
                }
                return Err(error);
            }
            extra = fields::of(&self.table.schema(), self.place.evolution, lines).await?;
        }
        let extra = match extra {
            None => None,
            Some(Fields::Columns(extra)) => Some(extra),
            Some(Fields::New { row, names }) => {
                self.is_paused = true;
                return Err(fields::refused(lines, row, &names));
            }
        };
        rows::to_batch(&self.table.schema(), lines, self.place.clock.now(), extra.as_ref())
    }

    fn fence(&self) -> Fence {
        Fence { role: TableRole::Bronze, seen: self.known.seen }
    }

    /// The rows to add: the lines, from segments that are not ingested, that are not redeliveries, by `update_id`.
    async fn plan<'a>(&mut self, segments: &'a [Segment]) -> Result<Plan<'a>> {
        let old = self.ask_table(segments).await?;
        let far = self.ask_far(segments).await?;
        let (mut loaded, mut lines) = (Loaded::default(), Vec::new());
        let mut planned: HashSet<&SegmentKey> = HashSet::new();
        let mut taken: HashMap<(BotId, i64), &Line> = HashMap::new();
        let same = self.known.window.same();
        let ids = range_of(segments);
        let (window, old_window) = (self.known.window.near(&ids), old.as_ref().map(|old| old.updates.near(&ids)));
        for Segment { key, lines: found } in segments {
            let is_old_news = old.as_ref().is_some_and(|old| old.ingested.contains(key));
            if is_old_news || self.known.is_ingested(key) || !planned.insert(key) {
                continue;
            }
            loaded.files += 1;
            for line in found {
                let Some(update_id) = line.update_id() else {
                    loaded.corrupt += 1;
                    lines.push(line);
                    continue;
                };
                let (bot_id, at) = (line.bot_id, line.received_at);
                let apart = |other: Timestamp| at.since(other).max(other.since(at));
                let is_twin = |other: &&Line| apart(other.received_at) <= same || other.payload() == line.payload();
                if window.contains(bot_id, update_id, at)
                    || old_window.as_ref().is_some_and(|old| old.contains(bot_id, update_id, at))
                    || taken.get(&(bot_id, update_id)).is_some_and(is_twin)
                    || far.has(line)
                {
                    loaded.redeliveries += 1;
                    continue;
                }
                taken.insert((bot_id, update_id), line);
                loaded.updates.push((bot_id, update_id));
                lines.push(line);
            }
        }
        // The sort is stable: corrupt lines come last, in order.
        lines.sort_by_key(|line| (line.bot_id, line.update_id().is_none(), line.update_id()));
        loaded.rows = lines.len() as u64;
        Ok(Plan { lines, loaded })
    }

    /// Whether the table may have rows of a segment, or of its updates, that are not known here.
    fn is_old(&self, segment: &Segment) -> bool {
        segment.key.micros.minus(self.place.span) < self.known.window.floor()
    }

    async fn ask_table(&mut self, segments: &[Segment]) -> Result<Option<Old>> {
        if !segments.iter().any(|segment| self.is_old(segment)) {
            return Ok(None);
        }
        let files = self.files().await?;
        let asked: Vec<&Segment> = segments.iter().filter(|segment| self.is_old(segment)).collect();
        let keys: HashSet<&SegmentKey> = asked.iter().map(|segment| &segment.key).collect();
        let lines = asked.iter().flat_map(|segment| &segment.lines);
        let updates: HashSet<_> = lines.filter_map(|line| Some((line.bot_id, line.update_id()?))).collect();
        let same = self.known.window.same();
        let near = |file: &DataFile| {
            let (first, last) = received(file);
            keys.iter().any(|key| key.micros.plus(same) >= first && key.micros.minus(same) <= last)
        };
        let mut old = Old { ingested: HashSet::new(), updates: Window::new(self.place.span, Timestamp::default()) };
        let near = files.into_iter().filter(near).collect();
        let mut reads = self.place.read(&self.table, near);
        while let Some(rows) = reads.try_next().await? {
            for row in rows {
                if let Some(update_id) = row.update_id.filter(|id| updates.contains(&(row.bot_id, *id))) {
                    old.updates.insert(row.bot_id, update_id, row.received_at);
                }
                old.ingested.extend(row.segment.filter(|key| keys.contains(key)));
            }
        }
        Ok(Some(old))
    }

    /// Reads what the table has of ids that were seen far away, if there are any.
    async fn ask_far(&mut self, segments: &[Segment]) -> Result<Contents> {
        let wanted = self.known.seen_far(segments);
        if wanted.is_empty() {
            return Ok(Contents::default());
        }
        let files = self.files().await?;
        self.known.far.ask(&self.table, files, &wanted).await
    }

    /// The current files of the table. The files of a handle that has slept may be cleaned up; after reopening they
    /// exist.
    async fn files(&mut self) -> Result<Vec<DataFile>> {
        match self.table.refresh().await {
            // Commits of others are noticed by the fence before anything of ours is committed.
            Ok(_) => {}
            Err(_) if self.table.is_stale() => self.reopen().await?,
            Err(error) => return Err(error),
        }
        self.table.files().await
    }

    fn remember(&mut self, segments: &[Segment], lines: &[&Line]) {
        for line in lines {
            if let Some(update_id) = line.update_id() {
                self.known.window.insert(line.bot_id, update_id, line.received_at);
            }
        }
        let with_rows: HashSet<&str> = lines.iter().map(|line| line.source_file()).collect();
        for Segment { key, lines } in segments {
            let has_rows = lines.first().is_some_and(|line| with_rows.contains(line.source_file()));
            self.known.ingested(key, has_rows);
        }
    }

    /// Adopts what another process has committed, all of it or nothing.
    async fn take_in(&mut self, commits: &[Commit]) -> Result<()> {
        let files = commits.iter().flat_map(|commit| commit.added.iter().cloned()).collect();
        let rows: Vec<_> = self.place.read(&self.table, files).try_collect().await?;
        tracing::info!(commits = commits.len(), "another process is loading this pipeline too");
        rows.into_iter().for_each(|rows| self.known.take_rows(rows));
        self.known.seen = self.table.fence(TableRole::Bronze);
        self.known.take_positions(&self.place, &self.table);
        Ok(())
    }

    /// Drops what is known and learns it anew, as at a start. Until that has succeeded nothing changes, and the stale
    /// handle refuses every commit.
    pub(super) async fn reopen(&mut self) -> Result<()> {
        tracing::info!(table = %self.place.spec.path, "reopening the table: what is known about it may be stale");
        if self.table.is_stale() {
            // Makes sure that an attempt whose outcome was open leaves no commit without its file.
            self.table.append(Append { rows: None, fence: self.fence(), progress: Vec::new() }).await?;
        }
        (self.table, self.known) = open(&self.place).await?;
        self.pending.clear();
        self.epoch += 1;
        Ok(())
    }

    /// The lanes that a look-back should cover now; none if the last one was less than a day ago, or if nothing has
    /// moved for so long that earlier ones have covered everything.
    pub(super) fn look_back_lanes(&self) -> Vec<LateLane> {
        let (now, id) = (self.place.clock.now(), TxnId::LookBack);
        let last = self.pending.get(&id).copied().or(self.table.txn(&id)).unwrap_or(0);
        let last = Timestamp::from_micros(last);
        if now.since(last).max(last.since(now)) < DAY {
            return Vec::new();
        }
        let seen_to = last.minus(LOOK_BACK).minus(DAY).max(Timestamp::default());
        let moved = self.known.lanes.iter().filter(|(_, lane)| lane.position() > seen_to);
        let late = moved.map(|(id, lane)| LateLane {
            id: id.clone(),
            from: lane.position().minus(LOOK_BACK).max(Timestamp::default()),
            to: lane.position(),
            with_rows: Moments::default(),
        });
        late.collect()
    }

    /// Begins to learn which segments of these lanes have rows; returns the files that [`LanesLedger::learn_late`] has to
    /// be called with.
    pub(super) async fn begin_late(&mut self, lanes: Vec<LateLane>) -> Result<Vec<DataFile>> {
        let files = self.files().await?;
        let from = lanes.iter().map(|lane| lane.from).min().unwrap_or_default();
        let to = lanes.iter().map(|lane| lane.to).max().unwrap_or_default();
        self.known.late = Some(Late { lanes, is_complete: false });
        let overlaps = |file: &DataFile| matches!(received(file), (first, last) if last >= from && first <= to);
        Ok(files.into_iter().filter(overlaps).collect())
    }

    /// Learns from one file.
    pub(super) async fn learn_late(&mut self, file: &DataFile) -> Result<()> {
        let rows = self.place.rows_of(&self.table, file).await?;
        if let Some(late) = &mut self.known.late {
            rows.into_iter().filter_map(|row| row.segment).for_each(|key| late.take(&key));
        }
        Ok(())
    }

    /// Every file was read: what is missing now has no rows.
    pub(super) fn complete_late(&mut self) {
        if let Some(late) = &mut self.known.late {
            late.is_complete = true;
        }
    }

    /// Abandons a look-back; the next one starts over.
    pub(super) fn drop_late(&mut self) {
        self.known.late = None;
    }

    /// Finishes a look-back that began at `began` and has covered everything.
    pub(super) fn end_late(&mut self, began: Timestamp) {
        self.known.late = None;
        self.pending.insert(TxnId::LookBack, began.as_micros());
    }
}

async fn open(place: &LedgerOptions) -> Result<(LakeTable, Ingested)> {
    let (table, files) = LakeTable::open_with_files(&place.storage, &place.spec, &place.clock).await?;
    updates::check(place.spec.path.as_ref(), &table.schema())?;
    let known =
        Ingested::learn(place, &table, files).await.map_err(|error| Error::during(error, "read what is ingested"))?;
    Ok((table, known))
}
