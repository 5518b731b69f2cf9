//! The update model: which kind an update is, and its columns.

use crate::clock::Timestamp;

/// The kinds of updates of Bot API 10.3, as `allowed_updates` names them.
pub const UPDATE_KINDS: &[&str] = &[];

/// A line of a segment, looked at.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// A JSON object with an integer `update_id`.
    Known(Box<UpdateColumns>),
    /// Anything else; `text` is what `_corrupt_record` holds.
    Corrupt {
        /// The line, or the text our receiver wrapped.
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
    pub fn parse(_line: &[u8]) -> Self {
        todo!()
    }
}
