//! One life of the process: the whole service on its own thread and runtime, which end with it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;

use tokio::runtime::Builder;
use tokio::sync::{broadcast, oneshot};
use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use crate::app::{App, Listeners, Role};
use crate::error::Result;
use crate::telemetry::Hop;

/// How a life ended.
#[derive(Debug)]
pub(super) enum End {
    /// By itself: asked to stop, or with an error, for example after a panic in a task.
    Served(Result<()>),
    /// It was killed.
    Killed,
    /// It panicked before its tasks ran.
    Panicked,
}

/// A running service.
#[derive(Debug)]
pub(super) struct Life {
    /// Of the webhook.
    pub(super) url: String,
    pub(super) gate: Arc<Gate>,
    pub(super) hops: broadcast::Receiver<Arc<Hop>>,
    stop: CancellationToken,
    ended: oneshot::Receiver<End>,
}

impl Life {
    /// Starts a service whose store is behind `gate`.
    pub(super) async fn start(app: App, roles: BTreeSet<Role>, gate: Arc<Gate>) -> Self {
        let (tell_address, address) = oneshot::channel();
        let (tell_end, ended) = oneshot::channel();
        let (stop, hops) = (CancellationToken::new(), app.telemetry.watch_hops());
        let (stopping, watched) = (stop.clone(), Arc::clone(&gate));
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let end = runtime.block_on(async {
                let listeners = Listeners::bind(&app).await.unwrap();
                tell_address.send(listeners.receive.local_addr().unwrap()).unwrap();
                let serving = tokio::spawn(async move { app.serve(&roles, listeners, stopping).await });
                tokio::select! {
                    served = serving => served.map_or(End::Panicked, End::Served),
                    () = watched.died() => End::Killed,
                }
            });
            // Whatever is left of it first falls silent, then ends.
            watched.kill();
            drop(runtime);
            // The test may have ended without waiting.
            let _gone = tell_end.send(end);
        });
        let url = format!("http://{}/telegram-webhook", address.await.unwrap());
        Self { url, gate, hops, stop, ended }
    }

    /// Asks it to stop and returns how it ended.
    pub(super) async fn stop(self) -> End {
        self.stop.cancel();
        self.ended.await.unwrap()
    }

    /// Ends it at once.
    pub(super) async fn kill(self) -> End {
        self.gate.kill();
        self.ended.await.unwrap()
    }

    /// Returns when it has ended by itself.
    pub(super) async fn ended(&mut self) -> End {
        (&mut self.ended).await.unwrap()
    }
}
