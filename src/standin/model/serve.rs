//! The stand-in's connections: ended together when it stops, and closed without a response when the script says so.
//!
//! `axum::serve` can do neither.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::clock::Clock;

/// Connections at the same time; further ones wait.
const CONNECTION_LIMIT: usize = 1_000;
/// Pause after a failed accept, which is mostly due to a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Marks a response that must not be sent.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the script says to close the connection")]
struct NoAnswer;

/// The error that closes the connection instead.
pub(super) fn no_answer() -> Response {
    let mut response = ().into_response();
    response.extensions_mut().insert(NoAnswer);
    response
}

/// Serves until stopped; when it returns, the port is closed and every connection has ended.
pub(super) async fn serve(listener: TcpListener, routes: Router, clock: Clock, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTION_LIMIT => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, routes.clone()));
                }
                Err(_) => clock.sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    connections.shutdown().await;
}

async fn connection(stream: TcpStream, routes: Router) {
    let service = service_fn(|request: Request<Incoming>| {
        let routes = routes.clone();
        async move {
            let answered: Result<Response, Infallible> = routes.oneshot(request.map(Body::new)).await;
            let Ok(response) = answered;
            match response.extensions().get::<NoAnswer>() {
                Some(no_answer) => Err(*no_answer),
                None => Ok(response),
            }
        }
    });
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection of the model stand-in broke off");
    }
}
