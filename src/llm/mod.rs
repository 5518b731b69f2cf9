//! The chat client: OpenAI-compatible completions, from OpenAI and compatible servers or from Databricks.

mod answer;
mod auth;
mod body;
mod client;
mod exchange;
mod fault;
mod reasoning;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::client::ModelClient;
use crate::settings::Secret;

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The prompt.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

/// One question with its context.
#[derive(Clone, Debug)]
pub struct ChatRequest {
    /// The messages, the question last.
    pub messages: Vec<ChatMessage>,
    /// The same for every try of one row; sent so that a gateway can recognize a repeat.
    pub request_id: String,
    /// Maximum tokens of the answer.
    pub max_tokens: Option<u32>,
}

/// What the model said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatAnswer {
    /// The text; reasoning is dropped.
    pub text: String,
    /// The model, by the name it reports.
    pub model: Option<String>,
    /// Why it stopped: `stop`, `length`, `content_filter`, …
    pub finish_reason: Option<String>,
    /// Whether it stopped because the answer had reached its length limit.
    pub is_cut: bool,
    /// Tokens of the question.
    pub input_tokens: Option<i64>,
    /// Tokens of the answer.
    pub output_tokens: Option<i64>,
}

/// Why there is no answer, by what the caller should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelFault {
    /// Not reached, 408 or 429, or no token available: wait, never the row's fault.
    Unavailable {
        /// How long the server asked to wait.
        retry_after: Option<Duration>,
        /// What happened.
        message: String,
    },
    /// 5xx, a time-out, a reset or a response without an answer (or 409, 425, 499): the row's fault only if others
    /// succeed meanwhile.
    Failing {
        /// How long the server asked to wait.
        retry_after: Option<Duration>,
        /// What happened.
        message: String,
    },
    /// The request itself was refused (400, 413, 422, …): the row's own fault.
    Rejected {
        /// What happened.
        message: String,
    },
    /// The conversation is longer than the model can read: with less of it the same question may be answered.
    TooLong {
        /// What happened.
        message: String,
    },
    /// 401 to 405, 407, a redirect, or a 400 that names the key or the model: a person has to change a setting; rows
    /// wait.
    Misconfigured {
        /// What happened and how to fix it.
        message: String,
    },
}

/// Where the model is and how to authenticate.
#[derive(Clone)]
pub enum ModelEndpoint {
    /// `<base_url>/chat/completions` with a bearer key, if one is set.
    OpenAi {
        /// As OpenAI clients take it.
        base_url: String,
        /// The key.
        api_key: Option<Secret>,
    },
    /// `<host>/serving-endpoints/<model>/invocations`.
    Databricks {
        /// Workspace URL.
        host: String,
        /// How to authenticate.
        auth: DatabricksAuth,
    },
}

/// A Databricks credential.
#[derive(Clone)]
pub enum DatabricksAuth {
    /// A token.
    Token(Secret),
    /// OAuth client credentials against `<host>/oidc/v1/token`, refreshed early.
    Client {
        /// Client id of a service principal.
        id: String,
        /// Its secret.
        secret: Secret,
    },
}

impl fmt::Debug for ModelEndpoint {
    /// Without secrets; a URL's query may contain a key as well.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenAi { base_url, .. } => write!(formatter, "OpenAi({})", without_secrets(base_url)),
            Self::Databricks { host, auth } => {
                write!(formatter, "Databricks({}, {auth:?})", without_secrets(host))
            }
        }
    }
}

impl fmt::Debug for DatabricksAuth {
    /// Without secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => formatter.write_str("Token(***)"),
            Self::Client { id, .. } => write!(formatter, "Client({id}, ***)"),
        }
    }
}

/// The part of a URL that may be shown: no user, no password, no query.
fn without_secrets(url: &str) -> &str {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let shown = url.get(..end).unwrap_or_default();
    shown.rsplit_once('@').map_or(shown, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown_by_debug() {
        let base_url = "https://user:pass-secret@gateway/v1?key=query-secret".to_owned();
        let openai = ModelEndpoint::OpenAi { base_url, api_key: Some("key-secret".into()) };
        assert_eq!(format!("{openai:?}"), "OpenAi(gateway/v1)");
        let client = DatabricksAuth::Client { id: "app".to_owned(), secret: "client-secret".into() };
        for auth in [client, DatabricksAuth::Token("token-secret".into())] {
            let databricks = ModelEndpoint::Databricks { host: "https://adb-1.net".to_owned(), auth };
            let shown = format!("{databricks:?}");
            assert!(shown.contains("https://adb-1.net") && !shown.contains("-secret"), "{shown}");
        }
    }
}
