//! Connections of an HTTP listener, bounded in number and time. Under pressure, clients that have not authenticated are
//! closed first, oldest first, so that strangers cannot keep honest clients out.

mod stream;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::FutureExt;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use prometheus::{IntCounter, IntGauge};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use self::stream::BoundedStream;
use crate::clock::Clock;

/// Pause after a failed accept (no file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How much of a request a connection may buffer before any of it is admitted.
const BUFFER_BYTES: usize = 64 * 1_024;

/// How many connections there may be, and how much time each gets.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open at the same time.
    pub connections: usize,
    /// How long a stranger may be idle: until the first header is complete, and between requests.
    pub stranger: Duration,
    /// The same for authenticated clients. Longer than the 60 seconds of the proxies in front of us, so that they are
    /// the ones to close.
    pub known: Duration,
    /// How long a client may take to read any part of a response.
    pub write: Duration,
    /// For open requests to finish once the service stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            stranger: Duration::from_secs(10),
            known: Duration::from_secs(75),
            write: Duration::from_secs(10),
            drain: Duration::from_secs(9),
        }
    }
}

/// Metrics of the connections.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Connections that are open.
    pub open: IntGauge,
    /// Strangers that were closed to make room.
    pub evicted: IntCounter,
}

/// Serves routes on connections.
#[derive(Debug)]
pub struct Server {
    routes: Router,
    limits: Limits,
    metrics: Metrics,
    clock: Clock,
    /// Clients are measured in real time, however fast a test lets our clock run.
    clients: Clock,
}

/// The client at the other end of a connection; an extension of every request.
#[derive(Clone, Debug)]
pub struct Client {
    id: u64,
    register: Arc<Register>,
    activity: Arc<Activity>,
}

/// What a connection is doing.
#[derive(Debug, Default)]
struct Activity {
    is_known: AtomicBool,
    /// Requests being answered.
    requests: AtomicUsize,
    /// Since when there are none, on the monotonic clock.
    quiet_since_millis: AtomicU64,
}

/// Every open connection.
#[derive(Debug)]
struct Register {
    limit: usize,
    places: Mutex<Places>,
    freed: Notify,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Places {
    open: usize,
    next_id: u64,
    /// Clients that have not authenticated, oldest first.
    strangers: BTreeMap<u64, CancellationToken>,
    /// Those that were told to close and are still open.
    leaving: usize,
}

/// A connection's entry in the register, released on drop.
#[derive(Debug)]
struct Place {
    client: Client,
    evicted: CancellationToken,
}

impl Register {
    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a free entry. The oldest stranger is closed to make room; if there are only known clients, one of them
    /// must end.
    async fn admit(self: &Arc<Self>, clock: &Clock) -> Place {
        loop {
            if let Some(place) = self.try_admit(clock) {
                return place;
            }
            self.freed.notified().await;
        }
    }

    fn try_admit(self: &Arc<Self>, clock: &Clock) -> Option<Place> {
        let mut places = self.lock();
        if places.open >= self.limit {
            if places.leaving == 0
                && let Some((_, stranger)) = places.strangers.pop_first()
            {
                places.leaving += 1;
                self.metrics.evicted.inc();
                stranger.cancel();
            }
            return None;
        }
        let (id, evicted) = (places.next_id, CancellationToken::new());
        places.next_id += 1;
        places.open += 1;
        places.strangers.insert(id, evicted.clone());
        self.metrics.open.inc();
        let activity = Activity { quiet_since_millis: AtomicU64::new(millis(clock)), ..Activity::default() };
        let client = Client { id, register: Arc::clone(self), activity: Arc::new(activity) };
        Some(Place { client, evicted })
    }
}

impl Client {
    /// From now on this client is not a stranger: it is not closed to make room.
    pub fn vouch(&self) {
        if !self.activity.is_known.swap(true, Ordering::Relaxed) {
            self.register.lock().strangers.remove(&self.id);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let register = &self.client.register;
        let mut places = register.lock();
        places.open -= 1;
        let was_stranger = places.strangers.remove(&self.client.id).is_some();
        if !was_stranger && self.evicted.is_cancelled() {
            places.leaving -= 1;
        }
        register.metrics.open.dec();
        register.freed.notify_one();
    }
}

impl Activity {
    /// How long it may stay idle; `None` while a request is being answered.
    fn patience(&self, limits: &Limits, now_millis: u64) -> Option<Duration> {
        if self.requests.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let limit = if self.is_known.load(Ordering::Relaxed) { limits.known } else { limits.stranger };
        let quiet = now_millis.saturating_sub(self.quiet_since_millis.load(Ordering::Relaxed));
        Some(limit.saturating_sub(Duration::from_millis(quiet)))
    }

    /// Returns when it was idle for too long.
    async fn quiet_for_too_long(&self, limits: &Limits, clock: &Clock) {
        loop {
            match self.patience(limits, millis(clock)) {
                Some(Duration::ZERO) => return,
                // Any activity meanwhile only postpones the end.
                Some(patience) => clock.sleep(patience).await,
                None => clock.sleep(limits.stranger).await,
            }
        }
    }
}

fn millis(clock: &Clock) -> u64 {
    u64::try_from(clock.monotonic().as_millis()).unwrap_or(u64::MAX)
}

/// A request that is being answered.
struct Answering {
    activity: Arc<Activity>,
    clock: Clock,
}

impl Answering {
    fn begin(activity: &Arc<Activity>, clock: &Clock) -> Self {
        activity.requests.fetch_add(1, Ordering::Relaxed);
        Self { activity: Arc::clone(activity), clock: clock.clone() }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.activity.quiet_since_millis.store(millis(&self.clock), Ordering::Relaxed);
        self.activity.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    /// A server of these routes.
    pub fn new(routes: Router, limits: Limits, metrics: Metrics, clock: &Clock) -> Self {
        Self { routes, limits, metrics, clock: clock.clone(), clients: Clock::system() }
    }

    /// Serves until `stop`, then lets open requests finish for a while.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let register = Arc::new(Register {
            limit: self.limits.connections.max(1),
            places: Mutex::default(),
            freed: Notify::new(),
            metrics: self.metrics.clone(),
        });
        let (graceful, cut_off) = (GracefulShutdown::new(), CancellationToken::new());
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    self.clock.sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = stop.run_until_cancelled(register.admit(&self.clients)).await else { break };
            self.spawn(stream, place, &graceful, cut_off.clone());
        }
        drop(listener);
        if self.clock.timeout(self.limits.drain, graceful.shutdown()).await.is_none() {
            tracing::warn!("some requests did not finish in time; their senders will repeat them");
        }
        cut_off.cancel();
    }

    fn spawn(&self, stream: TcpStream, place: Place, graceful: &GracefulShutdown, cut_off: CancellationToken) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not set TCP_NODELAY");
        }
        let stream = BoundedStream::new(stream, &self.clients, self.limits.write);
        let (routes, client, clock) = (self.routes.clone(), place.client.clone(), self.clients.clone());
        let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let answering = Answering::begin(&client.activity, &clock);
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(client.clone());
            routes.clone().oneshot(request).map(move |response| -> Result<_, Infallible> {
                drop(answering);
                response
            })
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.known)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection);
        let (limits, clock) = (self.limits.clone(), self.clients.clone());
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection broke off");
                    }
                }
                () = place.evicted.cancelled() => {}
                () = cut_off.cancelled() => {}
                () = place.client.activity.quiet_for_too_long(&limits, &clock) => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    #[derive(Clone, Debug)]
    enum Act {
        Arrive,
        Vouch(Index),
        Leave(Index),
    }

    impl Act {
        fn any() -> impl Strategy<Value = Self> {
            let index = any::<Index>;
            prop_oneof![3 => Just(Self::Arrive), 1 => index().prop_map(Self::Vouch), 1 => index().prop_map(Self::Leave)]
        }
    }

    fn register(limit: usize) -> Arc<Register> {
        let open = IntGauge::new("open", "open").unwrap();
        let evicted = IntCounter::new("evicted", "evicted").unwrap();
        let metrics = Metrics { open, evicted };
        Arc::new(Register { limit, places: Mutex::default(), freed: Notify::new(), metrics })
    }

    fn is_known(place: &Place) -> bool {
        place.client.activity.is_known.load(Ordering::Relaxed)
    }

    fn leaving(open: &[Place]) -> Vec<u64> {
        open.iter().filter(|place| place.evicted.is_cancelled()).map(|place| place.client.id).collect()
    }

    proptest! {
        /// There are never more than the limit allows. Only the oldest stranger has to make room, one at a time, and
        /// never a client that has authenticated.
        #[test]
        fn only_the_oldest_stranger_makes_room(limit in 1_usize..5, acts in proptest::collection::vec(Act::any(), 0..60)) {
            let (register, clock) = (register(limit), Clock::system());
            // In the order in which they came.
            let mut open: Vec<Place> = Vec::new();
            for act in acts {
                match act {
                    Act::Arrive => {
                        let before = leaving(&open);
                        let mut strangers = open.iter().filter(|place| !is_known(place) && !place.evicted.is_cancelled());
                        let oldest = strangers.next().map(|place| place.client.id).filter(|_| before.is_empty());
                        match register.try_admit(&clock) {
                            Some(place) => {
                                prop_assert!(open.len() < limit);
                                open.push(place);
                            }
                            None => {
                                prop_assert_eq!(open.len(), limit);
                                let told: Vec<u64> =
                                    leaving(&open).into_iter().filter(|id| !before.contains(id)).collect();
                                prop_assert_eq!(told, Vec::from_iter(oldest));
                            }
                        }
                    }
                    Act::Vouch(index) if !open.is_empty() => index.get(&open).client.vouch(),
                    Act::Leave(index) if !open.is_empty() => drop(open.remove(index.index(open.len()))),
                    Act::Vouch(_) | Act::Leave(_) => {}
                }
                prop_assert!(open.len() <= limit && leaving(&open).len() <= 1);
                prop_assert_eq!(register.metrics.open.get(), i64::try_from(open.len()).unwrap());
                let places = register.lock();
                prop_assert_eq!((places.open, places.leaving), (open.len(), leaving(&open).len()));
            }
            drop(open);
            let places = register.lock();
            prop_assert_eq!((places.open, places.leaving, places.strangers.len()), (0, 0, 0));
        }
    }
}
