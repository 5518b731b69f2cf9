//! A reply as data: the messages to send, decided once by the stage that answers and delivered by the one that sends.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::text::{self, Entity};
use crate::error::{Context, ErrorKind, Result};

/// How a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// A new message.
    #[serde(rename = "sendMessage")]
    Send,
    /// A new text for a message of the same reply.
    #[serde(rename = "editMessageText")]
    Edit,
}

/// One message of a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyMessage {
    /// How it goes out.
    pub method: Method,
    /// The chat it goes to.
    pub chat_id: i64,
    /// Its text, at most [`text::MESSAGE_LIMIT_UTF16`] long.
    pub text: String,
    /// Its formatting, by offset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entities: Vec<Entity>,
    /// Its `reply_markup`, in the Bot API's format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub markup: Option<Value>,
    /// The topic it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<i64>,
    /// The message it replies to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<i64>,
    /// The part of this reply that it edits, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edits: Option<i64>,
}

/// The message being answered.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// The chat.
    pub chat_id: i64,
    /// The type of that chat.
    pub chat_type: Option<&'a str>,
    /// Its id.
    pub message_id: Option<i64>,
}

/// The messages of an answer in Markdown; the same input always gives the same messages.
pub fn compose(markdown: &str, answered: Answered<'_>) -> Vec<ReplyMessage> {
    // In a private chat it is clear what is being answered; in a group it is not.
    let in_group = answered.chat_type.is_some_and(|kind| matches!(kind, "group" | "supergroup"));
    let message = |part: text::Part| ReplyMessage {
        method: Method::Send,
        chat_id: answered.chat_id,
        text: part.text,
        entities: part.entities,
        markup: None,
        thread: None,
        reply_to: answered.message_id.filter(|_| in_group),
        edits: None,
    };
    text::render(markdown).into_iter().map(message).collect()
}

/// The messages of a reply as JSON.
///
/// # Errors
/// Fatal when they cannot be written, which does not happen.
pub fn to_json(messages: &[ReplyMessage]) -> Result<String> {
    serde_json::to_string(messages).context(ErrorKind::Fatal, "a reply cannot be written as JSON")
}

/// The messages that [`to_json`] wrote.
///
/// # Errors
/// Corrupt when the text is something else, or names a method that this release does not know.
pub fn from_json(json: &str) -> Result<Vec<ReplyMessage>> {
    serde_json::from_str(json).context(ErrorKind::Corrupt, "a reply cannot be understood")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answered(chat_type: Option<&str>) -> Answered<'_> {
        Answered { chat_id: 7, chat_type, message_id: Some(70) }
    }

    #[test]
    fn a_reply_says_what_it_answers_only_in_a_group() {
        let reply_to = |chat_type| compose("hello", answered(chat_type))[0].reply_to;
        assert_eq!((reply_to(Some("supergroup")), reply_to(Some("private")), reply_to(None)), (Some(70), None, None));
        assert!(compose(" \n", answered(None)).is_empty());
    }

    #[test]
    fn what_is_not_a_list_of_messages_is_refused() {
        for odd in ["", "{}", r#"[{"method":"sendPhoto","chat_id":1,"text":"x"}]"#] {
            assert_eq!(from_json(odd).unwrap_err().kind(), ErrorKind::Corrupt, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn a_reply_comes_back_as_it_was(markdown in "(\\PC|[*_`\n]){0,300}") {
            let messages = compose(&markdown, answered(Some("group")));
            prop_assert_eq!(from_json(&to_json(&messages).unwrap()).unwrap(), messages);
        }
    }
}
