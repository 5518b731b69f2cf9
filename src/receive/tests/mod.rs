//! The receiver over real HTTP on loopback, and its lanes without it.

mod http;
mod lane;
mod model;
mod store;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use object_store::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::store::{Control, controlled};
use super::server::Limits;
use super::{Endpoint, LaneOptions, LaneWriter, Receiver, SECRET_HEADER};
use crate::admission::Admission;
use crate::clock::Clock;
use crate::connections;
use crate::error::Result;
use crate::health::Health;
use crate::hint::{KeyHints, key_hints};
use crate::id::{BotId, Name};
use crate::pipeline::ReceiveSettings;
use crate::storage::{Storage, StorageKey};
use crate::telemetry::Telemetry;

const HOOK: &str = "/telegram-webhook";
const SECRET: &str = "right";
/// Long enough for any step of a test, short enough to fail it.
const LONG: Duration = Duration::from_secs(20);
/// So soon a lane gives up in tests of trouble.
const SHORT: Duration = Duration::from_millis(300);

/// One pipeline's lane over a store that a test controls.
struct Lane {
    storage: Storage,
    control: Arc<Control>,
    clock: Clock,
    telemetry: Telemetry,
    hints: KeyHints,
    writer: LaneWriter,
    task: JoinHandle<Result<()>>,
}

struct LaneSetup {
    storage: Storage,
    clock: Clock,
    max_in_flight: usize,
    patience: Duration,
}

impl Default for LaneSetup {
    fn default() -> Self {
        Self { storage: Storage::memory(), clock: Clock::system(), max_in_flight: 1_000_000, patience: LONG }
    }
}

impl LaneSetup {
    async fn open(self) -> Lane {
        let (storage, control) = controlled(self.storage.clone(), &self.clock);
        let (hinter, hints) = key_hints();
        let options = LaneOptions { storage: storage.clone(), hinter, ..self.options() };
        let (clock, telemetry) = (self.clock, options.telemetry.clone());
        let (writer, task) = LaneWriter::open_with(options, self.patience).unwrap();
        let task = tokio::spawn(task);
        until(&clock, async || writer.readiness()().is_ok()).await;
        Lane { storage, control, clock, telemetry, hints, writer, task }
    }

    /// What a writer of the lane is opened with; nobody hears its hints.
    fn options(&self) -> LaneOptions {
        LaneOptions {
            storage: self.storage.clone(),
            pipeline: Name::new("telegram").unwrap(),
            bot_id: BotId(42),
            lane: Name::new("edge").unwrap(),
            admission: Admission::new(self.max_in_flight),
            hinter: key_hints().0,
            clock: self.clock.clone(),
            telemetry: Telemetry::new(),
        }
    }
}

/// The keys of all segments, in order.
async fn keys(storage: &Storage) -> Vec<Path> {
    let found = storage.list_after(&Path::from("raw"), None, 1_000).await.unwrap();
    found.into_iter().map(|meta| meta.location).collect()
}

/// The content of all segments, in order.
async fn segments(storage: &Storage) -> Vec<String> {
    let mut texts = Vec::new();
    for key in keys(storage).await {
        texts.push(String::from_utf8(storage.get(&key).await.unwrap().unwrap().to_vec()).unwrap());
    }
    texts
}

fn micros(key: &Path) -> i64 {
    match StorageKey::parse(key) {
        Some(StorageKey::Segment { micros, .. }) => micros.as_micros(),
        _ => panic!("{key} is no segment"),
    }
}

/// Returns when `holds`.
async fn until(clock: &Clock, holds: impl AsyncFn() -> bool) {
    let held = clock.timeout(LONG, async {
        while !holds().await {
            clock.sleep(Duration::from_millis(1)).await;
        }
    });
    held.await.expect("the condition holds in time");
}

fn settings() -> ReceiveSettings {
    ReceiveSettings {
        paths: vec![HOOK.to_owned()],
        reject_with: 401,
        lane: None,
        max_body: ByteSize::b(1_000),
        max_in_flight: ByteSize::mib(1),
    }
}

/// A receiver that serves one lane.
struct Server {
    address: SocketAddr,
    lane: Lane,
    stop: CancellationToken,
    task: JoinHandle<Result<()>>,
    /// Makes a connection for every request.
    client: reqwest::Client,
}

impl Server {
    async fn start(lane: LaneSetup) -> Self {
        Self::start_with(lane, settings(), &[SECRET], Limits::default()).await
    }

    async fn start_with(lane: LaneSetup, settings: ReceiveSettings, secrets: &[&str], limits: Limits) -> Self {
        let lane = lane.open().await;
        let endpoint = Endpoint { settings, secrets: secrets.join(",").into(), writer: lane.writer.clone() };
        let receiver = Receiver::with_limits(vec![endpoint], &lane.clock, &lane.telemetry, &Health::default(), limits);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let task = tokio::spawn(receiver.serve(listener, stop.clone()));
        let client = reqwest::Client::builder().no_proxy().timeout(LONG).pool_max_idle_per_host(0).build().unwrap();
        Self { address, lane, stop, task, client }
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method.parse().unwrap(), format!("http://{}{path}", self.address))
    }

    async fn status(&self, method: &str, path: &str) -> u16 {
        self.request(method, path).send().await.unwrap().status().as_u16()
    }

    /// A request of Telegram's with this body.
    async fn post(&self, body: impl Into<reqwest::Body>) -> reqwest::Response {
        self.request("POST", HOOK).header(SECRET_HEADER, SECRET).body(body).send().await.unwrap()
    }

    /// The same, under way.
    fn posting(&self, body: &'static str) -> JoinHandle<u16> {
        let request = self.request("POST", HOOK).header(SECRET_HEADER, SECRET).body(body);
        tokio::spawn(async move { request.send().await.unwrap().status().as_u16() })
    }

    /// A connection on which `bytes` were sent.
    async fn raw(&self, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream
    }

    async fn segments(&self) -> Vec<String> {
        segments(&self.lane.storage).await
    }

    fn shows(&self, metric: &str) -> bool {
        self.lane.telemetry.render().lines().any(|line| line == metric)
    }
}

/// Everything that still comes on a connection until the server closes it.
async fn rest(clock: &Clock, stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end as well.
    let _end = clock.timeout(LONG, stream.read_to_end(&mut text)).await.expect("the server closes in time");
    String::from_utf8(text).unwrap()
}
