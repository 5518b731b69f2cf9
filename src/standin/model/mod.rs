//! A loopback model server, OpenAI-compatible and as Databricks serves, that says plainly that it is a stand-in.
//!
//! The demo talks to it, and tests script it: it fails, dawdles, hangs, breaks off and refuses keys when told to,
//! and remembers what it was asked.

mod answer;
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

use self::script::Script;
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
    script: Arc<Mutex<Script>>,
    /// How many requests have come, ever.
    seen: watch::Sender<u64>,
    /// Raised to let go of what hangs.
    released: watch::Sender<u64>,
    delay: Duration,
    clock: Clock,
}

impl Shared {
    fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
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

    /// Stops, and returns when the port is closed and every connection ended.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(server) = self.server.take()
            && let Err(error) = server.await
        {
            tracing::warn!(%error, "the model stand-in did not end well");
        }
    }

    /// What `LLM_BASE_URL` should be.
    pub fn base_url(&self) -> String {
        format!("{}/v1", self.host)
    }

    /// What `DATABRICKS_HOST` should be.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The latest requests, the oldest first. They are remembered when they come, before they are answered.
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.shared.script(|script| script.requests())
    }

    /// How many requests have come, ever.
    pub fn request_count(&self) -> u64 {
        *self.shared.seen.borrow()
    }

    /// Returns when so many requests have come, ever.
    pub async fn wait_for_requests(&self, count: u64) {
        // The sender lives as long as we do, so waiting cannot fail.
        let mut seen = self.shared.seen.subscribe();
        let _enough = seen.wait_for(|seen| *seen >= count).await;
    }

    /// Answers every question with this text.
    pub fn answer_with(&self, text: &str) {
        self.shared.script(|script| script.answer = Some(text.to_owned()));
    }

    /// Answers with a list of blocks, reasoning first, as reasoning models on Databricks do.
    pub fn answer_in_blocks(&self) {
        self.shared.script(|script| script.in_blocks = true);
    }

    /// Answers every question with this body, whatever it is.
    pub fn answer_raw(&self, body: &str) {
        self.shared.script(|script| script.raw_answer = Some(body.to_owned()));
    }

    /// Gives these troubles first, one a request.
    pub fn trouble(&self, troubles: impl IntoIterator<Item = ModelTrouble>) {
        self.shared.script(|script| script.queue.extend(troubles));
    }

    /// Gives trouble to every question that holds `text`; before all other troubles, and as often as it is asked.
    pub fn poison(&self, text: &str, trouble: ModelTrouble) {
        self.shared.script(|script| script.poison.push((text.to_owned(), trouble)));
    }

    /// Answers everything with this status until it recovers.
    pub fn fail_all(&self, status: u16) {
        self.shared.script(|script| script.always = Some(ModelTrouble::status(status)));
    }

    /// Forgets every trouble, lets go of what hangs, and answers again.
    pub fn recover(&self) {
        self.shared.script(Script::recover);
        self.release();
    }

    /// Lets go of what hangs: it is answered now.
    pub fn release(&self) {
        self.shared.released.send_modify(|times| *times += 1);
    }

    /// Lets in only who brings this key, or a token of its own.
    pub fn require_key(&self, key: &str) {
        self.shared.script(|script| script.gate.key = Some(key.to_owned()));
    }

    /// Gives tokens, which live so long, only to this client, and lets in only who brings one.
    pub fn require_client(&self, id: &str, secret: &str, token_life: Duration) {
        self.shared.script(|script| {
            script.gate.client = Some((id.to_owned(), secret.to_owned()));
            script.gate.token_life = token_life;
        });
    }

    /// Refuses every token given so far.
    pub fn revoke_tokens(&self) {
        self.shared.script(|script| script.gate.live.clear());
    }

    /// Gives these troubles first to who asks for a token, one a request.
    pub fn token_trouble(&self, troubles: impl IntoIterator<Item = ModelTrouble>) {
        self.shared.script(|script| script.token_queue.extend(troubles));
    }

    /// How many tokens were given.
    pub fn tokens_given(&self) -> u64 {
        self.shared.script(|script| script.gate.given)
    }
}
