//! Telegram and the model on loopback, as small as possible: on a machine with two cores, everything that the demo's
//! stand-ins remember and check would be measured along with the program.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{Path as UrlPath, State};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Result;
use super::service::{Service, lakegram};

/// A reply that has come to "Telegram".
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// Before its body was read.
    pub(crate) at: Instant,
    pub(crate) chat_id: i64,
    pub(crate) text: String,
}

/// Both servers on one port. They stop when this is dropped.
#[derive(Debug)]
pub(crate) struct StandIns {
    address: SocketAddr,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    server: JoinHandle<()>,
}

#[derive(Deserialize)]
struct Outgoing {
    chat_id: i64,
    text: String,
}

#[derive(Deserialize)]
struct Question {
    messages: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    content: String,
}

impl Drop for StandIns {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl StandIns {
    pub(crate) async fn start() -> Result<Self> {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let routes = Router::new()
            .route("/{bot}/{method}", post(call))
            .route("/v1/chat/completions", post(complete))
            .with_state(sender);
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                eprintln!("the stand-ins ended: {error}");
            }
        });
        Ok(Self { address, arrivals, server })
    }

    /// The real binary with all its roles, between these two.
    pub(crate) fn serve(&self, folder: &Path) -> Result<Service> {
        let mut command = lakegram(folder, &["serve"]);
        command.env("TELEGRAM_API_URL", format!("http://{}", self.address));
        command.env("LLM_BASE_URL", format!("http://{}/v1", self.address));
        Service::start(command)
    }

    /// The next reply.
    pub(crate) async fn next(&mut self, patience: Duration) -> Result<Arrival> {
        let arrival = tokio::time::timeout(patience, self.arrivals.recv()).await;
        Ok(arrival.map_err(|_| format!("no reply in {patience:?}"))?.ok_or("the stand-ins ended")?)
    }
}

async fn call(
    State(arrivals): State<mpsc::UnboundedSender<Arrival>>,
    UrlPath((_, method)): UrlPath<(String, String)>,
    body: Bytes,
) -> Json<Value> {
    let at = Instant::now();
    if method == "sendMessage"
        && let Ok(Outgoing { chat_id, text }) = serde_json::from_slice(&body)
    {
        // Nobody is listening any more at the end of a row.
        let _unheard = arrivals.send(Arrival { at, chat_id, text });
        return Json(json!({ "ok": true, "result": { "message_id": 1, "chat": { "id": chat_id } } }));
    }
    Json(json!({ "ok": true, "result": true }))
}

/// Answers immediately with the question, so that a reply shows which question it belongs to.
async fn complete(Json(Question { messages }): Json<Question>) -> Json<Value> {
    let said = messages.last().map(|said| said.content.as_str()).unwrap_or_default();
    Json(json!({
        "id": "bench",
        "object": "chat.completion",
        "model": "bench",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": said }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 },
    }))
}
