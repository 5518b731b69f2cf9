//! A start after SIGKILL on tables of 100,000 versions: how soon it is ready, and how soon it answers.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lakegram::clock::Clock;
use lakegram::id::Name;
use lakegram::schema::{MESSAGES, REPLIES, RESPONSES};
use lakegram::standin::model::{ModelStandIn, ModelStandInOptions};
use lakegram::standin::telegram::{Options, TelegramStandIn};
use lakegram::storage::Storage;
use lakegram::table::maintain::{MaintainOptions, maintain};
use lakegram::table::{LakeTable, TableRole, TxnId};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::figures::{Samples, thousands};
use crate::support::history::{BOT, History, Message, storage_without_fsync};
use crate::support::load::{exchange, post};
use crate::support::report::{Findings, Row};
use crate::support::service::{Service, TOKEN, free_address, lakegram};
use crate::support::{Bench, Result};

/// Between two messages of the history: 100,000 of them are a day.
const SPACING_MICROS: i64 = 864_000;
/// Messages in the ten minutes that the position stays behind.
const SETTLING: i64 = 700;
/// Commits after the last maintenance: the most that the service lets gather.
const SINCE_MAINTENANCE: i64 = 1_000;
const LOOK_EVERY: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(60);

/// A table of the history and the stage that appends to it.
#[derive(Clone, Copy, Debug)]
struct Stage {
    role: TableRole,
    table: &'static str,
    schema: &'static str,
    status: &'static str,
    /// The upstream table, whose watermark is told; bronze tells its lane's position instead.
    upstream: Option<&'static str>,
}

const STAGES: [Stage; 3] = [
    Stage { role: TableRole::Bronze, table: "bronze/telegram_messages", schema: MESSAGES, status: "", upstream: None },
    Stage {
        role: TableRole::Silver,
        table: "silver/telegram_responses",
        schema: RESPONSES,
        status: "answered",
        upstream: Some("bronze/telegram_messages"),
    },
    Stage {
        role: TableRole::Reply,
        table: "silver/telegram_replies",
        schema: REPLIES,
        status: "sent",
        upstream: Some("silver/telegram_responses"),
    },
];

pub(crate) async fn run(bench: &Bench) -> Result<Findings> {
    let commits = bench.scaled(100_000, 3_000);
    let folder = bench.folder()?;
    let versions = make_history(&folder.path().join("data"), commits).await?;
    // A history is hundreds of thousands of unwritten files: what is measured would wait behind them.
    Command::new("sync").status()?;
    let world = World::new(folder.path()).await?;
    // The first one is warm-up: it begins without a kill before it.
    world.start(0).await?;
    let (mut ready, mut replied) = (Samples::default(), Samples::default());
    for number in 1..=bench.scaled(7, 3) {
        let started = world.start(number).await?;
        ready.push(started.ready);
        replied.push(started.replied);
    }
    let work = format!("start after SIGKILL, tables at version {}", thousands(f64::from(i32::try_from(commits)?)));
    let row = |what: &str, samples: &Samples, bar: f64| Row {
        work: format!("{work}: {what}"),
        ours: format!("median {:.2} s", samples.median_ms() / 1_000.0),
        beside: format!("{} starts", samples.count()),
        bar: format!("under {bar} s"),
        measured: format!("at most {:.2} s", samples.quantile_ms(1.0) / 1_000.0),
        reached: Some(samples.quantile_ms(1.0) < bar * 1_000.0),
    };
    let mut findings = Findings::default();
    findings.note(format!(
        "bronze, silver and replies at versions {versions:?}, {commits} segments of a day, {SINCE_MAINTENANCE} commits of \
         each table since its last maintenance; killed while thirty chats wait for answers"
    ));
    findings.rows = vec![row("ready", &ready, 0.5), row("first reply", &replied, 2.0)];
    Ok(findings)
}

/// The service, and the outside systems it talks to.
struct World<'a> {
    folder: &'a Path,
    address: SocketAddr,
    telegram: TelegramStandIn,
    model: ModelStandIn,
}

struct Started {
    ready: Duration,
    replied: Duration,
}

impl<'a> World<'a> {
    async fn new(folder: &'a Path) -> Result<Self> {
        let options = Options { token: TOKEN.to_owned(), accept_unknown_chats: true, ..Options::default() };
        let telegram = TelegramStandIn::start(options).await?;
        let model = ModelStandIn::start(ModelStandInOptions::default()).await?;
        Ok(Self { folder, address: free_address()?, telegram, model })
    }

    /// Starts the service with a message at its door, and kills it in the middle of other work.
    async fn start(&self, number: i64) -> Result<Started> {
        let mut command = lakegram(self.folder, &["serve"]);
        command.env("LAKEGRAM_LISTEN", self.address.to_string());
        command.env("TELEGRAM_API_URL", self.telegram.api_url()).env("LLM_BASE_URL", self.model.base_url());
        // Ids and chats that neither the history nor another start has.
        let first = 3_000_000_000 + number * 1_000;
        let began = Instant::now();
        let mut service = Service::launch(command, self.address)?;
        let posted = tokio::spawn(post_until_taken(self.address, first));
        self.until_ready().await?;
        let ready = began.elapsed();
        let answered = self.telegram.wait_for(|ledger| ledger.sent().any(|sent| sent.chat_id == first), PATIENCE).await;
        let replied = began.elapsed();
        posted.await??;
        if !answered {
            return Err("the message was never answered".into());
        }
        let others: Vec<_> =
            (1..=30).map(|other| tokio::spawn(post_until_taken(self.address, first + other))).collect();
        tokio::time::sleep(Duration::from_millis(60)).await;
        others.into_iter().for_each(|other| other.abort());
        service.kill();
        Ok(Started { ready, replied })
    }

    async fn until_ready(&self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Ok(stream) = TcpStream::connect(self.address).await {
                let answer = exchange(stream, b"GET /readyz HTTP/1.1\r\nHost: bench\r\n\r\n").await;
                if matches!(answer, Ok((200, _))) {
                    return Ok(());
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err("it was never ready".into())
    }
}

/// Posts an update as Telegram does, until it is taken; its chat has its number.
async fn post_until_taken(address: SocketAddr, id: i64) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if matches!(post(address, id, id, "How late is it in Lisbon when it is noon here?").await, Ok(200)) {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err("an update was never taken".into())
}

/// A day of messages: the raw segments and the three tables, maintained as the service does. The versions they reach.
async fn make_history(data: &Path, commits: i64) -> Result<Vec<i64>> {
    let storage = storage_without_fsync(data)?;
    // The plain store lists in no order, and delta-rs makes checkpoints of ordered listings.
    let maintained = Storage::open(&data.to_string_lossy())?;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?;
    let first_micros = now - commits * SPACING_MICROS;
    let (messages, mut input) = mpsc::channel(256);
    let root = data.to_owned();
    let raw = tokio::task::spawn_blocking(move || write_segments(&root, first_micros, commits, &messages));
    let mut growing = Vec::new();
    for stage in STAGES {
        let (output, next) = mpsc::channel(256);
        let (appended, maintained) = (storage.clone(), maintained.clone());
        growing.push(tokio::spawn(grow([appended, maintained], stage, commits, input, output)));
        input = next;
    }
    // Nobody comes after the last stage.
    let last = tokio::spawn(async move { while input.recv().await.is_some() {} });
    // A stage that fails closes the door to whoever is before it: its own error comes first.
    let mut versions = Vec::new();
    for stage in growing.into_iter().rev() {
        versions.insert(0, stage.await??);
    }
    raw.await??;
    last.await?;
    Ok(versions)
}

fn write_segments(data: &Path, first_micros: i64, count: i64, messages: &mpsc::Sender<Message>) -> Result<()> {
    for number in 0..count {
        let received_micros = first_micros + number * SPACING_MICROS;
        let moment = chrono::DateTime::from_timestamp_micros(received_micros).ok_or("no such moment")?;
        let hour = moment.format("%Y-%m-%d/%H");
        let source_file = format!("raw/telegram/{BOT}/bench-lane/{hour}/{received_micros:020}.json");
        let message = Message {
            update_id: 2_000_000_000 + number,
            chat_id: number % 1_000 + 1,
            received_micros,
            source_file,
            version_before: 0,
            status: "",
        };
        let path = data.join(&message.source_file);
        std::fs::create_dir_all(path.parent().ok_or("no folder")?)?;
        std::fs::write(&path, message.payload() + "\n")?;
        let modified = UNIX_EPOCH + Duration::from_micros(u64::try_from(received_micros)?);
        std::fs::File::open(&path)?.set_modified(modified)?;
        messages.blocking_send(message)?;
    }
    Ok(())
}

/// Appends each message to a stage's table and passes it on with the version it made.
async fn grow(
    [appended, maintained]: [Storage; 2],
    stage: Stage,
    commits: i64,
    mut input: mpsc::Receiver<Message>,
    output: mpsc::Sender<Message>,
) -> Result<i64> {
    let mut history = History::open(&appended, stage.table, stage.schema, stage.role).await?;
    let (schema, mut done, mut upstream_id) = (history.table.schema(), 0, None);
    while let Some(message) = input.recv().await {
        if let (Some(upstream), None) = (stage.upstream, &upstream_id) {
            let path = object_store::path::Path::from(upstream);
            let upstream = LakeTable::open_existing(&appended, &path, &Clock::system()).await?;
            upstream_id = upstream.map(|table| table.table_id().to_owned());
        }
        let progress = match upstream_id.clone() {
            Some(upstream) => vec![(TxnId::Watermark { role: stage.role, upstream }, message.version_before)],
            None if done % SETTLING == SETTLING - 1 => {
                let position = message.received_micros - SETTLING * SPACING_MICROS;
                let (pipeline, lane) = (Name::cleaned("telegram"), Name::cleaned("bench-lane"));
                vec![(TxnId::Position { pipeline, bot_id: BOT, lane }, position)]
            }
            None => Vec::new(),
        };
        let row = Message { status: stage.status, ..message.clone() }.row(&schema)?;
        let version_before = history.append(row, progress).await?;
        done += 1;
        // Less often than the service does, which only takes time here; the last as late as it would be.
        if (commits - done - SINCE_MAINTENANCE) % 9_000 == 0 && done <= commits - SINCE_MAINTENANCE {
            let options = MaintainOptions { clean: false, ..MaintainOptions::default() };
            let table = object_store::path::Path::from(stage.table);
            maintain(&maintained, &table, &options, &Clock::system(), &CancellationToken::new()).await?;
        }
        // The last stage may have nobody behind it any more.
        let _unread = output.send(Message { version_before, ..message }).await;
    }
    Ok(history.table.version())
}
