//! Asks the model about one row, for as long as it takes: outages are waited out, the row's own failures are not.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Histogram;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::breaker::{Breaker, Pass};
use super::rows::{BronzeRow, SilverRow};
use crate::clock::Clock;
use crate::flow::permits::{Permit, Permits};
use crate::flow::work::Item;
use crate::llm::{ChatAnswer, ChatMessage, ChatRequest, ModelClient, ModelFault, Role};
use crate::pipeline::{Acknowledge, LocalText};
use crate::retry::Backoff;
use crate::telegram::BotClient;
use crate::telemetry::{Hop, Telemetry};

/// How long a call in flight may continue once the stage stops.
const GRACE: Duration = Duration::from_secs(8);
/// How often a misconfigured model is tried again, so that a fixed setting is noticed.
const MISCONFIGURED_WAIT: Duration = Duration::from_secs(60);
/// An acknowledgement is useless later than this; it is also how long a callback query lives.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_secs(150);

/// How often "typing…" is shown while the model is asked.
const TYPING_EVERY: Duration = Duration::from_millis(4_500);

/// A question with its context.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) row: BronzeRow,
    /// The route that matched it.
    pub(super) route: Option<String>,
    pub(super) history: Vec<ChatMessage>,
}

/// What all questions of a stage share.
#[derive(Debug)]
pub(super) struct Asker {
    pub(super) model: ModelClient,
    pub(super) system: Option<String>,
    pub(super) prompt_version: Option<String>,
    pub(super) max_tokens: Option<u32>,
    /// Below an answer that was cut off.
    pub(super) cut_text: LocalText,
    /// Instead of an answer that there is not.
    pub(super) failed_text: LocalText,
    pub(super) max_attempts: u32,
    pub(super) breaker: Breaker,
    pub(super) permits: Permits,
    pub(super) bot: Option<BotClient>,
    pub(super) acknowledge: Acknowledge,
    pub(super) acknowledgements: Arc<Semaphore>,
    pub(super) clock: Clock,
    pub(super) telemetry: Telemetry,
    pub(super) model_seconds: Histogram,
    pub(super) stop: CancellationToken,
}

/// What is known about a row's tries.
pub(super) struct Tries {
    pub(super) calls: i64,
    own: u32,
    /// The model's successes at the row's last try.
    mark: u64,
    /// What the breaker allowed the row to do in this try.
    pass: Pass,
    backoff: Backoff,
    /// Messages of the history that are left out, oldest first: the model could not read them all.
    pub(super) left_out: usize,
}

/// The result of a try.
enum Try {
    Answered(ChatAnswer, Duration),
    Failed(String),
    /// Not yet: the row waits alone, or with all others.
    Again {
        alone: bool,
    },
    Stopped,
}

impl Asker {
    /// The finished row; `None` if the stage stops first.
    pub(super) async fn ask(&self, question: &Question) -> Option<SilverRow> {
        let mut tries = Tries {
            calls: 0,
            own: 0,
            mark: self.breaker.successes(),
            pass: Pass::Closed,
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(10)),
            left_out: 0,
        };
        loop {
            let (permit, pass) = tokio::select! {
                () = self.stop.cancelled() => return None,
                admitted = self.admitted(question) => admitted?,
            };
            tries.pass = pass;
            // Boxed: these futures are large, and thousands of rows may wait for a permit.
            let outcome = match pass == Pass::Ping {
                true => match Box::pin(self.ping(question)).await {
                    true => Box::pin(self.try_once(question, &mut tries)).await,
                    false => Try::Again { alone: true },
                },
                false => Box::pin(self.try_once(question, &mut tries)).await,
            };
            drop(permit);
            match outcome {
                Try::Answered(answer, took) => return Some(self.answered(question, answer, took, &tries)),
                Try::Failed(error) => return Some(self.failed(question, error, &tries)),
                Try::Stopped => return None,
                Try::Again { alone: false } => {}
                Try::Again { alone: true } => tokio::select! {
                    () = self.stop.cancelled() => return None,
                    () = self.clock.sleep(tries.backoff.next_delay()) => {}
                },
            }
        }
    }

    /// A permit, and what the breaker allows the row to do with it.
    ///
    /// A row that the breaker has let through asks as soon as it has a permit, even if an outage was declared meanwhile:
    /// when chats that were never heard of hang one after another, those behind them would otherwise have to wait for
    /// one probe after another to hang.
    async fn admitted(&self, question: &Question) -> Option<(Permit<'_>, Pass)> {
        let key = question.row.key();
        let pass = self.breaker.admit(&key).await;
        match self.permits.acquire(question.row.chat()).await {
            Some(permit) => Some((permit, pass)),
            None => {
                self.breaker.released(pass);
                None
            }
        }
    }

    /// Handles a failed call: this row waits alone, or all rows wait.
    fn note_failure(&self, question: &Question, retry_after: Option<Duration>) -> Try {
        let chat_id = question.row.chat();
        let well_before = self.permits.note(chat_id, false);
        let is_outage = self.breaker.failed(&question.row.key(), chat_id, well_before, retry_after);
        Try::Again { alone: !is_outage }
    }

    fn note_misconfigured(&self, question: &Question, message: &str) -> Try {
        tracing::error!(
            message,
            retry_in = ?MISCONFIGURED_WAIT,
            "the model refuses access; rows wait until the settings are fixed"
        );
        self.note_failure(question, Some(MISCONFIGURED_WAIT))
    }

    fn note_success(&self, question: &Question) {
        self.permits.note(question.row.chat(), true);
        self.breaker.succeeded();
    }

    async fn try_once(&self, question: &Question, tries: &mut Tries) -> Try {
        if tries.calls == 0 {
            self.show_typing(&question.row);
            self.hop(question, "asking", String::new());
        }
        tries.calls += 1;
        let started = self.clock.monotonic();
        let request = self.request(question, tries.left_out);
        let outcome = tokio::select! {
            outcome = self.call(&request) => outcome,
            never = self.keep_typing(&question.row) => match never {},
        };
        let Some(outcome) = outcome else {
            self.breaker.released(tries.pass);
            return Try::Stopped;
        };
        let took = self.clock.monotonic().saturating_sub(started);
        self.model_seconds.observe(took.as_secs_f64());
        match outcome {
            Ok(answer) => {
                self.note_success(question);
                Try::Answered(answer, took)
            }
            // The model is available and understood; it does not accept this row.
            Err(ModelFault::Rejected { message }) => {
                self.note_success(question);
                Try::Failed(message)
            }
            Err(ModelFault::TooLong { message }) => {
                self.note_success(question);
                if tries.left_out >= question.history.len() {
                    return Try::Failed(message);
                }
                tries.left_out = leave_out_more(question.history.len(), tries.left_out);
                Try::Again { alone: false }
            }
            Err(ModelFault::Unavailable { retry_after, message }) => {
                tracing::warn!(message, "the model is unavailable; rows wait");
                self.note_failure(question, retry_after)
            }
            Err(ModelFault::Misconfigured { message }) => self.note_misconfigured(question, &message),
            Err(ModelFault::Failing { retry_after, message }) => self.failing(question, tries, retry_after, message),
        }
    }

    /// A failure is the row's own if the model has answered someone else since the row's last try.
    fn failing(&self, question: &Question, tries: &mut Tries, retry_after: Option<Duration>, message: String) -> Try {
        let successes = self.breaker.successes();
        let own = successes > tries.mark;
        tries.mark = successes;
        if !own {
            tracing::warn!(message, "the model fails; rows wait");
            return self.note_failure(question, retry_after);
        }
        self.permits.note(question.row.chat(), false);
        self.breaker.released(tries.pass);
        tries.own += 1;
        if tries.own >= self.max_attempts {
            return Try::Failed(message);
        }
        // It is not an outage for anyone else, and whether it is the model's fault is not for this row to decide.
        Try::Again { alone: true }
    }

    /// Asks for a single token, so that a row is not the only judge of itself. Returns whether the model answered.
    async fn ping(&self, question: &Question) -> bool {
        let request = ChatRequest {
            messages: vec![ChatMessage { role: Role::User, content: "ping".to_owned() }],
            request_id: format!("{}-ping", question.row.trace_id),
            max_tokens: Some(1),
        };
        match self.call(&request).await {
            None => {
                self.breaker.released(Pass::Ping);
                false
            }
            Some(Ok(_) | Err(ModelFault::Rejected { .. } | ModelFault::TooLong { .. })) => {
                // The model works; that says nothing about the chat.
                self.breaker.succeeded();
                true
            }
            Some(Err(ModelFault::Unavailable { retry_after, .. } | ModelFault::Failing { retry_after, .. })) => {
                self.note_failure(question, retry_after);
                false
            }
            Some(Err(ModelFault::Misconfigured { message })) => {
                self.note_misconfigured(question, &message);
                false
            }
        }
    }

    /// One call; `None` if the stage stopped and it did not end soon. It is then repeated, with the same id.
    async fn call(&self, request: &ChatRequest) -> Option<Result<ChatAnswer, ModelFault>> {
        let too_late = async {
            self.stop.cancelled().await;
            self.clock.sleep(GRACE).await;
        };
        tokio::select! {
            outcome = self.model.complete(request) => Some(outcome),
            () = too_late => None,
        }
    }

    fn request(&self, question: &Question, left_out: usize) -> ChatRequest {
        let said = |role, content: &str| ChatMessage { role, content: content.to_owned() };
        let mut messages: Vec<ChatMessage> = self.system.iter().map(|system| said(Role::System, system)).collect();
        messages.extend(question.history.iter().skip(left_out).cloned());
        messages.push(said(Role::User, question.row.text.as_deref().unwrap_or_default()));
        ChatRequest { messages, request_id: question.row.trace_id.clone(), max_tokens: self.max_tokens }
    }

    /// What is shown lasts five seconds (<https://core.telegram.org/bots/api#sendchataction>), so it is repeated.
    async fn keep_typing(&self, row: &BronzeRow) -> Infallible {
        loop {
            self.clock.sleep(TYPING_EVERY).await;
            self.show_typing(row);
        }
    }

    fn show_typing(&self, row: &BronzeRow) {
        if self.acknowledge != Acknowledge::Typing {
            return;
        }
        if let Some(chat_id) = row.chat_id {
            let topic = row.context.topic;
            self.acknowledge_with(
                row,
                move |bot: BotClient| async move { drop(bot.send_typing(chat_id, topic).await) },
            );
        }
    }

    /// Stops the loading indicator of a pressed button.
    pub(super) fn release_button(&self, row: &BronzeRow) {
        if let Some(id) = row.callback_query_id.clone() {
            self.acknowledge_with(row, move |bot: BotClient| async move { drop(bot.answer_callback_query(&id).await) });
        }
    }

    /// Best effort, and never in the way of the answer.
    fn acknowledge_with<F, C>(&self, row: &BronzeRow, call: F)
    where
        F: FnOnce(BotClient) -> C,
        C: Future<Output = ()> + Send + 'static,
    {
        let Some(bot) = self.bot.clone() else { return };
        if self.clock.now().since(row.received_at) > ACKNOWLEDGE_WITHIN {
            return;
        }
        if let Ok(permit) = Arc::clone(&self.acknowledgements).try_acquire_owned() {
            let call = call(bot);
            tokio::spawn(async move {
                call.await;
                drop(permit);
            });
        }
    }

    pub(super) fn hop(&self, question: &Question, step: &'static str, detail: String) {
        let (bot_id, update_id) = (question.row.bot_id, question.row.update_id);
        self.telemetry.hop(|| Hop { bot_id, update_id, step, at: self.clock.now(), detail });
    }
}

/// Half of the turns that were still sent along, at least one: a question and its answer are two messages.
fn leave_out_more(all: usize, left_out: usize) -> usize {
    let kept_turns = all.saturating_sub(left_out) / 2;
    (left_out + kept_turns.div_ceil(2).max(1) * 2).min(all)
}
