//! Faults of a call, classified by what is known about its outcome, and how a response is classified.

use std::error::Error as StdError;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::redact;

/// How much of a response that is not Telegram's is quoted, in characters.
const EXCERPT_LIMIT: usize = 200;
/// The longest response that is read, in bytes: a hundred updates are far smaller.
const ANSWER_LIMIT: usize = 64 << 20;
/// The wait if Telegram says to wait but not how long.
const DEFAULT_WAIT_SECS: f64 = 1.0;
/// The longest wait, whatever it says.
const LONGEST_WAIT_SECS: f64 = 86_400.0;

/// Why a call did not succeed, by what is known about its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendFault {
    /// No byte of it left this machine (DNS, connect, TLS): it may be retried.
    NotSent {
        /// What happened.
        message: String,
    },
    /// 429: refused for now; retry after this long.
    RetryAfter {
        /// What Telegram asked for.
        wait: Duration,
        /// Its description.
        message: String,
    },
    /// Refused permanently.
    Refused {
        /// Telegram's `error_code`.
        code: i64,
        /// Telegram's `description`.
        description: String,
        /// The chat was migrated to this supergroup.
        migrate_to_chat_id: Option<i64>,
    },
    /// 401 or 404: the token is invalid, or Telegram is not at this address.
    BadToken,
    /// A time-out, a reset or 5xx: it may have arrived.
    Unknown {
        /// What happened.
        message: String,
    },
}

impl SendFault {
    /// Telegram refuses the formatting of a text, in whatever words: it may accept it as plain text.
    pub fn is_about_entities(&self) -> bool {
        ["entit", "can't parse", "wrong http url", "url host"].iter().any(|text| self.says(text))
    }

    /// The message to reply to is gone: without the reference, it may be accepted.
    pub fn is_missing_reply_target(&self) -> bool {
        let is_reply = ["replied", "reply"].iter().any(|text| self.says(text)) || self.says("message_id_invalid");
        is_reply && ["not found", "invalid", "deleted", "inaccessible"].iter().any(|text| self.says(text))
    }

    /// The topic for the message is gone: without it, the message may be accepted.
    pub fn is_missing_thread(&self) -> bool {
        self.says("message thread not found")
    }

    /// The message already has the new content.
    pub(super) fn is_not_modified(&self) -> bool {
        self.says("message is not modified")
    }

    fn says(&self, text: &str) -> bool {
        matches!(self, Self::Refused { code: 400, description, .. } if description.to_lowercase().contains(text))
    }

    /// What a call without a response means: only if the connection was never established is it known that nothing was
    /// sent.
    pub(super) fn of(error: reqwest::Error) -> Self {
        let reached = !error.is_connect();
        let message = describe(error);
        if reached { Self::Unknown { message } } else { Self::NotSent { message } }
    }

    /// The same fault with another message.
    pub(super) fn map_text(mut self, change: impl Fn(&str) -> String) -> Self {
        match &mut self {
            Self::NotSent { message: text }
            | Self::RetryAfter { message: text, .. }
            | Self::Refused { description: text, .. }
            | Self::Unknown { message: text } => *text = change(text),
            Self::BadToken => {}
        }
        self
    }
}

/// What every answer of the Bot API looks like (<https://core.telegram.org/bots/api#making-requests>).
#[derive(Deserialize)]
struct Envelope<T> {
    ok: bool,
    result: Option<T>,
    error_code: Option<i64>,
    #[serde(default)]
    description: String,
    #[serde(default)]
    parameters: Option<Parameters>,
}

/// <https://core.telegram.org/bots/api#responseparameters>
#[derive(Default, Deserialize)]
struct Parameters {
    retry_after: Option<f64>,
    migrate_to_chat_id: Option<i64>,
}

/// A response, read to its end or to where it broke off.
pub(super) struct Answer {
    status: u16,
    /// The header, in seconds.
    retry_after: Option<f64>,
    /// Or why it could not be read.
    body: Result<Vec<u8>, String>,
}

impl Answer {
    /// Reads `response`. If that fails half way, its status is still known.
    pub(super) async fn read(mut response: reqwest::Response) -> Self {
        let status = response.status().as_u16();
        let header = response.headers().get(RETRY_AFTER);
        let retry_after = header.and_then(|value| seconds(value.to_str().ok()?));
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(None) => return Self { status, retry_after, body: Ok(body) },
                Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_LIMIT => body.extend_from_slice(&chunk),
                Ok(Some(_)) => {
                    let body = Err(format!("a response of more than {ANSWER_LIMIT} bytes"));
                    return Self { status, retry_after, body };
                }
                Err(error) => return Self { status, retry_after, body: Err(describe(error)) },
            }
        }
    }

    /// What the response means: the result, or the fault.
    pub(super) fn judge<T: DeserializeOwned>(self) -> Result<T, SendFault> {
        match self.status {
            200..=299 => self.accepted(),
            // A proxy gave up on a request; Telegram may have it.
            408 | 500.. => Err(SendFault::Unknown { message: self.excerpt() }),
            _ => Err(self.refused()),
        }
    }

    fn accepted<T: DeserializeOwned>(self) -> Result<T, SendFault> {
        let unknown = |message: String| SendFault::Unknown { message };
        let body = self.body.as_deref().map_err(|_| unknown(self.excerpt()))?;
        let envelope: Envelope<T> =
            serde_json::from_slice(body).map_err(|error| unknown(format!("{}: {error}", self.excerpt())))?;
        match envelope {
            Envelope { ok: true, result: Some(result), .. } => Ok(result),
            Envelope { ok: false, error_code: Some(code), description, parameters, .. } => {
                Err(refusal(code, description, &parameters.unwrap_or_default()))
            }
            _ => Err(unknown(self.excerpt())),
        }
    }

    fn refused(&self) -> SendFault {
        let body = self.body.as_deref().unwrap_or_default();
        let status = i64::from(self.status);
        match serde_json::from_slice::<Envelope<IgnoredAny>>(body) {
            Ok(Envelope { error_code, description, parameters, .. }) => {
                let mut parameters = parameters.unwrap_or_default();
                parameters.retry_after = parameters.retry_after.or(self.retry_after);
                refusal(error_code.unwrap_or(status), description, &parameters)
            }
            Err(_) => {
                let parameters = Parameters { retry_after: self.retry_after, migrate_to_chat_id: None };
                refusal(status, self.excerpt(), &parameters)
            }
        }
    }

    /// The response in a few words, if it is not one of Telegram's.
    fn excerpt(&self) -> String {
        match &self.body {
            Ok(body) => {
                let text = redact::beginning(&String::from_utf8_lossy(body), EXCERPT_LIMIT);
                format!("answered {} with `{}`", self.status, text.trim())
            }
            Err(message) => format!("answered {}, then: {message}", self.status),
        }
    }
}

fn refusal(code: i64, description: String, parameters: &Parameters) -> SendFault {
    match code {
        // A server of another version may lack a method; that says nothing about the token.
        404 if description.contains("method not found") => {
            SendFault::Refused { code, description, migrate_to_chat_id: None }
        }
        401 | 404 => SendFault::BadToken,
        429 => {
            let seconds = parameters.retry_after.or_else(|| retry_after_in(&description)).unwrap_or(DEFAULT_WAIT_SECS);
            let wait = Duration::from_secs_f64(seconds.clamp(0.0, LONGEST_WAIT_SECS));
            SendFault::RetryAfter { wait, message: description }
        }
        408 | 500.. => SendFault::Unknown { message: format!("Telegram answered {code}: {description}") },
        _ => SendFault::Refused { code, description, migrate_to_chat_id: parameters.migrate_to_chat_id },
    }
}

/// The seconds in `retry after N`, which some servers only say in words.
fn retry_after_in(description: &str) -> Option<f64> {
    let text = description.to_lowercase();
    let rest = text.split_once("retry after ")?.1;
    seconds(rest.split(|c: char| !(c.is_ascii_digit() || c == '.')).next()?)
}

fn seconds(text: &str) -> Option<f64> {
    text.trim().trim_end_matches('.').parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
}

/// An error with its causes, without the URL, which contains the token.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        message = format!("{message}: {deeper}");
        cause = deeper.source();
    }
    message
}
