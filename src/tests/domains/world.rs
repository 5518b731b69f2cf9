//! The service in this process, over a store in memory that a test can trouble, with a loader of foreign files beside
//! the bot.

use std::collections::BTreeMap;
use std::time::Duration;

use object_store::path::Path;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::{App, Listeners, Role};
use crate::clock::Clock;
use crate::error::Result;
use crate::health::StageHealth;
use crate::receive::SECRET_HEADER;
use crate::settings::{Environment, Settings};
use crate::standin::model::{ModelStandIn, ModelStandInOptions};
use crate::standin::telegram::{Options, TelegramStandIn};
use crate::storage::tests::troubled::{Switch, Trouble};
use crate::storage::{PutNew, Storage, StorageKey};
use crate::table::LakeTable;

const SECRET: &str = "a-secret-of-tests";
/// So many times as fast as life: back-offs of a minute are seconds.
const PACE: u32 = 20;
/// On the machine's clock.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

const LOADER: &str = r#"version = 1
name = "foreign"
[source]
path = "landing"
settle = "0s"
list_every = "2s"
[bronze]
table = "bronze/foreign"
"#;

/// Everything around the service.
pub(super) struct World {
    pub(super) telegram: TelegramStandIn,
    pub(super) model: ModelStandIn,
    pub(super) switch: Switch,
    /// Of the machine, for the test's own waits.
    pub(super) wall: Clock,
    storage: Storage,
    folder: tempfile::TempDir,
}

/// A running service.
pub(super) struct Service {
    pub(super) app: App,
    pub(super) stop: CancellationToken,
    pub(super) task: JoinHandle<Result<()>>,
    url: String,
    http: reqwest::Client,
}

impl World {
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("foreign.toml"), LOADER).unwrap();
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines");
        std::fs::copy(format!("{shipped}/telegram.toml"), folder.path().join("telegram.toml")).unwrap();
        std::fs::create_dir(folder.path().join("prompts")).unwrap();
        std::fs::copy(format!("{shipped}/prompts/support.md"), folder.path().join("prompts/support.md")).unwrap();
        let options = Options { accept_unknown_chats: true, ..Options::default() };
        Self {
            telegram: TelegramStandIn::start(options).await.unwrap(),
            model: ModelStandIn::start(ModelStandInOptions::default()).await.unwrap(),
            switch: Switch::default(),
            wall: Clock::system(),
            storage: Storage::memory(),
            folder,
        }
    }

    pub(super) fn app(&self) -> App {
        let path = |folder: &std::path::Path| folder.display().to_string();
        let environment = Environment::from_pairs([]).with([
            ("HOSTNAME", "lane".to_owned()),
            ("LAKEGRAM_DATA", "memory://".to_owned()),
            ("LAKEGRAM_PIPELINES", path(self.folder.path())),
            ("LAKEGRAM_SCHEMAS", "nowhere".to_owned()),
            ("LAKEGRAM_CHECKPOINTS", path(&self.folder.path().join("checkpoints"))),
            ("LAKEGRAM_LISTEN", "127.0.0.1:0".to_owned()),
            ("LAKEGRAM_CONSOLE", "127.0.0.1:0".to_owned()),
            ("TELEGRAM_API_URL", self.telegram.api_url()),
            ("TELEGRAM_BOT_TOKEN", self.telegram.token().to_owned()),
            ("TELEGRAM_WEBHOOK_SECRET", SECRET.to_owned()),
            ("LLM_BASE_URL", self.model.base_url()),
        ]);
        let mut app = App::open(Settings::of(environment).unwrap(), &[], &[]).unwrap();
        app.clock = Clock::fast(PACE);
        app.storage = self.storage.clone().decorated(|inner| self.switch.wrap(inner)).bounded(&app.clock);
        app
    }

    pub(super) async fn serve(&self) -> Service {
        let (app, stop) = (self.app(), CancellationToken::new());
        let listeners = Listeners::bind(&app).await.unwrap();
        let url = format!("http://{}", listeners.receive.local_addr().unwrap());
        let (serving, stopping) = (app.clone(), stop.clone());
        let task = tokio::spawn(async move { Box::pin(serving.serve(&Role::all(), listeners, stopping)).await });
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).pool_max_idle_per_host(0).build().unwrap();
        Service { app, stop, task, url, http }
    }

    /// Puts a file where the loader looks.
    pub(super) async fn put_foreign(&self, number: usize) {
        let path = Path::from(format!("landing/{number}.json"));
        self.storage.put_new(&path, format!("{{\"number\":{number}}}\n").into()).await.unwrap();
    }

    /// The rows of the loader's table.
    pub(super) async fn foreign_rows(&self) -> i64 {
        let path = Path::from("bronze/foreign");
        let table = LakeTable::open_existing(&self.storage, &path, &self.wall).await.unwrap();
        let Some(table) = table else { return 0 };
        table.files().await.unwrap().iter().filter_map(|file| file.num_records).sum()
    }

    /// Switches a feature on that nobody here knows. Returns the commits, for whoever takes them back.
    pub(super) async fn commit_features(&self, tables: &[&str]) -> Vec<Path> {
        let protocol = json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7,
            "readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors", "appendOnly"]}});
        let mut commits = Vec::new();
        for table in tables {
            let mut version = 0;
            loop {
                let path = StorageKey::Commit { table: Path::from(*table), version }.path();
                let is_there = self.storage.head(&path).await.unwrap().is_some();
                let text = format!("{protocol}\n");
                if !is_there && self.storage.put_new(&path, text.into()).await.unwrap() == PutNew::Created {
                    commits.push(path);
                    break;
                }
                version += 1;
            }
        }
        commits
    }

    pub(super) async fn take_back(&self, commits: Vec<Path>) {
        for commit in commits {
            self.storage.delete(&commit).await.unwrap();
        }
    }

    /// Begins a trouble; returns what ends it.
    pub(super) async fn begin(&self, trouble: Trouble, domain: &super::table::Domain) -> Vec<Path> {
        self.switch.begin(trouble, domain.prefixes);
        match trouble {
            Trouble::UnknownFeature => self.commit_features(domain.tables).await,
            _ => Vec::new(),
        }
    }

    /// How many messages each chat got.
    pub(super) fn chats_answered(&self) -> BTreeMap<i64, usize> {
        let mut chats = BTreeMap::new();
        for message in self.telegram.sent() {
            *chats.entry(message.chat_id).or_default() += 1;
        }
        chats
    }

    /// Returns whether `holds` in time.
    pub(super) async fn until(&self, holds: impl AsyncFn() -> bool) -> bool {
        let held = self.wall.timeout(PATIENCE, async {
            while !holds().await {
                self.wall.sleep(Duration::from_millis(10)).await;
            }
        });
        held.await.is_some()
    }
}

impl Service {
    /// Posts an update of a chat of its own, as Telegram does: again when the connection broke, which a header that comes
    /// late does to it on a clock this fast. Returns the status.
    pub(super) async fn post(&self, number: i64) -> u16 {
        let update = json!({"update_id": number, "message": {"message_id": number, "date": 1_760_000_000,
            "chat": {"id": number, "type": "private"}, "from": {"id": number, "is_bot": false, "first_name": "A"},
            "text": "is anybody there?"}});
        self.status(|| {
            let request = self.http.post(format!("{}/telegram-webhook", self.url)).header(SECRET_HEADER, SECRET);
            request.json(&update)
        })
        .await
    }

    pub(super) async fn ready(&self) -> u16 {
        self.status(|| self.http.get(format!("{}/readyz", self.url))).await
    }

    async fn status(&self, request: impl Fn() -> reqwest::RequestBuilder) -> u16 {
        for _ in 0..5 {
            if let Ok(answer) = request().send().await {
                return answer.status().as_u16();
            }
        }
        0
    }

    pub(super) fn unwell(&self) -> Vec<StageHealth> {
        self.app.health.stages().into_iter().filter(StageHealth::is_unwell).collect()
    }

    pub(super) fn all_ok(&self) -> bool {
        self.app.health.stages().iter().all(|stage| stage.word() == "ok")
    }

    /// Stops it, and returns how it ended.
    pub(super) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}
