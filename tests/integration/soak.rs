//! Everything at once: two services on the same data with clocks that disagree and step, killed and stopped at random,
//! before a Bot API and a model that fail in every way, with updates delivered again in any order.
//!
//! `LAKEGRAM_SOAK_KILLS` says how many kills (8 unless set), `LAKEGRAM_SOAK_SEED` repeats a run's choices.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lakegram::demo::model::ModelTrouble;
use lakegram::demo::telegram::Behaviour;

use crate::kills::{quoted, unique};
use crate::support::{Dice, PATIENCE, Running, TestApp, rows};

const MESSAGES_A_KILL: i64 = 20;
const CHATS: i64 = 150;
const FAKE_TIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// One of the two services, with its own lane and its own clock.
struct Service {
    lane: &'static str,
    /// Seconds its wall clock is ahead, in the file that libfaketime reads.
    clock: std::path::PathBuf,
    running: Option<Running>,
}

/// What was done to them.
#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    stops: usize,
    clock_steps: usize,
    redeliveries: usize,
    troubles: usize,
}

struct Soak {
    app: TestApp,
    services: [Service; 2],
    dice: Dice,
    tally: Tally,
    sent: Vec<i64>,
}

impl Service {
    fn new(folder: &Path, lane: &'static str, ahead_seconds: i64) -> Self {
        let service = Self { lane, clock: folder.join(format!("{lane}.clock")), running: None };
        service.step(ahead_seconds);
        service
    }

    fn step(&self, ahead_seconds: i64) {
        std::fs::write(&self.clock, format!("{ahead_seconds:+}\n")).unwrap();
    }

    async fn start(&mut self, app: &TestApp) {
        let mut variables = vec![("HOSTNAME", self.lane.to_owned())];
        if Path::new(FAKE_TIME).exists() {
            variables.push(("LD_PRELOAD", FAKE_TIME.to_owned()));
            variables.push(("FAKETIME_TIMESTAMP_FILE", self.clock.to_str().unwrap().to_owned()));
            variables.push(("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()));
            variables.push(("FAKETIME_CACHE_DURATION", "1".to_owned()));
        }
        self.running = Some(app.try_start_with(&["serve"], &variables).await.unwrap_or_else(|lines| {
            panic!("{} did not start: {}", self.lane, lines.join("\n"));
        }));
    }

    fn url(&self) -> String {
        format!("{}/telegram-webhook", self.running.as_ref().unwrap().url)
    }
}

impl Soak {
    async fn new(seed: u64) -> Self {
        let app = TestApp::new().await.set("reply.intent_ttl=1s").set("silver.model.timeout=2s");
        let services = [Service::new(app.folder(), "lane-one", 0), Service::new(app.folder(), "lane-two", 600)];
        Self { app, services, dice: Dice(seed), tally: Tally::default(), sent: Vec::new() }
    }

    /// Something new goes wrong outside.
    fn trouble(&mut self) {
        self.tally.troubles += 1;
        let behaviour = match self.dice.below(6) {
            0 => Behaviour::too_many_requests(1),
            1 => Behaviour::AcceptThenFail { code: 502 },
            2 => Behaviour::AcceptThenDropConnection,
            3 => Behaviour::DropBefore,
            4 => Behaviour::fail(400, "Bad Request: can't parse entities: soaked"),
            _ => Behaviour::Delay(Duration::from_millis(300)),
        };
        self.app.telegram.script("sendMessage", vec![behaviour]);
        let trouble = match self.dice.below(7) {
            0 => ModelTrouble::retry_after(429, "1"),
            1 => ModelTrouble::status(500),
            2 => ModelTrouble::status(503),
            3 => ModelTrouble::malformed(),
            4 => ModelTrouble::Drop,
            5 => ModelTrouble::body(200, &huge_answer()),
            _ => ModelTrouble::Delay(Duration::from_millis(400)),
        };
        self.app.model.trouble([trouble]);
        self.app.telegram.lose_acks(1);
    }

    /// Delivers some updates once more, to either service, in any order.
    async fn redeliver(&mut self) {
        for _ in 0..3 {
            let update = self.sent[usize::try_from(self.dice.below(self.sent.len() as u64)).unwrap()];
            let service = &self.services[usize::from(self.dice.below(2) == 1)];
            // Where nobody listens, Telegram would come again; so do we, some time.
            if self.app.telegram.redeliver_to(&service.url(), update).await.is_ok() {
                self.tally.redeliveries += 1;
            }
        }
    }

    /// Kills, stops or shifts one of the services.
    async fn strike(&mut self) {
        let which = usize::from(self.dice.below(2) == 1);
        match self.dice.below(4) {
            0 => {
                self.tally.stops += 1;
                let running = self.services[which].running.as_ref().unwrap();
                running.signal("STOP");
                tokio::time::sleep(Duration::from_millis(200 + self.dice.below(1_500))).await;
                running.signal("CONT");
            }
            1 => {
                self.tally.clock_steps += 1;
                let ahead = [-600, 0, 600][usize::try_from(self.dice.below(3)).unwrap()];
                self.services[which].step(ahead);
            }
            _ => {}
        }
        self.tally.kills += 1;
        self.services[which].running.take().unwrap().kill();
        if self.dice.below(3) == 0 {
            // Not there before the first thing is kept in it.
            let _gone = std::fs::remove_dir_all(self.app.folder().join("checkpoints"));
        }
        self.services[which].start(&self.app).await;
        if which == 0 {
            self.app.set_webhook(self.services[0].running.as_ref().unwrap()).await;
        }
    }

    async fn run(&mut self, kills: usize) {
        for service in &mut self.services {
            service.start(&self.app).await;
        }
        self.app.set_webhook(self.services[0].running.as_ref().unwrap()).await;
        while self.tally.kills < kills {
            for _ in 0..MESSAGES_A_KILL {
                let number = self.sent.len() as i64;
                self.sent.push(self.app.telegram.user_sends(1 + number % CHATS, &format!("message {number}")));
            }
            self.trouble();
            self.redeliver().await;
            // The moment of the strike is what is random here, not a wait for something to have happened.
            tokio::time::sleep(Duration::from_millis(50 + self.dice.below(700))).await;
            self.strike().await;
        }
        self.app.model.recover();
    }
}

fn huge_answer() -> String {
    let answer = "a very long answer, ".repeat(2_000);
    serde_json::json!({"choices": [{"message": {"content": answer}, "finish_reason": "length"}]}).to_string()
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soak_loses_nothing_and_doubles_nothing() {
    if !Path::new(FAKE_TIME).exists() {
        println!("NOT COVERED: libfaketime is not installed, so the clocks of this soak agree");
    }
    let (kills, seed) = (setting("LAKEGRAM_SOAK_KILLS", 8), setting("LAKEGRAM_SOAK_SEED", 0x50a4));
    let mut soak = Soak::new(seed).await;
    soak.run(usize::try_from(kills).unwrap()).await;
    let messages = soak.sent.len() as i64;
    assert!(
        soak.app.telegram.wait_for_acks(PATIENCE).await,
        "{} updates are not landed",
        soak.app.telegram.pending_updates()
    );
    for service in &mut soak.services {
        service.running.take().unwrap().terminate().await;
    }
    // Everything that waits, through to the outcome of every reply.
    let summary = soak.app.stdout(&["run", "--deadline", "5m"]).await;
    println!("{summary}");
    let status = soak.app.wait_for_status(|status| rows(status, 1) == messages).await;
    let mut accepted: BTreeMap<String, usize> = BTreeMap::new();
    for message in soak.app.telegram.sent().iter().filter(|message| message.text.contains("message ")) {
        *accepted.entry(format!("{} {}", message.chat_id, quoted(&message.text))).or_default() += 1;
    }
    let doubled: Vec<_> = accepted.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "answered twice: {doubled:?}");
    soak.app.audit().await;
    let found = soak.app.tables().await;
    assert_eq!(unique(&found["bronze"]["ids"]), messages as usize);
    assert_eq!(unique(&found["silver"]["ids"]), messages as usize);
    if Path::new(FAKE_TIME).exists() {
        assert!(newest_key(&soak.app.data(), "lane-two") > now_micros() + 300_000_000, "the clocks did not disagree");
    }
    println!("seed {seed}: {messages} messages, {:?}", soak.tally);
    println!("bronze {}, silver {}: {}", rows(&status, 0), rows(&status, 1), status["tables"][1]["by_status"]);
    println!("replies: {}", status["tables"][2]["by_status"]);
}

fn now_micros() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_micros()).unwrap()
}

/// The newest key of a lane, in microseconds.
fn newest_key(folder: &Path, lane: &str) -> i64 {
    let mut newest = 0;
    let mut folders = vec![folder.join("raw")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let key = path.file_stem().and_then(|stem| stem.to_str()?.parse::<i64>().ok());
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().contains(lane) {
                newest = newest.max(key.unwrap_or(0));
            }
        }
    }
    newest
}
