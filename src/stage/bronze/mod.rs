//! The bronze stage: an open Auto Loader for the lanes of our receivers. Every raw line becomes one row, once.

mod lanes;
mod ledger;
mod rows;
#[cfg(test)]
mod tests;
mod window;

use std::collections::VecDeque;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use futures::{StreamExt, stream};
use object_store::path::Path;
use prometheus::{Histogram, IntCounter};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::lanes::{Contiguous, Lane, LaneId, SegmentKey};
use self::ledger::{Ledger, Loaded, Segment};
use crate::clock::{Clock, Timestamp};
use crate::error::{ErrorKind, Result};
use crate::hint::{HintedKeys, KeyHints};
use crate::id::Name;
use crate::pipeline::BronzeSettings;
use crate::retry::Backoff;
use crate::storage::{Storage, StorageKey};
use crate::telemetry::{Hop, Telemetry};

/// Keys in a page of a listing.
const PAGE: usize = 1_000;
/// Segments read at the same time.
const READ_AHEAD: usize = 16;
/// New lanes are looked for this often.
const DISCOVER_EVERY: Duration = Duration::from_secs(30);
/// While no lane is known at all.
const DISCOVER_FIRST: Duration = Duration::from_secs(2);
const DAY: Duration = Duration::from_secs(86_400);
/// How far below a position the daily look-back goes.
const LOOK_BACK: Duration = Duration::from_secs(48 * 3_600);

/// What the stage works with.
#[derive(Debug)]
pub struct BronzeOptions {
    /// The store below `LAKEGRAM_DATA`.
    pub storage: Storage,
    /// The pipeline's name.
    pub pipeline: Name,
    /// Its bronze settings.
    pub settings: BronzeSettings,
    /// The columns of the bronze table.
    pub schema: SchemaRef,
    /// Time.
    pub clock: Clock,
    /// Metrics and hops.
    pub telemetry: Telemetry,
    /// Told the latest version with rows: the hint for the stage that reads the table.
    pub committed: watch::Sender<i64>,
}

/// What was loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BronzeSummary {
    /// Segments read.
    pub files: u64,
    /// Rows added.
    pub rows: u64,
    /// Lines that were redeliveries.
    pub redeliveries: u64,
    /// Rows with `_corrupt_record`.
    pub corrupt: u64,
    /// Commits with rows.
    pub commits: u64,
}

#[derive(Debug)]
struct BronzeMetrics {
    files: IntCounter,
    rows: IntCounter,
    redeliveries: IntCounter,
    corrupt: IntCounter,
    commit_seconds: Histogram,
    lag_seconds: Histogram,
}

/// The stage.
#[derive(Debug)]
pub struct BronzeStage {
    storage: Storage,
    settings: BronzeSettings,
    clock: Clock,
    telemetry: Telemetry,
    committed: watch::Sender<i64>,
    ledger: Ledger,
    metrics: BronzeMetrics,
    summary: BronzeSummary,
    discovered_at: Duration,
    looked_back_at: Duration,
}

impl BronzeMetrics {
    fn new(telemetry: &Telemetry) -> Self {
        Self {
            files: telemetry.counter("lakegram_bronze_files_total", "segments read"),
            rows: telemetry.counter("lakegram_bronze_rows_total", "rows added"),
            redeliveries: telemetry.counter("lakegram_bronze_redeliveries_total", "lines that were redeliveries"),
            corrupt: telemetry.counter("lakegram_bronze_corrupt_rows_total", "rows that are no update"),
            commit_seconds: telemetry.latency("lakegram_bronze_commit_seconds", "time a commit took"),
            lag_seconds: telemetry.latency("lakegram_bronze_lag_seconds", "time from a segment's key to its commit"),
        }
    }
}

impl BronzeStage {
    /// Opens the bronze table and learns what is ingested.
    ///
    /// # Errors
    /// When the table cannot be opened or the store fails.
    pub async fn open(options: BronzeOptions) -> Result<Self> {
        let BronzeOptions { storage, pipeline, settings, schema, clock, telemetry, committed } = options;
        let ledger = Ledger::open(&storage, &pipeline, &settings, schema, &clock).await?;
        Ok(Self {
            metrics: BronzeMetrics::new(&telemetry),
            discovered_at: clock.monotonic(),
            looked_back_at: clock.monotonic(),
            summary: BronzeSummary::default(),
            storage,
            settings,
            clock,
            telemetry,
            committed,
            ledger,
        })
    }

    /// Loads everything that a listing finds now, until `stop`.
    ///
    /// # Errors
    /// When the store fails or the table no longer fits.
    pub async fn work_until_idle(&mut self, stop: &CancellationToken) -> Result<BronzeSummary> {
        self.ledger.discover().await?;
        for id in self.ledger.lanes.keys().cloned().collect::<Vec<_>>() {
            self.sweep(&id, stop).await?;
        }
        self.ledger.commit(&[], true).await?;
        Ok(self.summary.clone())
    }

    /// Loads segments as they come, until `stop`: hinted ones at once, all others by listing.
    ///
    /// # Errors
    /// When the disk fails or the table no longer fits. What passes by itself is tried again.
    pub async fn run(mut self, mut hints: KeyHints, stop: CancellationToken) -> Result<()> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        // The listing comes before the hints: what was never hinted is older.
        let mut done = self.sweep_due(&stop).await;
        let mut hints_live = true;
        loop {
            let wait = match done {
                Ok(()) => {
                    backoff.reset();
                    self.next_due()
                }
                Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown) => {
                    tracing::warn!(%error, "loading failed for the moment; trying again");
                    self.ledger.lanes.values_mut().for_each(Lane::doubt);
                    let delay = backoff.next_delay();
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        () = self.clock.sleep(delay) => Duration::ZERO,
                    }
                }
                Err(error) => return Err(error),
            };
            let clock = self.clock.clone();
            done = tokio::select! {
                () = stop.cancelled() => return self.ledger.commit(&[], true).await.map(drop),
                hinted = hints.next(self.settings.max_files), if hints_live => match hinted {
                    Some(hinted) => self.load_hinted(hinted, &stop).await,
                    None => {
                        hints_live = false;
                        Ok(())
                    }
                },
                () = clock.sleep(wait) => self.sweep_due(&stop).await,
            };
        }
    }

    fn next_due(&self) -> Duration {
        let (now, wall) = (self.clock.monotonic(), self.clock.now());
        let every = if self.ledger.lanes.is_empty() { DISCOVER_FIRST } else { DISCOVER_EVERY };
        let discovery = (self.discovered_at + every).saturating_sub(now);
        self.ledger.lanes.values().map(|lane| lane.due_in(now, wall)).fold(discovery, Duration::min)
    }

    async fn sweep_due(&mut self, stop: &CancellationToken) -> Result<()> {
        let now = self.clock.monotonic();
        let every = if self.ledger.lanes.is_empty() { DISCOVER_FIRST } else { DISCOVER_EVERY };
        if now.saturating_sub(self.discovered_at) >= every {
            self.ledger.discover().await?;
            self.discovered_at = now;
        }
        let wall = self.clock.now();
        let due = |(id, lane): (&LaneId, &Lane)| lane.due_in(now, wall).is_zero().then(|| id.clone());
        for id in self.ledger.lanes.iter().filter_map(due).collect::<Vec<_>>() {
            self.sweep(&id, stop).await?;
        }
        if now.saturating_sub(self.looked_back_at) >= DAY {
            self.looked_back_at = now;
            self.look_back(stop).await?;
        }
        if self.ledger.progress_is_due(self.settings.settle) {
            self.ledger.commit(&[], true).await?;
        }
        Ok(())
    }

    async fn load_hinted(&mut self, hinted: HintedKeys, stop: &CancellationToken) -> Result<()> {
        let now = self.clock.monotonic();
        let mut keys = VecDeque::new();
        for path in hinted.keys {
            let Some(key) = StorageKey::parse(&path).and_then(SegmentKey::of) else { continue };
            let lane = self.ledger.lanes.entry(key.lane.clone()).or_default();
            lane.hinted(now);
            if hinted.overflowed {
                lane.doubt();
            }
            if !lane.is_ingested(key.micros) {
                keys.push_back((key, path));
            }
        }
        self.load(keys, stop).await
    }

    /// Lists a lane from its position and loads what is not ingested, page by page.
    async fn sweep(&mut self, id: &LaneId, stop: &CancellationToken) -> Result<()> {
        let position = self.ledger.lanes.get(id).map(Lane::position).unwrap_or_default();
        let mut contiguous = Contiguous::new(self.clock.now().minus(self.settings.settle));
        let folder = self.ledger.folder(id);
        let mut after = (position > Timestamp::default()).then(|| self.ledger.segment_path(id, position));
        while !stop.is_cancelled() {
            let page = self.list(&folder, after.as_ref()).await?;
            let is_new = |key: &SegmentKey| self.ledger.lanes.get(id).is_none_or(|lane| !lane.is_ingested(key.micros));
            let new = page.found.iter().filter(|found| is_new(&found.key));
            let new: VecDeque<_> = new.map(|found| (found.key.clone(), found.path.clone())).collect();
            self.persist(&new).await?;
            self.load(new, stop).await?;
            let lane = self.ledger.lanes.entry(id.clone()).or_default();
            for found in &page.found {
                contiguous.follow(found.key.micros, found.modified, lane.is_ingested(found.key.micros));
            }
            if let Some(position) = contiguous.position() {
                self.ledger.propose(id, position);
            }
            after = page.last;
            if after.is_none() {
                let now = self.clock.monotonic();
                self.ledger.lanes.entry(id.clone()).or_default().listed(now);
                break;
            }
        }
        Ok(())
    }

    /// Lists two days below each position, for what a store may have shown late.
    async fn look_back(&mut self, stop: &CancellationToken) -> Result<()> {
        let lanes = self.ledger.lanes.iter().map(|(id, lane)| (id.clone(), lane.position())).collect::<Vec<_>>();
        let Some(first) = lanes.iter().map(|(_, position)| position.minus(LOOK_BACK)).min() else { return Ok(()) };
        self.ledger.learn_late(first).await?;
        for (id, position) in lanes {
            let folder = self.ledger.folder(&id);
            let mut after = Some(self.ledger.segment_path(&id, position.minus(LOOK_BACK)));
            while after.is_some() && !stop.is_cancelled() {
                let page = self.list(&folder, after.as_ref()).await?;
                let below = page.found.iter().take_while(|found| found.key.micros <= position);
                let keys: VecDeque<_> = below.map(|found| (found.key.clone(), found.path.clone())).collect();
                after = page.last.filter(|_| keys.len() == page.found.len());
                self.persist(&keys).await?;
                // The ledger knows which of them are in the table, and skips those.
                let missing = keys.into_iter().filter(|(key, _)| !self.ledger.is_known_late(key)).collect();
                self.load(missing, stop).await?;
            }
        }
        self.ledger.forget_late();
        Ok(())
    }

    async fn list(&self, folder: &Path, after: Option<&Path>) -> Result<Page> {
        let objects = self.storage.list_after(folder, after, PAGE).await?;
        let last = objects.last().filter(|_| objects.len() == PAGE).map(|object| object.location.clone());
        let found = objects.into_iter().filter_map(|object| {
            let key = StorageKey::parse(&object.location).and_then(SegmentKey::of)?;
            let modified = Timestamp::from_micros(object.last_modified.timestamp_micros());
            Some(Found { key, path: object.location, modified })
        });
        Ok(Page { found: found.collect(), last })
    }

    /// What was found without its writer's hint may not be durable yet, and we are about to act on it.
    async fn persist(&self, keys: &VecDeque<(SegmentKey, Path)>) -> Result<()> {
        let mut folder = None;
        for (_, path) in keys {
            let parent = path.as_ref().rsplit_once('/').map(|(parent, _)| parent);
            if parent != folder {
                self.storage.persist_folder_of(path).await?;
                folder = parent;
            }
        }
        Ok(())
    }

    /// Reads segments and commits them in batches bounded in files and bytes; a segment is never split.
    async fn load(&mut self, mut keys: VecDeque<(SegmentKey, Path)>, stop: &CancellationToken) -> Result<()> {
        while !keys.is_empty() && !stop.is_cancelled() {
            let segments = self.read_batch(&mut keys).await?;
            let started = self.clock.monotonic();
            let loaded = self.ledger.commit(&segments, false).await?;
            self.metrics.commit_seconds.observe((self.clock.monotonic() - started).as_secs_f64());
            self.tell(&segments, loaded);
        }
        Ok(())
    }

    /// Reads segments from the front of `keys` up to the bounds. One that is gone is left to the next listing.
    async fn read_batch(&self, keys: &mut VecDeque<(SegmentKey, Path)>) -> Result<Vec<Segment>> {
        let limit = self.settings.max_bytes.as_u64();
        let (mut segments, mut bytes, mut read) = (Vec::new(), 0, 0);
        let batch: Vec<(SegmentKey, Path)> = keys.iter().take(self.settings.max_files).cloned().collect();
        let gets = batch.into_iter().map(|(key, path)| async {
            let content = self.storage.get(&path).await;
            (key, path, content)
        });
        let mut gets = std::pin::pin!(stream::iter(gets).buffered(READ_AHEAD));
        while bytes < limit {
            let Some((key, path, content)) = gets.next().await else { break };
            read += 1;
            let Some(content) = content? else {
                tracing::warn!(%path, "a segment is gone before it was loaded");
                continue;
            };
            bytes += content.len() as u64;
            segments.push(Segment { lines: rows::lines(&key, &path, &content), key });
        }
        keys.drain(..read);
        Ok(segments)
    }

    fn tell(&mut self, segments: &[Segment], loaded: Loaded) {
        let files = segments.len() as u64;
        self.summary.files += files;
        self.summary.rows += loaded.rows;
        self.summary.redeliveries += loaded.redeliveries;
        self.summary.corrupt += loaded.corrupt;
        self.metrics.files.inc_by(files);
        self.metrics.rows.inc_by(loaded.rows);
        self.metrics.redeliveries.inc_by(loaded.redeliveries);
        self.metrics.corrupt.inc_by(loaded.corrupt);
        let Some(version) = loaded.version else { return };
        self.summary.commits += 1;
        let now = self.clock.now();
        for segment in segments {
            self.metrics.lag_seconds.observe(now.since(segment.key.micros).as_secs_f64());
        }
        for (bot_id, update_id) in loaded.updates {
            self.telemetry.hop(|| Hop { bot_id, update_id, step: "bronze", at: now, detail: version.to_string() });
        }
        self.committed.send_replace(version);
    }
}

struct Page {
    found: Vec<Found>,
    /// Where the next page goes on; `None` at the end.
    last: Option<Path>,
}

struct Found {
    key: SegmentKey,
    path: Path,
    modified: Timestamp,
}
