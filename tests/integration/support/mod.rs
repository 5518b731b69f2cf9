//! `TestApp`: the real binary with its own data folder, a Bot API stand-in and a model stand-in.
#![allow(clippy::disallowed_methods)]

pub(crate) mod child;
pub(crate) mod readers;
pub(crate) mod spoils;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use lakegram::clock::Clock;
use lakegram::settings::Environment;
use lakegram::standin::model::{ModelStandIn, ModelStandInOptions};
use lakegram::standin::telegram::{Options, TelegramStandIn};
use lakegram::storage::{Storage, StorageKey};
use lakegram::table::LakeTable;
use lakegram::table::maintain::{self, MaintainOptions};
use tokio_util::sync::CancellationToken;

/// Longer than anything a test waits for on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
pub(crate) const SECRET: &str = "integration-secret";

/// The environment of a service in this process, on a folder and between these stand-ins.
pub(crate) fn environment(folder: &Path, telegram: &TelegramStandIn, model: &ModelStandIn) -> Environment {
    Environment::from_pairs([]).with([
        ("HOSTNAME", "lane".to_owned()),
        ("LAKEGRAM_DATA", folder.to_str().unwrap().to_owned()),
        ("LAKEGRAM_LISTEN", "127.0.0.1:0".to_owned()),
        ("LAKEGRAM_CONSOLE", "127.0.0.1:0".to_owned()),
        ("TELEGRAM_API_URL", telegram.api_url()),
        ("TELEGRAM_BOT_TOKEN", telegram.token().to_owned()),
        ("TELEGRAM_WEBHOOK_SECRET", SECRET.to_owned()),
        ("LLM_BASE_URL", model.base_url()),
    ])
}

/// A small generator, so that a run can be repeated from its seed.
pub(crate) struct Dice(pub u64);

impl Dice {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// One of so many.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).unwrap()
    }
}

/// A world for one test. Everything in it stops when it is dropped.
pub(crate) struct TestApp {
    pub telegram: TelegramStandIn,
    pub model: ModelStandIn,
    folder: tempfile::TempDir,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

/// A running `lakegram`.
pub(crate) struct Running {
    child: Child,
    /// Read to the end, so that the program never blocks on its log.
    _lines: mpsc::Receiver<String>,
    pub url: String,
    pub console: String,
}

impl TestApp {
    pub(crate) async fn new() -> Self {
        let options = Options { first_retry_delay: Duration::from_millis(200), ..Options::default() };
        Self::with_telegram(options).await
    }

    pub(crate) async fn with_telegram(options: Options) -> Self {
        Self {
            telegram: TelegramStandIn::start(options).await.unwrap(),
            model: ModelStandIn::start(ModelStandInOptions::default()).await.unwrap(),
            folder: tempfile::tempdir().unwrap(),
            arguments: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// Sets a key of the pipeline file for every command.
    pub(crate) fn set(mut self, pair: &str) -> Self {
        self.arguments.extend(["--set".to_owned(), pair.to_owned()]);
        self
    }

    /// Sets or replaces a variable for every command.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A command of the real binary in this world.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lakegram"));
        command.args(arguments).args(&self.arguments).current_dir(self.folder.path()).env_clear();
        command
            .env("HOSTNAME", "test-lane")
            .env("LAKEGRAM_DATA", self.data())
            .env("LAKEGRAM_LISTEN", "127.0.0.1:0")
            .env("LAKEGRAM_CONSOLE", "127.0.0.1:0")
            .env("TELEGRAM_API_URL", self.telegram.api_url())
            .env("TELEGRAM_BOT_TOKEN", self.telegram.token())
            .env("TELEGRAM_WEBHOOK_SECRET", SECRET)
            .env("LLM_BASE_URL", self.model.base_url())
            .env("RUST_LOG", "info");
        for (name, value) in &self.variables {
            command.env(name, value);
        }
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, &[]).await
    }

    /// As [`Self::run`], with variables of its own.
    pub(crate) async fn run_with(&self, arguments: &[&str], variables: &[(&str, String)]) -> Output {
        let mut command = self.command(arguments);
        command.envs(variables.iter().map(|(name, value)| (*name, value)));
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Runs a command to its end and returns its standard output; fails when it does.
    pub(crate) async fn stdout(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts `serve` and points Telegram's webhook at it.
    pub(crate) async fn serve(&self) -> Running {
        let running = self.start(&["serve"]).await;
        self.set_webhook(&running).await;
        running
    }

    pub(crate) async fn set_webhook(&self, running: &Running) {
        let mut command = self.command(&["webhook", "set", &running.url]);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts a long-running command and waits until it listens.
    pub(crate) async fn start(&self, arguments: &[&str]) -> Running {
        self.try_start(arguments).await.unwrap_or_else(|lines| panic!("it did not start: {}", lines.join("\n")))
    }

    pub(crate) async fn try_start(&self, arguments: &[&str]) -> Result<Running, Vec<String>> {
        self.try_start_with(arguments, &[]).await
    }

    /// As [`Self::try_start`], with variables of its own.
    pub(crate) async fn try_start_with(
        &self,
        arguments: &[&str],
        variables: &[(&str, String)],
    ) -> Result<Running, Vec<String>> {
        let mut command = self.command(arguments);
        command.envs(variables.iter().map(|(name, value)| (*name, value)));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if std::env::var_os("LAKEGRAM_TEST_LOG").is_some() {
                    eprintln!("| {line}");
                }
                if sender.send(line).is_err() {
                    // Keep reading, so that the program never blocks on its log.
                    continue;
                }
            }
        });
        let polls = arguments[0] == "poll";
        let started = tokio::task::spawn_blocking(move || {
            let (mut url, mut console, mut seen) = (polls.then(String::new), None, Vec::new());
            while url.is_none() || console.is_none() {
                let Ok(line) = lines.recv_timeout(PATIENCE) else { break };
                if let Some((_, address)) = line.split_once("listening on ") {
                    url = Some(address.trim().to_owned());
                }
                if let Some((_, address)) = line.split_once("console on ") {
                    console = Some(address.trim().to_owned());
                }
                seen.push(line);
            }
            (url, console, lines, seen)
        });
        match started.await.unwrap() {
            (Some(url), Some(console), lines, _) => Ok(Running { child, _lines: lines, url, console }),
            (.., seen) => {
                child.kill().unwrap();
                child.wait().unwrap();
                Err(seen)
            }
        }
    }

    /// Waits until the bot has sent `count` messages.
    pub(crate) async fn wait_for_sent(&self, count: usize) {
        let arrived = self.telegram.wait_for(|ledger| ledger.sent().count() >= count, PATIENCE).await;
        assert!(arrived, "{} of {count} replies after {PATIENCE:?}", self.telegram.sent().len());
    }

    /// What `audit` found; fails when it did not exit with 0.
    pub(crate) async fn audit(&self) -> serde_json::Value {
        let output = self.run(&["audit", "--json"]).await;
        let (text, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{text}{log}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap()[0].take()
    }

    /// Counts by SQL, independently of `audit`, that of so many updates each has one row in bronze and silver, and that
    /// no part was sent twice.
    pub(crate) async fn count_by_sql(&self, updates: i64) {
        let of = |table: &str, filter: &str| {
            format!(
                "select (select count(*) from {table} where {filter}) as number, (select count(*) from (select distinct
                 bot_id, update_id from {table} where {filter})) as updates"
            )
        };
        let mut statements =
            vec![
            (of("bronze", "_corrupt_record is null"), updates),
            (of("silver", "attempt = 1"), updates),
            ("select count(*) as number, 0 as updates from bronze b left anti join silver s on b.bot_id = s.bot_id
              and b.update_id = s.update_id where b._corrupt_record is null"
                .to_owned(), 0),
            ("select count(*) as number, 0 as updates from silver s left anti join bronze b on b.bot_id = s.bot_id
              and b.update_id = s.update_id"
                .to_owned(), 0),
        ];
        if self.data().join("silver/telegram_replies").exists() {
            let groups = "select 1 from replies where status = 'sent' group by bot_id, update_id, attempt, part";
            statements
                .push((format!("select count(*) as number, 0 as updates from ({groups} having count(*) > 1)"), 0));
            let bare = "select count(*) as number, 0 as updates from silver s left anti join replies r on
                        s.bot_id = r.bot_id and s.update_id = r.update_id and s.attempt = r.attempt
                        where s.reply_parts > 0";
            statements.push((bare.to_owned(), 0));
        }
        for (sql, expected) in statements {
            let text = self.stdout(&["query", &sql, "--format", "json"]).await;
            let row: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
            assert_eq!((row["number"].as_i64(), row["updates"].as_i64()), (Some(expected), Some(expected)), "{sql}");
        }
    }

    /// Prints where the rows of duplicated updates come from.
    pub(crate) async fn name_doubles(&self) {
        for (table, also) in [
            ("bronze", "_source_file, _received_at, _ingested_at"),
            ("silver", "attempt, status, bronze_version, received_at, processed_at"),
        ] {
            let twice = format!("select update_id from {table} group by update_id having count(*) > 1");
            let sql = format!("select update_id, {also} from {table} where update_id in ({twice}) order by update_id");
            println!("{table}: {}", self.stdout(&["query", &sql, "--format", "json"]).await);
        }
    }

    /// What the foreign readers find in the tables.
    pub(crate) async fn tables(&self) -> serde_json::Value {
        readers::read(&self.data()).await
    }

    /// Waits until the tables satisfy a condition, as the binary's own `status` reports them.
    pub(crate) async fn wait_for_status(&self, condition: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let status: serde_json::Value = serde_json::from_str(&self.stdout(&["status", "--json"]).await).unwrap();
            if condition(&status[0]) {
                return status[0].clone();
            }
            assert!(std::time::Instant::now() < deadline, "never came: {status:#}");
        }
    }
}

/// The rows of a table in the JSON of `status`.
pub(crate) fn rows(status: &serde_json::Value, table: usize) -> i64 {
    status["tables"][table]["rows"].as_i64().unwrap_or(0)
}

impl Running {
    /// For tools that look at the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it a signal: `STOP`, `CONT`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success(), "kill -{name}");
    }

    /// Ends it as an operator would, and returns its exit code.
    pub(crate) async fn terminate(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        let status = tokio::task::spawn_blocking(move || self.child.wait().unwrap());
        tokio::time::timeout(PATIENCE, status).await.unwrap().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone after `kill`; a test that failed leaves nothing behind either way.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Rewrites every file of a table with `dataChange`, as another engine does at an update of some rows.
pub(crate) async fn rewrite(storage: &Storage, table: &str, clock: &Clock) {
    let path = object_store::path::Path::from(table);
    let handle = LakeTable::open_existing(storage, &path, clock).await.unwrap().unwrap();
    let version = handle.version() + 1;
    let mut actions = String::new();
    for (number, file) in handle.files().await.unwrap().iter().enumerate() {
        let bytes = storage.get(&file.location(&path).unwrap()).await.unwrap().unwrap();
        let copy = format!("rewritten-{version}-{number}.parquet");
        storage.put_new(&path.clone().join(copy.as_str()), bytes).await.unwrap();
        let remove = serde_json::json!({"path": file.path, "deletionTimestamp": 1, "dataChange": true});
        let add = serde_json::json!({"path": copy, "partitionValues": {}, "size": file.size_bytes,
            "modificationTime": file.modification_millis, "dataChange": true});
        actions += &format!("{}\n{}\n", serde_json::json!({ "remove": remove }), serde_json::json!({ "add": add }));
    }
    storage.put_new(&StorageKey::Commit { table: path, version }.path(), actions.into()).await.unwrap();
}

/// Maintains a table until the log that led to its rows is gone, whoever still reads it.
pub(crate) async fn clean_up(storage: &Storage, table: &str, clock: &Clock) {
    let options = MaintainOptions { compact_at_files: 2, checkpoint_every: 1, ..MaintainOptions::default() };
    let path = object_store::path::Path::from(table);
    for _ in 0..2 {
        maintain::maintain(storage, &path, &options, clock, &CancellationToken::new()).await.unwrap();
        clock.step(8 * 86_400_000_000);
    }
}
