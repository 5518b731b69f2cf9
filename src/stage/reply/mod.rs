//! The reply stage: sends every answer of the silver table to Telegram, never twice, and records each outcome in the
//! replies table.

mod delivery;
mod intent;
mod ledger;
mod options;
mod outcome;
mod rows;
mod sender;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use self::delivery::Verdict;
use self::intent::Intents;
use self::ledger::ReplyLedger;
pub use self::ledger::spec as table_spec;
use self::options::ReplyMetrics;
pub use self::options::{ReplyOptions, ReplySummary};
use self::outcome::{Outcome, PartKey, PartOf, Status};
use self::rows::Answer;
use self::sender::Sender;
use crate::clock::{Clock, Timestamp};
use crate::error::Result;
use crate::flow::key::UpdateKey;
use crate::flow::ledger::{LedgerOptions, Parts};
use crate::flow::permits::Permits;
use crate::flow::work::{Desk, Work};
use crate::flow::{Flow, FlowOptions};
use crate::id::{BotId, random_id};
use crate::table::{TableRole, TableSpec};
use crate::telegram::pace::Pace;
use crate::telegram::reply::Method;
use crate::telemetry::{Hop, Telemetry};

/// Maximum replies waiting in memory.
const MAX_WAITING: usize = 10_000;

/// The stage.
#[derive(Debug)]
pub struct ReplyStage {
    flow: Flow<ReplyWork>,
}

/// What the stage does with an answer.
#[derive(Debug)]
struct ReplyWork {
    sender: Arc<Sender>,
    bot_id: BotId,
    /// Answers written before this moment were handled before the replies table was made.
    history_before: Option<Timestamp>,
    clock: Clock,
    telemetry: Telemetry,
    summary: ReplySummary,
    wind_down: CancellationToken,
}

impl ReplyStage {
    /// Opens the replies table, and removes intents that have an outcome.
    ///
    /// # Errors
    /// When the table cannot be opened or the store fails.
    pub async fn open(options: ReplyOptions) -> Result<Self> {
        let ReplyOptions { storage, pipeline, settings, silver_table, bot_id, bot, schema, own, clock, telemetry } =
            options;
        let (mut ledger, _) = ReplyLedger::open(LedgerOptions {
            storage: storage.clone(),
            spec: TableSpec { id: own.id, ..ledger::spec(&settings.table, schema)? },
            role: TableRole::Reply,
            settles: ledger::settles(settings.on_unknown),
            clock: clock.clone(),
        })
        .await?;
        let wind_down = CancellationToken::new();
        let sender = Sender {
            bot,
            intents: Intents::new(&storage, &pipeline, own.former_pipelines, &clock),
            pace: Pace::default(),
            permits: Permits::new(settings.concurrency),
            unsent_intents: Semaphore::new(sender::MAX_UNSENT_INTENTS),
            nonce: random_id(),
            intent_ttl: settings.intent_ttl,
            on_unknown: settings.on_unknown,
            first_seen: std::sync::Mutex::default(),
            clock: clock.clone(),
            telemetry: telemetry.clone(),
            metrics: ReplyMetrics::new(&telemetry),
            stop: wind_down.clone(),
        };
        sender.adopt_intents(&mut ledger).await?;
        let (clock, sender, summary) = (clock, Arc::new(sender), ReplySummary::default());
        let history_before = own.history_before;
        let work = ReplyWork { sender, bot_id, history_before, clock: clock.clone(), telemetry, summary, wind_down };
        let (upstream, columns) = (Path::from(silver_table), &rows::SILVER_COLUMNS);
        let (storage, clock) = (&storage, &clock);
        let flow = FlowOptions { storage, upstream: &upstream, columns, max_waiting: MAX_WAITING, clock };
        Ok(Self { flow: Flow::new(work, ledger, &flow) })
    }

    /// Sends every reply that is there now, until `stop`.
    ///
    /// # Errors
    /// When a table cannot be read or written.
    pub async fn work_until_idle(&mut self, stop: &CancellationToken) -> Result<ReplySummary> {
        self.flow.work_until_idle(stop).await?;
        Ok(ReplySummary { waiting: self.flow.waiting() as u64, ..self.flow.work().summary.clone() })
    }

    /// Sends replies as silver rows arrive, until `stop`. Each hint is a version of silver.
    ///
    /// # Errors
    /// When a table cannot be read or written. Reopening the stage is safe.
    pub async fn run(self, silver_versions: watch::Receiver<i64>, stop: CancellationToken) -> Result<()> {
        self.flow.run(silver_versions, stop).await
    }
}

impl ReplyWork {
    /// The row of a reply of which nothing was sent, or whose outcome is unknown.
    fn unsent(&self, answer: &Answer, PartOf { send, part }: PartOf, verdict: Verdict) -> Outcome {
        let UpdateKey { bot_id, update_id, attempt } = answer.key;
        let key = PartKey { bot_id, update_id, attempt, send, part };
        self.sender.outcome(answer, key, Method::Send, verdict)
    }
}

impl Work for ReplyWork {
    type Row = Outcome;
    type Item = Answer;

    fn items(&self, batch: &RecordBatch, version: i64) -> Result<Vec<Option<Answer>>> {
        let mut answers = rows::answers(batch, version)?;
        if let Some(before) = self.history_before {
            let is_history = |answer: &Answer| answer.processed_at < before;
            answers.iter_mut().for_each(|answer| *answer = answer.take_if(|answer| !is_history(answer)));
        }
        Ok(answers)
    }

    fn settle(&mut self, answer: &Answer) -> Option<Outcome> {
        let failed = |why: String| Some(self.unsent(answer, ledger::next_part(&[]), Verdict::failed(why, 0)));
        match &answer.messages {
            _ if answer.key.bot_id != self.bot_id => failed(format!("belongs to bot {}", answer.key.bot_id)),
            Err(why) => failed(why.clone()),
            Ok(_) => None,
        }
    }

    fn begin(&mut self, answer: Answer, desk: Desk<Outcome>) -> BoxFuture<'static, Result<bool>> {
        Arc::clone(&self.sender).send(answer, desk).boxed()
    }

    fn set_aside(&mut self, answer: &Answer, rows: &Parts<Outcome>, panic: &str) -> Outcome {
        let why = format!("the work on this row panicked: {panic}");
        let verdict = match answer.in_doubt.load(Ordering::Relaxed) {
            true => Verdict::unknown(why),
            false => Verdict::failed(why, 0),
        };
        self.unsent(answer, ledger::next_part(rows), verdict)
    }

    fn committed(&mut self, outcomes: &[Outcome], _version: i64) {
        for outcome in outcomes {
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
    }

    fn wind_down(&self) {
        self.wind_down.cancel();
    }
}
