//! The HTTP server: bounded in connections, bytes and time, and drained in an orderly way.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::body::Secrets;
use super::lane::LaneWriter;
use super::webhook::{Health, Hook, Shared, routes};
use crate::clock::Clock;
use crate::error::Result;
use crate::health;
use crate::pipeline::ReceiveSettings;
use crate::telemetry::Telemetry;

/// After a failed accept (no file descriptors) there is a pause.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What a connection may buffer of a request before anything of it is admitted.
const CONNECTION_BUFFER_BYTES: usize = 64 * 1_024;

/// The webhook of one pipeline.
#[derive(Debug)]
pub struct Endpoint {
    /// Paths, limits and the status of a wrong secret.
    pub settings: ReceiveSettings,
    /// One secret, or two during rotation.
    pub secrets: Vec<String>,
    /// Where bodies are landed.
    pub writer: LaneWriter,
}

/// The receiver's server.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    limits: Limits,
}

/// How much of the clients' time and of ours a receiver gives.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// To finish the headers; also how long an idle connection is kept, so it is longer than the 60 seconds of the
    /// proxies before us: they should be the ones to close.
    pub(super) header: Duration,
    /// To finish the body.
    pub(super) body: Duration,
    /// For the whole request; Telegram gives up after 60 seconds.
    pub(super) total: Duration,
    /// For open requests to finish once the service stops.
    pub(super) drain: Duration,
    /// At the same time.
    pub(super) connections: usize,
}

/// Telegram opens a hundred a bot at most; the rest is for probes and people.
const MAX_CONNECTIONS: u64 = 8_192;

/// Half of the file descriptors of the process, so that strangers cannot take those that landing needs.
fn connection_limit() -> usize {
    let descriptors = rlimit::Resource::NOFILE.get_soft().unwrap_or(1_024);
    usize::try_from((descriptors / 2).clamp(1, MAX_CONNECTIONS)).unwrap_or(512)
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(75),
            body: Duration::from_secs(30),
            total: Duration::from_secs(55),
            drain: Duration::from_secs(9),
            connections: connection_limit(),
        }
    }
}

impl Receiver {
    /// A server for these webhooks.
    pub fn new(endpoints: Vec<Endpoint>, clock: &Clock, telemetry: &Telemetry, stages: &health::Health) -> Self {
        Self::with_limits(endpoints, clock, telemetry, stages, Limits::default())
    }

    pub(super) fn with_limits(
        endpoints: Vec<Endpoint>,
        clock: &Clock,
        telemetry: &Telemetry,
        stages: &health::Health,
        limits: Limits,
    ) -> Self {
        let lanes = endpoints.iter().map(|endpoint| endpoint.writer.health().clone()).collect();
        let hooks = endpoints.into_iter().flat_map(|Endpoint { settings, secrets, writer }| {
            let hook = Arc::new(Hook { secrets: Secrets::new(&secrets), settings, writer });
            let paths = hook.settings.paths.clone();
            paths.into_iter().map(move |path| (path, Arc::clone(&hook)))
        });
        let shared = Shared {
            hooks: hooks.collect(),
            health: Arc::new(Health { draining: AtomicBool::new(false), lanes }),
            stages: stages.clone(),
            rejected: telemetry.counters("lakegram_receive_rejected_total", "requests not landed", &["reason"]),
            clock: clock.clone(),
            body_timeout: limits.body,
            total_timeout: limits.total,
        };
        Self { shared: Arc::new(shared), limits }
    }

    /// Says whether bytes can be landed now, and if not, why.
    pub fn readiness(&self) -> Arc<dyn Fn() -> std::result::Result<(), String> + Send + Sync> {
        let health = Arc::clone(&self.shared.health);
        Arc::new(move || health.ready())
    }

    /// Serves until `stop`, then lets open requests finish. A disk that fails for good ends the lane's writer, whose
    /// error is the service's.
    ///
    /// # Errors
    /// None for now; a listener that fails to accept is tried again.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<()> {
        let routes = routes(Arc::clone(&self.shared));
        let connections = Arc::new(Semaphore::new(self.limits.connections));
        let graceful = GracefulShutdown::new();
        let cut_off = CancellationToken::new();
        let accept = async || {
            let permit = Arc::clone(&connections).acquire_owned().await;
            (listener.accept().await, permit)
        };
        while let Some((accepted, permit)) = stop.run_until_cancelled(accept()).await {
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.shared.clock.sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let connection = graceful.watch(connection(stream, routes.clone(), self.limits.header));
            let cut_off = cut_off.clone();
            tokio::spawn(async move {
                if let Some(Err(error)) = cut_off.run_until_cancelled(connection).await {
                    tracing::debug!(%error, "a connection broke off");
                }
                drop(permit);
            });
        }
        self.shared.health.draining.store(true, Ordering::Relaxed);
        drop(listener);
        if self.shared.clock.timeout(self.limits.drain, graceful.shutdown()).await.is_none() {
            tracing::warn!("some requests did not end in time; Telegram sends them again");
        }
        cut_off.cancel();
        Ok(())
    }
}

fn connection(
    stream: TcpStream,
    routes: Router,
    header_timeout: Duration,
) -> http1::Connection<
    TokioIo<TcpStream>,
    impl hyper::service::Service<hyper::Request<Incoming>, Response = Response, Error = Infallible, Future: Send>,
> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        routes.clone().oneshot(request.map(Body::new))
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(CONNECTION_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
}
