//! Sends one reply, part by part: pace, intent, first byte, outcome.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::delivery::{Attempt, Delivery, Verdict};
use super::intent::{Claim, IntentBody, Intents};
use super::ledger::{MAX_SENDS, ReplyLedger};
use super::options::ReplyMetrics;
use super::outcome::{Outcome, PartKey, PartOf, PartState, Status};
use super::rows::Answer;
use crate::clock::{Clock, Moment};
use crate::error::{Error, Result};
use crate::flow::permits::Permits;
use crate::flow::work::{Desk, Stopped};
use crate::id::random_id;
use crate::pipeline::OnUnknown;
use crate::telegram::pace::Pace;
use crate::telegram::reply::{Method, ReplyMessage};
use crate::telegram::{BotClient, SendFault};
use crate::telemetry::{Hop, Telemetry};

/// How much longer than its time to live an intent without an outcome is watched.
const WATCH_MARGIN: Duration = Duration::from_secs(60);
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// How long a sender waits after its token was refused before it tries again.
const BAD_TOKEN_WAIT: Duration = Duration::from_secs(60);
/// Why the rest of a reply is not sent if its row has no messages and another process began it.
pub(super) const BEGUN_ELSEWHERE: &str = "an earlier release may have begun this reply, and split its text at other \
                                          places: the rest is not sent; the whole text is the `response` of its row \
                                          in the silver table";
/// Maximum intents whose first byte has not left yet: so many parts may be `unknown` after a crash without any call.
/// Telegram accepts thirty messages a second, which is what a slow store lets through.
pub(super) const MAX_UNSENT_INTENTS: usize = 4;

/// What the senders of a stage share.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) bot: BotClient,
    pub(super) intents: Intents,
    pub(super) pace: Pace,
    pub(super) permits: Permits,
    /// One for each intent whose first byte has not left yet.
    pub(super) unsent_intents: Semaphore,
    pub(super) nonce: Uuid,
    pub(super) intent_ttl: Duration,
    pub(super) on_unknown: OnUnknown,
    /// When other processes' intents were first seen, on our monotonic clock: after sleeping they are watched for
    /// longer.
    pub(super) first_seen: Mutex<HashMap<PartKey, Duration>>,
    pub(super) clock: Clock,
    pub(super) telemetry: Telemetry,
    pub(super) metrics: ReplyMetrics,
    pub(super) stop: CancellationToken,
}

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

/// One part of a reply, and its access to the ledger.
struct Part<'a> {
    answer: &'a Answer,
    message: &'a ReplyMessage,
    key: PartKey,
    desk: &'a Desk<Outcome>,
}

impl Sender {
    /// Looks at the intents that earlier processes left: those whose part has an outcome are deleted, the others are
    /// watched from now on.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn adopt_intents(&self, ledger: &mut ReplyLedger) -> Result<()> {
        let now = self.clock.monotonic();
        let keys = self.intents.list().await?;
        let updates: Vec<_> = keys.iter().map(PartKey::update).collect();
        let done = ledger.are_done(&updates).await?;
        for (key, is_done) in keys.into_iter().zip(done) {
            if is_done || ledger.get(&key.update(), key.of()).is_some() {
                self.intents.delete(&key).await;
            } else {
                self.first_seen().insert(key, now);
            }
        }
        Ok(())
    }

    /// Sends the rest of a reply; `true` if every part that will ever be sent has its outcome.
    ///
    /// # Errors
    /// When the store fails permanently.
    pub(super) async fn send(self: Arc<Self>, mut answer: Answer, desk: Desk<Outcome>) -> Result<bool> {
        if answer.is_composed_here {
            match self.parts_begun(&answer, &desk).await {
                Ok(Some(parts)) => answer.bar(parts, BEGUN_ELSEWHERE),
                Ok(None) => {}
                Err(Stopped) => return Ok(false),
            }
        }
        let messages = answer.messages.as_deref().unwrap_or_default();
        let mut number = 0;
        while let Some(message) = messages.get(number) {
            match self.send_part(&answer, message, number, &desk).await {
                Ok(Status::Sent) => number += 1,
                // What follows a part that did not arrive would be read without it.
                Ok(Status::Failed | Status::Unknown) => break,
                Err(Halt::Stopped) => return Ok(false),
                // Nothing of the part has left: whatever was sent has been recorded, or has an intent to be watched.
                Err(Halt::Failed(error)) if error.is_transient() => {
                    tracing::warn!(%error, "a reply is waiting for the store");
                    if self.pause(WATCH_EVERY).await.is_err() {
                        return Ok(false);
                    }
                }
                Err(Halt::Failed(error)) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Into how many parts a reply was split of which the first has been sent.
    async fn parts_begun(&self, answer: &Answer, desk: &Desk<Outcome>) -> std::result::Result<Option<i64>, Stopped> {
        for send in 1..=MAX_SENDS {
            let first = desk.state(answer.key, PartOf { send, part: 1 }).await?;
            if let Some(PartState { status: Status::Sent, parts, .. }) = first {
                return Ok(Some(parts));
            }
        }
        Ok(None)
    }

    async fn send_part(
        &self,
        answer: &Answer,
        message: &ReplyMessage,
        number: usize,
        desk: &Desk<Outcome>,
    ) -> std::result::Result<Status, Halt> {
        let mut status = Status::Unknown;
        for send in 1..=MAX_SENDS {
            let key = PartKey {
                bot_id: answer.key.bot_id,
                update_id: answer.key.update_id,
                attempt: answer.key.attempt,
                send,
                part: i64::try_from(number + 1).unwrap_or(i64::MAX),
            };
            let part = Part { answer, message, key, desk };
            status = self.send_once(&part).await?;
            // It has its outcome: nobody watches an intent for it any more.
            self.first_seen().remove(&part.key);
            if status != Status::Unknown || self.on_unknown == OnUnknown::Leave {
                break;
            }
        }
        Ok(status)
    }

    /// Takes one send of one part to its outcome.
    async fn send_once(&self, part: &Part<'_>) -> std::result::Result<Status, Halt> {
        let key = &part.key;
        let target = self.target(part).await?;
        let mut delivery = Delivery::new(part.message, target);
        loop {
            if let Some(state) = part.state().await? {
                return Ok(state.status);
            }
            if part.answer.in_doubt.load(Ordering::Relaxed) {
                let verdict = Verdict::unknown("the process failed while it was sending this".to_owned());
                return self.finish(part, verdict).await;
            }
            while let Some(wait) = self.intents.unsettled_for(key) {
                self.pause(wait).await?;
            }
            self.wait_for_turn(delivery.message.chat_id).await?;
            let permit = self.permits.acquire(part.answer.chat_id).await.ok_or(Stopped)?;
            let unsent = self.unsent_intents.acquire().await.map_err(|_| Stopped)?;
            if self.stop.is_cancelled() {
                return Err(Halt::Stopped);
            }
            // The token may have been refused while this part waited for a permit.
            if self.pace.holds_all(self.clock.monotonic()) {
                continue;
            }
            // Boxed: this future is large, and thousands of replies may wait for their turn.
            let since = match Box::pin(self.intents.claim(key, &self.intent())).await? {
                Claim::Ours { since } => since,
                Claim::Others => {
                    drop((permit, unsent));
                    match Box::pin(self.watch(part)).await? {
                        Some(status) => return Ok(status),
                        None => continue,
                    }
                }
            };
            // Another process may have recorded an outcome and deleted the intent just before we created ours.
            let recorded = part.state_at_head().await;
            if !matches!(recorded, Ok(None)) {
                self.intents.delete(key).await;
                return Ok(recorded?.map_or(Status::Unknown, |state| state.status));
            }
            drop(unsent);
            let attempt = Box::pin(self.deliver(part, &mut delivery, since)).await;
            drop(permit);
            match attempt {
                Attempt::Done(verdict) => {
                    let chat_id = delivery.message.chat_id;
                    let migrated_to = (chat_id != part.answer.chat_id).then_some(chat_id);
                    return self.finish(part, Verdict { migrated_to, ..verdict }).await;
                }
                Attempt::Again(wait) => {
                    part.answer.in_doubt.store(false, Ordering::Relaxed);
                    self.intents.delete(key).await;
                    self.pace.hold(delivery.message.chat_id, self.clock.monotonic(), wait);
                }
            }
        }
    }

    /// Records an outcome and deletes the intent.
    async fn finish(&self, part: &Part<'_>, verdict: Verdict) -> std::result::Result<Status, Halt> {
        let status = verdict.status;
        self.record(part, verdict).await?;
        part.answer.in_doubt.store(false, Ordering::Relaxed);
        self.intents.delete(&part.key).await;
        // Another process that took us for dead may have recorded another outcome first, and that one counts.
        Ok(part.state().await?.map_or(status, |state| state.status))
    }

    /// Calls the Bot API, with the repairs it allows, until something is known. No byte leaves late in the life of the
    /// intent: half of it is reserved for connecting.
    async fn deliver(&self, part: &Part<'_>, delivery: &mut Delivery, since: Moment) -> Attempt {
        if let Some(why) = part.answer.barred {
            return Attempt::Done(Verdict::failed(why.to_owned(), 0));
        }
        loop {
            if since.age(&self.clock) >= self.intent_ttl / 2 {
                return Attempt::Again(Duration::ZERO);
            }
            delivery.tries += 1;
            self.hop(part, "sending", String::new());
            part.answer.in_doubt.store(true, Ordering::Relaxed);
            let timer = self.metrics.send_seconds.start_timer();
            let outcome = delivery.call(&self.bot).await;
            timer.observe_duration();
            let is_well = matches!(outcome, Ok(_) | Err(SendFault::Refused { .. } | SendFault::RetryAfter { .. }));
            self.permits.note(part.answer.chat_id, is_well);
            let fault = match outcome {
                Ok(message_id) => return Attempt::Done(Verdict::sent(message_id, delivery.tries)),
                Err(fault) => fault,
            };
            match fault {
                SendFault::Refused { ref description, .. } => {
                    if delivery.repair(&fault) {
                        tracing::debug!(description, "repaired a refused message");
                        continue;
                    }
                    return Attempt::Done(Verdict::failed(description.clone(), delivery.tries));
                }
                SendFault::Unknown { message } => {
                    return Attempt::Done(Verdict { tries: delivery.tries, ..Verdict::unknown(message) });
                }
                SendFault::RetryAfter { wait, .. } => return Attempt::Again(wait),
                SendFault::NotSent { message } => {
                    tracing::warn!(message, "Telegram cannot be reached; retrying");
                    return Attempt::Again(delivery.backoff.next_delay());
                }
                SendFault::BadToken => {
                    tracing::error!(
                        retry_in = ?BAD_TOKEN_WAIT,
                        "Telegram refuses the bot token; replies wait until it is fixed"
                    );
                    self.pace.hold_all(self.clock.monotonic(), BAD_TOKEN_WAIT);
                    return Attempt::Again(BAD_TOKEN_WAIT);
                }
            }
        }
    }

    /// The message that a part edits.
    async fn target(&self, part: &Part<'_>) -> std::result::Result<Option<i64>, Stopped> {
        let Some(edited) = part.message.edits else { return Ok(None) };
        for send in (1..=MAX_SENDS).rev() {
            let state = part.desk.state(part.answer.key, PartOf { send, part: edited }).await?;
            if let Some(PartState { message_id: Some(message_id), .. }) = state {
                return Ok(Some(message_id));
            }
        }
        Ok(None)
    }

    /// Watches another process's intent: its outcome, `None` once it is gone, or our `unknown` when its time is up.
    async fn watch(&self, part: &Part<'_>) -> std::result::Result<Option<Status>, Halt> {
        let (key, now) = (&part.key, self.clock.monotonic());
        let seen = *self.first_seen().entry(key.clone()).or_insert(now);
        loop {
            if let Some(state) = part.state_at_head().await? {
                return Ok(Some(state.status));
            }
            if !self.intents.exists(key).await? {
                self.first_seen().remove(key);
                return Ok(None);
            }
            if self.clock.monotonic().saturating_sub(seen) >= self.intent_ttl + WATCH_MARGIN {
                let message = "the process that was sending it died".to_owned();
                return self.finish(part, Verdict::unknown(message)).await.map(Some);
            }
            self.pause(WATCH_EVERY).await?;
        }
    }

    fn first_seen(&self) -> MutexGuard<'_, HashMap<PartKey, Duration>> {
        self.first_seen.lock().unwrap_or_else(PoisonError::into_inner)
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

    async fn record(&self, part: &Part<'_>, verdict: Verdict) -> std::result::Result<(), Stopped> {
        let Part { answer, key, .. } = part;
        let is_last = match verdict.status {
            Status::Sent => key.part >= answer.parts(),
            Status::Failed => true,
            Status::Unknown => self.on_unknown == OnUnknown::Leave || key.send >= MAX_SENDS,
        };
        self.metrics.parts.with_label_values(&[verdict.status.as_str()]).inc();
        part.desk.record(self.outcome(answer, key.clone(), part.message.method, verdict), is_last).await
    }

    /// The row of a part.
    pub(super) fn outcome(&self, answer: &Answer, key: PartKey, method: Method, verdict: Verdict) -> Outcome {
        Outcome {
            key,
            parts: answer.parts(),
            chat_id: verdict.migrated_to.unwrap_or(answer.chat_id),
            method,
            telegram_message_id: verdict.message_id,
            status: verdict.status,
            tries: verdict.tries,
            error: verdict.error,
            silver_version: answer.silver_version,
            at: self.clock.now(),
            trace_id: answer.trace_id.clone(),
        }
    }

    fn intent(&self) -> IntentBody {
        let ttl_ms = u64::try_from(self.intent_ttl.as_millis()).unwrap_or(u64::MAX);
        IntentBody { nonce: self.nonce, id: random_id(), ttl_ms }
    }

    fn hop(&self, part: &Part<'_>, step: &'static str, detail: String) {
        let PartKey { bot_id, update_id, .. } = part.key;
        self.telemetry.hop(|| Hop { bot_id, update_id, step, at: self.clock.now(), detail });
    }
}

impl Part<'_> {
    async fn state(&self) -> std::result::Result<Option<PartState>, Stopped> {
        self.desk.state(self.answer.key, self.key.of()).await
    }

    async fn state_at_head(&self) -> std::result::Result<Option<PartState>, Stopped> {
        self.desk.state_at_head(self.answer.key, self.key.of()).await
    }
}
