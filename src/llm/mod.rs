//! The chat client: OpenAI-compatible completions, from OpenAI and its many relatives or from Databricks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::error::Result;

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
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
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

/// Asks a model. Never retries: that is the caller's one layer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ModelClient {
    _todo: (),
}

impl ModelClient {
    /// A client for one model; `timeout` bounds a whole call.
    ///
    /// # Errors
    /// A configuration error when the URL cannot be used.
    pub fn new(_endpoint: ModelEndpoint, _model: &str, _timeout: Duration, _clock: &Clock) -> Result<Self> {
        todo!()
    }

    /// Asks once.
    ///
    /// # Errors
    /// The fault, by what the caller should do.
    pub async fn complete(&self, _request: &ChatRequest) -> std::result::Result<ChatAnswer, ModelFault> {
        todo!()
    }
}
