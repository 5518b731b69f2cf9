//! The ceiling: the same axum server, with the secret checked and the body read, that stores nothing.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;

async fn webhook(headers: HeaderMap, body: Bytes) -> StatusCode {
    let secret = headers.get("x-telegram-bot-api-secret-token").map(axum::http::HeaderValue::as_bytes);
    if secret != Some(crate::support::service::SECRET.as_bytes()) || body.is_empty() {
        return StatusCode::UNAUTHORIZED;
    }
    StatusCode::OK
}

/// Serves until it is killed.
pub(crate) async fn serve(address: SocketAddr) -> crate::support::Result<()> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, Router::new().route("/telegram-webhook", post(webhook))).await?;
    Ok(())
}
