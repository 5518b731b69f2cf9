//! The routes of the receiver: a request from Telegram, from its secret to its response, and the probes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus::IntCounterVec;

use super::body::{LiveSecrets, Refusal, SECRET_HEADER, VerifiedBody};
use super::landing::{Landing, LaneHealth};
use super::lane::LaneWriter;
use crate::clock::Clock;
use crate::connections::Client;
use crate::health::Health;
use crate::pipeline::ReceiveSettings;
use crate::redact::redact;

/// The `Retry-After` of a refused request, in seconds.
const RETRY_AFTER_SECONDS: &str = "2";

/// What every request needs.
#[derive(Debug)]
pub(super) struct Shared {
    /// By path.
    pub(super) hooks: HashMap<String, Arc<Hook>>,
    pub(super) readiness: Arc<LandingReadiness>,
    /// How the stages are.
    pub(super) stages: Health,
    pub(super) rejected: IntCounterVec,
    pub(super) clock: Clock,
    /// For the body of a request.
    pub(super) body_timeout: Duration,
    /// For a whole request; Telegram gives up after 60 seconds.
    pub(super) total_timeout: Duration,
}

/// Whether bytes can be landed now. Separate from the writers, so that readers of it keep no lane open.
#[derive(Debug)]
pub(super) struct LandingReadiness {
    pub(super) draining: AtomicBool,
    pub(super) lanes: Vec<LaneHealth>,
}

impl LandingReadiness {
    /// If not, why.
    pub(super) fn ready(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("the service is stopping".to_owned());
        }
        self.lanes.iter().try_for_each(LaneHealth::ready)
    }
}

/// The webhook of one pipeline.
#[derive(Debug)]
pub(super) struct Hook {
    pub(super) settings: ReceiveSettings,
    pub(super) secrets: LiveSecrets,
    pub(super) writer: LaneWriter,
}

impl Shared {
    fn reject(&self, status: StatusCode, reason: &str) -> Response {
        self.rejected.with_label_values(&[reason]).inc();
        status.into_response()
    }

    /// Telegram sends it again, after the given time.
    fn come_back(&self, reason: &str) -> Response {
        let answer = self.reject(StatusCode::SERVICE_UNAVAILABLE, reason);
        ([(header::RETRY_AFTER, RETRY_AFTER_SECONDS)], answer).into_response()
    }
}

/// The probes, and every path of a webhook.
pub(super) fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/health", get(health_report))
        .fallback(webhook)
        .with_state(shared)
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    match shared.readiness.ready() {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", redact(&reason))).into_response(),
    }
}

/// Anyone may ask here, so the reasons stay on the console.
async fn health_report(State(shared): State<Arc<Shared>>) -> Response {
    let ready = shared.readiness.ready();
    let status = if ready.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(shared.stages.report(&ready).without_secrets().without_reasons())).into_response()
}

async fn webhook(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let Some(hook) = shared.hooks.get(request.uri().path()) else {
        return shared.reject(StatusCode::NOT_FOUND, "path");
    };
    if request.method() != Method::POST {
        return ([(header::ALLOW, "POST")], shared.reject(StatusCode::METHOD_NOT_ALLOWED, "method")).into_response();
    }
    let answer = shared.clock.timeout(shared.total_timeout, receive(&shared, hook, request));
    answer.await.unwrap_or_else(|| shared.come_back("time"))
}

async fn receive(shared: &Shared, hook: &Hook, request: Request) -> Response {
    let presented = request.headers().get(SECRET_HEADER).map(|value| value.as_bytes());
    let Some(authentic) = hook.secrets.verify(presented) else {
        let status = StatusCode::from_u16(hook.settings.reject_with).unwrap_or(StatusCode::UNAUTHORIZED);
        return shared.reject(status, "secret");
    };
    if let Some(client) = request.extensions().get::<Client>() {
        client.vouch();
    }
    let limit = usize::try_from(hook.settings.max_body.as_u64()).unwrap_or(usize::MAX);
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if declared.is_some_and(|declared: usize| declared > limit) {
        return shared.reject(StatusCode::PAYLOAD_TOO_LARGE, "size");
    }
    let read = VerifiedBody::read(request.into_body(), limit, hook.writer.intake(), &authentic);
    let body = match shared.clock.timeout(shared.body_timeout, read).await {
        Some(Ok(body)) => body,
        Some(Err(Refusal::TooLarge)) => return shared.reject(StatusCode::PAYLOAD_TOO_LARGE, "size"),
        Some(Err(Refusal::Full)) => return shared.come_back("full"),
        Some(Err(Refusal::Broken)) => return shared.reject(StatusCode::BAD_REQUEST, "broken"),
        None => return shared.reject(StatusCode::REQUEST_TIMEOUT, "time"),
    };
    match hook.writer.land(body).await {
        Landing::Durable => StatusCode::OK.into_response(),
        Landing::Full => shared.come_back("full"),
        Landing::Failed => shared.come_back("landing"),
    }
}
