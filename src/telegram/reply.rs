//! A reply as data: the messages to send, decided once by the stage that answers and delivered by the one that sends.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::text::{self, Entity};
use super::update::Topic;
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
    /// The person's topic it belongs to, among the direct messages of a channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct_messages_topic: Option<i64>,
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
    /// The topic it stands in.
    pub topic: Option<Topic>,
    /// Its id.
    pub message_id: Option<i64>,
}

/// The messages of an answer in Markdown, with a note below it, if any; the same input always gives the same messages.
///
/// The note is rendered apart: whatever the answer leaves open at its end, such as a block of code, ends before it.
pub fn compose(markdown: &str, note: Option<&str>, answered: Answered<'_>) -> Vec<ReplyMessage> {
    let mut parts = text::render(markdown);
    if let (Some(note), false) = (note, parts.is_empty()) {
        append_note(&mut parts, note);
    }
    // In a private chat it is clear what is being answered; in a group it is not.
    let in_group = answered.chat_type.is_some_and(|kind| matches!(kind, "group" | "supergroup"));
    let (thread, direct_messages_topic) = match answered.topic {
        None => (None, None),
        Some(Topic::Thread(id)) => (Some(id), None),
        Some(Topic::DirectMessages(id)) => (None, Some(id)),
    };
    let message = |part: text::Part| ReplyMessage {
        method: Method::Send,
        chat_id: answered.chat_id,
        text: part.text,
        entities: part.entities,
        markup: None,
        thread,
        direct_messages_topic,
        reply_to: answered.message_id.filter(|_| in_group),
        edits: None,
    };
    parts.into_iter().map(message).collect()
}

/// Adds a note as a paragraph of the last part, or as a part of its own where it does not fit.
fn append_note(parts: &mut Vec<text::Part>, note: &str) {
    let length_utf16 = |text: &str| text.encode_utf16().count();
    let fits = |last: &text::Part, part: &text::Part| {
        length_utf16(&last.text) + 2 + length_utf16(&part.text) <= text::MESSAGE_LIMIT_UTF16
            && last.entities.len() + part.entities.len() <= text::MAX_ENTITIES
    };
    for mut part in text::render(note) {
        match parts.last_mut() {
            Some(last) if fits(last, &part) => {
                last.text.push_str("\n\n");
                let start = length_utf16(&last.text);
                part.entities.iter_mut().for_each(|entity| entity.offset += start);
                last.text.push_str(&part.text);
                last.entities.append(&mut part.entities);
            }
            _ => parts.push(part),
        }
    }
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
        Answered { chat_id: 7, chat_type, topic: None, message_id: Some(70) }
    }

    #[test]
    fn every_message_of_a_reply_goes_to_the_topic_of_the_question() {
        let long = "word ".repeat(2_000);
        for (topic, expected) in [
            (None, (None, None)),
            (Some(Topic::Thread(15)), (Some(15), None)),
            (Some(Topic::DirectMessages(777)), (None, Some(777))),
        ] {
            let messages = compose(&long, Some("note"), Answered { topic, ..answered(Some("supergroup")) });
            assert!(messages.len() > 1);
            for message in messages {
                assert_eq!((message.thread, message.direct_messages_topic), expected);
            }
        }
    }

    #[test]
    fn a_reply_says_what_it_answers_only_in_a_group() {
        let reply_to = |chat_type| compose("hello", None, answered(chat_type))[0].reply_to;
        assert_eq!((reply_to(Some("supergroup")), reply_to(Some("private")), reply_to(None)), (Some(70), None, None));
        assert!(compose(" \n", None, answered(None)).is_empty());
    }

    #[test]
    fn a_note_stands_below_the_answer_whatever_the_answer_leaves_open() {
        let kinds = |message: &ReplyMessage| -> Vec<(String, usize, usize)> {
            let entities = message.entities.iter();
            entities.map(|entity| (entity.kind.clone(), entity.offset, entity.length)).collect()
        };
        for (markdown, text, code) in [
            ("Run:\n\n~~~sh\nls -l", "Run:\n\nls -l\n\nCut *off*.", Some(("pre", 6, 5))),
            ("Run:\n\n````\n```\nls", "Run:\n\n```\nls\n\nCut *off*.", Some(("pre", 6, 6))),
            ("- Run:\n\n      ls", "• Run:\n\nls\n\nCut *off*.", Some(("pre", 8, 2))),
            ("This is **bo", "This is **bo\n\nCut *off*.", None),
            ("See [the](https://e", "See [the](https://e\n\nCut *off*.", None),
            ("a <!-- b", "a <!-- b\n\nCut *off*.", None),
        ] {
            let messages = compose(markdown, Some("Cut *off*."), answered(None));
            assert_eq!(messages.len(), 1, "{markdown}");
            assert_eq!(messages[0].text, text.replace("*off*", "off"), "{markdown}");
            let italic = messages[0].text.encode_utf16().count() - "off.".len();
            let expected = code.into_iter().chain([("italic", italic, 3)]);
            let expected: Vec<_> = expected.map(|(kind, at, length)| (kind.to_owned(), at, length)).collect();
            assert_eq!(kinds(&messages[0]), expected, "{markdown}");
        }
        assert!(compose(" \n", Some("Cut off."), answered(None)).is_empty());
        assert_eq!(compose("Hi", Some(" "), answered(None)), compose("Hi", None, answered(None)));
    }

    #[test]
    fn a_note_that_does_not_fit_is_a_message_of_its_own() {
        let limit = text::MESSAGE_LIMIT_UTF16;
        let texts = |length: usize, note: &str| -> Vec<String> {
            let messages = compose(&"x".repeat(length), Some(note), answered(None));
            messages.into_iter().map(|message| message.text).collect()
        };
        assert_eq!(texts(limit - 6, "😀😀"), [format!("{}\n\n😀😀", "x".repeat(limit - 6))]);
        assert_eq!(texts(limit - 5, "😀😀"), ["x".repeat(limit - 5), "😀😀".to_owned()]);
        assert_eq!(texts(1, &"y".repeat(limit + 1)), ["x".to_owned(), "y".repeat(limit), "y".to_owned()]);
        let formatted = |words: usize| compose(&"*x* ".repeat(words), Some("*Cut* off."), answered(None)).len();
        assert_eq!((formatted(99), formatted(100)), (1, 2), "Telegram drops the formatting that is too much");
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
            let messages = compose(&markdown, Some("*Cut* off."), answered(Some("group")));
            prop_assert_eq!(from_json(&to_json(&messages).unwrap()).unwrap(), messages);
        }
    }
}
