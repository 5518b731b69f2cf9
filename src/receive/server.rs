//! The HTTP server: bounded in connections, bytes and time, and drained in an orderly way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::body::LiveSecrets;
use super::lane::LaneWriter;
use super::webhook::{Hook, LandingReadiness, Shared, routes};
use crate::clock::Clock;
use crate::connections::{self, Metrics, Server};
use crate::error::Result;
use crate::health::Health;
use crate::pipeline::ReceiveSettings;
use crate::settings::Secret;
use crate::telemetry::Telemetry;

/// The webhook of one pipeline.
#[derive(Debug)]
pub struct Endpoint {
    /// Paths, limits and the status of a wrong secret.
    pub settings: ReceiveSettings,
    /// One secret, or two during rotation, separated by a comma.
    pub secrets: Secret,
    /// Where bodies are landed.
    pub writer: LaneWriter,
}

/// The receiver's server.
#[derive(Debug)]
pub struct Receiver {
    shared: Arc<Shared>,
    connections: connections::Limits,
    metrics: Metrics,
}

/// How much of the clients' time and of ours a receiver gives.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub(super) connections: connections::Limits,
    /// To finish the body.
    pub(super) body: Duration,
    /// For the whole request; Telegram gives up after 60 seconds.
    pub(super) total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: connections::Limits { connections: connection_limit(), ..connections::Limits::default() },
            body: Duration::from_secs(30),
            total: Duration::from_secs(55),
        }
    }
}

/// Telegram opens at most a hundred per bot; the rest is for probes and people.
const MAX_CONNECTIONS: u64 = 8_192;

/// Half of the file descriptors of the process, so that strangers cannot take those that landing and the stages need.
fn connection_limit() -> usize {
    let descriptors = rlimit::Resource::NOFILE.get_soft().unwrap_or(1_024);
    usize::try_from((descriptors / 2).clamp(1, MAX_CONNECTIONS)).unwrap_or(512)
}

impl Receiver {
    /// A server for these webhooks.
    pub fn new(endpoints: Vec<Endpoint>, clock: &Clock, telemetry: &Telemetry, stages: &Health) -> Self {
        Self::with_limits(endpoints, clock, telemetry, stages, Limits::default())
    }

    pub(super) fn with_limits(
        endpoints: Vec<Endpoint>,
        clock: &Clock,
        telemetry: &Telemetry,
        stages: &Health,
        limits: Limits,
    ) -> Self {
        let lanes = endpoints.iter().map(|endpoint| endpoint.writer.health().clone()).collect();
        let hooks = endpoints.into_iter().flat_map(|Endpoint { settings, secrets, writer }| {
            let hook = Arc::new(Hook { secrets: LiveSecrets::new(secrets), settings, writer });
            let paths = hook.settings.paths.clone();
            paths.into_iter().map(move |path| (path, Arc::clone(&hook)))
        });
        let shared = Shared {
            hooks: hooks.collect(),
            readiness: Arc::new(LandingReadiness { draining: AtomicBool::new(false), lanes }),
            stages: stages.clone(),
            rejected: telemetry.counters("lakegram_receive_rejected_total", "requests not landed", &["reason"]),
            clock: clock.clone(),
            body_timeout: limits.body,
            total_timeout: limits.total,
        };
        let metrics = Metrics {
            open: telemetry.gauge("lakegram_receive_connections", "connections that are open"),
            evicted: telemetry.counter(
                "lakegram_receive_evicted_connections_total",
                "connections without an authentic request that were closed to make room",
            ),
        };
        Self { shared: Arc::new(shared), connections: limits.connections, metrics }
    }

    /// Says whether bytes can be landed now, and if not, why.
    pub fn readiness(&self) -> Arc<dyn Fn() -> std::result::Result<(), String> + Send + Sync> {
        let readiness = Arc::clone(&self.shared.readiness);
        Arc::new(move || readiness.ready())
    }

    /// Serves until `stop`, then lets open requests finish. A disk that fails for good ends the lane's writer, whose
    /// error is the service's.
    ///
    /// # Errors
    /// None for now; a failed accept is retried.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> Result<()> {
        let routes = routes(Arc::clone(&self.shared));
        let server = Server::new(routes, self.connections, self.metrics, &self.shared.clock);
        let draining = async {
            stop.cancelled().await;
            self.shared.readiness.draining.store(true, Ordering::Relaxed);
        };
        tokio::join!(server.serve(listener, stop.clone()), draining);
        Ok(())
    }
}
