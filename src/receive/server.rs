//! The HTTP server: bounded in connections, bytes and time, and drained in an orderly way.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use prometheus::IntCounterVec;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::body::{SECRET_HEADER, Secrets, VerifiedBody};
use super::lane::{Landing, LaneWriter};
use crate::clock::Clock;
use crate::error::Result;
use crate::pipeline::ReceiveSettings;
use crate::telemetry::Telemetry;

/// A client that does not finish its headers in this time is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that does not finish its body in this time is told so.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// No request takes longer.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(55);
/// How long open requests may take once the service stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(9);
/// Telegram opens a hundred connections at most; the rest is for probes and people.
const MAX_CONNECTIONS: usize = 4_096;
/// What a client that is told to come back should wait, in seconds.
const RETRY_AFTER_SECONDS: &str = "2";
/// After a failed accept (no file descriptors) there is a pause.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
}

#[derive(Debug)]
struct Shared {
    hooks: HashMap<String, Arc<Hook>>,
    health: Arc<Health>,
    rejected: IntCounterVec,
    clock: Clock,
}

#[derive(Debug)]
struct Hook {
    settings: ReceiveSettings,
    secrets: Secrets,
    writer: LaneWriter,
}

/// Whether bytes can be landed now.
#[derive(Debug, Default)]
struct Health {
    draining: AtomicBool,
    trouble: Mutex<Option<&'static str>>,
}

impl Health {
    fn ready(&self) -> std::result::Result<(), String> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("the service is stopping".to_owned());
        }
        match *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(trouble) => Err(trouble.to_owned()),
            None => Ok(()),
        }
    }

    fn note(&self, trouble: Option<&'static str>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
}

impl Receiver {
    /// A server for these webhooks.
    pub fn new(endpoints: Vec<Endpoint>, clock: &Clock, telemetry: &Telemetry) -> Self {
        let mut hooks = HashMap::new();
        for Endpoint { settings, secrets, writer } in endpoints {
            let hook = Arc::new(Hook { secrets: Secrets::new(&secrets), settings, writer });
            hooks.extend(hook.settings.paths.iter().map(|path| (path.clone(), Arc::clone(&hook))));
        }
        let rejected = telemetry.counters("lakegram_receive_rejected_total", "requests not landed", &["reason"]);
        Self { shared: Arc::new(Shared { hooks, health: Arc::default(), rejected, clock: clock.clone() }) }
    }

    /// Says whether bytes can be landed now, and if not, why.
    pub fn readiness(&self) -> Arc<dyn Fn() -> std::result::Result<(), String> + Send + Sync> {
        let health = Arc::clone(&self.shared.health);
        Arc::new(move || health.ready())
    }

    /// Serves until `stop`, then lets open requests finish.
    ///
    /// # Errors
    /// None for now; a listener that fails to accept is tried again.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<()> {
        let clock = self.shared.clock.clone();
        let routes = self.routes();
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let graceful = GracefulShutdown::new();
        loop {
            let permit = tokio::select! {
                () = stop.cancelled() => break,
                permit = Arc::clone(&connections).acquire_owned() => permit,
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let connection = graceful.watch(connection(stream, routes.clone()));
                    tokio::spawn(async move {
                        if let Err(error) = connection.await {
                            tracing::debug!(%error, "a connection broke off");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    clock.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        self.shared.health.draining.store(true, Ordering::Relaxed);
        drop(listener);
        if clock.timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_none() {
            tracing::warn!("some requests did not end in time; Telegram sends them again");
        }
        Ok(())
    }

    fn routes(&self) -> Router {
        let mut routes = Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .route("/health", get(ready));
        for path in self.shared.hooks.keys() {
            routes = routes.route(path, any(webhook));
        }
        routes.with_state(Arc::clone(&self.shared))
    }
}

fn connection(
    stream: TcpStream,
    routes: Router,
) -> hyper::server::conn::http1::Connection<
    TokioIo<TcpStream>,
    impl hyper::service::Service<hyper::Request<Incoming>, Response = Response, Error = Infallible, Future: Send>,
> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        routes.clone().oneshot(request.map(Body::new))
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    match shared.health.ready() {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn webhook(State(shared): State<Arc<Shared>>, uri: Uri, request: Request) -> Response {
    if request.method() != Method::POST {
        shared.rejected.with_label_values(&["method"]).inc();
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")]).into_response();
    }
    let Some(hook) = shared.hooks.get(uri.path()) else { return StatusCode::NOT_FOUND.into_response() };
    let answer = shared.clock.timeout(TOTAL_TIMEOUT, receive(&shared, hook, request));
    answer.await.unwrap_or_else(|| come_back(&shared, "time"))
}

async fn receive(shared: &Shared, hook: &Hook, request: Request) -> Response {
    let reject = |status: StatusCode, reason: &str| {
        shared.rejected.with_label_values(&[reason]).inc();
        status.into_response()
    };
    let presented = request.headers().get(SECRET_HEADER).map(|value| value.as_bytes());
    let Some(authentic) = hook.secrets.verify(presented) else {
        let status = StatusCode::from_u16(hook.settings.reject_with).unwrap_or(StatusCode::UNAUTHORIZED);
        return reject(status, "secret");
    };
    let limit = usize::try_from(hook.settings.max_body.as_u64()).unwrap_or(usize::MAX);
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if declared.is_some_and(|declared: usize| declared > limit) {
        return reject(StatusCode::PAYLOAD_TOO_LARGE, "size");
    }
    let Some(permit) = hook.writer.admit(declared.unwrap_or(limit)) else { return come_back(shared, "full") };
    let bytes = match shared.clock.timeout(BODY_TIMEOUT, to_bytes(request.into_body(), limit)).await {
        Some(Ok(bytes)) => bytes,
        Some(Err(error)) if is_length_limit(&error) => return reject(StatusCode::PAYLOAD_TOO_LARGE, "size"),
        Some(Err(_)) => return reject(StatusCode::BAD_REQUEST, "broken"),
        None => return reject(StatusCode::REQUEST_TIMEOUT, "time"),
    };
    match hook.writer.land(VerifiedBody::of_request(bytes, &authentic), permit).await {
        Landing::Durable => {
            shared.health.note(None);
            StatusCode::OK.into_response()
        }
        Landing::Full => come_back(shared, "full"),
        Landing::Failed => {
            shared.health.note(Some("segments cannot be put; see the log"));
            come_back(shared, "landing")
        }
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error);
    source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

fn come_back(shared: &Shared, reason: &str) -> Response {
    shared.rejected.with_label_values(&[reason]).inc();
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, RETRY_AFTER_SECONDS)]).into_response()
}
