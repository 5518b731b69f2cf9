//! What the stand-in can be told to do instead of answering as it should: the ways in which the Bot API fails.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

/// How the stand-in treats one call. A scripted call takes one; after the last, calls are treated as they should be.
#[derive(Clone, Debug, PartialEq)]
pub enum Behaviour {
    /// As it should; to script a later call.
    Proceed,
    /// Refuses without effect.
    Fail {
        /// The HTTP status and `error_code`.
        code: u16,
        /// The `description`.
        description: String,
        /// The `parameters`, such as `{"retry_after": 3}`; with that one comes a `Retry-After` header.
        parameters: Option<Value>,
    },
    /// Does what was asked and then says 5xx, as a gateway does that lost the answer of its server.
    AcceptThenFail {
        /// The HTTP status.
        code: u16,
    },
    /// Does what was asked and closes the connection without an answer.
    AcceptThenDropConnection,
    /// Does what was asked and never answers.
    AcceptThenHang,
    /// Closes the connection with nothing done.
    DropBefore,
    /// Waits, then proceeds.
    Delay(Duration),
}

impl Behaviour {
    /// A refusal as Telegram words it.
    pub fn fail(code: u16, description: &str) -> Self {
        Self::Fail { code, description: description.to_owned(), parameters: None }
    }

    /// 429 that asks for `seconds` of silence.
    pub fn too_many_requests(seconds: u64) -> Self {
        Self::Fail {
            code: 429,
            description: format!("Too Many Requests: retry after {seconds}"),
            parameters: Some(json!({ "retry_after": seconds })),
        }
    }

    /// 400 that names the supergroup which a group has become.
    pub fn migrated_to(chat_id: i64) -> Self {
        Self::Fail {
            code: 400,
            description: "Bad Request: group chat was upgraded to a supergroup chat".to_owned(),
            parameters: Some(json!({ "migrate_to_chat_id": chat_id })),
        }
    }
}

/// What is to happen to the next calls, by method in lower case.
#[derive(Debug, Default)]
pub(super) struct Script {
    methods: HashMap<String, VecDeque<Behaviour>>,
}

impl Script {
    /// Adds behaviours for the next calls of `method`.
    #[cfg(any(test, feature = "faults"))]
    pub(super) fn add(&mut self, method: &str, behaviours: Vec<Behaviour>) {
        self.methods.entry(method.to_ascii_lowercase()).or_default().extend(behaviours);
    }

    /// Forgets what was to happen.
    #[cfg(any(test, feature = "faults"))]
    pub(super) fn clear(&mut self) {
        self.methods.clear();
    }

    /// How the call that has just come in is treated.
    pub(super) fn next(&mut self, method: &str) -> Behaviour {
        let method = method.to_ascii_lowercase();
        let Some(left) = self.methods.get_mut(&method) else { return Behaviour::Proceed };
        let behaviour = left.pop_front().unwrap_or(Behaviour::Proceed);
        if left.is_empty() {
            self.methods.remove(&method);
        }
        behaviour
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_used_up_call_by_call_and_method_by_method() {
        let mut script = Script::default();
        script.add("sendMessage", vec![Behaviour::DropBefore, Behaviour::AcceptThenHang]);
        assert_eq!(script.next("getMe"), Behaviour::Proceed);
        assert_eq!(script.next("sendmessage"), Behaviour::DropBefore);
        assert_eq!(script.next("sendMessage"), Behaviour::AcceptThenHang);
        assert_eq!(script.next("sendMessage"), Behaviour::Proceed);
        assert!(script.methods.is_empty());
    }
}
