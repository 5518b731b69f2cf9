//! The console: health and metrics on a listener of their own.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::error::{Context, ErrorKind, Result};
use crate::telemetry::Telemetry;

/// Says whether bytes can be landed now, and if not, why.
pub type Readiness = Arc<dyn Fn() -> std::result::Result<(), String> + Send + Sync>;

/// The console's server.
#[derive(Clone)]
pub struct Console {
    telemetry: Telemetry,
    readiness: Readiness,
}

#[derive(Deserialize)]
struct ReadyQuery {
    verbose: Option<String>,
}

impl Console {
    /// A console over these.
    pub fn new(telemetry: Telemetry, readiness: Readiness) -> Self {
        Self { telemetry, readiness }
    }

    /// Serves until `stop`.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<()> {
        let routes = Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .route("/health", get(ready))
            .route("/metrics", get(metrics))
            .with_state(self);
        axum::serve(listener, routes)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
            .context(ErrorKind::Unavailable, "the console's listener")
    }
}

async fn ready(State(console): State<Console>, Query(query): Query<ReadyQuery>) -> Response {
    match (console.readiness)() {
        Ok(()) if query.verbose.is_some() => (StatusCode::OK, "landing: ok\n").into_response(),
        Ok(()) => (StatusCode::OK, "ok\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("landing: {reason}\n")).into_response(),
    }
}

async fn metrics(State(console): State<Console>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], console.telemetry.render()).into_response()
}
