//! The state of the stand-in, behind one lock, with notifications of changes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Semaphore, broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::behavior::CallScript;
use super::ledger::CallHistory;
use super::updates::{Backlog, Pending, QueueId, is_allowed, kind_of};
use super::{Options, Pace, StandInEvent};
use crate::clock::Timestamp;
use crate::id::{BotId, random_fraction};

/// How many events a slow subscriber may lag behind before it misses some.
const EVENT_LIMIT: usize = 1_024;

/// How many unanswered button presses are kept.
const OPEN_QUERY_LIMIT: usize = 1_024;

/// Everything that the tasks of one stand-in share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) bot_id: BotId,
    pub(super) client: reqwest::Client,
    pub(super) stop: CancellationToken,
    pub(super) events: broadcast::Sender<Arc<StandInEvent>>,
    changed: watch::Sender<u64>,
    state: Mutex<State>,
}

impl Shared {
    pub(super) fn new(options: Options, bot_id: BotId, client: reqwest::Client) -> Self {
        let state = Mutex::new(State::new(options.history_limit));
        let (events, changed) = (broadcast::Sender::new(EVENT_LIMIT), watch::Sender::new(0));
        Self { options, bot_id, client, stop: CancellationToken::new(), events, changed, state }
    }

    /// Reads the state.
    pub(super) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state and wakes whoever waits for a change.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let outcome = change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|changes| *changes = changes.wrapping_add(1));
        outcome
    }

    /// Notifies of every change from now on.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Sends an event to the subscribers.
    pub(super) fn tell(&self, event: StandInEvent) {
        // An error means that there are no subscribers.
        let _nobody_watches = self.events.send(Arc::new(event));
    }

    pub(super) fn now(&self) -> Timestamp {
        self.options.clock.now()
    }

    /// The bot as a user.
    pub(super) fn bot(&self) -> Value {
        json!({ "id": self.bot_id.0, "is_bot": true, "first_name": "Lakegram", "username": "lakegram_demo_bot" })
    }
}

/// Where updates are delivered.
#[derive(Clone, Debug)]
pub(super) struct Webhook {
    pub(super) url: String,
    pub(super) secret: String,
    pub(super) max_connections: usize,
    pub(super) connections: Arc<Semaphore>,
    /// Cancelled when this webhook is replaced or removed.
    pub(super) removed: CancellationToken,
}

/// A chat the bot may write to.
#[derive(Debug, Default)]
pub(super) struct Chat {
    pub(super) last_message_id: i64,
    pub(super) blocked: bool,
    pub(super) migrated_to: Option<i64>,
    /// On the monotonic clock: when the next message is due at an even pace.
    due: Duration,
    /// On the monotonic clock: the messages of the last minute, for groups.
    recent: VecDeque<Duration>,
    /// On the monotonic clock: until when the bot was told to be silent.
    pub(super) silent_until: Duration,
}

impl Chat {
    /// Counts a message against the pace; otherwise returns how long to wait.
    pub(super) fn admit(&mut self, pace: Pace, is_group: bool, now: Duration) -> Result<(), Duration> {
        let lead = self.due.saturating_sub(now);
        let credit = pace.every.saturating_mul(pace.burst.saturating_sub(1));
        let mut wait = lead.saturating_sub(credit);
        if is_group {
            let minute = Duration::from_secs(60);
            while self.recent.front().is_some_and(|at| *at + minute <= now) {
                self.recent.pop_front();
            }
            if self.recent.len() >= pace.group_per_minute {
                let oldest = self.recent.front().copied().unwrap_or_default();
                wait = wait.max((oldest + minute).saturating_sub(now));
            }
        }
        if !wait.is_zero() {
            return Err(wait);
        }
        self.due = self.due.max(now) + pace.every;
        if is_group {
            self.recent.push_back(now);
        }
        Ok(())
    }

    /// The id of the next message.
    pub(super) fn next_message_id(&mut self) -> i64 {
        self.last_message_id += 1;
        self.last_message_id
    }
}

/// An update with an id.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Queued {
    pub(super) update_id: i64,
    /// Its queue, unless it was excluded.
    pub(super) queue: Option<QueueId>,
}

/// The state of the stand-in.
#[derive(Debug)]
pub(super) struct State {
    pub(super) ledger: CallHistory,
    pub(super) backlog: Backlog,
    pub(super) webhook: Option<Webhook>,
    /// Kept when the webhook is removed, as Telegram does with `allowed_updates`.
    pub(super) allowed: Vec<String>,
    /// The queues that have a delivering task.
    pub(super) delivered: HashSet<QueueId>,
    /// When and how the last delivery failed.
    pub(super) last_error: Option<(Timestamp, String)>,
    /// How many 2xx responses of the webhook are still to be lost.
    pub(super) acks_to_lose: u32,
    pub(super) chats: HashMap<i64, Chat>,
    pub(super) script: CallScript,
    /// The number of the newest `getUpdates`; older ones that are still waiting are rejected.
    pub(super) newest_poll: u64,
    /// Unanswered button presses.
    pub(super) open_queries: VecDeque<String>,
    /// Acknowledged updates, for redelivery.
    past: VecDeque<Pending>,
    past_limit: usize,
    next_update_id: i64,
    queries: u64,
}

impl State {
    fn new(history_limit: usize) -> Self {
        // Like Telegram's: positive, starting somewhere, and consecutive from there.
        let start = 100_000_000.0 + random_fraction() * 800_000_000.0;
        Self {
            ledger: CallHistory::new(history_limit),
            backlog: Backlog::default(),
            webhook: None,
            allowed: Vec::new(),
            delivered: HashSet::new(),
            last_error: None,
            acks_to_lose: 0,
            chats: HashMap::new(),
            script: CallScript::default(),
            newest_poll: 0,
            open_queries: VecDeque::new(),
            past: VecDeque::new(),
            past_limit: history_limit,
            next_update_id: start as i64,
            queries: 0,
        }
    }

    /// The chat with this id, created if necessary.
    pub(super) fn chat(&mut self, chat_id: i64) -> &mut Chat {
        self.chats.entry(chat_id).or_default()
    }

    /// Continues with this id, as Telegram jumps after a quiet week.
    #[cfg(any(test, feature = "faults"))]
    pub(super) fn jump_to(&mut self, update_id: i64) {
        self.next_update_id = update_id;
    }

    /// Queues an update, which gets the next id unless it has one.
    pub(super) fn push(&mut self, mut update: Value) -> Queued {
        let own_id = update.as_object_mut().and_then(|object| object.remove("update_id"));
        let update_id = own_id.as_ref().and_then(Value::as_i64).unwrap_or(self.next_update_id);
        self.next_update_id = self.next_update_id.max(update_id.saturating_add(1));
        if let Some((_, content)) = kind_of(&update) {
            let number = |path: &str| content.pointer(path).and_then(Value::as_i64);
            if let Some(chat_id) = number("/chat/id") {
                let message_id = number("/message_id").unwrap_or_default();
                let chat = self.chat(chat_id);
                chat.last_message_id = chat.last_message_id.max(message_id);
            }
        }
        let queue = QueueId::of(&update);
        // The id comes first, as in Telegram's own JSON.
        let rest = update.to_string();
        let rest = rest.strip_prefix('{').unwrap_or("}");
        let comma = if rest == "}" { "" } else { "," };
        let body = format!("{{\"update_id\":{update_id}{comma}{rest}");
        self.backlog.push(Pending { update_id, queue, body: body.into() });
        Queued { update_id, queue: Some(queue) }
    }

    /// Queues an update of this kind unless `allowed_updates` excludes it; either way it gets an id.
    pub(super) fn push_allowed(&mut self, kind: &str, content: Value) -> Queued {
        if is_allowed(kind, &self.allowed) {
            return self.push(json!({ kind: content }));
        }
        tracing::warn!(kind, "the webhook's allowed_updates leaves this update out");
        self.next_update_id += 1;
        Queued { update_id: self.next_update_id - 1, queue: None }
    }

    /// Creates a button press and returns its id.
    pub(super) fn open_query(&mut self) -> String {
        self.queries += 1;
        if self.open_queries.len() == OPEN_QUERY_LIMIT {
            self.open_queries.pop_front();
        }
        let id = format!("{}{:06}", self.next_update_id, self.queries);
        self.open_queries.push_back(id.clone());
        id
    }

    /// Marks these updates as acknowledged.
    pub(super) fn acknowledge(&mut self, updates: Vec<Pending>) {
        for update in updates {
            self.ledger.add_ack(update.update_id);
            if self.past.len() == self.past_limit {
                self.past.pop_front();
            }
            self.past.push_back(update);
        }
    }

    /// The JSON of a waiting or acknowledged update.
    #[cfg(any(test, feature = "faults"))]
    pub(super) fn body_of(&self, update_id: i64) -> Option<Arc<str>> {
        let waiting = self.backlog.find(update_id);
        let update = waiting.or_else(|| self.past.iter().rev().find(|update| update.update_id == update_id));
        update.map(|update| Arc::clone(&update.body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_chat_takes_a_burst_and_then_one_message_a_second() {
        let pace = Pace { every: SECOND, burst: 2, group_per_minute: 20 };
        let mut chat = Chat::default();
        assert_eq!(chat.admit(pace, false, SECOND), Ok(()));
        assert_eq!(chat.admit(pace, false, SECOND), Ok(()));
        assert_eq!(chat.admit(pace, false, SECOND), Err(SECOND));
        assert_eq!(chat.admit(pace, false, SECOND * 2), Ok(()));
        assert_eq!(chat.admit(pace, false, SECOND * 5), Ok(()));
    }

    #[test]
    fn a_group_takes_so_many_a_minute() {
        let pace = Pace { every: Duration::ZERO, burst: 1, group_per_minute: 2 };
        let mut chat = Chat::default();
        assert_eq!(chat.admit(pace, true, SECOND), Ok(()));
        assert_eq!(chat.admit(pace, true, SECOND * 2), Ok(()));
        assert_eq!(chat.admit(pace, true, SECOND * 3), Err(SECOND * 58));
        assert_eq!(chat.admit(pace, true, SECOND * 61), Ok(()));
    }

    #[test]
    fn an_update_has_its_id_in_front_and_keeps_one_it_brings() {
        let mut state = State::new(10);
        let first = state.push(json!({ "message": { "chat": { "id": 5 }, "message_id": 9 } })).update_id;
        assert_eq!(
            &*state.body_of(first).unwrap(),
            format!(r#"{{"update_id":{first},"message":{{"chat":{{"id":5}},"message_id":9}}}}"#)
        );
        assert_eq!(state.chat(5).last_message_id, 9);
        assert_eq!(state.push(json!({ "update_id": first + 50 })).update_id, first + 50);
        assert_eq!(state.push(json!({})).update_id, first + 51);
        state.jump_to(3);
        assert_eq!(state.push(json!({})).update_id, 3);
        assert_eq!(&*state.body_of(3).unwrap(), r#"{"update_id":3}"#);
    }
}
