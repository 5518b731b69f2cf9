//! What is said around a message: it decides whether the message is answered, and where in the chat.

use serde_json::value::RawValue;

use super::fields::{Fields, integer, object};
use super::{kind_of, layout};
use crate::id::BotId;

/// A part of a chat with a conversation of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// A topic of a forum, or of a private chat in topic mode: its `message_thread_id`.
    Thread(i64),
    /// The messages of one person to a channel: their `direct_messages_topic.topic_id`.
    DirectMessages(i64),
}

impl Topic {
    /// Its id, unique within its chat.
    pub fn id(self) -> i64 {
        match self {
            Self::Thread(id) | Self::DirectMessages(id) => id,
        }
    }
}

/// What is said around a message (<https://core.telegram.org/bots/api#message>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageContext {
    /// The topic it stands in.
    pub topic: Option<Topic>,
    /// A bot wrote it. Not one of the bots under whose names Telegram shows anonymous administrators and channels: these
    /// speak for a chat, which `sender_chat` names.
    pub is_from_bot: bool,
    /// Telegram copied it from a channel to the group that belongs to it.
    pub is_automatic_forward: bool,
    /// It replies to the bot that received it, or mentions it by a link to its profile.
    pub is_to_bot: bool,
    /// The supergroup that this group has become.
    pub migrated_to: Option<i64>,
}

impl MessageContext {
    /// The context of the message or post of the update on a line, received by a bot; of anything else there is none.
    pub fn of(line: &str, bot_id: BotId) -> Self {
        Self::find(line, bot_id).unwrap_or_default()
    }

    fn find(line: &str, bot_id: BotId) -> Option<Self> {
        let update = Fields::parse(line)?;
        let kind = kind_of(&update)?;
        let message = update.get(&kind).filter(|_| layout::of(&kind).is_message).and_then(object)?;
        let is_true = |from: &Fields<'_>, name| from.get(name).is_some_and(|value| value.get() == "true");
        // In a group without topics, the thread is a chain of replies, which cannot be written to.
        let thread = message.get("message_thread_id").filter(|_| is_true(&message, "is_topic_message"));
        let direct = message.get("direct_messages_topic").and_then(object);
        let direct = direct.as_ref().and_then(|topic| topic.get("topic_id")).and_then(integer);
        let is_bot = message.get("from").and_then(object).is_some_and(|from| is_true(&from, "is_bot"));
        Some(Self {
            topic: direct.map(Topic::DirectMessages).or_else(|| thread.and_then(integer).map(Topic::Thread)),
            is_from_bot: is_bot && message.get("sender_chat").is_none(),
            is_automatic_forward: is_true(&message, "is_automatic_forward"),
            is_to_bot: replies_to(&message, bot_id) || links_to(&message, bot_id),
            migrated_to: message.get("migrate_to_chat_id").and_then(integer),
        })
    }
}

/// Whether a user is the bot.
fn is_bot(user: Option<&RawValue>, bot_id: BotId) -> bool {
    user.and_then(object).and_then(|user| user.get("id").and_then(integer)) == Some(bot_id.0)
}

/// Whether a message replies to the bot. In a topic, what replies to nothing replies to the message that opened it.
fn replies_to(message: &Fields<'_>, bot_id: BotId) -> bool {
    let replied = message.get("reply_to_message").and_then(object);
    replied.is_some_and(|replied| replied.get("forum_topic_created").is_none() && is_bot(replied.get("from"), bot_id))
}

/// Whether a message links to the bot's profile, as mentions of those without a username do.
fn links_to(message: &Fields<'_>, bot_id: BotId) -> bool {
    ["entities", "caption_entities"].into_iter().filter_map(|name| message.get(name)).any(|entities| {
        let entities: Vec<&RawValue> = serde_json::from_str(entities.get()).unwrap_or_default();
        entities.into_iter().filter_map(object).any(|entity| is_bot(entity.get("user"), bot_id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(message: &str) -> MessageContext {
        MessageContext::of(&format!(r#"{{"update_id":1,"message":{message}}}"#), BotId(42))
    }

    #[test]
    fn a_reply_to_the_bot_and_a_link_to_it_are_meant_for_it() {
        for (message, is_to_bot) in [
            (r#"{"reply_to_message":{"from":{"id":42}}}"#, true),
            (r#"{"reply_to_message":{"from":{"id":42},"forum_topic_created":{}}}"#, false),
            (r#"{"reply_to_message":{"from":{"id":43}}}"#, false),
            (r#"{"entities":[7,{"type":"bold"},{"type":"text_mention","user":{"id":42}}]}"#, true),
            (r#"{"caption_entities":[{"type":"text_mention","user":{"id":42}}]}"#, true),
            (r#"{"entities":[{"type":"text_mention","user":{"id":43}}],"from":{"id":42}}"#, false),
        ] {
            assert_eq!(context(message).is_to_bot, is_to_bot, "{message}");
        }
    }

    #[test]
    fn only_a_thread_that_is_a_topic_counts_as_one() {
        for (message, topic) in [
            (r#"{"message_thread_id":15,"is_topic_message":true}"#, Some(Topic::Thread(15))),
            (r#"{"message_thread_id":15}"#, None),
            (r#"{"message_thread_id":15,"is_topic_message":false}"#, None),
            (r#"{"message_thread_id":"15","is_topic_message":true}"#, None),
            (r#"{"is_topic_message":true}"#, None),
            (r#"{"direct_messages_topic":{"topic_id":777,"user":{"id":777}}}"#, Some(Topic::DirectMessages(777))),
            (r#"{"direct_messages_topic":7,"text":"x"}"#, None),
        ] {
            assert_eq!(context(message).topic, topic, "{message}");
        }
    }

    #[test]
    fn who_speaks_for_a_chat_is_no_bot() {
        for (message, is_from_bot) in [
            (r#"{"from":{"id":444555,"is_bot":true}}"#, true),
            (r#"{"from":{"id":444555,"is_bot":false}}"#, false),
            (r#"{"from":{"id":1087968824,"is_bot":true},"sender_chat":{"id":-100}}"#, false),
            (r#"{"sender_chat":{"id":-100}}"#, false),
        ] {
            assert_eq!(context(message).is_from_bot, is_from_bot, "{message}");
        }
        assert!(context(r#"{"is_automatic_forward":true}"#).is_automatic_forward);
        assert_eq!(context(r#"{"migrate_to_chat_id":-100}"#).migrated_to, Some(-100));
    }

    #[test]
    fn what_is_no_message_has_no_context() {
        for line in [
            "",
            "[]",
            r#"{"update_id":1}"#,
            r#"{"update_id":1,"message":7}"#,
            r#"{"update_id":1,"callback_query":{"message_thread_id":1,"is_topic_message":true}}"#,
        ] {
            assert_eq!(MessageContext::of(line, BotId(42)), MessageContext::default(), "{line}");
        }
    }
}
