//! One call of a model, with no retry.

use std::time::Duration;

use reqwest::Response;
use serde::Serialize;

use super::auth::TokenSource;
use super::{ChatAnswer, ChatMessage, ChatRequest, ModelEndpoint, ModelFault, parse};
use crate::clock::Clock;
use crate::error::{Context, Error, ErrorKind, Result};

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 4 * 1_024 * 1_024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks a model. Never retries: that is the caller's one layer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ModelClient {
    http: reqwest::Client,
    url: String,
    /// Sent in the body; Databricks has it in the URL.
    model: Option<String>,
    tokens: TokenSource,
    clock: Clock,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    messages: &'a [ChatMessage],
    // Servers differ in what they do when it is not said.
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
}

impl ModelClient {
    /// A client for one model; `timeout` bounds a whole call.
    ///
    /// # Errors
    /// A configuration error when the URL cannot be used.
    pub fn new(endpoint: ModelEndpoint, model: &str, timeout: Duration, clock: &Clock) -> Result<Self> {
        let (url, model, tokens) = match endpoint {
            ModelEndpoint::OpenAi { base_url, api_key } => {
                let tokens = api_key.map_or(TokenSource::Anonymous, TokenSource::Fixed);
                (format!("{}/chat/completions", base_url.trim_end_matches('/')), Some(model.to_owned()), tokens)
            }
            ModelEndpoint::Databricks { host, auth } => {
                let host = if host.contains("://") { host } else { format!("https://{host}") };
                let tokens = TokenSource::databricks(&host, auth);
                (format!("{}/serving-endpoints/{model}/invocations", host.trim_end_matches('/')), None, tokens)
            }
        };
        let parsed = url::Url::parse(&url)
            .map_err(|_| Error::configuration(format!("the model's URL `{url}` is none; check LLM_BASE_URL")))?;
        let on_loopback = matches!(parsed.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
        let builder = reqwest::Client::builder().timeout(timeout).connect_timeout(CONNECT_TIMEOUT);
        let builder = if on_loopback { builder.no_proxy() } else { builder };
        // One retry layer: the caller's.
        let http = builder.retry(reqwest::retry::never()).build();
        let http = http.context(ErrorKind::Configuration, "the HTTP client of the model")?;
        Ok(Self { http, url, model, tokens, clock: clock.clone() })
    }

    /// Asks once.
    ///
    /// # Errors
    /// The fault, by what the caller should do.
    pub async fn complete(&self, request: &ChatRequest) -> std::result::Result<ChatAnswer, ModelFault> {
        let body = Body {
            model: self.model.as_deref(),
            messages: &request.messages,
            stream: false,
            max_tokens: request.max_tokens,
        };
        let mut call = self.http.post(&self.url).json(&body);
        call = call.header("x-request-id", &request.request_id).header("idempotency-key", &request.request_id);
        if let Some(token) = self.tokens.token(&self.http, &self.clock).await? {
            call = call.bearer_auth(token);
        }
        let response = call.send().await.map_err(fault)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read(response).await?;
        if status.as_u16() == 401 {
            self.tokens.forget().await;
        }
        if status.is_success() { parse::answer(&body) } else { Err(parse::fault(status, &headers, &body, &self.clock)) }
    }
}

async fn read(mut response: Response) -> std::result::Result<Vec<u8>, ModelFault> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(fault)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER_BYTES {
            let message = format!("the model's answer is larger than {MAX_ANSWER_BYTES} bytes");
            return Err(ModelFault::Failing { retry_after: None, message });
        }
    }
    Ok(body)
}

fn fault(error: reqwest::Error) -> ModelFault {
    let error = error.without_url();
    let mut message = format!("the model cannot be reached: {error}");
    let mut cause = std::error::Error::source(&error);
    while let Some(deeper) = cause {
        message = format!("{message}: {deeper}");
        cause = deeper.source();
    }
    if error.is_connect() {
        return ModelFault::Unavailable { retry_after: None, message };
    }
    ModelFault::Failing { retry_after: None, message }
}
