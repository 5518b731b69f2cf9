//! The console: health and metrics on a listener of their own.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::error::{Context, ErrorKind, Result};
use crate::health::Health;
use crate::telemetry::Telemetry;

/// Says whether bytes can be landed now, and if not, why.
pub type Readiness = Arc<dyn Fn() -> std::result::Result<(), String> + Send + Sync>;

/// The console's server.
#[derive(Clone)]
pub struct Console {
    telemetry: Telemetry,
    readiness: Readiness,
    health: Health,
}

#[derive(Deserialize)]
struct ReadyQuery {
    verbose: Option<String>,
}

impl Console {
    /// A console over these.
    pub fn new(telemetry: Telemetry, readiness: Readiness, health: Health) -> Self {
        Self { telemetry, readiness, health }
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<()> {
        let routes = Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .route("/health", get(health))
            .route("/metrics", get(metrics))
            .with_state(self);
        axum::serve(listener, routes)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
            .context(ErrorKind::Unavailable, "the console's listener")
    }
}

/// Speaks of landing alone; `?verbose` names the stages as well.
async fn ready(State(console): State<Console>, Query(query): Query<ReadyQuery>) -> Response {
    let ready = (console.readiness)();
    let status = status_of(&ready);
    let text = match (query.verbose, ready) {
        (Some(_), ready) => console.health.report(&ready).to_string(),
        (None, Ok(())) => "ok\n".to_owned(),
        (None, Err(reason)) => format!("landing: {reason}\n"),
    };
    (status, text).into_response()
}

async fn health(State(console): State<Console>) -> Response {
    let ready = (console.readiness)();
    (status_of(&ready), Json(console.health.report(&ready))).into_response()
}

fn status_of(ready: &std::result::Result<(), String>) -> StatusCode {
    if ready.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn metrics(State(console): State<Console>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], console.telemetry.render()).into_response()
}
