//! The receiver over real HTTP on loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::admission::Admission;
use crate::clock::{Clock, Timestamp};
use crate::error::Result;
use crate::hint::{KeyHints, key_hints};
use crate::id::{BotId, Name};
use crate::storage::{Storage, StorageKey};
use crate::telemetry::Telemetry;

struct World {
    storage: Storage,
    clock: Clock,
    telemetry: Telemetry,
    url: String,
    address: String,
    hints: KeyHints,
    ready: Arc<dyn Fn() -> std::result::Result<(), String> + Send + Sync>,
    stop: CancellationToken,
    serving: JoinHandle<Result<()>>,
    client: reqwest::Client,
}

impl World {
    async fn new() -> Self {
        Self::with(Storage::memory(), 1_000_000).await
    }

    async fn with(storage: Storage, budget_bytes: usize) -> Self {
        let (clock, telemetry, stop) = (Clock::system(), Telemetry::new(), CancellationToken::new());
        let (writer, hints) = lane(&storage, &clock, &telemetry, budget_bytes).await.unwrap();
        let mut settings = crate::pipeline::load::built_in().unwrap().receive;
        settings.max_body = bytesize::ByteSize::kib(64);
        let endpoint = Endpoint { settings, secrets: vec!["new".to_owned(), "old".to_owned()], writer };
        let receiver = Receiver::new(vec![endpoint], &clock, &telemetry);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let ready = receiver.readiness();
        let serving = tokio::spawn(receiver.serve(listener, stop.clone()));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{address}/telegram-webhook");
        Self { storage, clock, telemetry, url, address, hints, ready, stop, serving, client }
    }

    async fn post(&self, secret: &str, body: impl Into<reqwest::Body>) -> reqwest::Response {
        self.client.post(&self.url).header(SECRET_HEADER, secret).body(body).send().await.unwrap()
    }

    async fn landed(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for object in self.storage.list_after(&Path::from("raw"), None, 1_000).await.unwrap() {
            let bytes = self.storage.get(&object.location).await.unwrap().unwrap();
            lines.extend(String::from_utf8(bytes.to_vec()).unwrap().lines().map(str::to_owned));
        }
        lines
    }
}

async fn lane(
    storage: &Storage,
    clock: &Clock,
    telemetry: &Telemetry,
    budget_bytes: usize,
) -> Result<(LaneWriter, KeyHints)> {
    let (hinter, hints) = key_hints();
    let options = LaneOptions {
        storage: storage.clone(),
        pipeline: Name::new("p").unwrap(),
        bot_id: BotId(1),
        lane: Name::new("lane").unwrap(),
        admission: Admission::new(budget_bytes),
        hinter,
        clock: clock.clone(),
        telemetry: telemetry.clone(),
    };
    let (writer, task) = LaneWriter::open(options).await?;
    tokio::spawn(task);
    Ok((writer, hints))
}

/// A store that refuses every put while it is told to.
#[derive(Clone, Debug)]
struct Refusing {
    inner: Arc<dyn ObjectStore>,
    refuses: Arc<AtomicBool>,
}

impl std::fmt::Display for Refusing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Refusing")
    }
}

#[async_trait]
impl ObjectStore for Refusing {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(object_store::Error::Generic { store: "Refusing", source: "no space left on device".into() });
        }
        self.inner.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn what_is_authentic_is_landed_and_hinted() {
    let mut world = World::new().await;
    for (secret, body) in [("new", "{\"update_id\":\n1}"), ("old", "not json")] {
        assert_eq!(world.post(secret, body).await.status(), 200);
    }
    assert_eq!(world.landed().await, ["{\"update_id\": 1}", "{\"_corrupt_record\":\"not json\"}"]);
    let hinted = world.hints.next(10).await.unwrap();
    assert!(matches!(StorageKey::parse(&hinted.keys[0]), Some(StorageKey::Segment { .. })));
    assert!(world.telemetry.render().contains("lakegram_receive_updates_total 2"));
}

#[tokio::test]
async fn what_is_not_authentic_too_large_or_elsewhere_lands_nothing() {
    let world = World::new().await;
    assert_eq!(world.post("wrong", "{}").await.status(), 401);
    assert_eq!(world.client.post(&world.url).body("{}").send().await.unwrap().status(), 401);
    assert_eq!(world.post("new", vec![b' '; 70_000]).await.status(), 413);
    assert_eq!(world.client.get(&world.url).send().await.unwrap().status(), 405);
    let elsewhere = world.client.post(format!("http://{}/elsewhere", world.address)).send().await.unwrap();
    assert_eq!(elsewhere.status(), 404);
    assert!(world.landed().await.is_empty());
    assert!(world.telemetry.render().contains("lakegram_receive_rejected_total{reason=\"size\"} 1"));
}

#[tokio::test]
async fn a_body_without_a_length_is_bounded_too() {
    let world = World::new().await;
    let mut stream = TcpStream::connect(&world.address).await.unwrap();
    let head = format!(
        "POST /telegram-webhook HTTP/1.1\r\nHost: x\r\n{SECRET_HEADER}: new\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 40_000, " ".repeat(40_000));
    for _ in 0..2 {
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    let mut answer = vec![0; 64];
    let read = stream.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..read]).starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn beyond_the_budget_a_client_is_told_to_come_back() {
    let world = World::with(Storage::memory(), 10).await;
    let answer = world.post("new", "{\"update_id\": 123456789}").await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "2");
    assert!(world.landed().await.is_empty());
    assert_eq!(world.post("new", "{}").await.status(), 200, "the budget is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_refuses_the_answer_is_503_and_then_nothing_is_lost() {
    let refuses = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&refuses);
    let storage = Storage::memory().decorated(|inner| Arc::new(Refusing { inner, refuses: flag }));
    let world = World::with(storage, 1_000_000).await;
    let answer = world.post("new", "{\"update_id\": 1}").await;
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert!((world.ready)().is_err());
    let readyz = world.client.get(format!("http://{}/readyz", world.address)).send().await.unwrap();
    assert_eq!(readyz.status(), 503);
    refuses.store(false, Ordering::SeqCst);
    assert_eq!(world.post("new", "{\"update_id\": 1}").await.status(), 200);
    assert!((world.ready)().is_ok());
    assert!(world.landed().await.contains(&"{\"update_id\": 1}".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_share_puts_and_all_are_landed() {
    let world = World::new().await;
    let posts = (0..200).map(|id| world.post("new", format!("{{\"update_id\": {id}}}")));
    let answers = futures::future::join_all(posts).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    let mut lines = world.landed().await;
    lines.sort();
    lines.dedup();
    assert_eq!(lines.len(), 200);
}

#[tokio::test]
async fn keys_increase_though_the_clock_steps_back_and_after_a_restart() {
    let world = World::new().await;
    world.post("new", "{\"n\": 1}").await;
    world.clock.step(-3_600_000_000);
    world.post("new", "{\"n\": 2}").await;
    let (restarted, _hints) = lane(&world.storage, &world.clock, &Telemetry::new(), 1_000).await.unwrap();
    restarted.land_pulled("{\"n\": 3}".into()).await.unwrap();
    assert_eq!(world.landed().await, ["{\"n\": 1}", "{\"n\": 2}", "{\"n\": 3}"]);
}

#[tokio::test]
async fn a_key_that_is_taken_is_left_to_its_owner() {
    let world = World::new().await;
    world.post("new", "{\"n\": 1}").await;
    let first = world.storage.list_after(&Path::from("raw"), None, 1).await.unwrap().remove(0).location;
    let Some(StorageKey::Segment { pipeline, bot_id, lane, micros }) = StorageKey::parse(&first) else {
        panic!("{first}")
    };
    // A clock far back leaves the next key to be the last one plus one, and somebody stands there.
    world.clock.step(-3_600_000_000);
    let next = Timestamp::from_micros(micros.as_micros() + 1);
    let taken = StorageKey::Segment { pipeline, bot_id, lane, micros: next }.path();
    world.storage.put_new(&taken, "{\"n\": \"other\"}\n".into()).await.unwrap();
    assert_eq!(world.post("new", "{\"n\": 2}").await.status(), 200);
    assert_eq!(world.landed().await, ["{\"n\": 1}", "{\"n\": \"other\"}", "{\"n\": 2}"]);
}

#[tokio::test]
async fn a_lane_has_one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(folder.path().to_str().unwrap()).unwrap();
    let (clock, telemetry) = (Clock::system(), Telemetry::new());
    let held = lane(&storage, &clock, &telemetry, 10).await.unwrap();
    let error = lane(&storage, &clock, &Telemetry::new(), 10).await.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("lane `lane` is in use"), "{error}");
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_answers_what_was_begun_and_takes_no_more() {
    let world = World::new().await;
    let mut begun = TcpStream::connect(&world.address).await.unwrap();
    let head =
        format!("POST /telegram-webhook HTTP/1.1\r\nHost: x\r\n{SECRET_HEADER}: new\r\nContent-Length: 2\r\n\r\n{{");
    begun.write_all(head.as_bytes()).await.unwrap();
    // The first byte of the body is on its way once another connection has been served.
    assert_eq!(world.post("new", "{\"n\": 1}").await.status(), 200);
    world.stop.cancel();
    begun.write_all(b"}").await.unwrap();
    let mut answer = vec![0; 64];
    let read = begun.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..read]).starts_with("HTTP/1.1 200"));
    world.clock.timeout(Duration::from_secs(20), world.serving).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(&world.address).await.is_err());
}
