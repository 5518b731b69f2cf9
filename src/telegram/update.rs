//! The update model: which kind an update is, and its columns.
//!
//! The Bot API grows every few weeks, so nothing here refuses what it does not know: an unknown kind is a row with
//! its name, and a value of another type than its column is kept aside.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::clock::Timestamp;

/// The kinds of updates of Bot API 10.3, as `allowed_updates` names them
/// (<https://core.telegram.org/bots/api#update>).
pub const UPDATE_KINDS: &[&str] = &[
    "message",
    "edited_message",
    "channel_post",
    "edited_channel_post",
    "business_connection",
    "business_message",
    "edited_business_message",
    "deleted_business_messages",
    "guest_message",
    "stopped_message_generation",
    "message_reaction",
    "message_reaction_count",
    "inline_query",
    "chosen_inline_result",
    "callback_query",
    "shipping_query",
    "pre_checkout_query",
    "purchased_paid_media",
    "poll",
    "poll_answer",
    "my_chat_member",
    "chat_member",
    "chat_join_request",
    "chat_boost",
    "removed_chat_boost",
    "managed_bot",
    "subscription",
];

/// Fields of a message that are media, the more telling first: an animation also has a `document`.
const MEDIA: &[&str] = &[
    "animation",
    "photo",
    "video",
    "voice",
    "audio",
    "video_note",
    "sticker",
    "document",
    "paid_media",
    "story",
    "contact",
    "venue",
    "location",
    "poll",
    "dice",
    "game",
];

/// The last moment a timestamp column can hold in every reader: the end of the year 9999, in Unix seconds.
const LAST_SECOND: i64 = 253_402_300_799;

/// A line of a segment, looked at.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// A JSON object with an integer `update_id`.
    Known(Box<UpdateColumns>),
    /// Anything else; `text` is what `_corrupt_record` holds.
    Corrupt {
        /// The line, or the text our receiver wrapped (as `data:;base64,…` where it was no UTF-8).
        text: String,
    },
}

/// The columns of an update; see the bronze table.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct UpdateColumns {
    pub update_id: i64,
    pub update_type: Option<String>,
    pub message_id: Option<i64>,
    pub chat_id: Option<i64>,
    pub chat_type: Option<String>,
    pub chat_title: Option<String>,
    pub user_id: Option<i64>,
    pub username: Option<String>,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    pub language_code: Option<String>,
    pub author_signature: Option<String>,
    pub message_thread_id: Option<i64>,
    pub reply_to_message_id: Option<i64>,
    pub text: Option<String>,
    pub date: Option<i64>,
    pub sent_at: Option<Timestamp>,
    pub callback_query_id: Option<String>,
    pub callback_data: Option<String>,
    pub media_type: Option<String>,
    pub file_id: Option<String>,
    /// JSON object of what was meant for a column and did not fit it.
    pub rescued: Option<String>,
}

impl Update {
    /// Looks at one line of a segment (without its line break).
    pub fn parse(line: &[u8]) -> Self {
        let parsed: Option<Map<String, Value>> = serde_json::from_slice(line).ok();
        let Some(update) = parsed else { return Self::Corrupt { text: String::from_utf8_lossy(line).into_owned() } };
        match update.get("update_id").and_then(Value::as_i64) {
            Some(update_id) => Self::Known(Box::new(columns(update_id, &update))),
            None => Self::Corrupt { text: unwrapped(&update, line) },
        }
    }
}

/// What our receiver wrapped because it was no JSON object; or the line.
fn unwrapped(update: &Map<String, Value>, line: &[u8]) -> String {
    match (update.get("_corrupt_record"), update.get("_encoding").and_then(Value::as_str)) {
        (Some(Value::String(text)), Some("base64")) => format!("data:;base64,{text}"),
        (Some(Value::String(text)), None) => text.clone(),
        _ => String::from_utf8_lossy(line).into_owned(),
    }
}

fn columns(update_id: i64, update: &Map<String, Value>) -> UpdateColumns {
    let mut found = UpdateColumns { update_id, ..UpdateColumns::default() };
    let mut fit = Fit::default();
    let known = UPDATE_KINDS.iter().find(|kind| update.contains_key(**kind)).map(|kind| (*kind).to_owned());
    found.update_type = known.or_else(|| update.keys().find(|key| *key != "update_id").cloned());
    let Some(kind) = found.update_type.clone() else { return found };
    match &update[&kind] {
        Value::Object(body) => fill(&mut found, &kind, body, &mut fit),
        other => fit.rescue(&kind, other),
    }
    found.rescued = fit.into_json();
    found
}

fn fill(found: &mut UpdateColumns, kind: &str, body: &Map<String, Value>, fit: &mut Fit) {
    if kind == "callback_query" {
        found.callback_query_id = fit.text("callback_query_id", body.get("id"));
        found.callback_data = fit.text("callback_data", body.get("data"));
        // The message is the bot's own: where the button is, not what the user says.
        let message = fit.object("message", body.get("message"));
        found.message_id = fit.integer("message_id", message.get("message_id"));
        found.message_thread_id = fit.integer("message_thread_id", message.get("message_thread_id"));
        fill_chat(found, message, fit);
    } else {
        fill_message(found, kind, body, fit);
        fill_chat(found, body, fit);
    }
    if found.chat_id.is_none() {
        found.chat_id = fit.integer("chat_id", body.get("user_chat_id"));
    }
    fill_user(found, body, fit);
}

fn fill_message(found: &mut UpdateColumns, kind: &str, body: &Map<String, Value>, fit: &mut Fit) {
    found.message_id = fit.integer("message_id", body.get("message_id"));
    found.message_thread_id = fit.integer("message_thread_id", body.get("message_thread_id"));
    found.author_signature = fit.text("author_signature", body.get("author_signature"));
    found.date = fit.integer("date", body.get("date"));
    found.sent_at = found.date.and_then(|date| fit.moment("sent_at", date));
    if !kind.ends_with("message") && !kind.ends_with("post") {
        return;
    }
    let reply = fit.object("reply_to_message_id", body.get("reply_to_message"));
    found.reply_to_message_id = fit.integer("reply_to_message_id", reply.get("message_id"));
    found.text = fit.text("text", body.get("text")).or_else(|| fit.text("text", body.get("caption")));
    if let Some(media) = MEDIA.iter().find(|media| body.contains_key(**media)) {
        found.media_type = Some((*media).to_owned());
        found.file_id = fit.text("file_id", file_id(&body[*media]));
    }
}

/// A photo comes in sizes, the largest last.
fn file_id(media: &Value) -> Option<&Value> {
    match media {
        Value::Array(sizes) => sizes.last()?.get("file_id"),
        one => one.get("file_id"),
    }
}

fn fill_chat(found: &mut UpdateColumns, holder: &Map<String, Value>, fit: &mut Fit) {
    let chat = fit.object("chat_id", holder.get("chat"));
    found.chat_id = fit.integer("chat_id", chat.get("id"));
    found.chat_type = fit.text("chat_type", chat.get("type"));
    found.chat_title = fit.text("chat_title", chat.get("title"));
}

fn fill_user(found: &mut UpdateColumns, body: &Map<String, Value>, fit: &mut Fit) {
    let boost = body.get("boost").unwrap_or(&Value::Null);
    let of_boost = body.get("source").or(boost.get("source")).and_then(|source| source.get("user"));
    let user = fit.object("user_id", body.get("from").or(body.get("user")).or(of_boost));
    found.user_id = fit.integer("user_id", user.get("id"));
    found.username = fit.text("username", user.get("username"));
    found.first_name = fit.text("first_name", user.get("first_name"));
    found.last_name = fit.text("last_name", user.get("last_name"));
    found.language_code = fit.text("language_code", user.get("language_code"));
}

/// Takes values that fit their column and keeps aside those that do not.
#[derive(Default)]
struct Fit {
    rescued: Map<String, Value>,
}

impl Fit {
    fn integer(&mut self, column: &str, value: Option<&Value>) -> Option<i64> {
        self.taken(column, value, Value::as_i64)
    }

    fn text(&mut self, column: &str, value: Option<&Value>) -> Option<String> {
        self.taken(column, value, |value| value.as_str().map(str::to_owned))
    }

    fn moment(&mut self, column: &str, seconds: i64) -> Option<Timestamp> {
        if !(0..=LAST_SECOND).contains(&seconds) {
            self.rescue(column, &Value::from(seconds));
            return None;
        }
        Some(Timestamp::from_micros(seconds * 1_000_000))
    }

    /// The object there; an empty one where there is none.
    fn object<'a>(&mut self, column: &str, value: Option<&'a Value>) -> &'a Map<String, Value> {
        static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        match value {
            Some(Value::Object(object)) => object,
            None | Some(Value::Null) => &EMPTY,
            Some(other) => {
                self.rescue(column, other);
                &EMPTY
            }
        }
    }

    fn taken<T>(&mut self, column: &str, value: Option<&Value>, take: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let value = value.filter(|value| !value.is_null())?;
        let taken = take(value);
        if taken.is_none() {
            self.rescue(column, value);
        }
        taken
    }

    fn rescue(&mut self, column: &str, value: &Value) {
        self.rescued.insert(column.to_owned(), value.clone());
    }

    fn into_json(self) -> Option<String> {
        (!self.rescued.is_empty()).then(|| Value::Object(self.rescued).to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn known(update: &Value) -> UpdateColumns {
        match Update::parse(update.to_string().as_bytes()) {
            Update::Known(columns) => *columns,
            Update::Corrupt { text } => panic!("corrupt: {text}"),
        }
    }

    fn fixture(kind: &str) -> Value {
        let path = format!("{}/tests/fixtures/updates/{kind}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(&path).expect(&path)).unwrap()
    }

    #[test]
    fn every_kind_has_a_fixture_and_its_columns() {
        assert_eq!(UPDATE_KINDS.len(), 27);
        // chat, user, message, text: which of them a kind has.
        let without_chat = [
            "inline_query",
            "chosen_inline_result",
            "shipping_query",
            "pre_checkout_query",
            "purchased_paid_media",
            "poll",
            "poll_answer",
            "managed_bot",
            "subscription",
        ];
        let without_user = [
            "channel_post",
            "edited_channel_post",
            "deleted_business_messages",
            "stopped_message_generation",
            "message_reaction_count",
            "poll",
        ];
        for kind in UPDATE_KINDS {
            let columns = known(&fixture(kind));
            assert_eq!(columns.update_type.as_deref(), Some(*kind));
            assert_eq!(columns.rescued, None, "{kind}");
            assert_eq!(columns.chat_id.is_none(), without_chat.contains(kind), "{kind}: chat");
            assert_eq!(columns.user_id.is_none(), without_user.contains(kind), "{kind}: user");
        }
    }

    #[test]
    fn a_message_fills_its_columns() {
        let columns = known(&fixture("message"));
        assert_eq!((columns.chat_type.as_deref(), columns.language_code.as_deref()), (Some("private"), Some("en")));
        assert_eq!(columns.text.as_deref(), Some("What is a lakehouse?"));
        assert_eq!(columns.sent_at.map(Timestamp::as_micros), columns.date.map(|date| date * 1_000_000));
    }

    #[test]
    fn a_button_is_the_users_and_its_message_the_bots() {
        let columns = known(&fixture("callback_query"));
        assert!(columns.callback_query_id.is_some() && columns.callback_data.is_some() && columns.message_id.is_some());
        assert_eq!((columns.text, columns.date), (None, None));
    }

    #[test]
    fn what_does_not_fit_its_column_is_kept_aside() {
        let columns = known(&json!({"update_id": 1, "message": {
            "message_id": "seven", "chat": {"id": 1e30, "type": "private"}, "from": [1], "date": -5, "text": 12,
        }}));
        assert_eq!((columns.message_id, columns.chat_id, columns.text, columns.sent_at), (None, None, None, None));
        let rescued: Value = serde_json::from_str(&columns.rescued.unwrap()).unwrap();
        assert_eq!(rescued, json!({"message_id": "seven", "chat_id": 1e30, "user_id": [1], "sent_at": -5, "text": 12}));
        assert_eq!(known(&json!({"update_id": 1, "message": 5})).rescued.unwrap(), r#"{"message":5}"#);
    }

    #[test]
    fn an_unknown_kind_is_named_and_none_is_none() {
        assert_eq!(known(&json!({"update_id": 1, "brand_new": {}})).update_type.as_deref(), Some("brand_new"));
        assert_eq!(known(&json!({"update_id": 1})).update_type, None);
    }

    #[test]
    fn media_is_named_with_its_file() {
        let photo = json!([{"file_id": "small"}, {"file_id": "large"}]);
        let columns = known(&json!({"update_id": 1, "message": {"photo": photo, "caption": "look"}}));
        assert_eq!(columns.media_type.as_deref(), Some("photo"));
        assert_eq!((columns.file_id.as_deref(), columns.text.as_deref()), (Some("large"), Some("look")));
    }

    #[test]
    fn what_is_no_update_is_corrupt_with_its_text() {
        let text = |line: &[u8]| match Update::parse(line) {
            Update::Corrupt { text } => text,
            Update::Known(columns) => panic!("{columns:?}"),
        };
        assert_eq!(text(b"not json"), "not json");
        assert_eq!(text(b"[1]"), "[1]");
        assert_eq!(text(br#"{"update_id": "5"}"#), r#"{"update_id": "5"}"#);
        assert_eq!(text(br#"{"_corrupt_record": "hello"}"#), "hello");
        assert_eq!(text(br#"{"_corrupt_record": "/w==", "_encoding": "base64"}"#), "data:;base64,/w==");
        assert_eq!(text(&[0xff]), "\u{fffd}");
        assert!(text(&b"{\"a\":".repeat(5_000)).starts_with("{\"a\":"));
    }

    proptest! {
        #[test]
        fn no_line_is_too_odd(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            Update::parse(&line);
        }
    }
}
