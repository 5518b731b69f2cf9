//! The update model: which kind an update is, and its columns.
//!
//! Updates are read through a table of paths, not through a struct per kind: Telegram adds fields every month, and an
//! update that fits none of our structs must still become a row.

mod carriers;
mod context;
mod fields;
mod layout;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

pub use self::context::{MessageContext, Topic};
use self::fields::{Fields, integer, last_object, object, string};
use self::layout::{ChatPlace, Layout, MEDIA, Path};
use crate::clock::Timestamp;
use crate::panic::catch_sync;

/// The kinds of updates of Bot API 10.3, as `allowed_updates` names them.
pub const UPDATE_KINDS: &[&str] = &layout::kinds();

/// The prefix of a corrupt record that is not UTF-8 and so is kept in base64.
const BASE64_PREFIX: &str = "data:;base64,";

/// The first and last second that every reader can hold in a timestamp column: the years 1 to 9999.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A parsed line of a segment. Its strings are copies, or `Cow`s of the line.
#[derive(Clone, Debug, PartialEq)]
pub enum Update<T = String> {
    /// A JSON object with an integer `update_id`.
    Known(Box<UpdateColumns<T>>),
    /// Anything else; `text` is what `_corrupt_record` holds.
    Corrupt {
        /// The line, or the text our receiver wrapped; `data:;base64,…` when it is not UTF-8.
        text: T,
    },
}

/// The columns of an update; see the bronze table.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct UpdateColumns<T = String> {
    pub update_id: i64,
    pub update_type: Option<T>,
    pub message_id: Option<i64>,
    pub chat_id: Option<i64>,
    pub chat_type: Option<T>,
    pub chat_title: Option<T>,
    pub user_id: Option<i64>,
    pub username: Option<T>,
    pub first_name: Option<T>,
    pub last_name: Option<T>,
    pub language_code: Option<T>,
    pub author_signature: Option<T>,
    pub message_thread_id: Option<i64>,
    pub reply_to_message_id: Option<i64>,
    pub text: Option<T>,
    pub date: Option<i64>,
    pub sent_at: Option<Timestamp>,
    pub callback_query_id: Option<T>,
    pub callback_data: Option<T>,
    pub media_type: Option<T>,
    pub file_id: Option<T>,
    /// JSON object of what was meant for a column and did not fit it.
    pub rescued: Option<T>,
}

impl Update {
    /// Parses one line of a segment (without its line break). Any bytes give a result.
    pub fn parse(line: &[u8]) -> Self {
        contained(line, parse)
    }
}

impl<'a> Update<Cow<'a, str>> {
    /// Like [`Update::parse`], borrowing from the line what needs no change.
    pub fn borrowed(line: &'a [u8]) -> Self {
        contained(line, parse)
    }
}

/// The result of `look` for a line. If it panics, the line is corrupt, so that it becomes a row with its text and does
/// not block the lines behind it.
fn contained<'a, T: Kept<'a>>(line: &'a [u8], look: impl Fn(&'a [u8]) -> Update<T>) -> Update<T> {
    catch_sync(|| look(line)).unwrap_or_else(|panic| {
        tracing::error!(%panic, bytes = line.len(), "parsing an update failed; keeping it as a corrupt record");
        Update::Corrupt { text: text_of(line).into() }
    })
}

/// How strings of a line are kept.
trait Kept<'a>: From<Cow<'a, str>> + Default {}

impl<'a, T: From<Cow<'a, str>> + Default> Kept<'a> for T {}

/// The message or post of the update on a line, as raw text; `None` for every other kind.
pub fn message_of(line: &str) -> Option<&str> {
    let update = Fields::parse(line)?;
    let kind = kind_of(&update)?;
    let body = update.get(&kind).filter(|_| layout::of(&kind).is_message)?;
    object(body).map(|_| body.get())
}

fn parse<'a, T: Kept<'a>>(line: &'a [u8]) -> Update<T> {
    let Ok(json) = simdutf8::basic::from_utf8(line) else {
        return Update::Corrupt { text: text_of(line).into() };
    };
    let Some(update) = Fields::parse(json) else {
        return Update::Corrupt { text: Cow::from(json).into() };
    };
    match update.get("update_id").and_then(integer) {
        Some(update_id) => Update::Known(Box::new(columns(update_id, &update))),
        None => Update::Corrupt { text: unwrap_corrupt(&update).unwrap_or(json.into()).into() },
    }
}

/// A line as text, whatever it contains.
fn text_of(line: &[u8]) -> Cow<'_, str> {
    match simdutf8::basic::from_utf8(line) {
        Ok(text) => text.into(),
        Err(_) => format!("{BASE64_PREFIX}{}", STANDARD.encode(line)).into(),
    }
}

/// The text inside the wrapper that our receiver puts around a body that is not a JSON object.
fn unwrap_corrupt<'a>(wrapper: &Fields<'a>) -> Option<Cow<'a, str>> {
    let text = wrapper.get("_corrupt_record").and_then(string)?;
    match wrapper.get("_encoding").and_then(string).as_deref() {
        None => Some(text),
        Some("base64") => Some(format!("{BASE64_PREFIX}{text}").into()),
        Some(_) => None,
    }
}

fn columns<'a, T: Kept<'a>>(update_id: i64, update: &Fields<'a>) -> UpdateColumns<T> {
    let mut columns = UpdateColumns { update_id, ..UpdateColumns::default() };
    let Some(kind) = kind_of(update) else { return columns };
    let mut reader = Reader { rescued: BTreeMap::new() };
    if let Some(body) = reader.take(&kind, update.get(&kind), object) {
        reader.place(layout::of(&kind), &body, &mut columns);
    }
    columns.update_type = Some(kind.into());
    columns.rescued = reader.rescued().map(|rescued| Cow::from(rescued).into());
    columns
}

/// The one field besides `update_id`: a known one, else the first.
fn kind_of<'a>(update: &Fields<'a>) -> Option<Cow<'a, str>> {
    let known = UPDATE_KINDS.iter().copied().find(|kind| update.get(kind).is_some());
    let newer = || update.names().find(|name| *name != "update_id" && update.get(name).is_some());
    known.map(Cow::Borrowed).or_else(|| newer().cloned())
}

/// Reads values into columns and keeps those that do not fit, by column.
struct Reader<'a> {
    rescued: BTreeMap<String, &'a RawValue>,
}

impl<'a> Reader<'a> {
    /// The string that `value` is, for `column`.
    fn text<T: Kept<'a>>(&mut self, column: &str, value: Option<&'a RawValue>) -> Option<T> {
        self.take(column, value, string).map(T::from)
    }

    /// The result of `read` for `value`, for `column`.
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

    /// The value at the end of `path`; whatever blocks the path is rescued for `column`.
    fn follow(&mut self, column: &str, from: &Fields<'a>, path: Path) -> Option<&'a RawValue> {
        let (first, rest) = path.split_first()?;
        let mut value = from.get(first)?;
        for name in rest {
            value = self.take(column, Some(value), object)?.get(name)?;
        }
        Some(value)
    }

    fn place<T: Kept<'a>>(&mut self, layout: &Layout, body: &Fields<'a>, columns: &mut UpdateColumns<T>) {
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
            columns.callback_query_id = self.text("callback_query_id", body.get("id"));
            columns.callback_data = self.text("callback_data", body.get("data"));
        }
    }

    fn place_chat<T: Kept<'a>>(&mut self, path: Path, body: &Fields<'a>, columns: &mut UpdateColumns<T>) {
        let value = self.follow("chat_id", body, path);
        let Some(chat) = self.take("chat_id", value, object) else { return };
        columns.chat_id = self.take("chat_id", chat.get("id"), integer);
        columns.chat_type = self.text("chat_type", chat.get("type"));
        columns.chat_title = self.text("chat_title", chat.get("title"));
    }

    fn place_user<T: Kept<'a>>(&mut self, paths: &[Path], body: &Fields<'a>, columns: &mut UpdateColumns<T>) {
        let value = paths.iter().find_map(|path| self.follow("user_id", body, path));
        let Some(user) = self.take("user_id", value, object) else { return };
        columns.user_id = self.take("user_id", user.get("id"), integer);
        columns.username = self.text("username", user.get("username"));
        columns.first_name = self.text("first_name", user.get("first_name"));
        columns.last_name = self.text("last_name", user.get("last_name"));
        columns.language_code = self.text("language_code", user.get("language_code"));
    }

    fn place_message<T: Kept<'a>>(&mut self, message: &Fields<'a>, columns: &mut UpdateColumns<T>) {
        columns.message_id = self.take("message_id", message.get("message_id"), integer);
        columns.message_thread_id = self.take("message_thread_id", message.get("message_thread_id"), integer);
    }

    fn place_date<T: Kept<'a>>(&mut self, path: Path, body: &Fields<'a>, columns: &mut UpdateColumns<T>) {
        let value = self.follow("date", body, path);
        columns.date = self.take("date", value, integer);
        if columns.date.is_some() {
            columns.sent_at = self.take("sent_at", value, timestamp);
        }
    }

    /// What only a message has.
    fn place_content<T: Kept<'a>>(&mut self, message: &Fields<'a>, columns: &mut UpdateColumns<T>) {
        columns.author_signature = self.text("author_signature", message.get("author_signature"));
        columns.text = match message.get("text").or_else(|| message.get("caption")) {
            Some(text) => self.text("text", Some(text)),
            None => carriers::text(message).map(|text| Cow::from(text).into()),
        };
        if let Some(replied) = self.take("reply_to_message_id", message.get("reply_to_message"), object) {
            columns.reply_to_message_id = self.take("reply_to_message_id", replied.get("message_id"), integer);
        }
        let media = MEDIA.iter().find_map(|name| Some((*name, message.get(name)?)));
        if let Some((name, value)) = media {
            columns.media_type = Some(Cow::Borrowed(name).into());
            // A photo comes in several sizes, the largest last.
            if let Some(file) = self.take("file_id", Some(value), last_object) {
                columns.file_id = self.text("file_id", file.get("file_id"));
            }
        }
    }

    /// The rescued values as a JSON object; `None` if everything fit.
    fn rescued(self) -> Option<String> {
        if self.rescued.is_empty() { None } else { serde_json::to_string(&self.rescued).ok() }
    }
}

/// The time this many seconds after 1970.
fn timestamp(seconds: &RawValue) -> Option<Timestamp> {
    let seconds = integer(seconds).filter(|seconds| TIMESTAMP_SECONDS.contains(seconds))?;
    Some(Timestamp::from_micros(seconds.checked_mul(1_000_000)?))
}
