//! The HTTP side: `/bot<token>/<method>`, with connections that can be closed or left hanging on purpose.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::behavior::Behavior;
use super::ledger::{Call, Fate};
use super::methods;
use super::outcome::Refusal;
use super::params::Params;
use super::state::Shared;

/// How many connections are served at the same time; more wait to be accepted.
const CONNECTION_LIMIT: usize = 1_024;

/// The longest body of a call. Files are not taken here.
const BODY_LIMIT_BYTES: usize = 1 << 20;

/// How long to wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Tells the server to close the connection without a response.
#[derive(Debug)]
struct Abandoned;

impl fmt::Display for Abandoned {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the stand-in was told to close this connection")
    }
}

impl std::error::Error for Abandoned {}

/// Serves calls until the stand-in stops.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let stop = shared.stop.clone();
    let connections = Arc::new(Semaphore::new(CONNECTION_LIMIT));
    let accept = async {
        while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move {
                        let _permit = permit;
                        serve_connection(shared, stream).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the Bot API stand-in could not accept a connection");
                    shared.options.clock.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = accept => {}
    }
}

async fn serve_connection(shared: Arc<Shared>, stream: TcpStream) {
    let stop = shared.stop.clone();
    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        () = stop.cancelled() => {}
        outcome = connection => {
            if let Err(error) = outcome {
                tracing::debug!(%error, "a connection to the Bot API stand-in ended early");
            }
        }
    }
}

/// Answers one request.
async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Abandoned> {
    let uri = request.uri().clone();
    let path = uri.path().replace("%3A", ":").replace("%3a", ":");
    let Some((token, method)) = path.strip_prefix("/bot").and_then(|rest| rest.split_once('/')) else {
        return Ok(refuse(Refusal::new(404, "Not Found")));
    };
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = content_type.to_ascii_lowercase();
    let Ok(body) = Limited::new(request.into_body(), BODY_LIMIT_BYTES).collect().await else {
        return Ok(refuse(Refusal::new(413, "Request Entity Too Large")));
    };
    let body = body.to_bytes();
    let raw = if body.is_empty() { uri.query().unwrap_or_default().into() } else { String::from_utf8_lossy(&body) };
    let call = Call { method: method.to_owned(), raw: raw.into_owned(), at: shared.now(), fate: Fate::Open };
    let raw = call.raw.clone();
    let number = shared.change(|state| state.ledger.begin(call));
    let settle = |fate| shared.change(|state| state.ledger.settle(number, fate));
    let outcome = if token == shared.options.token {
        match Params::parse(uri.query(), &content_type, &body) {
            Ok(params) => treat(&shared, method, &params, &raw).await,
            Err(problem) => Treatment::Answer(refuse(Refusal::new(400, problem))),
        }
    } else {
        Treatment::Answer(refuse(Refusal::new(401, "Unauthorized")))
    };
    match outcome {
        Treatment::Answer(response) => {
            settle(Fate::Answered(response.status().as_u16()));
            Ok(response)
        }
        Treatment::Close => {
            settle(Fate::Dropped);
            Err(Abandoned)
        }
        Treatment::Hang => {
            settle(Fate::Hanging);
            shared.stop.cancelled().await;
            Err(Abandoned)
        }
    }
}

/// What happens to the connection of a call.
enum Treatment {
    Answer(Response<Full<Bytes>>),
    Close,
    Hang,
}

/// Handles a call as scripted, or correctly.
async fn treat(shared: &Arc<Shared>, method: &str, params: &Params, raw: &str) -> Treatment {
    let proceed = async || match methods::call(shared, method, params, raw).await {
        Ok(result) => succeed(&result),
        Err(refusal) => refuse(refusal),
    };
    match shared.change(|state| state.script.next(method)) {
        Behavior::Proceed => Treatment::Answer(proceed().await),
        Behavior::Delay(span) => {
            shared.options.clock.sleep(span).await;
            Treatment::Answer(proceed().await)
        }
        Behavior::Fail { code, description, parameters } => {
            let refusal = Refusal { code, description, parameters };
            methods::note_silence(shared, params, &refusal);
            Treatment::Answer(refuse(refusal))
        }
        Behavior::DropBefore => Treatment::Close,
        Behavior::AcceptThenFail { code } => {
            proceed().await;
            Treatment::Answer(refuse(Refusal::new(code, "Bad Gateway")))
        }
        Behavior::AcceptThenDropConnection => {
            proceed().await;
            Treatment::Close
        }
        Behavior::AcceptThenHang => {
            proceed().await;
            Treatment::Hang
        }
    }
}

/// `result` is JSON text, so that updates are returned byte for byte as a webhook would receive them.
fn succeed(result: &str) -> Response<Full<Bytes>> {
    respond(StatusCode::OK, format!("{{\"ok\":true,\"result\":{result}}}"))
}

fn refuse(refusal: Refusal) -> Response<Full<Bytes>> {
    let mut body = json!({ "ok": false, "error_code": refusal.code, "description": refusal.description });
    let retry_after = refusal.parameters.as_ref().and_then(|parameters| parameters.get("retry_after")?.as_u64());
    if let Some(parameters) = refusal.parameters {
        body["parameters"] = parameters;
    }
    let status = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = respond(status, Value::to_string(&body));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn respond(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
