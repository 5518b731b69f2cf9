//! The loader of foreign files: an open Auto Loader. Every record of every file becomes one row, once.

mod adopt;
mod ahead;
mod audit;
mod batch;
mod clean;
mod columns;
mod content;
mod discover;
mod ledger;
mod local;
mod memo;
mod options;
mod owner;
mod part;
mod sample;
mod schemas;
mod seen;
mod start;
mod survey;
mod telegram;
#[cfg(test)]
mod tests;
mod unread;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use self::adopt::{FilesPlan, adopt, plan};
pub use self::audit::{FilesAudit, audit};
use self::batch::{Loaded, Loader};
pub use self::clean::clean;
use self::columns::{Rules, Shared};
use self::content::Reader;
use self::discover::{Found, Source, Walk};
use self::ledger::{Ended, FilesLedger, LedgerOptions};
use self::options::FilesMetrics;
pub use self::options::{FilesOptions, FilesProgress, FilesSummary};
pub use self::schemas::{LoggedSchema, logged_schemas};
use self::seen::Stamp;
pub use self::survey::{FilesSurvey, check, survey};
use self::telegram::Updates;
use self::unread::UnreadFiles;
use self::watch::{Watch, Watched, next_walk_in};
use crate::clock::Clock;
use crate::error::Result;
use crate::pipeline::files::FilesPipeline;
use crate::retry::Backoff;

/// How often the set of loaded files is saved while there is work.
const MEMO_EVERY: Duration = Duration::from_secs(60);

/// The stage.
#[derive(Debug)]
pub struct FilesStage {
    pipeline: FilesPipeline,
    ledger_options: LedgerOptions,
    source: Arc<Source>,
    rules: Arc<Rules>,
    clock: Clock,
    checkpoints: PathBuf,
    progress: Arc<FilesProgress>,
    metrics: FilesMetrics,
    summary: FilesSummary,
    /// `None` until there is a table.
    ledger: Option<FilesLedger>,
    unread: UnreadFiles,
    memo_at: Duration,
}

impl FilesStage {
    /// Checks the settings as far as possible without a store.
    ///
    /// # Errors
    /// Configuration when they are invalid.
    pub fn check_settings(options: &FilesOptions) -> Result<()> {
        let FilesOptions { data, pipeline, .. } = options;
        let is_local = data.local_root().is_some();
        discover::Filter::new(&pipeline.source, is_local).and(Rules::new(&pipeline.bronze)).map(drop)
    }

    /// Opens the source and, if it exists, the table, and learns what is loaded.
    ///
    /// # Errors
    /// When the settings are invalid, the table cannot be opened or the store fails.
    pub async fn open(options: FilesOptions) -> Result<Self> {
        let stage = Self::new(options)?;
        let ledger = FilesLedger::open(&stage.ledger_options).await?;
        if let (Some(_), Some(ledger)) = (&stage.ledger_options.updates, &ledger) {
            stage.log_schema(ledger, "as bronze.schema has them");
        }
        Ok(stage.with_ledger(ledger))
    }

    /// The same, to look at a table that may belong to another loader.
    async fn open_any(options: FilesOptions) -> Result<Self> {
        let stage = Self::new(options)?;
        let ledger = FilesLedger::open_any(&stage.ledger_options).await?;
        Ok(stage.with_ledger(ledger))
    }

    fn new(options: FilesOptions) -> Result<Self> {
        let source = Source::new(&options.data, &options.pipeline.source)?;
        let ledger_options = LedgerOptions::new(&options, &source)?;
        let FilesOptions { pipeline, checkpoints, clock, telemetry, progress, .. } = options;
        Ok(Self {
            source: Arc::new(source),
            rules: Arc::new(Rules::new(&pipeline.bronze)?),
            metrics: FilesMetrics::new(&telemetry),
            summary: FilesSummary::default(),
            unread: UnreadFiles::default(),
            memo_at: clock.monotonic(),
            pipeline,
            ledger_options,
            clock,
            checkpoints,
            progress,
            ledger: None,
        })
    }

    fn with_ledger(mut self, ledger: Option<FilesLedger>) -> Self {
        if let Some(from) = ledger.as_ref().and_then(FilesLedger::from) {
            Arc::make_mut(&mut self.source).only_after(from);
        }
        self.ledger = ledger;
        self
    }

    /// Loads everything that a listing finds now, until `stop`; returns what this call has loaded. A file that cannot
    /// be read is tried once.
    ///
    /// # Errors
    /// When the store fails, the table no longer matches, or new fields must stop the loader.
    pub async fn work_until_idle(&mut self, stop: &CancellationToken) -> Result<FilesSummary> {
        self.summary = FilesSummary::default();
        self.unread.clear();
        let walked = match self.begin_source().await {
            Ok(()) => {
                let counts = self.progress.counts_ahead.load(Ordering::Relaxed);
                let _ahead = counts.then(|| ahead::count(&self.source, self.clock.now(), &self.progress));
                self.walk(stop).await
            }
            Err(error) => Err(error),
        };
        self.write_memo().await;
        walked.map(|_settles_in| self.summary.clone())
    }

    /// Loads files as they arrive, until `stop`.
    ///
    /// # Errors
    /// When the disk fails, the table no longer matches, or new fields must stop the loader. Transient errors are
    /// retried.
    pub async fn run(mut self, stop: CancellationToken) -> Result<()> {
        let clock = self.clock.clone();
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        let mut watch = Watch::new(self.watched());
        while !stop.is_cancelled() {
            watch.begin().await;
            self.summary = FilesSummary::default();
            let began = clock.monotonic();
            let settles_in = self.walk(&stop).await;
            let walked = clock.monotonic().saturating_sub(began);
            let wait = match settles_in {
                Ok(settles_in) => {
                    backoff.reset();
                    next_walk_in(self.pipeline.source.list_every, settles_in, walked)
                }
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "loading failed; retrying");
                    backoff.next_delay()
                }
                Err(error) => return Err(error),
            };
            if clock.monotonic().saturating_sub(self.memo_at) >= MEMO_EVERY {
                self.write_memo().await;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = clock.sleep(wait) => {}
                // More work is no reason to retry sooner after a failure.
                () = watch.hinted(&clock, walked), if backoff.tries() == 0 => {}
            }
        }
        self.write_memo().await;
        Ok(())
    }

    /// What is watched, for a source on this machine.
    fn watched(&self) -> Option<Watched> {
        let root = self.source.local_folder().filter(|_| self.pipeline.source.watch)?;
        let table = self.ledger_options.data.local_root().map(|data| data.join(self.ledger_options.table.as_ref()));
        let own = table.into_iter().chain([self.checkpoints.clone()]).collect();
        Some(Watched { root, filter: self.source.filter.clone(), own })
    }

    /// Walks the listing once and loads what is new, batch by batch. Returns when the first of the files that may still
    /// be growing will have settled.
    async fn walk(&mut self, stop: &CancellationToken) -> Result<Option<Duration>> {
        self.begin_source().await?;
        let mut walk = self.source.walk();
        loop {
            self.summary.is_cut_short = stop.is_cancelled();
            if self.summary.is_cut_short {
                break;
            }
            let files = self.next_files(&mut walk).await?;
            if files.is_empty() {
                break;
            }
            let started = self.clock.monotonic();
            self.load(files, stop).await?;
            self.metrics.batch_seconds.observe(self.clock.monotonic().saturating_sub(started).as_secs_f64());
        }
        self.unread.forget_gone(self.clock.monotonic());
        self.summary.listed += walk.tally.listed;
        self.summary.changed = walk.tally.changed;
        self.summary.fresh = walk.tally.fresh;
        self.summary.unread.extend(self.unread.tell(walk.odd));
        Ok(walk.tally.settles_in)
    }

    /// If files that exist at the very first start are to be left out, records when that was.
    async fn begin_source(&mut self) -> Result<()> {
        if self.pipeline.source.include_existing || self.ledger.as_ref().is_some_and(|ledger| ledger.from().is_some()) {
            return Ok(());
        }
        let now = start::starts_at(&self.source, &self.ledger_options.data, &self.clock).await?;
        let mut ledger = match self.ledger.take() {
            Some(ledger) => ledger,
            None => FilesLedger::create(&self.ledger_options, &self.rules.first_columns(None)?).await?,
        };
        let begun = ledger.begin_at(now).await;
        let from = ledger.from().unwrap_or(now);
        self.ledger = Some(ledger);
        begun?;
        Arc::make_mut(&mut self.source).only_after(from);
        Ok(())
    }

    async fn next_files(&mut self, walk: &mut Walk) -> Result<Vec<Found>> {
        let nothing = seen::Seen::default();
        let bounds = (self.pipeline.bronze.max_files, self.pipeline.bronze.max_bytes.as_u64());
        loop {
            let seen = self.ledger.as_ref().map_or(&nothing, |ledger| &ledger.seen);
            let before = walk.tally;
            let mut files = walk.next_batch(&self.source, seen, self.clock.now(), bounds).await?;
            FilesProgress::add(&self.progress.known_files, walk.tally.known - before.known);
            FilesProgress::add(&self.progress.known_bytes, walk.tally.known_bytes - before.known_bytes);
            if files.is_empty() {
                return Ok(files);
            }
            let now = self.clock.monotonic();
            files.retain(|file| self.unread.is_due(file, now));
            if !files.is_empty() {
                return Ok(files);
            }
        }
    }

    /// Loads files and commits them; if another process was faster, those that are left.
    async fn load(&mut self, mut files: Vec<Found>, stop: &CancellationToken) -> Result<()> {
        FilesProgress::add(&self.progress.found_files, files.len() as u64);
        FilesProgress::add(&self.progress.found_bytes, files.iter().map(|file| file.size_bytes).sum());
        while !files.is_empty() && !stop.is_cancelled() {
            let mut ledger = self.open_ledger(&files).await?;
            // The table may have been created since they were found, and another process may have been faster.
            let again = self.pipeline.source.allow_overwrites;
            files.retain(|file| ledger.seen.lacks(&file.path, Stamp::of(file.size_bytes, file.modified), again));
            if files.is_empty() {
                self.ledger = Some(ledger);
                break;
            }
            let columns = ledger.columns();
            let shared = Shared::new(Arc::clone(&self.rules), self.rules.with_hints(&columns)?);
            let loader = self.loader(&ledger, shared);
            let loaded = loader.load(files.clone()).await;
            let ended = match &loaded {
                Ok(loaded) => ledger.commit(loaded).await,
                Err(_) => Ok(Ended::Empty),
            };
            if ledger.columns() != columns {
                self.log_schema(
                    &ledger,
                    &format!("new fields in {}", files.first().map_or("", |file| file.path.as_ref())),
                );
            }
            self.ledger = Some(ledger);
            let loaded = loaded?;
            match ended? {
                Ended::Overtaken => {}
                ended => {
                    self.tell(loaded, ended);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn loader(&self, ledger: &FilesLedger, shared: Shared) -> Loader {
        Loader {
            reader: self.reader(),
            shared,
            updates: self
                .ledger_options
                .updates
                .is_some()
                .then(|| Updates::new(&self.pipeline.bronze, ledger.columns())),
            stager: ledger.stager(),
            ingested_at: self.clock.now(),
            // One waits for its disk while the others compute.
            parallel: std::thread::available_parallelism().map_or(2, usize::from) + 1,
        }
    }

    fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.source), &self.pipeline.source)
    }

    /// The ledger; if there is no table, it is created with the columns of the first files.
    async fn open_ledger(&mut self, files: &[Found]) -> Result<FilesLedger> {
        if let Some(ledger) = self.ledger.take() {
            return Ok(ledger);
        }
        let (sampled, seen) = sample::infer(&self.reader(), files, self.rules.infer).await?;
        let ledger = FilesLedger::create(&self.ledger_options, &self.rules.first_columns(seen)?).await?;
        self.log_schema(&ledger, &format!("inferred from {sampled} files"));
        Ok(ledger)
    }

    /// Adds a version to the schema log. The log is for people; the table has the columns itself.
    fn log_schema(&self, ledger: &FilesLedger, reason: &str) {
        let name = self.pipeline.name.as_str();
        if let Err(error) = schemas::write(&self.checkpoints, name, &ledger.columns(), reason, self.clock.now()) {
            tracing::warn!(%error, "could not write the schema log");
        }
    }

    fn tell(&mut self, loaded: Loaded, ended: Ended) {
        let (summary, metrics) = (&mut self.summary, &self.metrics);
        let bytes = loaded.files.iter().map(|file| file.size_bytes).sum();
        let files = loaded.files.len() as u64;
        summary.files += files;
        summary.rows += loaded.rows;
        summary.rescued_rows += loaded.rescued_rows;
        summary.corrupt_rows += loaded.corrupt_rows;
        summary.commits += u64::from(matches!(ended, Ended::Committed(_)));
        metrics.files.inc_by(files);
        metrics.rows.inc_by(loaded.rows);
        metrics.rescued.inc_by(loaded.rescued_rows);
        metrics.corrupt.inc_by(loaded.corrupt_rows);
        metrics.unread.inc_by(loaded.unread.len() as u64);
        FilesProgress::add(&self.progress.files, files);
        FilesProgress::add(&self.progress.bytes, bytes);
        FilesProgress::add(&self.progress.rows, loaded.rows);
        let now = self.clock.monotonic();
        for (file, error) in loaded.unread {
            self.summary.unread.push(error.to_string());
            self.unread.hold_off(&file, &error, now);
        }
        for file in loaded.files {
            self.unread.remove(&file);
        }
    }

    async fn write_memo(&mut self) {
        self.memo_at = self.clock.monotonic();
        if let Some(ledger) = &mut self.ledger
            && let Err(error) = ledger.write_memo().await
        {
            tracing::warn!(%error, "could not save the set of loaded files");
        }
    }
}
