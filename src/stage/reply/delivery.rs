//! One part on its way to Telegram, with the repairs made so far.

use std::time::Duration;

use super::outcome::Status;
use crate::retry::Backoff;
use crate::telegram::client::OutgoingMessage;
use crate::telegram::reply::{Method, ReplyMessage};
use crate::telegram::{BotClient, SendFault, text};

/// The result of a try.
pub(super) enum Attempt {
    /// Its outcome is known, or known to be unknown.
    Done(Verdict),
    /// Nothing left; the chat is held this long.
    Again(Duration),
}

/// The outcome of a part.
pub(super) struct Verdict {
    pub(super) status: Status,
    pub(super) message_id: Option<i64>,
    pub(super) error: Option<String>,
    /// Calls of the Bot API.
    pub(super) tries: i64,
    /// The chat it went to, if that is known to be another than the question's.
    pub(super) migrated_to: Option<i64>,
}

impl Verdict {
    pub(super) fn sent(message_id: i64, tries: i64) -> Self {
        Self { status: Status::Sent, message_id: Some(message_id), error: None, tries, migrated_to: None }
    }

    pub(super) fn failed(error: String, tries: i64) -> Self {
        Self { status: Status::Failed, message_id: None, error: Some(error), tries, migrated_to: None }
    }

    pub(super) fn unknown(error: String) -> Self {
        Self { status: Status::Unknown, message_id: None, error: Some(error), tries: 1, migrated_to: None }
    }
}

/// A part on its way.
pub(super) struct Delivery {
    method: Method,
    /// The message that is edited.
    target: Option<i64>,
    pub(super) message: OutgoingMessage,
    pub(super) tries: i64,
    pub(super) backoff: Backoff,
}

impl Delivery {
    /// `target` is the message to edit, if the part is an edit and it is known.
    pub(super) fn new(message: &ReplyMessage, target: Option<i64>) -> Self {
        Self {
            method: message.method,
            target,
            message: OutgoingMessage {
                chat_id: message.chat_id,
                text: message.text.clone(),
                entities: message.entities.clone(),
                message_thread_id: message.thread,
                direct_messages_topic_id: message.direct_messages_topic,
                reply_markup: message.markup.clone(),
                reply_to_message_id: message.reply_to,
            },
            tries: 0,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
        }
    }

    /// One call; the id of the message.
    pub(super) async fn call(&self, bot: &BotClient) -> Result<i64, SendFault> {
        match (self.method, self.target) {
            (Method::Send, _) => bot.send_message(&self.message).await,
            (Method::Edit, Some(target)) => bot.edit_message_text(target, &self.message).await.map(|()| target),
            (Method::Edit, None) => Err(SendFault::Refused {
                code: 400,
                description: "the message that this part edits is not known".to_owned(),
                migrate_to_chat_id: None,
            }),
        }
    }

    /// Changes the message so that it may be accepted; `false` if nothing is left to change.
    pub(super) fn repair(&mut self, fault: &SendFault) -> bool {
        if let SendFault::Refused { migrate_to_chat_id: Some(chat_id), .. } = fault {
            // Its messages have other ids there.
            self.message.reply_to_message_id = None;
            return std::mem::replace(&mut self.message.chat_id, *chat_id) != *chat_id;
        }
        if fault.is_about_entities() && !self.message.entities.is_empty() {
            self.message.text = text::plain(&self.message.text, &self.message.entities);
            self.message.entities.clear();
            return true;
        }
        fault.is_missing_reply_target() && self.message.reply_to_message_id.take().is_some()
    }
}
