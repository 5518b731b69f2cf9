//! The outcome of one send of one part of a reply, and what identifies it.

use crate::clock::Timestamp;
use crate::flow::key::UpdateKey;
use crate::id::BotId;
use crate::telegram::reply::Method;

/// Identifies one send of one part of a reply.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PartKey {
    pub(super) bot_id: BotId,
    pub(super) update_id: i64,
    pub(super) attempt: i64,
    pub(super) send: i64,
    pub(super) part: i64,
}

impl PartKey {
    /// The reply it belongs to.
    pub(super) fn update(&self) -> UpdateKey {
        UpdateKey { bot_id: self.bot_id, update_id: self.update_id, attempt: self.attempt }
    }

    /// Which part and send of that reply.
    pub(super) fn of(&self) -> PartOf {
        PartOf { send: self.send, part: self.part }
    }
}

/// One send of one part, within its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartOf {
    pub(super) send: i64,
    pub(super) part: i64,
}

/// What is known about a part with an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartState {
    pub(super) status: Status,
    /// How many parts its reply has.
    pub(super) parts: i64,
    /// The message it became, if known.
    pub(super) message_id: Option<i64>,
}

/// The outcome of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Telegram has confirmed it.
    Sent,
    /// Telegram has refused it.
    Failed,
    /// It may or may not have arrived.
    Unknown,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    pub(super) fn of(text: &str) -> Option<Self> {
        [Self::Sent, Self::Failed, Self::Unknown].into_iter().find(|status| status.as_str() == text)
    }
}

/// A row of the replies table.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) key: PartKey,
    pub(super) parts: i64,
    pub(super) chat_id: i64,
    pub(super) method: Method,
    pub(super) telegram_message_id: Option<i64>,
    pub(super) status: Status,
    pub(super) tries: i64,
    pub(super) error: Option<String>,
    pub(super) silver_version: i64,
    pub(super) at: Timestamp,
    pub(super) trace_id: String,
}
