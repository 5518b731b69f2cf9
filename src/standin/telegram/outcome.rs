//! The outcome of a call: a result as JSON text, or a refusal in Telegram's words.

use std::time::Duration;

use serde_json::{Value, json};

/// An error response.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    /// HTTP status and `error_code`.
    pub(super) code: u16,
    /// `description`.
    pub(super) description: String,
    /// `parameters`.
    pub(super) parameters: Option<Value>,
}

impl Refusal {
    pub(super) fn new(code: u16, description: &str) -> Self {
        Self { code, description: description.to_owned(), parameters: None }
    }

    pub(super) fn bad_request(what: &str) -> Self {
        Self::new(400, &format!("Bad Request: {what}"))
    }

    /// 429; Telegram counts in whole seconds.
    pub(super) fn too_many_requests(wait: Duration) -> Self {
        let seconds = (wait.as_millis().div_ceil(1_000)).max(1);
        Self {
            code: 429,
            description: format!("Too Many Requests: retry after {seconds}"),
            parameters: Some(json!({ "retry_after": u64::try_from(seconds).unwrap_or(u64::MAX) })),
        }
    }
}

/// The JSON text of `result`, or the refusal.
pub(super) type Outcome = Result<String, Refusal>;
