//! Everything at once: two services on the same data with clocks that disagree and step, killed and stopped at random,
//! now and then for longer than the log is kept, before a Bot API and a model that fail in every way, with updates
//! delivered again in any order.
//!
//! `LAKEGRAM_SOAK_KILLS` says how many kills (8 unless set), `LAKEGRAM_SOAK_SEED` repeats a run's choices.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lakegram::standin::model::ModelTrouble;
use lakegram::standin::telegram::Behavior;

use crate::kills::{quoted, unique};
use crate::support::spoils::Spoils;
use crate::support::{Dice, PATIENCE, Running, TestApp, rows};

const MESSAGES_A_KILL: i64 = 20;
const CHATS: i64 = 150;
/// Every so many kills one of the services sleeps for longer than the log is kept.
const KILLS_A_LONG_SLEEP: usize = 12;
/// Longer than logs and files that left a table are kept.
const EIGHT_DAYS: i64 = 8 * 86_400;
/// Longer than libfaketime keeps what it has read of a clock's file, in whole seconds.
const STALE_CLOCK: Duration = Duration::from_millis(2_500);
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
    long_sleeps: usize,
    log_entries_cleaned: usize,
    maintained: usize,
    clock_steps: usize,
    redeliveries: usize,
    troubles: usize,
}

struct Soak {
    app: TestApp,
    services: [Service; 2],
    dice: Dice,
    spoils: Spoils,
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
        let variables = [vec![("HOSTNAME", self.lane.to_owned())], with_clock(&self.clock)].concat();
        self.running = Some(app.try_start_with(&["serve"], &variables).await.unwrap_or_else(|lines| {
            panic!("{} did not start: {}", self.lane, lines.join("\n"));
        }));
    }

    fn kill(&mut self) {
        self.running.take().unwrap().kill();
    }

    fn signal(&self, name: &str) {
        self.running.as_ref().unwrap().signal(name);
    }

    fn url(&self) -> String {
        format!("{}/telegram-webhook", self.running.as_ref().unwrap().url)
    }
}

impl Soak {
    async fn new(seed: u64) -> Self {
        let app = TestApp::new().await.set("reply.intent_ttl=1s").set("silver.model.timeout=2s");
        let services = [Service::new(app.folder(), "lane-one", 0), Service::new(app.folder(), "lane-two", 600)];
        let spoils = Spoils::new(app.folder());
        Self { app, services, dice: Dice(seed), spoils, tally: Tally::default(), sent: Vec::new() }
    }

    fn send(&mut self) {
        for _ in 0..MESSAGES_A_KILL {
            let number = self.sent.len() as i64;
            self.sent.push(self.app.telegram.user_sends(1 + number % CHATS, &format!("message {number}")));
        }
    }

    async fn point_telegram_at(&self, which: usize) {
        self.app.set_webhook(self.services[which].running.as_ref().unwrap()).await;
    }

    /// Something new fails outside.
    fn trouble(&mut self) {
        self.tally.troubles += 1;
        let behavior = match self.dice.below(6) {
            0 => Behavior::too_many_requests(1),
            1 => Behavior::AcceptThenFail { code: 502 },
            2 => Behavior::AcceptThenDropConnection,
            3 => Behavior::DropBefore,
            4 => Behavior::fail(400, "Bad Request: can't parse entities: soaked"),
            _ => Behavior::Delay(Duration::from_millis(300)),
        };
        self.app.telegram.script("sendMessage", vec![behavior]);
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
            let update = self.sent[self.dice.index(self.sent.len())];
            let service = &self.services[self.dice.index(2)];
            // Where nobody listens, Telegram would come again; so do we, some time.
            if self.app.telegram.redeliver_to(&service.url(), update).await.is_ok() {
                self.tally.redeliveries += 1;
            }
        }
    }

    /// Stops or shifts one of the services, or maintains the tables below them, then kills it.
    async fn strike(&mut self) {
        let which = self.dice.index(2);
        match self.dice.below(5) {
            0 => {
                self.tally.stops += 1;
                self.services[which].signal("STOP");
                tokio::time::sleep(Duration::from_millis(200 + self.dice.below(1_500))).await;
                self.services[which].signal("CONT");
                // Woken in the middle of whatever it was at, it goes on for a while or dies at once.
                tokio::time::sleep(Duration::from_millis(self.dice.below(3) * 400)).await;
            }
            1 => {
                self.tally.clock_steps += 1;
                let ahead = [-600, 0, 600][self.dice.index(3)];
                self.services[which].step(ahead);
            }
            2 => {
                self.tally.maintained += 1;
                self.app.stdout(&["maintain"]).await;
            }
            _ => {}
        }
        self.kill_and_restart(which).await;
    }

    async fn kill_and_restart(&mut self, which: usize) {
        self.tally.kills += 1;
        self.services[which].kill();
        match self.dice.below(6) {
            0 | 1 => self.spoils.spoil(&mut self.dice),
            2 => self.spoils.keep(),
            _ => {}
        }
        self.services[which].start(&self.app).await;
        self.point_telegram_at(0).await;
    }

    /// Stops one of the services while requests are on their way to it. The other goes on; then days pass, the logs
    /// are cleaned up below both, and the sleeper wakes beside a new life of the other.
    async fn oversleep(&mut self) {
        let sleeper = self.dice.index(2);
        let other = 1 - sleeper;
        self.point_telegram_at(sleeper).await;
        self.send();
        tokio::time::sleep(Duration::from_millis(self.dice.below(300))).await;
        self.services[sleeper].signal("STOP");
        self.tally.long_sleeps += 1;
        let asleep_from = self.sent.len() as i64;
        self.send();
        self.point_telegram_at(other).await;
        self.app.wait_for_status(|status| rows(status, 1) > asleep_from).await;
        self.tally.kills += 1;
        self.services[other].kill();
        self.clean_up().await;
        self.services[sleeper].step(2 * EIGHT_DAYS);
        // Woken before its clock has to be read anew, it would not know that it has slept, as no process could.
        tokio::time::sleep(STALE_CLOCK).await;
        self.services[other].start(&self.app).await;
        self.point_telegram_at(other).await;
        self.send();
        self.services[sleeper].signal("CONT");
        tokio::time::sleep(Duration::from_millis(500 + self.dice.below(2_500))).await;
        self.services[sleeper].step(0);
        self.kill_and_restart(sleeper).await;
    }

    /// Maintenance after eight days, and once more after as many.
    async fn clean_up(&mut self) {
        let before = self.spoils.log_entries();
        let clock = self.app.folder().join("maintenance.clock");
        for ahead in [EIGHT_DAYS, 2 * EIGHT_DAYS] {
            std::fs::write(&clock, format!("{ahead:+}\n")).unwrap();
            let output = self.app.run_with(&["maintain"], &with_clock(&clock)).await;
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        self.tally.log_entries_cleaned += before.saturating_sub(self.spoils.log_entries());
    }

    async fn run(&mut self, kills: usize) {
        for service in &mut self.services {
            service.start(&self.app).await;
        }
        self.point_telegram_at(0).await;
        let mut next_long_sleep = KILLS_A_LONG_SLEEP / 3;
        while self.tally.kills < kills {
            self.send();
            self.trouble();
            self.redeliver().await;
            // The moment of the strike is what is random here, not a wait for something to have happened.
            tokio::time::sleep(Duration::from_millis(50 + self.dice.below(700))).await;
            if self.tally.kills >= next_long_sleep && Path::new(FAKE_TIME).exists() {
                next_long_sleep += KILLS_A_LONG_SLEEP;
                self.oversleep().await;
            } else {
                self.strike().await;
            }
        }
        self.app.model.recover();
    }
}

/// The variables that let a process read its wall clock from a file.
fn with_clock(clock: &Path) -> Vec<(&'static str, String)> {
    if !Path::new(FAKE_TIME).exists() {
        return Vec::new();
    }
    vec![
        ("LD_PRELOAD", FAKE_TIME.to_owned()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap().to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("FAKETIME_CACHE_DURATION", "1".to_owned()),
    ]
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
        println!("NOT COVERED: libfaketime is not installed, so the clocks of this soak agree and nobody oversleeps");
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
    let status = soak.app.wait_for_status(|status| rows(status, 1) >= messages).await;
    if (rows(&status, 0), rows(&status, 1)) != (messages, messages) {
        soak.app.name_doubles().await;
    }
    assert_eq!((rows(&status, 0), rows(&status, 1)), (messages, messages), "an update was taken for two");
    let mut accepted: BTreeMap<String, usize> = BTreeMap::new();
    for message in soak.app.telegram.sent().iter().filter(|message| message.text.contains("message ")) {
        *accepted.entry(format!("{} {}", message.chat_id, quoted(&message.text))).or_default() += 1;
    }
    let doubled: Vec<_> = accepted.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "answered twice: {doubled:?}");
    let audit = soak.app.audit().await;
    println!("audit: {}", audit["checks"]);
    let found = soak.app.tables().await;
    assert_eq!(unique(&found["bronze"]["ids"]), messages as usize);
    assert_eq!(unique(&found["silver"]["ids"]), messages as usize);
    if Path::new(FAKE_TIME).exists() {
        assert!(newest_key(&soak.app.data(), "lane-two") > now_micros() + 300_000_000, "the clocks did not disagree");
        let was_cleaned = soak.tally.log_entries_cleaned > 0;
        assert!(was_cleaned || soak.tally.long_sleeps == 0, "nobody slept for longer than the log is kept");
    }
    let acked = soak.app.telegram.totals().acked;
    println!("seed {seed}: {messages} messages, {acked} acknowledged, {:?}, {:?}", soak.tally, soak.spoils.spoiled);
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
