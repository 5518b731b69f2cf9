//! A loopback model server, OpenAI-compatible and as Databricks serves, that says plainly that it is a stand-in.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::{Context, ErrorKind, Result};
use crate::llm::{ChatMessage, Role};

/// Requests that are remembered.
const LEDGER_LIMIT: usize = 100_000;
/// What the stand-in calls itself in its answers.
const MODEL_NAME: &str = "lakegram-stand-in";

/// How a stand-in behaves.
#[derive(Clone, Debug, Default)]
pub struct ModelStandInOptions {
    /// How long it seems to think.
    pub delay: Duration,
}

/// A request the stand-in has seen.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    /// The messages.
    pub messages: Vec<ChatMessage>,
    /// `x-request-id`.
    pub request_id: Option<String>,
    /// `authorization`.
    pub authorization: Option<String>,
    /// The whole body.
    pub body: Value,
}

/// What the stand-in does instead of answering.
#[derive(Clone, Debug)]
pub struct ModelTrouble {
    /// The status.
    pub status: u16,
    /// `Retry-After`, as it is sent.
    pub retry_after: Option<String>,
    /// The body.
    pub body: String,
}

impl ModelTrouble {
    /// A status with an error in OpenAI's dialect.
    pub fn status(status: u16) -> Self {
        let body = json!({"error": {"message": format!("scripted {status}"), "type": "stand_in"}}).to_string();
        Self { status, retry_after: None, body }
    }
}

#[derive(Debug, Default)]
struct Script {
    queue: VecDeque<ModelTrouble>,
    always: Option<ModelTrouble>,
    /// Trouble for every question with this text in it.
    poison: Option<(String, ModelTrouble)>,
    answer: Option<String>,
    /// The whole body of a 200, as it is.
    raw_answer: Option<String>,
    seen: VecDeque<SeenRequest>,
}

#[derive(Clone, Debug)]
struct Shared {
    script: Arc<Mutex<Script>>,
    options: ModelStandInOptions,
    clock: Clock,
}

/// A running stand-in. Stops when it is dropped.
#[derive(Debug)]
pub struct ModelStandIn {
    shared: Shared,
    host: String,
    stop: CancellationToken,
}

#[derive(Deserialize)]
struct Request {
    messages: Vec<ChatMessage>,
}

impl Drop for ModelStandIn {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl ModelStandIn {
    /// Starts a stand-in on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(options: ModelStandInOptions) -> Result<Self> {
        let context = "listen on a free port of 127.0.0.1 for the model stand-in";
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context(ErrorKind::Unavailable, context)?;
        let address = listener.local_addr().context(ErrorKind::Unavailable, context)?;
        let shared = Shared { script: Arc::default(), options, clock: Clock::system() };
        let routes = Router::new()
            .route("/v1/chat/completions", post(complete))
            .route("/serving-endpoints/{name}/invocations", post(invoke))
            .route("/oidc/v1/token", post(token))
            .with_state(shared.clone());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            // Open connections end with the token, not when their clients please.
            tokio::select! {
                () = stopped.cancelled() => {}
                _ = axum::serve(listener, routes) => {}
            }
        });
        Ok(Self { shared, host: format!("http://{address}"), stop })
    }

    /// What `LLM_BASE_URL` should be.
    pub fn base_url(&self) -> String {
        format!("{}/v1", self.host)
    }

    /// What `DATABRICKS_HOST` should be.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The requests seen so far.
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.script(|script| script.seen.iter().cloned().collect())
    }

    /// Answers every question with this text.
    pub fn answer_with(&self, text: &str) {
        self.script(|script| script.answer = Some(text.to_owned()));
    }

    /// Answers every question with this body, whatever it is.
    pub fn answer_raw(&self, body: &str) {
        self.script(|script| script.raw_answer = Some(body.to_owned()));
    }

    /// Gives these troubles first, one a request.
    pub fn trouble(&self, troubles: impl IntoIterator<Item = ModelTrouble>) {
        self.script(|script| script.queue.extend(troubles));
    }

    /// Gives trouble to every question that holds `text`.
    pub fn poison(&self, text: &str, trouble: ModelTrouble) {
        self.script(|script| script.poison = Some((text.to_owned(), trouble)));
    }

    /// Answers everything with this status until it recovers.
    pub fn fail_all(&self, status: u16) {
        self.script(|script| script.always = Some(ModelTrouble::status(status)));
    }

    /// Answers again.
    pub fn recover(&self) {
        self.script(|script| {
            script.always = None;
            script.poison = None;
            script.queue.clear();
        });
    }

    fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.shared.script.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn invoke(State(shared): State<Shared>, Path(_name): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    complete(State(shared), headers, body).await
}

async fn token() -> Response {
    axum::Json(json!({"access_token": "stand-in-token", "token_type": "Bearer", "expires_in": 3_600})).into_response()
}

async fn complete(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let Ok(request) = serde_json::from_slice::<Request>(&body) else {
        return (StatusCode::BAD_REQUEST, axum::Json(json!({"error": {"message": "messages are missing"}})))
            .into_response();
    };
    let seen = SeenRequest {
        messages: request.messages,
        request_id: text("x-request-id"),
        authorization: text("authorization"),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    shared.clock.sleep(shared.options.delay).await;
    let mut script = shared.script.lock().unwrap_or_else(PoisonError::into_inner);
    let answer = script.respond(&seen);
    if script.seen.len() == LEDGER_LIMIT {
        script.seen.pop_front();
    }
    script.seen.push_back(seen);
    answer
}

impl Script {
    fn respond(&mut self, seen: &SeenRequest) -> Response {
        let question = seen.messages.last().map(|message| message.content.as_str()).unwrap_or_default();
        let poisoned = self.poison.as_ref().filter(|(text, _)| question.contains(text.as_str()));
        let trouble = poisoned.map(|(_, trouble)| trouble.clone());
        if let Some(trouble) = trouble.or_else(|| self.queue.pop_front()).or_else(|| self.always.clone()) {
            let status = StatusCode::from_u16(trouble.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = (status, trouble.body).into_response();
            if let Some(value) = trouble.retry_after.and_then(|value| value.parse().ok()) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
            return response;
        }
        if let Some(body) = &self.raw_answer {
            return ([(header::CONTENT_TYPE, "application/json")], body.clone()).into_response();
        }
        let answer = self.answer.clone().unwrap_or_else(|| stand_in_answer(&seen.messages, question));
        let words = |text: &str| text.split_whitespace().count();
        let asked: usize = seen.messages.iter().map(|message| words(&message.content)).sum();
        axum::Json(json!({
            "id": "chatcmpl-stand-in",
            "object": "chat.completion",
            "model": MODEL_NAME,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": asked,
                "completion_tokens": words(&answer),
                "total_tokens": asked + words(&answer),
            },
        }))
        .into_response()
    }
}

fn stand_in_answer(messages: &[ChatMessage], question: &str) -> String {
    let turns = messages.iter().filter(|message| message.role == Role::Assistant).count();
    let context = match turns {
        0 => "This is our first turn.".to_owned(),
        1 => "One earlier turn of this chat came along.".to_owned(),
        turns => format!("{turns} earlier turns of this chat came along."),
    };
    format!(
        "I am a **stand-in**, not a model. You wrote:\n\n> {}\n\n{context} Set `LLM_BASE_URL` and I make room for a real one.",
        question.replace('\n', "\n> ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::{ChatRequest, DatabricksAuth, ModelClient, ModelEndpoint, ModelFault};

    async fn stand_in() -> (ModelStandIn, ModelClient) {
        let stand_in = ModelStandIn::start(ModelStandInOptions::default()).await.unwrap();
        let endpoint = ModelEndpoint::OpenAi { base_url: stand_in.base_url(), api_key: Some("key".to_owned()) };
        let client = ModelClient::new(endpoint, "m", Duration::from_secs(5), &Clock::system()).unwrap();
        (stand_in, client)
    }

    fn question(text: &str) -> ChatRequest {
        let message = ChatMessage { role: Role::User, content: text.to_owned() };
        ChatRequest { messages: vec![message], request_id: "trace".to_owned(), max_tokens: None }
    }

    #[tokio::test]
    async fn an_answer_comes_with_its_usage_and_says_that_it_is_a_stand_in() {
        let (stand_in, client) = stand_in().await;
        let answer = client.complete(&question("What is Delta?")).await.unwrap();
        assert!(answer.text.contains("stand-in") && answer.text.contains("> What is Delta?"), "{}", answer.text);
        assert_eq!((answer.input_tokens, answer.model.as_deref()), (Some(3), Some(MODEL_NAME)));
        let seen = &stand_in.requests()[0];
        assert_eq!(seen.request_id.as_deref(), Some("trace"));
        assert_eq!(seen.authorization.as_deref(), Some("Bearer key"));
        assert_eq!(
            seen.body,
            json!({"model": "m", "messages": [{"role": "user", "content": "What is Delta?"}], "stream": false})
        );
    }

    #[tokio::test]
    async fn each_trouble_is_the_right_fault() {
        let (stand_in, client) = stand_in().await;
        let busy = ModelTrouble { retry_after: Some("3".to_owned()), ..ModelTrouble::status(429) };
        stand_in.trouble([busy, ModelTrouble::status(503), ModelTrouble::status(400), ModelTrouble::status(401)]);
        let mut faults = Vec::new();
        for _ in 0..4 {
            faults.push(client.complete(&question("x")).await.unwrap_err());
        }
        let wait = Some(Duration::from_secs(3));
        assert!(matches!(&faults[0], ModelFault::Unavailable { retry_after, .. } if *retry_after == wait));
        assert!(matches!(faults[1], ModelFault::Failing { .. }));
        assert!(matches!(faults[2], ModelFault::Rejected { .. }));
        assert!(matches!(faults[3], ModelFault::Misconfigured { .. }));
        stand_in.answer_raw("{\"choices\": 1");
        assert!(matches!(client.complete(&question("x")).await.unwrap_err(), ModelFault::Failing { .. }));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_unavailable() {
        let (stand_in, client) = stand_in().await;
        drop(stand_in);
        let mut fault = client.complete(&question("x")).await;
        for _ in 0..100 {
            if matches!(fault, Err(ModelFault::Unavailable { .. })) {
                return;
            }
            tokio::task::yield_now().await;
            fault = client.complete(&question("x")).await;
        }
        panic!("{fault:?}");
    }

    #[tokio::test]
    async fn a_slow_answer_is_cut_off_and_may_be_the_rows_fault() {
        let options = ModelStandInOptions { delay: Duration::from_secs(60) };
        let stand_in = ModelStandIn::start(options).await.unwrap();
        let endpoint = ModelEndpoint::OpenAi { base_url: stand_in.base_url(), api_key: None };
        let client = ModelClient::new(endpoint, "m", Duration::from_millis(50), &Clock::system()).unwrap();
        assert!(matches!(client.complete(&question("x")).await, Err(ModelFault::Failing { .. })));
    }

    #[tokio::test]
    async fn databricks_is_asked_at_its_endpoint_with_a_token_of_its_own() {
        let (stand_in, _) = stand_in().await;
        let auth = DatabricksAuth::Client { id: "id".to_owned(), secret: "secret".to_owned() };
        let endpoint = ModelEndpoint::Databricks { host: stand_in.host().to_owned(), auth };
        assert!(!format!("{endpoint:?}").contains("secret"));
        let client = ModelClient::new(endpoint, "llama", Duration::from_secs(5), &Clock::system()).unwrap();
        client.complete(&question("hello")).await.unwrap();
        let seen = &stand_in.requests()[0];
        assert_eq!(seen.authorization.as_deref(), Some("Bearer stand-in-token"));
        assert_eq!(seen.body.get("model"), None);
    }
}
