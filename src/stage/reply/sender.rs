//! Sends one reply, part by part: pace, intent, first byte, outcome.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::intent::{Claim, IntentBody, Intents};
use super::ledger::{Outcome, PartKey, ReplyLedger, Status};
use super::options::ReplyMetrics;
use super::pace::Pace;
use super::rows::Answer;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::id::random_id;
use crate::pipeline::OnUnknown;
use crate::retry::Backoff;
use crate::telegram::client::OutgoingMessage;
use crate::telegram::text::{self, Part};
use crate::telegram::{BotClient, SendFault};
use crate::telemetry::{Hop, Telemetry};

/// How much longer than its time to live an intent without an outcome is watched.
const WATCH_MARGIN: Duration = Duration::from_secs(60);
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// How long a sender whose token was refused waits before it asks again.
const BAD_TOKEN_WAIT: Duration = Duration::from_secs(60);
/// Sends of one part, when unknown ones are sent again.
const MAX_SENDS: i64 = 3;

/// A question or a word to the keeper of the ledger.
#[derive(Debug)]
pub(super) enum LedgerCall {
    /// What is the outcome of this part: as known, or with the replies table read to its head?
    Status { key: PartKey, at_head: bool, answer: oneshot::Sender<Option<Status>> },
    /// Record this; the answer comes when it is committed.
    Record { outcome: Box<Outcome>, done: oneshot::Sender<()> },
}

/// A reply to send.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) silver_version: i64,
    pub(super) answer: Answer,
}

/// What the senders of a stage share.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) bot: BotClient,
    pub(super) intents: Intents,
    pub(super) ledger: mpsc::Sender<LedgerCall>,
    pub(super) pace: Pace,
    pub(super) permits: Semaphore,
    pub(super) nonce: Uuid,
    pub(super) intent_ttl: Duration,
    pub(super) on_unknown: OnUnknown,
    /// When intents of others were first seen, on our monotonic clock.
    pub(super) first_seen: Mutex<HashMap<PartKey, Duration>>,
    pub(super) clock: Clock,
    pub(super) telemetry: Telemetry,
    pub(super) metrics: ReplyMetrics,
    pub(super) stop: CancellationToken,
}

/// The stage is told to stop: the reply is taken up again at the next start.
struct Stopped;

/// Why a part is not done yet.
enum Halt {
    Stopped,
    Failed(Error),
}

impl From<Stopped> for Halt {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Sender {
    /// Looks at the intents that earlier processes left: those whose part has an outcome go, the others are watched
    /// from now on.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn adopt_intents(&self, ledger: &ReplyLedger) -> Result<()> {
        let now = self.clock.monotonic();
        for (key, body) in self.intents.list().await? {
            let version = body.as_ref().map(|body| body.silver_version);
            let settled = |version: i64| version <= ledger.watermark() || ledger.get(&key).is_some();
            if version.is_some_and(settled) {
                self.intents.delete(&key).await;
            } else {
                self.first_seen.lock().unwrap_or_else(PoisonError::into_inner).insert(key, now);
            }
        }
        Ok(())
    }

    /// Sends what is left of a reply; `true` when every part that will ever be sent has its outcome.
    ///
    /// # Errors
    /// When the store fails for good.
    pub(super) async fn send(self: Arc<Self>, job: Job) -> Result<bool> {
        let parts = text::render(&job.answer.response);
        let mut number = 1;
        while number <= parts.len() {
            match self.send_part(&job, &parts, number).await {
                Ok(Status::Sent) => number += 1,
                // What comes after a part that did not arrive would be read without it.
                Ok(Status::Failed | Status::Unknown) => break,
                Err(Halt::Stopped) => return Ok(false),
                // Nothing of the part has left: what was sent has been recorded, or has an intent to be watched.
                Err(Halt::Failed(error)) if error.kind() == ErrorKind::Unavailable => {
                    tracing::warn!(%error, "a reply waits for the store");
                    if self.pause(WATCH_EVERY).await.is_err() {
                        return Ok(false);
                    }
                }
                Err(Halt::Failed(error)) => return Err(error),
            }
        }
        Ok(true)
    }

    async fn send_part(&self, job: &Job, parts: &[Part], number: usize) -> std::result::Result<Status, Halt> {
        let mut status = Status::Unknown;
        for send in 1..=MAX_SENDS {
            let key = PartKey {
                bot_id: job.answer.bot_id,
                update_id: job.answer.update_id,
                attempt: job.answer.attempt,
                send,
                part: i64::try_from(number).unwrap_or(i64::MAX),
            };
            status = self.send_once(job, parts, number, &key).await?;
            if status != Status::Unknown || self.on_unknown == OnUnknown::Leave {
                break;
            }
        }
        Ok(status)
    }

    /// One send of one part, to its outcome.
    async fn send_once(
        &self,
        job: &Job,
        parts: &[Part],
        number: usize,
        key: &PartKey,
    ) -> std::result::Result<Status, Halt> {
        let mut delivery = Delivery::new(job, &parts[number - 1]);
        loop {
            if let Some(status) = self.status(key, false).await? {
                return Ok(status);
            }
            while let Some(wait) = self.intents.unsettled_for(key) {
                self.pause(wait).await?;
            }
            self.wait_for_turn(delivery.message.chat_id).await?;
            let permit = self.permits.acquire().await.map_err(|_| Stopped)?;
            let body = self.intent(job, parts);
            // In a box, as all that is large: thousands of replies may wait for their turn.
            let since = match Box::pin(self.intents.claim(key, &body)).await? {
                Claim::Ours { since } => since,
                Claim::Others => {
                    drop(permit);
                    match Box::pin(self.watch(job, parts, key)).await? {
                        Some(status) => return Ok(status),
                        None => continue,
                    }
                }
            };
            // Somebody may have recorded an outcome and deleted the intent just before we made ours.
            let recorded = self.status(key, true).await;
            if !matches!(recorded, Ok(None)) {
                self.intents.delete(key).await;
                return Ok(recorded?.unwrap_or(Status::Unknown));
            }
            // Half the time to live is left for connecting, so that no byte leaves past it.
            let attempt = match self.clock.monotonic().saturating_sub(since) < self.intent_ttl / 2 {
                true => Box::pin(self.deliver(&mut delivery)).await,
                false => Attempt::Again(Duration::ZERO),
            };
            drop(permit);
            match attempt {
                Attempt::Done(verdict) => {
                    let status = verdict.status;
                    self.record(job, parts, key, Verdict { tries: delivery.tries, ..verdict }).await?;
                    self.intents.delete(key).await;
                    // Whoever took us for dead may have recorded another outcome first, and that is what counts.
                    return Ok(self.status(key, false).await?.unwrap_or(status));
                }
                Attempt::Again(wait) => {
                    self.intents.delete(key).await;
                    self.pace.hold(delivery.message.chat_id, self.clock.monotonic(), wait);
                }
            }
        }
    }

    /// Calls the Bot API, with the repairs it allows, until something is known.
    async fn deliver(&self, delivery: &mut Delivery) -> Attempt {
        loop {
            delivery.tries += 1;
            self.hop(delivery, "sending", String::new());
            let timer = self.metrics.send_seconds.start_timer();
            let outcome = self.bot.send_message(&delivery.message).await;
            timer.observe_duration();
            let fault = match outcome {
                Ok(message_id) => return Attempt::Done(Verdict::sent(message_id)),
                Err(fault) => fault,
            };
            match fault {
                SendFault::Refused { ref description, .. } => {
                    if delivery.repair(&fault) {
                        tracing::debug!(description, "repaired a refused message");
                        continue;
                    }
                    return Attempt::Done(Verdict::failed(description.clone()));
                }
                SendFault::Unknown { message } => return Attempt::Done(Verdict::unknown(message)),
                SendFault::RetryAfter { wait, .. } => return Attempt::Again(wait),
                SendFault::NotSent { message } => {
                    tracing::warn!(message, "Telegram cannot be reached; trying again");
                    return Attempt::Again(delivery.backoff.next_delay());
                }
                SendFault::BadToken => {
                    tracing::error!("Telegram refuses the bot token; replies wait until it is set right");
                    return Attempt::Again(BAD_TOKEN_WAIT);
                }
            }
        }
    }

    /// Watches an intent of another process: its outcome, `None` once it is gone, or our `unknown` when its time is up.
    async fn watch(&self, job: &Job, parts: &[Part], key: &PartKey) -> std::result::Result<Option<Status>, Halt> {
        let now = self.clock.monotonic();
        let seen = *self.first_seen.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_insert(now);
        loop {
            if let Some(status) = self.status(key, true).await? {
                return Ok(Some(status));
            }
            if !self.intents.exists(key).await? {
                self.first_seen.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
                return Ok(None);
            }
            if self.clock.monotonic().saturating_sub(seen) >= self.intent_ttl + WATCH_MARGIN {
                let message = "the process that was sending it died".to_owned();
                self.record(job, parts, key, Verdict::unknown(message)).await?;
                self.intents.delete(key).await;
                return Ok(self.status(key, false).await?.or(Some(Status::Unknown)));
            }
            self.pause(WATCH_EVERY).await?;
        }
    }

    async fn wait_for_turn(&self, chat_id: i64) -> std::result::Result<(), Stopped> {
        while let Err(wait) = self.pace.take_turn(chat_id, self.clock.monotonic()) {
            self.pause(wait).await?;
        }
        if self.stop.is_cancelled() { Err(Stopped) } else { Ok(()) }
    }

    async fn pause(&self, span: Duration) -> std::result::Result<(), Stopped> {
        tokio::select! {
            () = self.stop.cancelled() => Err(Stopped),
            () = self.clock.sleep(span) => Ok(()),
        }
    }

    async fn status(&self, key: &PartKey, at_head: bool) -> std::result::Result<Option<Status>, Stopped> {
        let (answer, answered) = oneshot::channel();
        let call = LedgerCall::Status { key: key.clone(), at_head, answer };
        self.ledger.send(call).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }

    async fn record(
        &self,
        job: &Job,
        parts: &[Part],
        key: &PartKey,
        verdict: Verdict,
    ) -> std::result::Result<(), Stopped> {
        self.metrics.parts.with_label_values(&[verdict.status.as_str()]).inc();
        let outcome = Box::new(Outcome {
            key: key.clone(),
            parts: i64::try_from(parts.len()).unwrap_or(i64::MAX),
            chat_id: job.answer.chat_id,
            telegram_message_id: verdict.message_id,
            status: verdict.status,
            tries: verdict.tries,
            error: verdict.error,
            silver_version: job.silver_version,
            at: self.clock.now(),
            trace_id: job.answer.trace_id.clone(),
        });
        let (done, recorded) = oneshot::channel();
        self.ledger.send(LedgerCall::Record { outcome, done }).await.map_err(|_| Stopped)?;
        recorded.await.map_err(|_| Stopped)
    }

    fn intent(&self, job: &Job, parts: &[Part]) -> IntentBody {
        IntentBody {
            nonce: self.nonce,
            id: random_id(),
            ttl_ms: u64::try_from(self.intent_ttl.as_millis()).unwrap_or(u64::MAX),
            silver_version: job.silver_version,
            split: parts.iter().map(|part| part.text.encode_utf16().count()).collect(),
        }
    }

    fn hop(&self, delivery: &Delivery, step: &'static str, detail: String) {
        self.telemetry.hop(|| Hop {
            bot_id: delivery.bot_id,
            update_id: delivery.update_id,
            step,
            at: self.clock.now(),
            detail,
        });
    }
}

/// What a try came to.
enum Attempt {
    /// Its fate is known, or known to be unknown.
    Done(Verdict),
    /// Nothing left; the chat is held this long.
    Again(Duration),
}

struct Verdict {
    status: Status,
    message_id: Option<i64>,
    error: Option<String>,
    tries: i64,
}

impl Verdict {
    fn sent(message_id: i64) -> Self {
        Self { status: Status::Sent, message_id: Some(message_id), error: None, tries: 1 }
    }

    fn failed(error: String) -> Self {
        Self { status: Status::Failed, message_id: None, error: Some(error), tries: 1 }
    }

    fn unknown(error: String) -> Self {
        Self { status: Status::Unknown, message_id: None, error: Some(error), tries: 1 }
    }
}

/// One part on its way, with the repairs made so far.
struct Delivery {
    bot_id: crate::id::BotId,
    update_id: i64,
    message: OutgoingMessage,
    tries: i64,
    backoff: Backoff,
}

impl Delivery {
    fn new(job: &Job, part: &Part) -> Self {
        // In a private chat it is plain what is answered; in a group it is not.
        let in_group = job.answer.chat_type.as_deref().is_some_and(|kind| matches!(kind, "group" | "supergroup"));
        Self {
            bot_id: job.answer.bot_id,
            update_id: job.answer.update_id,
            message: OutgoingMessage {
                chat_id: job.answer.chat_id,
                text: part.text.clone(),
                entities: part.entities.clone(),
                message_thread_id: None,
                reply_to_message_id: job.answer.message_id.filter(|_| in_group),
            },
            tries: 0,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
        }
    }

    /// Changes the message so that it may pass; `false` when nothing is left to change.
    fn repair(&mut self, fault: &SendFault) -> bool {
        if let SendFault::Refused { migrate_to_chat_id: Some(chat_id), .. } = fault {
            return std::mem::replace(&mut self.message.chat_id, *chat_id) != *chat_id;
        }
        if fault.is_unparsable_entities() && !self.message.entities.is_empty() {
            self.message.entities.clear();
            return true;
        }
        fault.is_missing_reply_target() && self.message.reply_to_message_id.take().is_some()
    }
}
