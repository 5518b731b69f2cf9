//! The update model: which kind an update is, and its columns.
//!
//! Updates are read by a table of places, not by a struct a kind: Telegram adds fields every month, and an update that
//! fits no struct of ours must still become a row.

mod fields;
mod layout;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use self::fields::{Fields, integer, last_object, object, string};
use self::layout::{ChatPlace, Layout, MEDIA, Path};
use crate::clock::Timestamp;

/// The kinds of updates of Bot API 10.3, as `allowed_updates` names them.
pub const UPDATE_KINDS: &[&str] = &layout::kinds();

/// What stands before the text of a corrupt record that is no UTF-8 and so is kept in base64.
const BASE64_PREFIX: &str = "data:;base64,";

/// The first and last second that a timestamp column can hold for every reader: the years 1 to 9999.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A line of a segment, looked at.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// A JSON object with an integer `update_id`.
    Known(Box<UpdateColumns>),
    /// Anything else; `text` is what `_corrupt_record` holds.
    Corrupt {
        /// The line, or the text our receiver wrapped; `data:;base64,…` when it is no UTF-8.
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
    /// Looks at one line of a segment (without its line break). Any bytes give an answer.
    pub fn parse(line: &[u8]) -> Self {
        let Ok(json) = std::str::from_utf8(line) else {
            return Self::Corrupt { text: format!("{BASE64_PREFIX}{}", STANDARD.encode(line)) };
        };
        let Some(update) = Fields::parse(json) else {
            return Self::Corrupt { text: json.to_owned() };
        };
        match update.get("update_id").and_then(integer) {
            Some(update_id) => Self::Known(Box::new(columns(update_id, &update))),
            None => Self::Corrupt { text: unwrap_corrupt(&update).unwrap_or_else(|| json.to_owned()) },
        }
    }
}

/// The text inside the wrapper that our receiver puts around a body that is no JSON object.
fn unwrap_corrupt(wrapper: &Fields<'_>) -> Option<String> {
    let text = wrapper.get("_corrupt_record").and_then(string)?;
    match wrapper.get("_encoding").and_then(string).as_deref() {
        None => Some(text),
        Some("base64") => Some(format!("{BASE64_PREFIX}{text}")),
        Some(_) => None,
    }
}

fn columns(update_id: i64, update: &Fields<'_>) -> UpdateColumns {
    let mut columns = UpdateColumns { update_id, ..UpdateColumns::default() };
    let Some(kind) = kind_of(update) else { return columns };
    columns.update_type = Some(kind.to_owned());
    let mut reader = Reader { rescued: BTreeMap::new() };
    if let Some(body) = reader.take(kind, update.get(kind), object) {
        reader.place(layout::of(kind), &body, &mut columns);
    }
    columns.rescued = reader.rescued();
    columns
}

/// The one field besides `update_id`: one that we know, else the first.
fn kind_of<'u>(update: &'u Fields<'_>) -> Option<&'u str> {
    let known = UPDATE_KINDS.iter().copied().find(|kind| update.get(kind).is_some());
    known.or_else(|| update.names().find(|name| *name != "update_id" && update.get(name).is_some()))
}

/// Reads values into columns and keeps those that do not fit, by column.
struct Reader<'a> {
    rescued: BTreeMap<String, &'a RawValue>,
}

impl<'a> Reader<'a> {
    /// What `read` makes of `value`, which is meant for `column`.
    fn take<T>(
        &mut self,
        column: &str,
        value: Option<&'a RawValue>,
        read: impl FnOnce(&'a RawValue) -> Option<T>,
    ) -> Option<T> {
        let value = value?;
        let taken = read(value);
        if taken.is_none() {
            self.rescued.insert(column.to_owned(), value);
        }
        taken
    }

    /// The value at the end of `path`; what stands in the way of it is rescued for `column`.
    fn follow(&mut self, column: &str, from: &Fields<'a>, path: Path) -> Option<&'a RawValue> {
        let (first, rest) = path.split_first()?;
        let mut value = from.get(first)?;
        for name in rest {
            value = self.take(column, Some(value), object)?.get(name)?;
        }
        Some(value)
    }

    fn place(&mut self, layout: &Layout, body: &Fields<'a>, columns: &mut UpdateColumns) {
        match layout.chat {
            ChatPlace::Nowhere => {}
            ChatPlace::Object(path) => self.place_chat(path, body, columns),
            ChatPlace::Id(name) => columns.chat_id = self.take("chat_id", body.get(name), integer),
        }
        self.place_user(layout.user, body, columns);
        match layout.message {
            None => {}
            Some([]) => self.place_message(body, columns),
            Some(path) => {
                let value = self.follow("message_id", body, path);
                if let Some(message) = self.take("message_id", value, object) {
                    self.place_message(&message, columns);
                }
            }
        }
        if let Some(path) = layout.date {
            self.place_date(path, body, columns);
        }
        if layout.is_message {
            self.place_content(body, columns);
        }
        if layout.is_callback {
            columns.callback_query_id = self.take("callback_query_id", body.get("id"), string);
            columns.callback_data = self.take("callback_data", body.get("data"), string);
        }
    }

    fn place_chat(&mut self, path: Path, body: &Fields<'a>, columns: &mut UpdateColumns) {
        let value = self.follow("chat_id", body, path);
        let Some(chat) = self.take("chat_id", value, object) else { return };
        columns.chat_id = self.take("chat_id", chat.get("id"), integer);
        columns.chat_type = self.take("chat_type", chat.get("type"), string);
        columns.chat_title = self.take("chat_title", chat.get("title"), string);
    }

    fn place_user(&mut self, paths: &[Path], body: &Fields<'a>, columns: &mut UpdateColumns) {
        let value = paths.iter().find_map(|path| self.follow("user_id", body, path));
        let Some(user) = self.take("user_id", value, object) else { return };
        columns.user_id = self.take("user_id", user.get("id"), integer);
        columns.username = self.take("username", user.get("username"), string);
        columns.first_name = self.take("first_name", user.get("first_name"), string);
        columns.last_name = self.take("last_name", user.get("last_name"), string);
        columns.language_code = self.take("language_code", user.get("language_code"), string);
    }

    fn place_message(&mut self, message: &Fields<'a>, columns: &mut UpdateColumns) {
        columns.message_id = self.take("message_id", message.get("message_id"), integer);
        columns.message_thread_id = self.take("message_thread_id", message.get("message_thread_id"), integer);
    }

    fn place_date(&mut self, path: Path, body: &Fields<'a>, columns: &mut UpdateColumns) {
        let value = self.follow("date", body, path);
        columns.date = self.take("date", value, integer);
        if columns.date.is_some() {
            columns.sent_at = self.take("sent_at", value, timestamp);
        }
    }

    /// What only a message has.
    fn place_content(&mut self, message: &Fields<'a>, columns: &mut UpdateColumns) {
        columns.author_signature = self.take("author_signature", message.get("author_signature"), string);
        columns.text = self.take("text", message.get("text").or_else(|| message.get("caption")), string);
        if let Some(replied) = self.take("reply_to_message_id", message.get("reply_to_message"), object) {
            columns.reply_to_message_id = self.take("reply_to_message_id", replied.get("message_id"), integer);
        }
        let media = MEDIA.iter().find_map(|name| Some((*name, message.get(name)?)));
        if let Some((name, value)) = media {
            columns.media_type = Some(name.to_owned());
            // A photo comes in several sizes, the largest last.
            if let Some(file) = self.take("file_id", Some(value), last_object) {
                columns.file_id = self.take("file_id", file.get("file_id"), string);
            }
        }
    }

    /// The rescued values as a JSON object; `None` when everything fitted.
    fn rescued(self) -> Option<String> {
        if self.rescued.is_empty() { None } else { serde_json::to_string(&self.rescued).ok() }
    }
}

/// The moment so many seconds after 1970.
fn timestamp(seconds: &RawValue) -> Option<Timestamp> {
    let seconds = integer(seconds).filter(|seconds| TIMESTAMP_SECONDS.contains(seconds))?;
    Some(Timestamp::from_micros(seconds.checked_mul(1_000_000)?))
}
