//! The bronze table as the loader's ledger: what is ingested, and the commits that add to it.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use object_store::path::Path;
use serde_json::Value;

use super::lanes::{Lane, LaneId, Lanes, SegmentKey};
use super::rows::{self, KnownRow, Line};
use super::window::Window;
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BotId, Name};
use crate::pipeline::BronzeSettings;
use crate::storage::{Storage, StorageKey};
use crate::table::{Append, Commit, CommitOutcome, DataFile, Fence, LakeTable, TableSpec};

/// A segment that was read.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) key: SegmentKey,
    pub(super) lines: Vec<Line>,
}

/// What a commit of segments came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Loaded {
    /// The version, when there were rows.
    pub(super) version: Option<i64>,
    /// Updates of the rows.
    pub(super) updates: Vec<(BotId, i64)>,
    pub(super) rows: u64,
    pub(super) redeliveries: u64,
    pub(super) corrupt: u64,
}

/// The table and what is known of it.
#[derive(Debug)]
pub(super) struct Ledger {
    storage: Storage,
    pipeline: Name,
    spec: TableSpec,
    span: Duration,
    clock: Clock,
    table: LakeTable,
    app_id: String,
    seen: i64,
    pub(super) lanes: Lanes,
    window: Window,
    /// Segments at or below a position that are in the table, while a look-back needs to know them.
    late: Option<HashSet<SegmentKey>>,
    /// Positions that ride along with the next commit.
    pending: BTreeMap<LaneId, Timestamp>,
    progressed_at: Duration,
}

impl Ledger {
    pub(super) async fn open(
        storage: &Storage,
        pipeline: &Name,
        settings: &BronzeSettings,
        schema: SchemaRef,
        clock: &Clock,
    ) -> Result<Self> {
        let path = Path::parse(&settings.table)
            .map_err(|error| Error::configuration(format!("bronze.table `{}`", settings.table)).caused_by(error))?;
        let stats = ["update_id", "chat_id", "date", "sent_at", "_received_at", "_ingested_at"];
        let spec = TableSpec { path, schema, stats_columns: stats.map(str::to_owned).to_vec() };
        let (table, files) = LakeTable::open_with_files(storage, &spec, clock).await?;
        let mut ledger = Self {
            storage: storage.clone(),
            pipeline: pipeline.clone(),
            spec,
            span: settings.redelivery_window,
            clock: clock.clone(),
            table,
            app_id: format!("lakegram/{pipeline}/bronze"),
            seen: 0,
            lanes: Lanes::new(),
            window: Window::new(settings.redelivery_window, clock.now()),
            late: None,
            pending: BTreeMap::new(),
            progressed_at: clock.monotonic(),
        };
        ledger.learn(files).await?;
        Ok(ledger)
    }

    /// Finds lanes that are new since the last look.
    pub(super) async fn discover(&mut self) -> Result<()> {
        let root = StorageKey::RawPipeline { pipeline: self.pipeline.clone() }.path();
        for bot in self.storage.list_folders(&root).await? {
            let Some(bot_id) = bot.filename().and_then(|name| name.parse().ok()).map(BotId) else { continue };
            for lane in self.storage.list_folders(&bot).await? {
                let Some(lane) = lane.filename().and_then(|name| Name::new(name).ok()) else { continue };
                self.lanes.entry(LaneId { bot_id, lane }).or_default();
            }
        }
        Ok(())
    }

    /// The folder of a lane.
    pub(super) fn folder(&self, id: &LaneId) -> Path {
        StorageKey::Lane { pipeline: self.pipeline.clone(), bot_id: id.bot_id, lane: id.lane.clone() }.path()
    }

    /// Where a segment of a lane stands, or would.
    pub(super) fn segment_path(&self, id: &LaneId, micros: Timestamp) -> Path {
        let (pipeline, lane) = (self.pipeline.clone(), id.lane.clone());
        StorageKey::Segment { pipeline, bot_id: id.bot_id, lane, micros }.path()
    }

    /// Lets a position ride along with the next commit.
    pub(super) fn propose(&mut self, id: &LaneId, position: Timestamp) {
        if self.lanes.get(id).is_some_and(|lane| position > lane.position()) {
            self.pending.insert(id.clone(), position);
        }
    }

    /// Whether positions have waited for a commit longer than `limit`.
    pub(super) fn progress_is_due(&self, limit: Duration) -> bool {
        !self.pending.is_empty() && self.clock.monotonic().saturating_sub(self.progressed_at) >= limit
    }

    /// Appends the rows of segments, and pending positions with them, in one commit. With no segment left to load,
    /// positions alone are committed if `with_progress` says so.
    pub(super) async fn commit(&mut self, segments: &[Segment], with_progress: bool) -> Result<Loaded> {
        loop {
            let (lines, mut loaded) = self.plan(segments).await?;
            let progresses = with_progress && !self.pending.is_empty();
            if lines.is_empty() && !progresses {
                self.remember(segments, &[]);
                return Ok(loaded);
            }
            let rows = match lines.is_empty() {
                true => None,
                false => Some(rows::to_batch(&self.table.schema(), &lines, self.clock.now())?),
            };
            let positions = std::mem::take(&mut self.pending);
            let progress =
                positions.iter().map(|(id, position)| (self.position_id(id), position.as_micros())).collect();
            let fence = Fence { app_id: self.app_id.clone(), seen: self.seen };
            let outcome = self.table.append(Append { rows, fence, progress }).await;
            match outcome {
                Ok(CommitOutcome::Committed { version } | CommitOutcome::AlreadyCommitted { version }) => {
                    self.seen += 1;
                    self.progressed_at = self.clock.monotonic();
                    self.remember(segments, &lines);
                    self.advance(positions);
                    loaded.version = (!lines.is_empty()).then_some(version);
                    return Ok(loaded);
                }
                Ok(CommitOutcome::Fenced { commits }) => self.take_in(commits).await?,
                Ok(CommitOutcome::Stale) => self.reopen().await?,
                Err(error) => {
                    self.pending = positions;
                    return Err(error);
                }
            }
        }
    }

    /// The rows to add: of segments that are not ingested, the lines that are no redelivery, by `update_id`.
    async fn plan<'a>(&mut self, segments: &'a [Segment]) -> Result<(Vec<&'a Line>, Loaded)> {
        let mut loaded = Loaded::default();
        let mut taken: HashSet<(BotId, i64)> = HashSet::new();
        let mut lines = Vec::new();
        let old = self.known_of_old(segments).await?;
        for segment in segments.iter().filter(|segment| !self.is_ingested(&segment.key)) {
            for line in &segment.lines {
                let Some(update_id) = line.update_id() else {
                    loaded.corrupt += 1;
                    lines.push(line);
                    continue;
                };
                let update = (line.bot_id, update_id);
                if self.window.contains(update.0, update.1) || old.contains(&update) || !taken.insert(update) {
                    loaded.redeliveries += 1;
                    continue;
                }
                loaded.updates.push(update);
                lines.push(line);
            }
        }
        lines.sort_by_key(|line| (line.bot_id, line.update_id().unwrap_or(i64::MAX)));
        loaded.rows = lines.len() as u64;
        Ok((lines, loaded))
    }

    fn is_ingested(&self, key: &SegmentKey) -> bool {
        let Some(lane) = self.lanes.get(&key.lane) else { return false };
        match &self.late {
            // What a look-back finds below the position is asked of what it has read of the table.
            Some(late) if key.micros <= lane.position() => late.contains(key),
            _ => lane.is_ingested(key.micros),
        }
    }

    /// Which updates of segments that are older than the window are in the table.
    async fn known_of_old(&mut self, segments: &[Segment]) -> Result<HashSet<(BotId, i64)>> {
        let floor = self.window.floor();
        let old = segments.iter().filter(|segment| segment.key.micros.minus(self.span) < floor);
        let asked: HashSet<(BotId, i64)> = old
            .flat_map(|segment| &segment.lines)
            .filter_map(|line| Some((line.bot_id, line.update_id()?)))
            .filter(|(bot_id, update_id)| !self.window.contains(*bot_id, *update_id))
            .collect();
        let mut known = HashSet::new();
        if asked.is_empty() {
            return Ok(known);
        }
        let (first, last) =
            asked.iter().fold((i64::MAX, i64::MIN), |(first, last), (_, id)| (first.min(*id), last.max(*id)));
        for file in self.files().await? {
            let low = file.min_values.get("update_id").and_then(Value::as_i64).unwrap_or(i64::MIN);
            let high = file.max_values.get("update_id").and_then(Value::as_i64).unwrap_or(i64::MAX);
            if low <= last && high >= first {
                let rows = self.read(&file).await?;
                known.extend(rows.into_iter().filter_map(|row| Some((row.bot_id, row.update_id?))));
            }
        }
        known.retain(|update| asked.contains(update));
        Ok(known)
    }

    /// The files of the table. What a handle that has slept stands on may be cleaned away; opened again it is there.
    async fn files(&mut self) -> Result<Vec<DataFile>> {
        match self.table.files().await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                self.reopen().await?;
                self.table.files().await
            }
            files => files,
        }
    }

    /// Learns which segments between two moments are in the table, for a look-back.
    pub(super) async fn learn_late(&mut self, from: Timestamp) -> Result<()> {
        let mut late = HashSet::new();
        for file in self.files().await?.into_iter().filter(|file| reaches(file, from)) {
            late.extend(self.read(&file).await?.into_iter().filter_map(|row| row.segment));
        }
        self.late = Some(late);
        Ok(())
    }

    /// Whether a segment at or below a position is in the table, as a look-back has learnt.
    pub(super) fn is_known_late(&self, key: &SegmentKey) -> bool {
        self.late.as_ref().is_some_and(|late| late.contains(key))
    }

    /// Ends a look-back.
    pub(super) fn forget_late(&mut self) {
        self.late = None;
    }

    fn remember(&mut self, segments: &[Segment], lines: &[&Line]) {
        for Segment { key, .. } in segments {
            let lane = self.lanes.entry(key.lane.clone()).or_default();
            lane.ingested(key.micros);
            if let Some(late) = &mut self.late {
                late.insert(key.clone());
            }
        }
        for line in lines {
            if let Some(update_id) = line.update_id() {
                self.window.insert(line.bot_id, update_id, line.received_at);
            }
        }
    }

    fn advance(&mut self, positions: BTreeMap<LaneId, Timestamp>) {
        for (id, position) in positions {
            self.lanes.entry(id).or_default().advance(position);
        }
    }

    async fn take_in(&mut self, commits: Vec<Commit>) -> Result<()> {
        for file in commits.iter().flat_map(|commit| &commit.added) {
            let rows = self.read(file).await?;
            self.learn_rows(rows);
        }
        self.seen = self.table.txn(&self.app_id).unwrap_or(0);
        let positions = self.positions();
        self.advance(positions);
        Ok(())
    }

    async fn reopen(&mut self) -> Result<()> {
        let files;
        (self.table, files) = LakeTable::open_with_files(&self.storage, &self.spec, &self.clock).await?;
        self.learn(files).await
    }

    /// Learns what is ingested, as at a start: positions from the log, the set above them and the window from the
    /// table's recent files.
    async fn learn(&mut self, files: Vec<DataFile>) -> Result<()> {
        self.seen = self.table.txn(&self.app_id).unwrap_or(0);
        self.pending.clear();
        self.lanes.clear();
        let positions = self.positions();
        self.advance(positions);
        self.discover().await?;
        let mut oldest = self.clock.now();
        for id in self.lanes.keys().cloned().collect::<Vec<_>>() {
            let position = self.lanes.get(&id).map(Lane::position).unwrap_or_default();
            let after = (position > Timestamp::default()).then(|| self.segment_path(&id, position));
            let first = self.storage.list_after(&self.folder(&id), after.as_ref(), 1).await?;
            let first = first.first().and_then(|object| StorageKey::parse(&object.location)).and_then(SegmentKey::of);
            oldest = first.map_or(oldest, |first| oldest.min(first.micros));
        }
        let from = oldest.minus(self.span);
        self.window = Window::new(self.span, from);
        let files: Vec<DataFile> = files.into_iter().filter(|file| reaches(file, from)).collect();
        let mut learnt = Vec::with_capacity(files.len());
        let mut reads = self.table.read_files(&files, Some(&rows::KNOWN_COLUMNS));
        while let Some(batch) = reads.next().await {
            learnt.push(rows::known_rows(&batch?)?);
        }
        drop(reads);
        learnt.into_iter().for_each(|rows| self.learn_rows(rows));
        Ok(())
    }

    fn learn_rows(&mut self, rows: Vec<KnownRow>) {
        for row in rows {
            if let Some(update_id) = row.update_id {
                self.window.insert(row.bot_id, update_id, row.received_at);
            }
            let Some(key) = row.segment else { continue };
            let lane = self.lanes.entry(key.lane.clone()).or_default();
            lane.ingested(key.micros);
            if let Some(late) = &mut self.late {
                late.insert(key);
            }
        }
    }

    async fn read(&self, file: &DataFile) -> Result<Vec<KnownRow>> {
        rows::known_rows(&self.table.read_file(file, Some(&rows::KNOWN_COLUMNS)).await?)
    }

    fn positions(&self) -> BTreeMap<LaneId, Timestamp> {
        let prefix = format!("lakegram/{}/lane/", self.pipeline);
        let position = |(name, micros): (&String, &i64)| {
            let (bot_id, lane) = name.strip_prefix(&prefix)?.split_once('/')?;
            let id = LaneId { bot_id: BotId(bot_id.parse().ok()?), lane: Name::new(lane).ok()? };
            Some((id, Timestamp::from_micros(*micros)))
        };
        self.table.txns().iter().filter_map(position).collect()
    }

    fn position_id(&self, id: &LaneId) -> String {
        format!("lakegram/{}/lane/{}/{}", self.pipeline, id.bot_id, id.lane)
    }
}

/// Whether a file may hold rows received at `from` or later.
fn reaches(file: &DataFile, from: Timestamp) -> bool {
    let newest = file.max_values.get("_received_at").and_then(Value::as_str);
    let newest = newest.and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
    newest.is_none_or(|newest| newest.timestamp_micros() >= from.as_micros())
}
