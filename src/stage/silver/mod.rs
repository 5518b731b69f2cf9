//! The silver stage: every bronze row becomes one silver row, answered by the model where a route says so.

mod ask;
mod breaker;
mod history;
mod ledger;
mod options;
mod route;
mod rows;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use prometheus::{IntCounterVec, IntGauge};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::ask::{Asker, Question};
use self::history::History;
use self::ledger::SilverLedger;
pub use self::ledger::spec as table_spec;
pub use self::options::{SilverOptions, SilverSummary};
use self::route::Decision;
use self::rows::{BronzeRow, RowKey, SilverRow, Status};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::chats::ChatQueue;
use crate::flow::feed::{Feed, Step};
use crate::flow::watermark::Watermark;
use crate::id::BotId;
use crate::pipeline::Route;
use crate::retry::Backoff;
use crate::table::{TableRole, TableSpec};
use crate::telemetry::{Hop, Telemetry};

/// How often the bronze table is looked at without a hint.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A watermark that moved without a row is committed this often.
const WATERMARK_EVERY: Duration = Duration::from_secs(60);
/// Rows of a chat that has no id go here; Telegram's ids never come near it.
const NO_CHAT: i64 = i64::MIN;

/// The stage. One task keeps the ledger; questions are asked side by side.
#[derive(Debug)]
pub struct SilverStage {
    ledger: SilverLedger,
    feed: Feed<RowKey>,
    queue: ChatQueue<(BronzeRow, String)>,
    /// Rows in memory: taken, and not committed.
    under_way: HashSet<RowKey>,
    watermark: Watermark,
    history: History,
    asker: Arc<Asker>,
    asking: JoinSet<Option<SilverRow>>,
    /// Rows that are done and not committed.
    finished: Vec<SilverRow>,
    routes: Vec<Route>,
    bot_id: Option<BotId>,
    max_waiting: usize,
    clock: Clock,
    telemetry: Telemetry,
    committed: watch::Sender<i64>,
    rows_total: IntCounterVec,
    waiting_rows: IntGauge,
    summary: SilverSummary,
    watermark_committed_at: Duration,
    wind_down: CancellationToken,
}

impl SilverStage {
    /// Opens the silver table, and learns what is done and what was said.
    ///
    /// # Errors
    /// When the table cannot be opened or the store fails.
    pub async fn open(options: SilverOptions) -> Result<Self> {
        let SilverOptions { storage, pipeline, schema, clock, telemetry, .. } = &options;
        let settings = &pipeline.silver;
        let spec = ledger::spec(&settings.table, Arc::clone(schema))?;
        let spec = TableSpec { id: options.own.id.clone(), ..spec };
        let bronze = Path::from(pipeline.bronze.table.as_str());
        let (ledger, files) = SilverLedger::open(storage, spec, TableRole::Silver, &bronze, clock).await?;
        let mut history = History::new(settings.model.history);
        let since = clock.now().minus(settings.model.history.max_age);
        history.rebuild(ledger::received_since(&ledger, files, since).await?);
        let watermark = ledger.watermark();
        let wind_down = CancellationToken::new();
        Ok(Self {
            feed: Feed::new(storage, &bronze, watermark, &rows::BRONZE_COLUMNS, clock),
            queue: ChatQueue::new(),
            under_way: HashSet::new(),
            watermark: Watermark::new(watermark),
            asker: Arc::new(options.asker(wind_down.clone())),
            asking: JoinSet::new(),
            finished: Vec::new(),
            routes: pipeline.routes.clone(),
            bot_id: options.bot_id,
            max_waiting: settings.max_waiting,
            rows_total: telemetry.counters("lakegram_silver_rows_total", "rows added", &["status"]),
            waiting_rows: telemetry.gauge("lakegram_silver_waiting_rows", "rows that wait for the model"),
            summary: SilverSummary::default(),
            watermark_committed_at: clock.monotonic(),
            clock: clock.clone(),
            telemetry: telemetry.clone(),
            committed: options.committed.clone(),
            ledger,
            history,
            wind_down,
        })
    }

    /// Handles everything that is in bronze now, until `stop`.
    ///
    /// # Errors
    /// When the store fails for good.
    pub async fn work_until_idle(&mut self, stop: &CancellationToken) -> Result<SilverSummary> {
        loop {
            let at_head = self.read_bronze(None).await?;
            self.commit().await?;
            if at_head && self.queue.is_empty() {
                break;
            }
            tokio::select! {
                () = stop.cancelled() => {
                    self.drain().await?;
                    break;
                }
                Some(ended) = self.asking.join_next() => self.take_ended(ended)?,
            }
        }
        self.ledger.record(Vec::new(), self.watermark.value()).await?;
        self.summary.waiting = self.queue.len() as u64;
        Ok(self.summary.clone())
    }

    /// Handles bronze rows as they come, until `stop`.
    ///
    /// # Errors
    /// When the store fails for good.
    pub async fn run(mut self, mut bronze_versions: watch::Receiver<i64>, stop: CancellationToken) -> Result<()> {
        let (mut hints_live, mut hinted) = (true, None);
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        loop {
            let wait = match self.read_bronze(hinted.take()).await {
                Ok(_) => {
                    backoff.reset();
                    LOOK_EVERY
                }
                Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown) => {
                    tracing::warn!(%error, "the bronze table cannot be read; trying again");
                    backoff.next_delay()
                }
                Err(error) => return Err(error),
            };
            self.commit().await?;
            self.commit_watermark().await?;
            let until = self.clock.monotonic() + wait;
            loop {
                match self.next_wake(&mut bronze_versions, hints_live, until, &stop).await {
                    Wake::Stop => return self.drain().await,
                    Wake::Timer => break,
                    Wake::Hint(version) => {
                        (hints_live, hinted) = (version.is_some(), version);
                        break;
                    }
                    Wake::Ended(ended) => {
                        let was_full = self.queue.len() >= self.max_waiting;
                        self.take_ended(*ended)?;
                        self.commit().await?;
                        if was_full {
                            break;
                        }
                    }
                }
            }
        }
    }

    async fn next_wake(
        &mut self,
        bronze_versions: &mut watch::Receiver<i64>,
        hints_live: bool,
        until: Duration,
        stop: &CancellationToken,
    ) -> Wake {
        let timer = self.clock.sleep(until.saturating_sub(self.clock.monotonic()));
        tokio::select! {
            () = stop.cancelled() => Wake::Stop,
            Some(ended) = self.asking.join_next() => Wake::Ended(Box::new(ended)),
            changed = bronze_versions.changed(), if hints_live => {
                Wake::Hint(changed.is_ok().then(|| *bronze_versions.borrow_and_update()))
            }
            () = timer => Wake::Timer,
        }
    }

    /// Reads bronze forward while there is room: to its head, or to the version a hint has named, beyond which there
    /// is no need to look. `true` when it got there.
    async fn read_bronze(&mut self, hinted: Option<i64>) -> Result<bool> {
        while self.queue.len() < self.max_waiting {
            if hinted.is_some_and(|version| self.feed.has_reached(version)) {
                return Ok(true);
            }
            match self.feed.next().await? {
                Step::AtHead => return Ok(true),
                Step::New { version, batches } => {
                    let mut rows = Vec::new();
                    for batch in &batches {
                        rows.extend(rows::bronze_rows(batch, version)?);
                    }
                    self.take(version, rows);
                }
                Step::Unclear { version } => {
                    let mut known = ledger::all_keys(&mut self.ledger).await?;
                    known.extend(self.under_way.iter().copied());
                    self.feed.compare_with(known);
                    // The comparison itself is open until its last chunk was taken.
                    self.watermark.read(version, 1);
                }
                Step::Chunk { version, batch } => {
                    let mut rows = rows::bronze_rows(&batch, version)?;
                    rows.retain(|row| self.feed.is_new(row.key()));
                    self.take(version, rows);
                }
                Step::Cleared { version } => self.watermark.done(version),
            }
        }
        Ok(false)
    }

    fn take(&mut self, version: i64, mut rows: Vec<BronzeRow>) {
        rows.retain(|row| self.ledger.get(&row.key()).is_none() && self.under_way.insert(row.key()));
        self.watermark.read(version, rows.len());
        for row in rows {
            self.asker.release_button(&row);
            match route::decide(&row, &self.routes, self.bot_id) {
                Decision::Ask { route } => self.queue.push(row.chat_id.unwrap_or(NO_CHAT), (row, route)),
                Decision::Ignore { route } => self.finished.push(ignored(row, route, &self.clock)),
            }
        }
        self.ask_ready();
    }

    fn ask_ready(&mut self) {
        while let Some((row, route)) = self.queue.next_ready() {
            let history = self.history.before(row.chat_id, row.received_at);
            let (asker, question) = (Arc::clone(&self.asker), Question { row, route, history });
            self.asking.spawn(async move { asker.ask(&question).await });
        }
        self.waiting_rows.set(i64::try_from(self.queue.len()).unwrap_or(i64::MAX));
    }

    /// Takes a finished question, and every other that is finished by now.
    fn take_ended(&mut self, ended: Ended) -> Result<()> {
        let mut next = Some(ended);
        while let Some(ended) = next {
            let row = ended.map_err(|error| Error::new(ErrorKind::Panicked, "a question panicked").caused_by(error))?;
            self.finished.extend(row);
            next = self.asking.try_join_next();
        }
        Ok(())
    }

    /// Commits what is finished. Only then is a chat's next row asked: what it is told was said is then durable.
    async fn commit(&mut self) -> Result<()> {
        if self.finished.is_empty() {
            return Ok(());
        }
        let finished = std::mem::take(&mut self.finished);
        // Chats that are free once this is committed; rows that nobody answers were never in their queue.
        let (mut after, mut keys) = (Vec::new(), Vec::with_capacity(finished.len()));
        for row in &finished {
            keys.push(row.bronze.key());
            after.extend((row.status != Status::Ignored).then_some(row.bronze.chat_id.unwrap_or(NO_CHAT)));
            self.watermark.done(row.bronze.bronze_version);
        }
        let recorded = self.ledger.record(finished, self.watermark.value()).await?;
        self.watermark_committed_at = self.clock.monotonic();
        // Only now: a row that is neither known nor under way would be taken again.
        for key in &keys {
            self.under_way.remove(key);
        }
        self.tell(&recorded.rows, recorded.version);
        after.into_iter().for_each(|chat_id| self.queue.done(chat_id));
        self.ask_ready();
        Ok(())
    }

    fn tell(&mut self, rows: &[SilverRow], version: Option<i64>) {
        let Some(version) = version else { return };
        for row in rows {
            self.rows_total.with_label_values(&[row.status.as_str()]).inc();
            self.summary.rows += 1;
            match row.status {
                Status::Answered => self.summary.answered += 1,
                Status::Ignored => self.summary.ignored += 1,
                Status::Failed => self.summary.failed += 1,
            }
            if let (Some(chat_id), Some(answer)) = (row.bronze.chat_id, &row.response) {
                let question = row.bronze.text.as_deref().unwrap_or_default();
                self.history.add(chat_id, row.bronze.received_at, question, answer);
            }
            let (bot_id, update_id) = row.bronze.key();
            let at = self.clock.now();
            self.telemetry.hop(|| Hop { bot_id, update_id, step: "silver", at, detail: version.to_string() });
        }
        self.committed.send_replace(version);
    }

    async fn commit_watermark(&mut self) -> Result<()> {
        let due = self.clock.monotonic().saturating_sub(self.watermark_committed_at) >= WATERMARK_EVERY;
        if due && self.watermark.value() > self.ledger.watermark() {
            self.ledger.record(Vec::new(), self.watermark.value()).await?;
            self.watermark_committed_at = self.clock.monotonic();
        }
        Ok(())
    }

    /// Lets calls that are on the wire end for a moment; whoever waits is asked at the next start.
    async fn drain(&mut self) -> Result<()> {
        self.wind_down.cancel();
        while let Some(ended) = self.asking.join_next().await {
            self.take_ended(ended)?;
        }
        // The rows that became free are not asked any more: their askers see that the stage stops.
        self.commit().await?;
        self.asking.shutdown().await;
        self.ledger.record(Vec::new(), self.watermark.value()).await.map(drop)
    }
}

type Ended = std::result::Result<Option<SilverRow>, tokio::task::JoinError>;

/// What the stage wakes for.
enum Wake {
    Stop,
    Timer,
    /// A version of bronze; `None` when no more hints will come.
    Hint(Option<i64>),
    Ended(Box<Ended>),
}

fn ignored(bronze: BronzeRow, route: Option<String>, clock: &Clock) -> SilverRow {
    SilverRow {
        bronze,
        status: Status::Ignored,
        response: None,
        route,
        error: None,
        reply_parts: 0,
        model: None,
        prompt_version: None,
        finish_reason: None,
        input_tokens: None,
        output_tokens: None,
        latency_ms: None,
        model_calls: 0,
        processed_at: clock.now(),
    }
}
