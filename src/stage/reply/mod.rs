//! The reply stage: every answer of the silver table to Telegram, never twice, each with its outcome in the
//! replies table.

mod intent;
mod ledger;
mod options;
mod pace;
mod rows;
mod sender;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::intent::Intents;
pub use self::ledger::spec as table_spec;
use self::ledger::{Outcome, ReplyKey, ReplyLedger, Status};
use self::options::ReplyMetrics;
pub use self::options::{ReplyOptions, ReplySummary};
use self::sender::{Job, LedgerCall, Sender};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::flow::chats::ChatQueue;
use crate::flow::feed::{Feed, Step};
use crate::flow::watermark::Watermark;
use crate::id::{BotId, random_id};
use crate::retry::Backoff;
use crate::table::{TableRole, TableSpec};
use crate::telemetry::{Hop, Telemetry};

/// How often the silver table is looked at without a hint.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A watermark that moved without an outcome is committed this often.
const WATERMARK_EVERY: Duration = Duration::from_secs(60);
/// Replies that wait in memory before the tail stops reading.
const MAX_WAITING: usize = 10_000;

/// The stage. One task keeps the ledger; senders ask it and tell it.
#[derive(Debug)]
pub struct ReplyStage {
    ledger: ReplyLedger,
    feed: Feed<ReplyKey>,
    queue: ChatQueue<Job>,
    /// Replies in memory: taken, and not at their outcome.
    under_way: HashSet<ReplyKey>,
    watermark: Watermark,
    sender: Arc<Sender>,
    calls: mpsc::Receiver<LedgerCall>,
    jobs: JoinSet<(Job, Result<bool>)>,
    bot_id: BotId,
    clock: Clock,
    telemetry: Telemetry,
    summary: ReplySummary,
    watermark_committed_at: Duration,
    wind_down: CancellationToken,
}

impl ReplyStage {
    /// Opens the replies table, learns what has an outcome, and removes intents that have one.
    ///
    /// # Errors
    /// When the table cannot be opened or the store fails.
    pub async fn open(options: ReplyOptions) -> Result<Self> {
        let ReplyOptions { storage, pipeline, settings, silver_table, bot_id, bot, schema, own, clock, telemetry } =
            options;
        let spec = TableSpec { id: own.id, ..ledger::spec(&settings.table, schema)? };
        let silver = Path::from(silver_table);
        let (ledger, _) = ReplyLedger::open(&storage, spec, TableRole::Reply, &silver, &clock).await?;
        let intents = Intents::new(&storage, &pipeline, &clock);
        let watermark = ledger.watermark();
        let feed = Feed::new(&storage, &silver, watermark, &rows::SILVER_COLUMNS, &clock);
        let (calls_in, calls) = mpsc::channel(settings.concurrency.max(1) * 2);
        let wind_down = CancellationToken::new();
        let sender = Sender {
            bot,
            intents,
            ledger: calls_in,
            pace: pace::Pace::default(),
            permits: Semaphore::new(settings.concurrency),
            nonce: random_id(),
            intent_ttl: settings.intent_ttl,
            on_unknown: settings.on_unknown,
            first_seen: std::sync::Mutex::default(),
            clock: clock.clone(),
            telemetry: telemetry.clone(),
            metrics: ReplyMetrics::new(&telemetry),
            stop: wind_down.clone(),
        };
        sender.adopt_intents(&ledger).await?;
        Ok(Self {
            queue: ChatQueue::new(),
            under_way: HashSet::new(),
            watermark: Watermark::new(watermark),
            watermark_committed_at: clock.monotonic(),
            sender: Arc::new(sender),
            jobs: JoinSet::new(),
            summary: ReplySummary::default(),
            ledger,
            feed,
            calls,
            bot_id,
            clock,
            telemetry,
            wind_down,
        })
    }

    /// Sends every reply that is there now, until `stop`.
    ///
    /// # Errors
    /// When the store fails for good.
    pub async fn work_until_idle(&mut self, stop: &CancellationToken) -> Result<ReplySummary> {
        loop {
            let at_head = self.read_silver(None).await?;
            if at_head && self.queue.is_empty() {
                break;
            }
            if stop.is_cancelled() {
                self.drain().await?;
                break;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                event = Self::next_event(&mut self.calls, &mut self.jobs) => self.handle(event).await?,
            }
        }
        self.ledger.record(Vec::new(), self.watermark.value()).await?;
        self.summary.waiting = self.queue.len() as u64;
        Ok(self.summary.clone())
    }

    /// Sends replies as silver rows come, until `stop`.
    ///
    /// # Errors
    /// When the store fails for good.
    pub async fn run(mut self, mut silver_versions: watch::Receiver<i64>, stop: CancellationToken) -> Result<()> {
        let (mut hints_live, mut hinted) = (true, None);
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        loop {
            let wait = match self.read_silver(hinted.take()).await {
                Ok(_) => {
                    backoff.reset();
                    LOOK_EVERY
                }
                Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown) => {
                    tracing::warn!(%error, "the silver table cannot be read; trying again");
                    backoff.next_delay()
                }
                Err(error) => return Err(error),
            };
            let until = self.clock.monotonic() + wait;
            loop {
                match self.next_wake(&mut silver_versions, hints_live, until, &stop).await {
                    Wake::Stop => return self.drain().await,
                    Wake::Timer => break,
                    Wake::Hint(version) => {
                        (hints_live, hinted) = (version.is_some(), version);
                        break;
                    }
                    Wake::Event(event) => {
                        self.handle(event).await?;
                        if self.queue.len() + 1 == MAX_WAITING {
                            break;
                        }
                    }
                }
            }
            self.commit_watermark().await?;
        }
    }

    async fn next_wake(
        &mut self,
        silver_versions: &mut watch::Receiver<i64>,
        hints_live: bool,
        until: Duration,
        stop: &CancellationToken,
    ) -> Wake {
        let timer = self.clock.sleep(until.saturating_sub(self.clock.monotonic()));
        tokio::select! {
            () = stop.cancelled() => Wake::Stop,
            event = Self::next_event(&mut self.calls, &mut self.jobs) => Wake::Event(event),
            changed = silver_versions.changed(), if hints_live => {
                Wake::Hint(changed.is_ok().then(|| *silver_versions.borrow_and_update()))
            }
            () = timer => Wake::Timer,
        }
    }

    /// Reads silver forward while there is room: to its head, or to the version a hint has named, beyond which
    /// there is no need to look. `true` when it got there.
    async fn read_silver(&mut self, hinted: Option<i64>) -> Result<bool> {
        while self.queue.len() < MAX_WAITING {
            if hinted.is_some_and(|version| self.feed.has_reached(version)) {
                return Ok(true);
            }
            match self.feed.next().await? {
                Step::AtHead => return Ok(true),
                Step::New { version, batches } => {
                    let mut answers = Vec::new();
                    for batch in &batches {
                        answers.extend(rows::answers(batch)?);
                    }
                    self.take(version, answers);
                }
                Step::Unclear { version } => {
                    let mut known = ledger::settled(&mut self.ledger).await?;
                    known.extend(self.under_way.iter().copied());
                    self.feed.compare_with(known);
                    // The comparison itself is open until its last chunk was taken.
                    self.watermark.read(version, 1);
                }
                Step::Chunk { version, batch } => {
                    let mut answers = rows::answers(&batch)?;
                    answers.retain(|answer| self.feed.is_new(answer.key()));
                    self.take(version, answers);
                }
                Step::Cleared { version } => self.watermark.done(version),
            }
        }
        Ok(false)
    }

    fn take(&mut self, version: i64, mut answers: Vec<rows::Answer>) {
        answers.retain(|answer| answer.bot_id == self.bot_id && self.under_way.insert(answer.key()));
        self.watermark.read(version, answers.len());
        for answer in answers {
            self.queue.push(answer.chat_id, Job { silver_version: version, answer });
        }
        self.start_ready();
    }

    fn done(&mut self, job: &Job) {
        self.under_way.remove(&job.answer.key());
        self.queue.done(job.answer.chat_id);
        self.watermark.done(job.silver_version);
    }

    fn start_ready(&mut self) {
        while let Some(job) = self.queue.next_ready() {
            let sender = Arc::clone(&self.sender);
            self.jobs.spawn(async move {
                let outcome = sender.send(job.clone()).await;
                (job, outcome)
            });
        }
    }

    async fn next_event(calls: &mut mpsc::Receiver<LedgerCall>, jobs: &mut JoinSet<(Job, Result<bool>)>) -> Event {
        let mut batch = Vec::new();
        tokio::select! {
            _ = calls.recv_many(&mut batch, MAX_WAITING) => Event::Calls(batch),
            Some(ended) = jobs.join_next() => match ended {
                Ok((job, outcome)) => Event::Ended(Box::new(job), outcome),
                Err(error) => Event::Panicked(error.to_string()),
            },
        }
    }

    async fn handle(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Calls(calls) => self.answer(calls).await,
            Event::Ended(job, Ok(done)) => {
                if done {
                    self.done(&job);
                }
                self.start_ready();
                Ok(())
            }
            Event::Ended(_, Err(error)) => Err(error),
            Event::Panicked(message) => Err(Error::new(ErrorKind::Panicked, format!("a sender panicked: {message}"))),
        }
    }

    /// Answers what senders ask and records what they tell, all of it with one read of the head and one commit.
    async fn answer(&mut self, calls: Vec<LedgerCall>) -> Result<()> {
        let (mut outcomes, mut waiters, mut questions) = (Vec::new(), Vec::new(), Vec::new());
        for call in calls {
            match call {
                LedgerCall::Record { outcome, done } => {
                    outcomes.push(*outcome);
                    waiters.push(done);
                }
                LedgerCall::Status { key, at_head, answer } => {
                    questions.push((key, at_head, answer));
                }
            }
        }
        if !outcomes.is_empty() {
            self.commit(outcomes).await?;
            // A sender that has gone needs no answer.
            waiters.into_iter().for_each(|done| done.send(()).unwrap_or_default());
        }
        if questions.iter().any(|(.., at_head, _)| *at_head) {
            self.refresh().await?;
        }
        for (key, _, answer) in questions {
            let _gone = answer.send(self.ledger.get(&key));
        }
        Ok(())
    }

    async fn commit(&mut self, outcomes: Vec<Outcome>) -> Result<()> {
        self.ledger.record(outcomes.clone(), self.watermark.value()).await?;
        self.watermark_committed_at = self.clock.monotonic();
        for outcome in &outcomes {
            match outcome.status {
                Status::Sent => self.summary.sent += 1,
                Status::Failed => self.summary.failed += 1,
                Status::Unknown => self.summary.unknown += 1,
            }
            self.telemetry.hop(|| Hop {
                bot_id: outcome.key.bot_id,
                update_id: outcome.key.update_id,
                step: "replied",
                at: self.clock.now(),
                detail: outcome.status.as_str().to_owned(),
            });
        }
        Ok(())
    }

    async fn refresh(&mut self) -> Result<()> {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            match self.ledger.refresh().await {
                Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown) => {
                    tracing::warn!(%error, "the replies table cannot be read; trying again");
                    self.clock.sleep(backoff.next_delay()).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn commit_watermark(&mut self) -> Result<()> {
        let due = self.clock.monotonic().saturating_sub(self.watermark_committed_at) >= WATERMARK_EVERY;
        if due && self.watermark.value() > self.ledger.watermark() {
            self.ledger.record(Vec::new(), self.watermark.value()).await?;
            self.watermark_committed_at = self.clock.monotonic();
        }
        Ok(())
    }

    /// Lets what is on the wire come to its outcome; whatever has not left waits for the next start.
    async fn drain(&mut self) -> Result<()> {
        self.wind_down.cancel();
        while !self.jobs.is_empty() {
            let event = Self::next_event(&mut self.calls, &mut self.jobs).await;
            match event {
                Event::Ended(job, Ok(true)) => self.done(&job),
                Event::Ended(_, Ok(false)) => {}
                event => self.handle(event).await?,
            }
        }
        self.ledger.record(Vec::new(), self.watermark.value()).await.map(drop)
    }
}

/// What the stage wakes for.
enum Wake {
    Stop,
    Timer,
    /// A version of silver; `None` when no more hints will come.
    Hint(Option<i64>),
    Event(Event),
}

enum Event {
    Calls(Vec<LedgerCall>),
    Ended(Box<Job>, Result<bool>),
    Panicked(String),
}
