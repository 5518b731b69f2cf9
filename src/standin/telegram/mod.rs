//! A Bot API stand-in on loopback that behaves like Telegram, including its failures.
//!
//! The demo and the tests both run on it, so they share one model of Telegram. It keeps nothing on disk and talks to
//! nobody but the webhook it is given.

mod behavior;
mod delivery;
#[cfg(any(test, feature = "faults"))]
mod faults;
mod ledger;
mod methods;
mod outcome;
mod params;
mod sending;
mod server;
mod state;
#[cfg(test)]
mod tests;
mod updates;
mod webhook;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::broadcast;

pub use self::behavior::Behavior;
pub use self::delivery::SECRET_HEADER;
pub use self::ledger::{Call, CallHistory, Delivery, Fate, Receipt, SentMessage, Totals};
use self::state::{Queued, Shared};
use crate::clock::{Clock, Timestamp};
use crate::error::{Context, ErrorKind, Result};
use crate::id::{BotId, random_id};

/// How often the bot may write to a chat. Beyond that the stand-in answers 429, as Telegram does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The interval between messages in one chat.
    pub every: Duration,
    /// How many messages may be sent at once after a pause.
    pub burst: u32,
    /// How many messages a group accepts per minute.
    pub group_per_minute: usize,
}

impl Default for Pace {
    /// As in Telegram's documentation: one a second, twenty a minute in a group.
    fn default() -> Self {
        Self { every: Duration::from_secs(1), burst: 3, group_per_minute: 20 }
    }
}

/// Options of a stand-in.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its clock.
    pub clock: Clock,
    /// The bot's token, `<bot id>:<anything>`.
    pub token: String,
    /// How many entries of each kind the ledger keeps.
    pub history_limit: usize,
    /// The pace it enforces; none by default.
    pub pace: Option<Pace>,
    /// Whether the bot may write to chats that never wrote to it. Telegram says "chat not found".
    pub accept_unknown_chats: bool,
    /// How long a delivery may take.
    pub delivery_timeout: Duration,
    /// The wait before the third attempt of a delivery (the second comes at once); it doubles from there.
    pub first_retry_delay: Duration,
    /// The longest wait between two attempts.
    pub longest_retry_delay: Duration,
}

impl Default for Options {
    /// Telegram's own delays, no pace, and a token nobody can guess.
    fn default() -> Self {
        Self {
            clock: Clock::system(),
            token: format!("4242424242:{}", random_id().simple()),
            history_limit: 100_000,
            pace: None,
            accept_unknown_chats: false,
            delivery_timeout: Duration::from_secs(60),
            first_retry_delay: Duration::from_secs(2),
            longest_retry_delay: Duration::from_secs(120),
        }
    }
}

/// An event at the stand-in, for subscribers.
#[derive(Clone, Debug)]
pub enum StandInEvent {
    /// A user wrote, or pressed a button.
    UserSent {
        /// The update it became.
        update_id: i64,
        /// The chat.
        chat_id: i64,
        /// What was written, or the data of the button.
        text: String,
        /// Whether it was a button.
        is_press: bool,
        /// When.
        at: Timestamp,
    },
    /// An attempt to deliver an update ended.
    Delivery(Delivery),
    /// A message of the bot was accepted.
    Sent(SentMessage),
    /// An edit was accepted; the message in its current state.
    Edited(SentMessage),
    /// The bot shows that it is busy.
    ChatAction {
        /// Where.
        chat_id: i64,
        /// What it does, such as `typing`.
        action: String,
        /// When.
        at: Timestamp,
    },
}

/// A running Bot API stand-in. Stops when it is dropped.
#[derive(Debug)]
pub struct TelegramStandIn {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Drop for TelegramStandIn {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl TelegramStandIn {
    /// Starts a stand-in on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// A configuration error for a token without a bot id; unavailable when no port can be had.
    pub async fn start(options: Options) -> Result<Self> {
        let bot_id = BotId::of_token(&options.token)?;
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build();
        let client = client.context(ErrorKind::Unavailable, "make the HTTP client of the Bot API stand-in")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context(ErrorKind::Unavailable, "listen on a free port of 127.0.0.1")?;
        let address = listener.local_addr().context(ErrorKind::Unavailable, "read the address listened on")?;
        let shared = Arc::new(Shared::new(options, bot_id, client));
        tokio::spawn(server::serve(Arc::clone(&shared), listener));
        Ok(Self { shared, address })
    }

    /// The part before `/bot`: the value for `TELEGRAM_API_URL`.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bot's token.
    pub fn token(&self) -> &str {
        &self.shared.options.token
    }

    /// The bot's id.
    pub fn bot_id(&self) -> BotId {
        self.shared.bot_id
    }

    /// Stops serving and delivering. Dropping the stand-in does the same.
    pub fn stop(&self) {
        self.shared.stop.cancel();
    }

    /// A user writes `text` in a chat (a positive number is a private chat, a negative one a supergroup); returns the
    /// update's id. Not delivered if the webhook's `allowed_updates` exclude messages.
    pub fn user_sends(&self, chat_id: i64, text: &str) -> i64 {
        let at = self.shared.now();
        let queued = self.shared.change(|state| {
            let message_id = state.chat(chat_id).next_message_id();
            state.push_allowed("message", updates::message(chat_id, message_id, text, at))
        });
        let (update_id, text) = (queued.update_id, text.to_owned());
        self.shared.tell(StandInEvent::UserSent { update_id, chat_id, text, is_press: false, at });
        self.begin_delivery(queued)
    }

    /// A user presses a button with this data below a message of the bot; returns the update's id. Not delivered if the
    /// webhook's `allowed_updates` exclude button presses.
    pub fn press_button(&self, chat_id: i64, message_id: i64, data: &str) -> i64 {
        let bot = self.shared.bot();
        let queued = self.shared.change(|state| {
            let message = state.ledger.current(chat_id, message_id).map(|sent| updates::bot_message(&bot, sent));
            let message = message.unwrap_or_else(|| updates::inaccessible_message(chat_id, message_id));
            let query = state.open_query();
            state.push_allowed("callback_query", updates::callback_query(&query, chat_id, &message, data))
        });
        let (update_id, text, at) = (queued.update_id, data.to_owned(), self.shared.now());
        self.shared.tell(StandInEvent::UserSent { update_id, chat_id, text, is_press: true, at });
        self.begin_delivery(queued)
    }

    fn begin_delivery(&self, queued: Queued) -> i64 {
        if let Some(queue) = queued.queue {
            delivery::deliver(&self.shared, queue);
        }
        queued.update_id
    }

    /// Queues any update as it is, bypassing `allowed_updates`; it gets the next id unless it has one. Returns the id.
    pub fn push_update(&self, update: Value) -> i64 {
        let queued = self.shared.change(|state| state.push(update));
        self.begin_delivery(queued)
    }

    /// How many updates are not acknowledged yet.
    pub fn pending_updates(&self) -> usize {
        self.shared.look(|state| state.backlog.len())
    }

    /// Totals since the start.
    pub fn totals(&self) -> Totals {
        self.read(CallHistory::totals)
    }

    /// Looks at the ledger. `look` must not call the stand-in.
    pub fn read<T>(&self, look: impl FnOnce(&CallHistory) -> T) -> T {
        self.shared.look(|state| look(&state.ledger))
    }

    /// Every message of the bot that was accepted, oldest first.
    pub fn sent(&self) -> Vec<SentMessage> {
        self.read(|ledger| ledger.sent().cloned().collect())
    }

    /// Waits until `condition` holds for the ledger; false if it does not within `limit`.
    #[must_use = "the condition may not have come to hold"]
    pub async fn wait_for(&self, condition: impl Fn(&CallHistory) -> bool, limit: Duration) -> bool {
        self.wait_until(|| self.read(&condition), limit).await
    }

    /// Waits until every update is acknowledged; false if some are not after `limit`.
    #[must_use = "updates may still be waiting"]
    pub async fn wait_for_acks(&self, limit: Duration) -> bool {
        self.wait_until(|| self.pending_updates() == 0, limit).await
    }

    async fn wait_until(&self, condition: impl Fn() -> bool, limit: Duration) -> bool {
        let mut changes = self.shared.changes();
        let holds = async {
            loop {
                changes.mark_unchanged();
                if condition() {
                    return true;
                }
                if changes.changed().await.is_err() {
                    return false;
                }
            }
        };
        self.shared.options.clock.timeout(limit, holds).await.unwrap_or(false)
    }

    /// The events from now on.
    pub fn watch_events(&self) -> broadcast::Receiver<Arc<StandInEvent>> {
        self.shared.events.subscribe()
    }
}
