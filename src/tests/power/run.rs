//! One run from a seed: messages, cuts, reboots, and the final check.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use tokio::runtime::Builder;

use super::ledger::{self, World};
use super::machine::{Boot, Door, Machine};
use super::tally::Tally;
use crate::clock::Clock;
use crate::standin::model::{ModelStandIn, ModelStandInOptions};
use crate::standin::telegram::{Options, TelegramStandIn};
use crate::storage::tests::simulated::{CutAt, Dice, Lies, Moment, Operation, SimulatedDisk};
use crate::telegram::client::{BotClient, WebhookRequest};
use crate::tests::kit::environment;

const SECRET: &str = "power-secret-of-tests";
/// Much longer than a run takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// The chat that gets several messages; every other message has its own chat.
const SHARED_CHAT: i64 = 1;

/// Of a hundred deaths, how many only kill the process.
const KILLS_PERCENT: u64 = 30;

/// What was found wrong.
#[derive(Debug)]
pub(super) struct Failure(pub(super) String);

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(deeper) = cause {
            text = format!("{text}: {deeper}");
            cause = deeper.source();
        }
        Self(text)
    }
}

/// How a boot ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The power goes.
    Cut,
    /// Only the process goes.
    Kill,
}

/// The world outside the machine, and what it remembers.
struct Run {
    dice: Dice,
    lies: Lies,
    telegram: TelegramStandIn,
    model: ModelStandIn,
    /// The update of each message, by the message's number.
    updates: BTreeMap<u64, i64>,
    tally: Tally,
}

/// Runs one seed.
pub(super) fn run(seed: u64, lies: Lies) -> Result<Tally, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let options = Options {
            first_retry_delay: Duration::from_millis(20),
            longest_retry_delay: Duration::from_millis(100),
            ..Options::default()
        };
        let mut run = Run {
            dice: Dice::new(seed),
            lies,
            telegram: TelegramStandIn::start(options).await?,
            model: ModelStandIn::start(ModelStandInOptions::default()).await?,
            updates: BTreeMap::new(),
            tally: Tally { seeds: 1, ..Tally::default() },
        };
        run.drive().await?;
        Ok(run.tally)
    })
}

impl Run {
    /// Boots and cuts; the last boot works until nothing is left, and the cut after it comes at rest.
    async fn drive(&mut self) -> Result<(), Failure> {
        let mut folder = tempfile::tempdir()?;
        let mut disk = SimulatedDisk::new(folder.path(), self.lies)?;
        let cuts = 1 + self.dice.below(4);
        let mut before = None;
        for boot in 0..=cuts {
            let end = if self.dice.percent(KILLS_PERCENT) { End::Kill } else { End::Cut };
            let cut = self.plan(end, before);
            if boot < cuts {
                disk.cut_at(cut);
            }
            // Only maintenance renames files.
            let upkeep = cut.operation == Some(Operation::Rename) || self.dice.percent(30);
            before = Some(end);
            let environment = environment(&self.telegram, &self.model, "lane", SECRET);
            let machine = Boot { disk: disk.clone(), data: folder.path().join("data"), environment, upkeep }.start();
            let worked = Clock::system().timeout(PATIENCE, self.live_with(machine)).await;
            // Nobody is left on the machine either way; one that is stuck ends by itself.
            disk.pull_the_plug();
            let worked = worked.unwrap_or_else(|| Err(Failure(format!("not done after {PATIENCE:?}"))));
            worked.map_err(|failure| Failure(format!("boot {boot}, {cut:?}: {failure}")))?;
            // Often enough only the process dies, and the next one builds on data that nobody has synced.
            if boot < cuts && end == End::Kill {
                self.tally.kills += 1;
                disk = disk.for_the_next_process();
                continue;
            }
            match disk.fell() {
                Some(place) => {
                    *self.tally.cuts.entry(place).or_default() += 1;
                    self.tally.at_stake += self.telegram.totals().acked;
                }
                None => self.tally.cuts_at_rest += 1,
            }
            let rebooted = tempfile::tempdir()?;
            disk.write_survivors(rebooted.path(), self.dice.below(u64::MAX))?;
            folder = rebooted;
            disk = SimulatedDisk::new(folder.path(), self.lies)?;
        }
        let (said, updates) = (self.telegram.sent(), &self.updates);
        let books = ledger::check(&folder.path().join("data"), &World { updates, said: &said }).await?;
        self.tally.messages = self.updates.len() as u64;
        (self.tally.sent, self.tally.unknown) = (books.sent, books.unknown);
        Ok(())
    }

    /// Where a boot ends: at some call of one kind, so that rare kinds get their turn, or at any call.
    fn plan(&mut self, end: End, before: Option<End>) -> CutAt {
        let moment = self.dice.pick(&[Moment::Before, Moment::After]);
        let any = |nth| CutAt { operation: None, nth, moment };
        // A process that dies between a name and its sync, and a cut before anything else has synced that folder: what
        // was seen of the dead one must have been made durable before it was acted on.
        if end == End::Kill && self.dice.percent(60) {
            let nth = 1 + self.dice.below(40);
            return CutAt { operation: Some(Operation::SyncFolder), nth, moment: Moment::Before };
        }
        if before == Some(End::Kill) && self.dice.percent(60) {
            return any(1 + self.dice.below(80));
        }
        let kind = self.dice.pick(&Operation::ALL);
        let range = match kind {
            Operation::Rename => 2,
            Operation::MakeFolder => 16,
            _ => 40,
        };
        let nth = 1 + self.dice.below(range);
        match self.dice.below(10) {
            // Folders are created during the first boot, and hardly ever after.
            0..3 if before.is_none() => CutAt { operation: Some(Operation::MakeFolder), nth, moment },
            // And a file hardly ever replaces another: only when a checkpoint is named.
            0..3 => CutAt { operation: Some(Operation::Rename), nth: 1 + nth % 2, moment },
            0..7 if before.is_none() || kind != Operation::MakeFolder => CutAt { operation: Some(kind), nth, moment },
            _ => any(1 + self.dice.below(250)),
        }
    }

    /// Writes to the bot before and after its machine is up, lets it work, and returns when it has ended.
    async fn live_with(&mut self, mut machine: Machine) -> Result<(), Failure> {
        let mut fresh = self.write();
        let ended = machine.ended.clone();
        let door = tokio::select! {
            door = &mut machine.door => door.ok(),
            () = ended.cancelled() => None,
        };
        if let Some(mut door) = door {
            self.point_webhook_at(&door).await?;
            fresh.extend(self.write());
            let waits_for_replies = self.dice.percent(50);
            tokio::select! {
                () = ended.cancelled() => {}
                _all = self.telegram.wait_for_acks(PATIENCE) => {
                    if waits_for_replies {
                        tokio::select! {
                            () = ended.cancelled() => {}
                            () = replied(&mut door, fresh) => {}
                        }
                    }
                }
            }
            machine.stop.cancel();
        }
        ended.cancelled().await;
        machine.join()?;
        Ok(())
    }

    /// A few messages; returns the updates of those whose answers wait for no other.
    fn write(&mut self) -> BTreeSet<i64> {
        if self.dice.percent(20) {
            self.telegram.lose_acks(1);
        }
        let mut alone = BTreeSet::new();
        for _ in 0..self.dice.below(6) {
            let number = self.updates.len() as u64;
            let shared = self.dice.percent(20);
            let chat = if shared { SHARED_CHAT } else { 1_000 + number as i64 };
            let update = self.telegram.user_sends(chat, &format!("message {number}"));
            self.updates.insert(number, update);
            if !shared {
                alone.insert(update);
            }
        }
        alone
    }

    async fn point_webhook_at(&self, door: &Door) -> Result<(), Failure> {
        let request = WebhookRequest {
            url: door.url.clone(),
            secret_token: SECRET.to_owned(),
            allowed_updates: Vec::new(),
            max_connections: 4,
        };
        let bot = BotClient::new(&self.telegram.api_url(), self.telegram.token())?;
        bot.set_webhook(&request).await.map_err(|fault| Failure(format!("setWebhook: {fault:?}")))
    }
}

/// Waits until these updates have their replies recorded.
async fn replied(door: &mut Door, mut updates: BTreeSet<i64>) {
    while !updates.is_empty() {
        let Ok(hop) = door.hops.recv().await else { return };
        if hop.step == "replied" {
            updates.remove(&hop.update_id);
        }
    }
}
