//! The calls of the store that one message costs, from webhook to recorded reply: what the design names, no more.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use lakegram::app::{App, Listeners, Role};
use lakegram::settings::Settings;
use lakegram::standin::model::{ModelStandIn, ModelStandInOptions};
use lakegram::standin::telegram::{Options, TelegramStandIn};
use lakegram::telegram::client::{BotClient, WebhookRequest};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, SECRET, environment};

/// Passes every call on and records it.
#[derive(Clone, Debug)]
struct Counting {
    inner: Arc<dyn ObjectStore>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl std::fmt::Display for Counting {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Counting({})", self.inner)
    }
}

impl Counting {
    fn note(&self, call: &str, path: &str) {
        self.calls.lock().unwrap().push(format!("{call} {}", kind(path)));
    }
}

/// What a path is, without what makes it unique.
fn kind(path: &str) -> String {
    let table = ["telegram_messages", "telegram_responses", "telegram_replies"];
    if let Some(table) = table.iter().find(|table| path.contains(**table)) {
        let name = path.rsplit('/').next().unwrap_or_default();
        return match (path.contains("_delta_log"), name.ends_with(".json")) {
            (true, true) => format!("{table} commit"),
            (true, false) => format!("{table} log {name}"),
            (false, _) => format!("{table} file"),
        };
    }
    path.split('/').next().unwrap_or_default().to_owned()
}

#[async_trait]
impl ObjectStore for Counting {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let mode = if options.mode == PutMode::Create { "create" } else { "put" };
        self.note(mode, location.as_ref());
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.note("multipart", at.as_ref());
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.note(if options.head { "head" } else { "get" }, location.as_ref());
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.note("get", location.as_ref());
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        use futures::StreamExt;
        let this = self.clone();
        let noted = locations.inspect(move |location| {
            if let Ok(location) = location {
                this.note("delete", location.as_ref());
            }
        });
        self.inner.delete_stream(noted.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.note("list", prefix.map(Path::as_ref).unwrap_or_default());
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.note("list", prefix.map(Path::as_ref).unwrap_or_default());
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.note("list", prefix.map(Path::as_ref).unwrap_or_default());
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.note("copy", from.as_ref());
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_costs_the_calls_that_the_design_names() {
    let folder = tempfile::tempdir().unwrap();
    let telegram = TelegramStandIn::start(Options::default()).await.unwrap();
    let model = ModelStandIn::start(ModelStandInOptions::default()).await.unwrap();
    let environment = environment(folder.path(), &telegram, &model);
    let mut app = App::open(Settings::of(environment).unwrap(), &[], &[]).unwrap();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&calls);
    app.storage = app.storage.decorated(|inner| Arc::new(Counting { inner, calls: noted }));
    let mut hops = app.telemetry.watch_hops();
    let listeners = Listeners::bind(&app).await.unwrap();
    let url = format!("http://{}/telegram-webhook", listeners.receive.local_addr().unwrap());
    let stop = CancellationToken::new();
    let serving = tokio::spawn({
        let stop = stop.clone();
        async move { app.serve(&Role::all(), listeners, stop).await }
    });
    let request =
        WebhookRequest { url, secret_token: SECRET.to_owned(), allowed_updates: Vec::new(), max_connections: 4 };
    BotClient::new(&telegram.api_url(), telegram.token()).unwrap().set_webhook(&request).await.unwrap();

    // The first message finds the tables; what a message costs is what the second one does. A timer that looks
    // around meanwhile adds calls of its own, so the cheapest of a few messages is what counts.
    let mut cheapest: Option<Vec<String>> = None;
    for number in 0..5 {
        // Telegram's pace holds a chat for a second, so each message has a chat of its own.
        calls.lock().unwrap().clear();
        let update_id = telegram.user_sends(10 + number, "count me");
        let replied = async {
            while let Ok(hop) = hops.recv().await {
                if hop.update_id == update_id && hop.step == "replied" {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, replied).await.unwrap();
        let deleted = async {
            while !calls.lock().unwrap().iter().any(|call| call == "delete intents") {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, deleted).await.unwrap();
        let mut made = calls.lock().unwrap().clone();
        made.sort();
        if cheapest.as_ref().is_none_or(|cheapest| made.len() < cheapest.len()) {
            cheapest = Some(made);
        }
    }
    stop.cancel();
    serving.await.unwrap().unwrap();
    assert_eq!(
        cheapest.unwrap(),
        [
            "create intents",
            "create raw",
            "create telegram_messages commit",
            "create telegram_messages file",
            "create telegram_replies commit",
            "create telegram_replies file",
            "create telegram_responses commit",
            "create telegram_responses file",
            "delete intents",
            "get raw",
            "get telegram_messages commit",
            "get telegram_messages file",
            // Nobody else has recorded an outcome: the head of the replies table, and nothing there.
            "get telegram_replies commit",
            "get telegram_responses commit",
            "get telegram_responses file",
            // On a disk: what was read last, before the next is read.
            "head telegram_messages commit",
            "head telegram_responses commit",
        ]
    );
}
