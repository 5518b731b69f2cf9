//! What the stand-in was told to do, whom it lets in, and what it has seen.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};

use crate::llm::ChatMessage;

/// Requests that are remembered.
const SEEN_LIMIT: usize = 10_000;
/// Bytes of bodies that are remembered.
const SEEN_BYTES_LIMIT: usize = 64 * 1_024 * 1_024;
/// Tokens that are valid at the same time.
const TOKEN_LIMIT: usize = 100;
const TOKEN_LIFE: Duration = Duration::from_secs(3_600);

/// A request the stand-in has seen.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    /// The messages.
    pub messages: Vec<ChatMessage>,
    /// `x-request-id`.
    pub request_id: Option<String>,
    /// `idempotency-key`.
    pub idempotency_key: Option<String>,
    /// `authorization`.
    pub authorization: Option<String>,
    /// Whether it was let in.
    pub authorized: bool,
    /// The path it came to.
    pub path: String,
    /// The whole body.
    pub body: Value,
}

impl SeenRequest {
    /// The last thing the user says in it.
    pub fn question(&self) -> &str {
        self.messages.last().map(|message| message.content.as_str()).unwrap_or_default()
    }
}

/// What the stand-in does instead of, or before, answering.
#[derive(Clone, Debug)]
pub enum ModelTrouble {
    /// Responds with a status and a body.
    Status {
        /// The status.
        status: u16,
        /// `Retry-After`, verbatim.
        retry_after: Option<String>,
        /// The body.
        body: String,
    },
    /// Answers after this delay.
    Delay(Duration),
    /// Answers when released.
    Hang,
    /// Closes the connection without an answer.
    Drop,
}

impl ModelTrouble {
    /// A status with an error in OpenAI's dialect.
    pub fn status(status: u16) -> Self {
        let body = json!({"error": {"message": format!("scripted {status}"), "type": "stand_in"}}).to_string();
        Self::Status { status, retry_after: None, body }
    }

    /// A status with `Retry-After`, in seconds or as an HTTP date.
    pub fn retry_after(status: u16, value: &str) -> Self {
        Self::Status { status, retry_after: Some(value.to_owned()), body: "scripted".to_owned() }
    }

    /// A status with this body.
    pub fn body(status: u16, body: &str) -> Self {
        Self::Status { status, retry_after: None, body: body.to_owned() }
    }

    /// A 200 with truncated JSON.
    pub fn malformed() -> Self {
        Self::body(200, "{\"choices\": [{\"message\": {\"content\": \"half of")
    }
}

/// Everything the stand-in was told and has seen.
#[derive(Debug, Default)]
pub(super) struct ModelScript {
    /// Failures of questions that contain a text.
    pub(super) poison: Vec<(String, ModelTrouble)>,
    pub(super) queue: VecDeque<ModelTrouble>,
    pub(super) always: Option<ModelTrouble>,
    pub(super) token_queue: VecDeque<ModelTrouble>,
    pub(super) answer: Option<String>,
    /// The whole body of a 200, verbatim.
    pub(super) raw_answer: Option<String>,
    pub(super) in_blocks: bool,
    pub(super) gate: Gate,
    seen: VecDeque<(usize, SeenRequest)>,
    seen_bytes: usize,
}

impl ModelScript {
    /// The failure for this question, if any. One from the queue is used up.
    pub(super) fn next_trouble(&mut self, question: &str) -> Option<ModelTrouble> {
        let poison = self.poison.iter().find(|(text, _)| question.contains(text.as_str()));
        let poison = poison.map(|(_, trouble)| trouble.clone());
        poison.or_else(|| self.queue.pop_front()).or_else(|| self.always.clone())
    }

    #[cfg(any(test, feature = "faults"))]
    pub(super) fn recover(&mut self) {
        self.poison.clear();
        self.queue.clear();
        self.token_queue.clear();
        self.always = None;
        self.raw_answer = None;
    }

    /// Records a request with this body size; forgets the oldest when there are too many.
    pub(super) fn remember(&mut self, seen: SeenRequest, bytes: usize) {
        self.seen.push_back((bytes, seen));
        self.seen_bytes += bytes;
        while self.seen.len() > SEEN_LIMIT || self.seen_bytes > SEEN_BYTES_LIMIT {
            let Some((bytes, _)) = self.seen.pop_front() else { break };
            self.seen_bytes -= bytes;
        }
    }

    pub(super) fn requests(&self) -> Vec<SeenRequest> {
        self.seen.iter().map(|(_, seen)| seen.clone()).collect()
    }
}

/// Whom the stand-in lets in.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) key: Option<String>,
    pub(super) client: Option<(String, String)>,
    pub(super) token_life: Duration,
    /// The valid tokens.
    pub(super) live: VecDeque<String>,
    pub(super) given: u64,
}

impl Default for Gate {
    fn default() -> Self {
        Self { key: None, client: None, token_life: TOKEN_LIFE, live: VecDeque::new(), given: 0 }
    }
}

impl Gate {
    /// Whether this `authorization` is accepted.
    pub(super) fn admits(&self, authorization: Option<&str>) -> bool {
        if self.key.is_none() && self.client.is_none() {
            return true;
        }
        let token = authorization.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        self.key.as_deref() == Some(token) || self.live.iter().any(|live| live == token)
    }

    /// A new token.
    pub(super) fn give(&mut self) -> String {
        self.given += 1;
        let token = format!("stand-in-token-{}", self.given);
        self.live.push_back(token.clone());
        if self.live.len() > TOKEN_LIMIT {
            self.live.pop_front();
        }
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_in_bytes_and_the_oldest_go_first() {
        let mut script = ModelScript::default();
        for number in 0..5 {
            let seen = SeenRequest {
                messages: Vec::new(),
                request_id: None,
                idempotency_key: None,
                authorization: None,
                authorized: true,
                path: number.to_string(),
                body: Value::Null,
            };
            script.remember(seen, SEEN_BYTES_LIMIT / 3);
        }
        let kept: Vec<String> = script.requests().into_iter().map(|seen| seen.path).collect();
        assert_eq!(kept, ["2", "3", "4"]);
    }

    #[test]
    fn poison_comes_before_the_queue_and_stays() {
        let mut script = ModelScript::default();
        script.poison.push(("bad".to_owned(), ModelTrouble::Drop));
        script.queue.push_back(ModelTrouble::Hang);
        for _ in 0..2 {
            assert!(matches!(script.next_trouble("a bad one"), Some(ModelTrouble::Drop)));
        }
        assert!(matches!(script.next_trouble("a good one"), Some(ModelTrouble::Hang)));
        assert!(script.next_trouble("a good one").is_none());
    }
}
