//! A loopback model server, OpenAI-compatible and Databricks-compatible, that openly says it is a stand-in.
//!
//! The demo talks to it, and tests script it: it fails, stalls, hangs, drops connections and refuses keys when told to,
//! and remembers what it was asked.

mod answer;
#[cfg(any(test, feature = "faults"))]
mod faults;
mod routes;
mod script;
mod serve;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::script::ModelScript;
pub use self::script::{ModelTrouble, SeenRequest};
use crate::clock::Clock;
use crate::error::{Context, ErrorKind, Result};

/// How a stand-in behaves.
#[derive(Clone, Debug, Default)]
pub struct ModelStandInOptions {
    /// How long it seems to think.
    pub delay: Duration,
}

/// What the stand-in and its connections share.
#[derive(Clone, Debug)]
struct Shared {
    script: Arc<Mutex<ModelScript>>,
    /// How many requests have arrived so far.
    seen: watch::Sender<u64>,
    /// Incremented to release hanging requests.
    released: watch::Sender<u64>,
    delay: Duration,
    clock: Clock,
}

impl Shared {
    fn script<T>(&self, change: impl FnOnce(&mut ModelScript) -> T) -> T {
        change(&mut self.script.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A running stand-in. Stops when it is dropped, and closes its connections.
#[derive(Debug)]
pub struct ModelStandIn {
    shared: Shared,
    host: String,
    stop: CancellationToken,
    server: Option<JoinHandle<()>>,
}

impl Drop for ModelStandIn {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl ModelStandIn {
    /// Starts a stand-in on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(options: ModelStandInOptions) -> Result<Self> {
        let context = "listen on a free port of 127.0.0.1 for the model stand-in";
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context(ErrorKind::Unavailable, context)?;
        let address = listener.local_addr().context(ErrorKind::Unavailable, context)?;
        let shared = Shared {
            script: Arc::default(),
            seen: watch::Sender::new(0),
            released: watch::Sender::new(0),
            delay: options.delay,
            clock: Clock::system(),
        };
        let stop = CancellationToken::new();
        let server = serve::serve(listener, routes::routes(shared.clone()), shared.clock.clone(), stop.clone());
        let server = Some(tokio::spawn(server));
        Ok(Self { shared, host: format!("http://{address}"), stop, server })
    }

    /// Stops, and returns when the port is closed and every connection has ended.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(server) = self.server.take()
            && let Err(error) = server.await
        {
            tracing::warn!(%error, "the model stand-in did not end well");
        }
    }

    /// The value for `LLM_BASE_URL`.
    pub fn base_url(&self) -> String {
        format!("{}/v1", self.host)
    }

    /// The value for `DATABRICKS_HOST`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The latest requests, oldest first. They are recorded on arrival, before they are answered.
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.shared.script(|script| script.requests())
    }

    /// How many requests have arrived so far.
    pub fn request_count(&self) -> u64 {
        *self.shared.seen.borrow()
    }

    /// Returns when this many requests have arrived.
    pub async fn wait_for_requests(&self, count: u64) {
        // The sender lives as long as we do, so waiting cannot fail.
        let mut seen = self.shared.seen.subscribe();
        let _enough = seen.wait_for(|seen| *seen >= count).await;
    }
}
