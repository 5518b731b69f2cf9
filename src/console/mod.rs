//! The console: health and metrics on a separate listener.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::connections::{Limits, Metrics, Server};
use crate::error::Result;
use crate::health::Health;
use crate::redact::redact;
use crate::telemetry::Telemetry;

/// Whether bytes can be landed now, and if not, why.
pub type Readiness = Arc<dyn Fn() -> std::result::Result<(), String> + Send + Sync>;

/// The console's server.
#[derive(Clone)]
pub struct Console {
    telemetry: Telemetry,
    readiness: Readiness,
    health: Health,
    clock: Clock,
}

/// People and scrapers need a handful; whoever opens more must not take the descriptors of the webhook.
const MAX_CONNECTIONS: u64 = 256;

/// An eighth of the file descriptors of the process at the most. Nobody is known here, so the oldest go first.
fn limits() -> Limits {
    let descriptors = rlimit::Resource::NOFILE.get_soft().unwrap_or(1_024);
    let connections = usize::try_from((descriptors / 8).clamp(1, MAX_CONNECTIONS)).unwrap_or(128);
    Limits { connections, ..Limits::default() }
}

#[derive(Deserialize)]
struct ReadyQuery {
    verbose: Option<String>,
}

impl Console {
    /// A console over these.
    pub fn new(telemetry: Telemetry, readiness: Readiness, health: Health, clock: Clock) -> Self {
        Self { telemetry, readiness, health, clock }
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// None for now; a listener that fails to accept is tried again.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<()> {
        let clock = self.clock.clone();
        let counts = Metrics {
            open: self.telemetry.gauge("lakegram_console_connections", "connections of the console that are open"),
            evicted: self.telemetry.counter(
                "lakegram_console_evicted_connections_total",
                "connections of the console that were closed to make room",
            ),
        };
        let routes = Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .route("/health", get(health))
            .route("/metrics", get(metrics))
            .with_state(self);
        Server::new(routes, limits(), counts, &clock).serve(listener, stop).await;
        Ok(())
    }
}

/// Only reports on landing; `?verbose` adds the stages.
async fn ready(State(console): State<Console>, Query(query): Query<ReadyQuery>) -> Response {
    let ready = (console.readiness)();
    let status = status_of(&ready);
    let text = match (query.verbose, ready) {
        (Some(_), ready) => console.health.report(&ready).to_string(),
        (None, Ok(())) => "ok\n".to_owned(),
        (None, Err(reason)) => format!("landing: {reason}\n"),
    };
    (status, redact(&text).into_owned()).into_response()
}

async fn health(State(console): State<Console>) -> Response {
    let ready = (console.readiness)();
    (status_of(&ready), Json(console.health.report(&ready).without_secrets())).into_response()
}

fn status_of(ready: &std::result::Result<(), String>) -> StatusCode {
    if ready.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn metrics(State(console): State<Console>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], console.telemetry.render()).into_response()
}
