//! The chat client: OpenAI-compatible completions, from OpenAI and its many relatives or from Databricks.

mod auth;
mod client;
mod parse;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::client::ModelClient;

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
    /// The same for every try of one row; sent so that a gateway can recognise a repeat.
    pub request_id: String,
    /// Tokens of the answer, at most.
    pub max_tokens: Option<u32>,
}

/// What the model said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatAnswer {
    /// The text; reasoning is dropped.
    pub text: String,
    /// The model, as it names itself.
    pub model: Option<String>,
    /// Why it stopped: `stop`, `length`, `content_filter`, …
    pub finish_reason: Option<String>,
    /// Tokens of the question.
    pub input_tokens: Option<i64>,
    /// Tokens of the answer.
    pub output_tokens: Option<i64>,
}

/// Why there is no answer, by what the caller should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelFault {
    /// Not reached, 408 or 429: wait, never the row's fault.
    Unavailable {
        /// What the server asked to wait.
        retry_after: Option<Duration>,
        /// What happened.
        message: String,
    },
    /// 5xx, a time-out, a reset or an answer that is none: the row's fault only if others succeed meanwhile.
    Failing {
        /// What the server asked to wait.
        retry_after: Option<Duration>,
        /// What happened.
        message: String,
    },
    /// The request itself was refused (400, 413, 422, …): the row's own.
    Rejected {
        /// What happened.
        message: String,
    },
    /// 401, 403 or 404: a person has to change a setting; rows wait.
    Misconfigured {
        /// What happened and the mend.
        message: String,
    },
}

/// Where the model is and how we are let in.
#[derive(Clone)]
pub enum ModelEndpoint {
    /// `<base_url>/chat/completions` with a bearer key, if one is given.
    OpenAi {
        /// As OpenAI clients take it.
        base_url: String,
        /// The key.
        api_key: Option<String>,
    },
    /// `<host>/serving-endpoints/<model>/invocations`.
    Databricks {
        /// Workspace URL.
        host: String,
        /// How we are let in.
        auth: DatabricksAuth,
    },
}

/// A Databricks credential.
#[derive(Clone)]
pub enum DatabricksAuth {
    /// A token that does not change.
    Token(String),
    /// OAuth client credentials against `<host>/oidc/v1/token`, refreshed early.
    Client {
        /// Client id of a service principal.
        id: String,
        /// Its secret.
        secret: String,
    },
}

impl fmt::Debug for ModelEndpoint {
    /// Without secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenAi { base_url, .. } => write!(formatter, "OpenAi({base_url})"),
            Self::Databricks { host, .. } => write!(formatter, "Databricks({host})"),
        }
    }
}
