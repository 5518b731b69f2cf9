//! The loader of our own lanes: an open Auto Loader. Every raw line becomes one row, once.

mod batch;
mod clean;
mod far;
mod fields;
mod inbox;
mod known;
mod lane;
mod ledger;
mod listing;
mod lookback;
mod options;
mod rows;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use object_store::path::Path;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::batch::{Bounds, Segment};
pub use self::clean::{CleanOptions, clean};
use self::inbox::Inbox;
use self::known::LedgerOptions;
use self::lane::{Found, Lane, SegmentKey};
use self::ledger::{LanesLedger, Loaded};
use self::listing::Round;
use self::lookback::LookBack;
use self::options::BronzeMetrics;
pub use self::options::{BronzeOptions, BronzeSummary};
#[cfg(any(test, fuzzing))]
pub use self::rows::batch_of;
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, Result};
use crate::hint::{HintedKeys, KeyHints};
use crate::pipeline::BronzeSettings;
use crate::retry::Backoff;
use crate::table::TableSpec;
use crate::telemetry::{Hop, Telemetry};

/// New lanes are looked for with every listing, but not more often than the first of these, and at least as often as
/// the second.
const DISCOVER_AT_MOST: Duration = Duration::from_secs(2);
const DISCOVER_AT_LEAST: Duration = Duration::from_secs(30);
/// Lanes that are due this soon are listed together with those that are due now.
const LISTED_ALONG: Duration = Duration::from_secs(1);
/// A failed look-back starts over after this.
const LOOK_BACK_PAUSE: Duration = Duration::from_secs(600);
/// Columns with statistics in the log.
const STATS_COLUMNS: [&str; 6] = ["update_id", "chat_id", "date", "sent_at", "_received_at", "_ingested_at"];

/// The stage.
#[derive(Debug)]
pub struct BronzeStage {
    settings: BronzeSettings,
    clock: Clock,
    telemetry: Telemetry,
    committed: watch::Sender<i64>,
    ledger: LanesLedger,
    metrics: BronzeMetrics,
    summary: BronzeSummary,
    /// The round in progress.
    round: Option<Round>,
    /// Whether a first round is complete. Hints wait for it: what was never hinted is older.
    has_listed: bool,
    /// Why a segment of this round could not be read.
    trouble: Option<Error>,
    look_back: Option<LookBack>,
    no_look_back_before: Duration,
    discovered_at: Option<Duration>,
}

/// What the bronze table must be.
///
/// # Errors
/// A configuration error when `table` is not a path.
pub fn table_spec(table: &str, schema: SchemaRef) -> Result<TableSpec> {
    let path = Path::parse(table)
        .map_err(|error| Error::configuration(format!("bronze.table `{table}` is not a path")).caused_by(error))?;
    Ok(TableSpec { path, schema, stats_columns: STATS_COLUMNS.map(str::to_owned).to_vec(), id: None })
}

impl BronzeStage {
    /// Opens the bronze table and learns what is ingested.
    ///
    /// # Errors
    /// When the table cannot be opened or the store fails.
    pub async fn open(options: BronzeOptions) -> Result<Self> {
        let BronzeOptions { storage, pipeline, settings, schema, own, clock, telemetry, committed } = options;
        let spec = TableSpec { id: own.id, ..table_spec(&settings.table, schema)? };
        let span = settings.redelivery_window;
        let place = LedgerOptions {
            storage,
            pipelines: std::iter::once(pipeline).chain(own.former_pipelines).collect(),
            spec,
            span,
            evolution: settings.evolution,
            clock: clock.clone(),
        };
        let ledger = LanesLedger::open(place).await?;
        Ok(Self {
            metrics: BronzeMetrics::new(&telemetry),
            summary: BronzeSummary::default(),
            round: None,
            has_listed: false,
            trouble: None,
            look_back: None,
            no_look_back_before: Duration::ZERO,
            discovered_at: None,
            settings,
            clock,
            telemetry,
            committed,
            ledger,
        })
    }

    /// Loads everything that a listing finds now, until `stop`; returns what this call has loaded.
    ///
    /// # Errors
    /// When the store fails or the table no longer matches; also when a segment could not be read, after all others
    /// were loaded.
    pub async fn work_until_idle(&mut self, stop: &CancellationToken) -> Result<BronzeSummary> {
        self.summary = BronzeSummary::default();
        self.doubt();
        // A lane that appeared since the last call is part of what a listing finds now.
        self.discovered_at = None;
        while self.list_on(stop).await? && !stop.is_cancelled() {}
        let trouble = self.trouble.take();
        let mut looked = Ok(true);
        while !stop.is_cancelled() && matches!(looked, Ok(true)) {
            looked = self.look_back(stop).await;
        }
        // What was loaded counts, whatever could not be read.
        self.ledger.commit(&[], true).await?;
        match trouble {
            Some(trouble) => Err(trouble),
            None => looked.map(|_| self.summary.clone()),
        }
    }

    /// Loads segments as they arrive, until `stop`: hinted ones immediately, all others by listing.
    ///
    /// # Errors
    /// When the disk fails or the table no longer matches. Transient errors are retried.
    pub async fn run(mut self, hints: KeyHints, stop: CancellationToken) -> Result<()> {
        let (clock, limit) = (self.clock.clone(), self.bounds().files.max(1));
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        let mut inbox = Inbox(Some(hints));
        let mut hinted = None;
        while !stop.is_cancelled() {
            if hinted.is_none() && self.has_listed {
                hinted = inbox.take(limit);
            }
            let commits = self.summary.commits;
            let turned = self.turn(hinted.take(), &stop).await;
            if self.summary.commits > commits || matches!(turned, Ok(false)) {
                backoff.reset();
            }
            let wait = match turned {
                Ok(true) => continue,
                Ok(false) => self.next_due(),
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "loading failed; retrying");
                    self.doubt();
                    backoff.next_delay()
                }
                Err(error) if self.ledger.is_paused() => {
                    tracing::error!(%error, "loading is paused; new segments stay in raw/");
                    self.doubt();
                    backoff.next_delay()
                }
                Err(error) => return Err(error),
            };
            let is_idle = self.has_listed && backoff.tries() == 0;
            tokio::select! {
                () = stop.cancelled() => {}
                () = clock.sleep(wait) => {}
                next = inbox.next(limit), if is_idle => hinted = Some(next),
            }
        }
        // A start would find it again; this is only faster.
        if let Err(error) = self.ledger.commit(&[], true).await {
            tracing::warn!(%error, "could not commit progress before stopping");
        }
        Ok(())
    }

    /// Does a little of everything that is waiting: hints, the next batch of a listing, a step of a look-back. Returns
    /// whether there was anything.
    async fn turn(&mut self, hinted: Option<HintedKeys>, stop: &CancellationToken) -> Result<bool> {
        let mut has_worked = hinted.is_some();
        if let Some(hinted) = hinted {
            self.load_hinted(hinted, stop).await?;
        }
        if self.round.is_some() || self.round_due_in().is_zero() {
            self.list_on(stop).await?;
            return Ok(true);
        }
        if self.clock.monotonic() >= self.no_look_back_before {
            has_worked |= match self.look_back(stop).await {
                Err(error) if error.is_transient() || self.ledger.is_paused() => {
                    tracing::warn!(%error, "the look-back failed; it will start over later");
                    self.no_look_back_before = self.clock.monotonic() + LOOK_BACK_PAUSE;
                    self.ledger.drop_late();
                    self.look_back = None;
                    true
                }
                looked => looked?,
            };
        }
        if self.ledger.progress_due_in(self.settings.settle).is_some_and(|due| due.is_zero()) {
            self.ledger.commit(&[], true).await?;
            has_worked = true;
        }
        Ok(has_worked)
    }

    fn bounds(&self) -> Bounds {
        Bounds { files: self.settings.max_files, bytes: self.settings.max_bytes.as_u64() }
    }

    fn next_due(&self) -> Duration {
        let progress = self.ledger.progress_due_in(self.settings.settle).unwrap_or(Duration::MAX);
        self.round_due_in().min(progress)
    }

    /// How long until a lane is to be listed, or new lanes are to be looked for.
    fn round_due_in(&self) -> Duration {
        let (now, wall, lanes) = (self.clock.monotonic(), self.clock.now(), &self.ledger.known.lanes);
        let every = if lanes.is_empty() { DISCOVER_AT_MOST } else { DISCOVER_AT_LEAST };
        let discovery = self.discovered_at.map_or(Duration::ZERO, |at| (at + every).saturating_sub(now));
        lanes.values().map(|lane| lane.due_in(now, wall)).fold(discovery, Duration::min)
    }

    /// Lists every lane again, from its position.
    fn doubt(&mut self) {
        self.round = None;
        self.ledger.known.lanes.values_mut().for_each(Lane::doubt);
    }

    /// Loads the next batch that a listing finds; returns whether the round continues. Begins a round if there is none.
    async fn list_on(&mut self, stop: &CancellationToken) -> Result<bool> {
        // A hint or a look-back may have reopened the table: what a round has passed is then in doubt.
        let mut round = match self.round.take().filter(|round| round.epoch() == self.ledger.epoch()) {
            Some(round) => round,
            None => self.begin_round().await?,
        };
        let found = round.next_batch(self.ledger.place(), &self.ledger.known, self.bounds()).await?;
        self.propose(&round);
        if found.is_empty() {
            let now = self.clock.monotonic();
            round.lanes().for_each(|lane| self.ledger.known.lane(lane).listed(now));
            self.has_listed = true;
            self.forget(None);
            return Ok(false);
        }
        if let Some(trouble) = self.load_listed(found, stop).await? {
            self.trouble = Some(trouble);
        }
        if round.epoch() == self.ledger.epoch() {
            round.settle(&self.ledger.known);
            self.propose(&round);
            self.forget(round.head());
            self.round = Some(round);
        }
        Ok(true)
    }

    async fn begin_round(&mut self) -> Result<Round> {
        let now = self.clock.monotonic();
        self.trouble = None;
        if self.discovered_at.is_none_or(|at| now.saturating_sub(at) >= DISCOVER_AT_MOST) {
            self.ledger.discover().await?;
            self.discovered_at = Some(now);
        }
        let wall = self.clock.now();
        let known = &self.ledger.known;
        let due = known.lanes.iter().filter(|(_, lane)| lane.due_in(now, wall) <= LISTED_ALONG);
        let due = due.map(|(id, _)| id.clone()).collect();
        Ok(Round::new(known, self.ledger.epoch(), wall.minus(self.settings.settle), due))
    }

    fn propose(&mut self, round: &Round) {
        round.positions().for_each(|(lane, position)| self.ledger.propose(lane, position));
    }

    /// Keeps the window bounded. What is still to come may be a whole window old, and looks back another window from
    /// there.
    fn forget(&mut self, head: Option<Timestamp>) {
        let (now, span) = (self.clock.now(), self.settings.redelivery_window);
        let oldest = head.unwrap_or(now).min(now);
        self.ledger.known.forget_before(oldest.minus(span).minus(span));
    }

    async fn load_hinted(&mut self, hinted: HintedKeys, stop: &CancellationToken) -> Result<()> {
        if hinted.overflowed {
            self.doubt();
        }
        let now = self.clock.now();
        let mut taken = HashSet::new();
        let mut found = Vec::new();
        for path in hinted.keys {
            let ours = |key: &SegmentKey| self.ledger.place().pipelines.contains(&key.lane.pipeline);
            let Some(key) = SegmentKey::parse(&path).filter(ours) else {
                tracing::warn!(%path, "a hint does not name a segment of this pipeline");
                continue;
            };
            let lane = self.ledger.known.lane(&key.lane);
            lane.hinted();
            lane.heard(now);
            if !self.ledger.known.is_ingested(&key) && taken.insert(key.clone()) {
                found.push(Found { key, path, size_bytes: 0, modified: now });
            }
        }
        found.sort_by_key(|found| found.key.micros);
        // What could not be read is left to the listing, which logs the reason.
        self.load(&found, stop).await.map(drop)
    }

    /// Loads what a listing has found. Nobody has confirmed that it is durable, and we are about to act on it. Returns
    /// why a segment could not be read.
    async fn load_listed(&mut self, found: Vec<Found>, stop: &CancellationToken) -> Result<Option<Error>> {
        let mut folders = BTreeSet::new();
        for Found { path, .. } in &found {
            let folder = path.as_ref().rsplit_once('/').map(|(folder, _)| folder);
            if folders.insert(folder) {
                self.ledger.place().storage.persist_folder_of(path).await?;
            }
        }
        self.load(&found, stop).await
    }

    /// Reads segments and commits them batch by batch; returns why a segment could not be read.
    async fn load(&mut self, found: &[Found], stop: &CancellationToken) -> Result<Option<Error>> {
        let (mut rest, mut trouble) = (found, None);
        while !rest.is_empty() && !stop.is_cancelled() {
            let batch = batch::read(&self.ledger.place().storage, rest, self.bounds()).await?;
            rest = rest.get(batch.tried..).unwrap_or_default();
            if !batch.segments.is_empty() {
                let started = self.clock.monotonic();
                let loaded = self.ledger.commit(&batch.segments, false).await?;
                let took = self.clock.monotonic().saturating_sub(started);
                self.tell(&batch.segments, loaded, took);
            }
            batch.unread.iter().for_each(|lane| self.ledger.known.lane(lane).unread());
            trouble = batch.trouble.or(trouble);
        }
        Ok(trouble)
    }

    fn tell(&mut self, segments: &[Segment], loaded: Loaded, took: Duration) {
        let (summary, metrics) = (&mut self.summary, &self.metrics);
        summary.files += loaded.files;
        summary.rows += loaded.rows;
        summary.redeliveries += loaded.redeliveries;
        summary.corrupt += loaded.corrupt;
        metrics.files.inc_by(loaded.files);
        metrics.rows.inc_by(loaded.rows);
        metrics.redeliveries.inc_by(loaded.redeliveries);
        metrics.corrupt.inc_by(loaded.corrupt);
        if let Some(version) = loaded.version {
            let now = self.clock.now();
            summary.commits += 1;
            metrics.commit_seconds.observe(took.as_secs_f64());
            for segment in segments {
                metrics.lag_seconds.observe(now.since(segment.key.micros).as_secs_f64());
            }
            for (bot_id, update_id) in loaded.updates {
                self.telemetry.hop(|| Hop {
                    bot_id,
                    update_id,
                    step: "bronze",
                    at: now,
                    detail: format!("v{version}"),
                });
            }
        }
        // Another process may have written it, or an earlier try of ours whose response was lost.
        let version = self.ledger.version();
        self.committed.send_if_modified(|latest| version > std::mem::replace(latest, version.max(*latest)));
    }
}
