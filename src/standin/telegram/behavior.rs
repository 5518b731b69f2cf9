//! What the stand-in can be told to do instead of behaving correctly: the ways in which the Bot API fails.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

/// How the stand-in handles one call. Each call uses up one scripted behavior; after the last, calls are handled
/// correctly.
#[derive(Clone, Debug, PartialEq)]
pub enum Behavior {
    /// Correctly; to script a later call.
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
    /// Does what was asked and then responds with 5xx, like a gateway that lost its server's response.
    AcceptThenFail {
        /// The HTTP status.
        code: u16,
    },
    /// Does what was asked and closes the connection without a response.
    AcceptThenDropConnection,
    /// Does what was asked and never responds.
    AcceptThenHang,
    /// Closes the connection without doing anything.
    DropBefore,
    /// Waits, then proceeds.
    Delay(Duration),
}

impl Behavior {
    /// A refusal in Telegram's words.
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

    /// 400 that names the supergroup which a group was migrated to.
    pub fn migrated_to(chat_id: i64) -> Self {
        Self::Fail {
            code: 400,
            description: "Bad Request: group chat was upgraded to a supergroup chat".to_owned(),
            parameters: Some(json!({ "migrate_to_chat_id": chat_id })),
        }
    }
}

/// What happens to the next calls, by method in lower case.
#[derive(Debug, Default)]
pub(super) struct CallScript {
    methods: HashMap<String, VecDeque<Behavior>>,
}

impl CallScript {
    /// Adds behaviors for the next calls of `method`.
    #[cfg(any(test, feature = "faults"))]
    pub(super) fn add(&mut self, method: &str, behaviors: Vec<Behavior>) {
        self.methods.entry(method.to_ascii_lowercase()).or_default().extend(behaviors);
    }

    /// Clears the script.
    #[cfg(any(test, feature = "faults"))]
    pub(super) fn clear(&mut self) {
        self.methods.clear();
    }

    /// How to handle the call that has just arrived.
    pub(super) fn next(&mut self, method: &str) -> Behavior {
        let method = method.to_ascii_lowercase();
        let Some(left) = self.methods.get_mut(&method) else { return Behavior::Proceed };
        let behavior = left.pop_front().unwrap_or(Behavior::Proceed);
        if left.is_empty() {
            self.methods.remove(&method);
        }
        behavior
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_used_up_call_by_call_and_method_by_method() {
        let mut script = CallScript::default();
        script.add("sendMessage", vec![Behavior::DropBefore, Behavior::AcceptThenHang]);
        assert_eq!(script.next("getMe"), Behavior::Proceed);
        assert_eq!(script.next("sendmessage"), Behavior::DropBefore);
        assert_eq!(script.next("sendMessage"), Behavior::AcceptThenHang);
        assert_eq!(script.next("sendMessage"), Behavior::Proceed);
        assert!(script.methods.is_empty());
    }
}
