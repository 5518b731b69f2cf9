//! The stand-in's routes: completions in both dialects, and tokens.

use std::future::Future;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router, body::Bytes};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::answer::{completion, stand_in_text};
use super::script::{ModelTrouble, SeenRequest};
use super::serve::no_answer;
use crate::llm::ChatMessage;

/// The largest request, in bytes; what Databricks takes.
const BODY_LIMIT: usize = 4 * 1_024 * 1_024;

#[derive(Deserialize)]
struct Question {
    messages: Vec<ChatMessage>,
    #[serde(default)]
    stream: bool,
    max_tokens: Option<u64>,
}

pub(super) fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(complete))
        .route("/serving-endpoints/{name}/invocations", post(complete))
        .route("/oidc/v1/token", post(token))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(shared)
}

async fn complete(State(shared): State<Shared>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let question = match serde_json::from_slice::<Question>(&body) {
        Ok(question) if !question.stream && !question.messages.is_empty() => question,
        Ok(question) if question.stream => return error(StatusCode::BAD_REQUEST, "a stand-in does not stream"),
        _ => return error(StatusCode::BAD_REQUEST, "messages are missing"),
    };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let authorization = text("authorization");
    // Decided in one step with recording, so that whoever sees the request may release it.
    let (authorized, trouble, released) = shared.script(|script| {
        let authorized = script.gate.admits(authorization.as_deref());
        let seen = SeenRequest {
            messages: question.messages.clone(),
            request_id: text("x-request-id"),
            idempotency_key: text("idempotency-key"),
            authorization,
            authorized,
            path: uri.path().to_owned(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
        };
        let trouble = if authorized { script.next_trouble(seen.question()) } else { None };
        script.remember(seen, body.len());
        let released = wait_for_release(&shared);
        shared.seen.send_modify(|seen| *seen += 1);
        (authorized, trouble, released)
    });
    if !authorized {
        return error(StatusCode::UNAUTHORIZED, "this key opens nothing here");
    }
    shared.clock.sleep(shared.delay).await;
    if let Some(response) = suffer(&shared, trouble, released).await {
        return response;
    }
    answer(&shared, &question)
}

fn answer(shared: &Shared, question: &Question) -> Response {
    shared.script(|script| {
        if let Some(body) = &script.raw_answer {
            return ([(header::CONTENT_TYPE, "application/json")], body.clone()).into_response();
        }
        let text = script.answer.clone().unwrap_or_else(|| stand_in_text(&question.messages));
        Json(completion(&question.messages, &text, question.max_tokens, script.in_blocks)).into_response()
    })
}

/// A token for client credentials (<https://www.rfc-editor.org/rfc/rfc6749#section-4.4>).
async fn token(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let refused = |status: StatusCode, code: &str, description: &str| {
        (status, Json(json!({"error": code, "error_description": description}))).into_response()
    };
    let (trouble, released) = shared.script(|script| (script.token_queue.pop_front(), wait_for_release(&shared)));
    if let Some(response) = suffer(&shared, trouble, released).await {
        return response;
    }
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&body).into_owned().collect();
    let has = |name: &str, value: &str| form.iter().any(|(key, text)| key == name && text == value);
    if !has("grant_type", "client_credentials") || !has("scope", "all-apis") {
        return refused(StatusCode::BAD_REQUEST, "invalid_request", "ask for client_credentials and all-apis");
    }
    shared.script(|script| {
        if script.gate.client.is_some() && basic(&headers) != script.gate.client {
            return refused(StatusCode::UNAUTHORIZED, "invalid_client", "no such client");
        }
        let life = script.gate.token_life.as_secs();
        Json(json!({"access_token": script.gate.give(), "token_type": "Bearer", "expires_in": life})).into_response()
    })
}

/// The id and the secret of a Basic `authorization`.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let text = String::from_utf8(BASE64_STANDARD.decode(value).ok()?).ok()?;
    text.split_once(':').map(|(id, secret)| (id.to_owned(), secret.to_owned()))
}

/// The response of a failure; `None` when it is over and the answer follows.
async fn suffer(
    shared: &Shared,
    trouble: Option<ModelTrouble>,
    released: impl Future<Output = ()>,
) -> Option<Response> {
    match trouble? {
        ModelTrouble::Status { status, retry_after, body } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = (status, body).into_response();
            if let Some(value) = retry_after.and_then(|value| value.parse().ok()) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
            Some(response)
        }
        ModelTrouble::Delay(span) => {
            shared.clock.sleep(span).await;
            None
        }
        ModelTrouble::Hang => {
            released.await;
            None
        }
        ModelTrouble::Drop => Some(no_answer()),
    }
}

/// Returns at the next release after this call.
fn wait_for_release(shared: &Shared) -> impl Future<Output = ()> + use<> {
    let mut released = shared.released.subscribe();
    async move {
        // The sender is gone only when the whole stand-in is.
        let _released = released.changed().await;
    }
}

fn error(status: StatusCode, message: &str) -> Response {
    let body: Value = json!({"error": {"message": message, "type": "stand_in"}});
    (status, Json(body)).into_response()
}
