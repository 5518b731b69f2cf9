//! The world around the pipeline: Telegram, the model, a store that persists, and processes that come and go.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::gate::{Death, Gate};
use super::ledger;
use super::life::{End, Life};
use super::script::FaultScript;
use super::store::faulty;
use crate::app::{App, BatchSummary, Role};
use crate::clock::Clock;
use crate::error::Result;
use crate::settings::Settings;
use crate::standin::model::{ModelStandIn, ModelStandInOptions, ModelTrouble};
use crate::standin::telegram::{Options, TelegramStandIn};
use crate::storage::Storage;
use crate::table::maintain::MaintainOptions;
use crate::telegram::client::{BotClient, WebhookRequest};
use crate::tests::kit::environment;

const SECRET: &str = "a-secret-of-tests";
/// How many times faster than real time.
const PACE: u32 = 200;
/// On that clock: two minutes of real time.
const PATIENCE: Duration = Duration::from_secs(24_000);

/// What one message was.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) update_id: i64,
    /// A word that no other message has; its answer repeats it.
    pub(super) word: String,
}

/// The properties of a world.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nature {
    pub(super) seed: u64,
    /// Store calls in a thousand that meet a fault.
    pub(super) rate: u64,
    /// Whether the store is a local folder rather than memory.
    pub(super) on_disk: bool,
    /// `bronze.settle`: a position with a short settle time moves within a run.
    pub(super) settle: &'static str,
    /// `silver.model.timeout`, on the machine's clock.
    pub(super) model_timeout: &'static str,
}

impl Nature {
    /// No random faults, and nothing depends on timing. A hanging model hangs forever: on a busy machine a time-out
    /// would turn sound answers into failed ones.
    pub(super) const CALM: Self = Self { seed: 0, rate: 0, on_disk: false, settle: "10m", model_timeout: "60s" };
}

/// Who does what is left at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finisher {
    Service,
    Batch,
}

/// Everything but the process.
#[derive(Debug)]
pub(super) struct World {
    pub(super) clock: Clock,
    pub(super) storage: Storage,
    pub(super) script: Arc<FaultScript>,
    pub(super) telegram: TelegramStandIn,
    pub(super) model: ModelStandIn,
    bot: BotClient,
    settle: &'static str,
    model_timeout: &'static str,
    said: Mutex<Vec<Said>>,
    network: Handle,
    _folder: Option<tempfile::TempDir>,
}

impl World {
    pub(super) async fn new(nature: Nature) -> Self {
        let clock = Clock::fast(PACE);
        let folder = nature.on_disk.then(|| tempfile::tempdir().unwrap());
        let storage = match &folder {
            Some(folder) => Storage::open(folder.path().to_str().unwrap()).unwrap(),
            None => Storage::memory(),
        };
        let options = Options { clock: clock.clone(), ..Options::default() };
        let telegram = TelegramStandIn::start(options).await.unwrap();
        Self {
            script: Arc::new(FaultScript::new(nature.seed, nature.rate, &clock)),
            bot: BotClient::new(&telegram.api_url(), telegram.token()).unwrap(),
            telegram,
            model: ModelStandIn::start(ModelStandInOptions::default()).await.unwrap(),
            settle: nature.settle,
            model_timeout: nature.model_timeout,
            said: Mutex::default(),
            network: Handle::current(),
            storage,
            clock,
            _folder: folder,
        }
    }

    fn app(&self, lane: &str, storage: Storage) -> App {
        let environment = environment(&self.telegram, &self.model, lane, SECRET);
        let settle = format!("bronze.settle={}", self.settle);
        // In the end nothing hangs, and the machine may be busy.
        let (timeout, ttl) = if self.script.has_ended() { ("60s", "40s") } else { (self.model_timeout, "10s") };
        // Whatever is sent must tell which message it answers.
        let failed_text = "silver.failed_text=".to_owned();
        let overrides =
            [format!("silver.model.timeout={timeout}"), format!("reply.intent_ttl={ttl}"), settle, failed_text];
        let mut app = App::open(Settings::of(environment).unwrap(), &[], &overrides).unwrap();
        (app.storage, app.clock) = (storage, self.clock.clone());
        app
    }

    /// A process that writes `lane`, with its death and the call from which it may meet faults.
    pub(super) async fn start(&self, lane: &str, death: Option<Death>, armed_from: u64) -> Life {
        self.start_roles(lane, death, armed_from, Role::all()).await
    }

    async fn start_roles(&self, lane: &str, death: Option<Death>, armed_from: u64, roles: BTreeSet<Role>) -> Life {
        let gate = Arc::new(Gate::new(death, armed_from));
        let app = self.app(lane, faulty(&self.storage, &self.script, &gate, &self.network));
        Life::start(app, roles, gate).await
    }

    /// Another process maintains the tables as often as it can. Failures are retried later.
    pub(super) async fn maintain(&self, death: Option<Death>) {
        let gate = Arc::new(Gate::new(death, 0));
        let app = self.app("maintenance", faulty(&self.storage, &self.script, &gate, &self.network));
        let options = MaintainOptions { compact_at_files: 2, checkpoint_every: 1, ..MaintainOptions::default() };
        for _ in 0..3 {
            self.clock.sleep(Duration::from_secs(10)).await;
            let (nobody, stop) = (|_: &_| {}, CancellationToken::new());
            tokio::select! {
                () = gate.died() => return,
                done = app.maintain(&options, nobody, &stop) => if let Err(error) = done {
                    tracing::info!(%error, "maintenance failed");
                },
            }
        }
    }

    /// Telegram delivers to this process from now on.
    pub(super) async fn point_at(&self, life: &Life) {
        let (url, secret_token) = (life.url.clone(), SECRET.to_owned());
        let request = WebhookRequest { url, secret_token, allowed_updates: Vec::new(), max_connections: 8 };
        self.bot.set_webhook(&request).await.unwrap();
    }

    /// Somebody writes in a chat; returns the update.
    pub(super) fn say(&self, chat_id: i64) -> i64 {
        let mut said = self.said.lock().unwrap();
        let word = format!("word{:04}x", said.len());
        let update_id = self.telegram.user_sends(chat_id, &format!("{word} is what I say"));
        said.push(Said { update_id, word });
        update_id
    }

    /// Like [`Self::say`], with an answer of several messages.
    pub(super) fn say_much(&self, chat_id: i64) -> i64 {
        let word = format!("word{:04}x", self.said.lock().unwrap().len());
        let text: String = (0..250).map(|number| format!("{word} in sentence {number}.\n\n")).collect();
        let choice = json!({"message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
        let body = json!({"model": "long", "choices": [choice]}).to_string();
        self.model.poison(&word, ModelTrouble::body(200, &body));
        self.say(chat_id)
    }

    pub(super) fn said(&self) -> Vec<Said> {
        self.said.lock().unwrap().clone()
    }

    /// Ends all faults, and waits until everything late has arrived.
    pub(super) async fn calm(&self) {
        self.script.end();
        self.telegram.forget_script();
        self.model.recover();
        self.clock.sleep(Duration::from_secs(10)).await;
    }

    /// Lets a service or a scheduled batch do what is left without faults, then checks the result. Returns what is
    /// wrong.
    pub(super) async fn finish(&self, by: Finisher) -> Vec<String> {
        self.calm().await;
        let roles = match by {
            Finisher::Service => Role::all(),
            // The batch finds what the receiver has landed.
            Finisher::Batch => [Role::Receive].into(),
        };
        let life = self.start_roles("lane", None, u64::MAX, roles).await;
        self.point_at(&life).await;
        if !self.telegram.wait_for_acks(PATIENCE).await {
            return vec!["updates are never acknowledged".to_owned()];
        }
        let wrong = match by {
            Finisher::Service => self.settled().await,
            Finisher::Batch => Vec::new(),
        };
        match life.stop().await {
            End::Served(Ok(())) if by == Finisher::Service => wrong,
            End::Served(Ok(())) => self.run().await,
            end => vec![format!("the last service ended with {end:?}")],
        }
    }

    /// Waits until the result is correct; otherwise returns what is wrong with it.
    async fn settled(&self) -> Vec<String> {
        let deadline = self.clock.monotonic() + PATIENCE;
        let (mut puts, mut quiet) = (self.script.puts(), 0);
        loop {
            self.clock.sleep(Duration::from_secs(3)).await;
            quiet = if self.script.puts() == puts { quiet + 1 } else { 0 };
            puts = self.script.puts();
            // Checking everything costs more than waiting for a moment without puts; without puts, little changes.
            if quiet % 8 == 1 {
                let wrong = ledger::check(self).await;
                if wrong.is_empty() || self.clock.monotonic() > deadline {
                    return wrong;
                }
            }
        }
    }

    /// A scheduled batch whose deadline comes when calls of a class have met this many faults.
    pub(super) async fn run_until(&self, class: &str, faults: usize) -> Result<BatchSummary> {
        let gate = Arc::new(Gate::new(None, u64::MAX));
        let app = self.app("lane", faulty(&self.storage, &self.script, &gate, &self.network));
        let (stop, nobody) = (CancellationToken::new(), |_: &str| {});
        let planned = self.script.planned_for(class);
        let timer = async {
            while planned - self.script.planned_for(class) < faults {
                self.clock.sleep(Duration::from_secs(1)).await;
            }
            stop.cancel();
        };
        let run = self.clock.timeout(PATIENCE, app.run(nobody, &stop));
        let (done, ()) = tokio::join!(run, timer);
        done.expect("the batch goes on long after its deadline")
    }

    async fn run(&self) -> Vec<String> {
        let app = self.app("lane", self.storage.clone());
        for _ in 0..10 {
            match self.clock.timeout(PATIENCE, app.run(|_| {}, &CancellationToken::new())).await {
                None => return vec!["the last batch does not end".to_owned()],
                Some(Err(error)) => return vec![format!("the last batch ended with {error}")],
                Some(Ok(summary)) if summary.waiting() == 0 => return ledger::check(self).await,
                Some(Ok(_)) => {}
            }
        }
        vec!["something waits for ever".to_owned()]
    }
}
