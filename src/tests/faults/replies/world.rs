//! The surroundings of the reply stage: a growing silver table, the Bot API, and a failing store.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, StringArray};
use object_store::path::Path;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::super::gate::{Death, Gate};
use super::super::script::FaultScript;
use super::super::store::faulty;
use crate::clock::Clock;
use crate::error::Result;
use crate::pipeline::{self, ReplySettings};
use crate::schema;
use crate::standin::telegram::{Fate, Options, TelegramStandIn};
use crate::storage::Storage;
use crate::table::{Append, CommitOutcome, Fence, LakeTable, TableRole, TableSpec};
use crate::telegram::reply::{self, Answered, ReplyMessage};
use crate::tests::kit::{SILVER, integers, reply_stage, rows};

/// How many times faster than real time; a call may take half the lifetime of an intent.
const PACE: u32 = 300;
const INTENT_TTL: Duration = Duration::from_secs(90);
/// A process with nothing to do for this long is stuck in a call that is never answered.
const LIFE: Duration = Duration::from_secs(400);
const CALM_LIFE: Duration = Duration::from_secs(9_000);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With everything done.
    Done,
    /// Before everything was done.
    Died,
}

/// A call of the Bot API.
#[derive(Clone, Debug)]
pub(super) struct Sending {
    pub(super) fate: Fate,
    /// Whether a process died in the life that made it or in the one before, whose last call may arrive late.
    pub(super) in_doubt: bool,
}

/// A reply that silver asks for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) update_id: i64,
    pub(super) silver_version: i64,
    pub(super) texts: Vec<String>,
}

pub(super) struct World {
    pub(super) storage: Storage,
    pub(super) script: Arc<FaultScript>,
    pub(super) telegram: TelegramStandIn,
    pub(super) settings: ReplySettings,
    pub(super) asked: Vec<Asked>,
    clock: Clock,
    silver: LakeTable,
    /// For each life, the calls of the Bot API at its end and how it ended.
    lives: Vec<(usize, Ended)>,
}

impl World {
    pub(super) async fn new() -> Self {
        let (storage, clock) = (Storage::memory(), Clock::fast(PACE));
        let schema = schema::built_in(schema::RESPONSES).unwrap();
        let spec = TableSpec { path: Path::from(SILVER), schema, stats_columns: Vec::new(), id: None };
        let options = Options { clock: clock.clone(), accept_unknown_chats: true, ..Options::default() };
        let settings = pipeline::load::built_in().unwrap().reply;
        Self {
            script: Arc::new(FaultScript::new(0, 0, &clock)),
            telegram: TelegramStandIn::start(options).await.unwrap(),
            settings: ReplySettings { intent_ttl: INTENT_TTL, ..settings },
            silver: LakeTable::open(&storage, &spec, &clock).await.unwrap(),
            asked: Vec::new(),
            lives: Vec::new(),
            storage,
            clock,
        }
    }

    /// Appends answers with this many messages to chats, in one commit.
    pub(super) async fn answer(&mut self, answers: &[(i64, usize)]) {
        let first = i64::try_from(self.asked.len()).unwrap() + 1;
        let ids: Vec<i64> = (first..).take(answers.len()).collect();
        let messages: Vec<Vec<ReplyMessage>> = ids.iter().zip(answers).map(|(id, of)| messages(*id, *of)).collect();
        let replies = messages.iter().map(|messages| reply::to_json(messages).unwrap()).collect::<Vec<_>>();
        let texts: Vec<Vec<String>> =
            messages.into_iter().map(|messages| messages.into_iter().map(|message| message.text).collect()).collect();
        let columns: [(&str, ArrayRef); 6] = [
            ("bot_id", integers(vec![self.telegram.bot_id().0; ids.len()])),
            ("update_id", integers(ids.clone())),
            ("attempt", integers(vec![1; ids.len()])),
            ("chat_id", integers(answers.iter().map(|(chat_id, _)| *chat_id))),
            ("reply", Arc::new(StringArray::from(replies))),
            ("reply_parts", integers(texts.iter().map(|texts| i64::try_from(texts.len()).unwrap()))),
        ];
        let fence = Fence { role: TableRole::Silver, seen: self.silver.fence(TableRole::Silver) };
        let append = Append { rows: Some(rows(columns)), fence, progress: Vec::new() };
        let CommitOutcome::Committed { version } = self.silver.append(append).await.unwrap() else {
            panic!("silver has one writer");
        };
        let asked = |(update_id, texts)| Asked { update_id, silver_version: version, texts };
        self.asked.extend(ids.into_iter().zip(texts).map(asked));
    }

    /// A process that sends what there is, until everything is sent, it dies, or it hangs.
    pub(super) async fn live(&self, death: Option<Death>) -> Ended {
        let gate = Arc::new(Gate::new(death, u64::MAX));
        let storage = faulty(&self.storage, &self.script, &gate, &Handle::current());
        let limit = if self.script.has_ended() { CALM_LIFE } else { LIFE };
        let ended = tokio::select! {
            worked = self.work(storage) => if worked.is_ok() { Ended::Done } else { Ended::Died },
            () = gate.died() => Ended::Died,
            () = self.clock.sleep(limit) => Ended::Died,
        };
        gate.kill();
        ended
    }

    async fn work(&self, storage: Storage) -> Result<()> {
        let mut stage = reply_stage(storage, &self.telegram, &self.settings, &self.clock).await?;
        stage.work_until_idle(&CancellationToken::new()).await.map(drop)
    }

    /// Records the end of a life, once everything it had on the wire has arrived.
    pub(super) async fn lived(&mut self, ended: Ended) {
        if ended == Ended::Died {
            self.clock.sleep(Duration::from_secs(5)).await;
        }
        let calls = self.telegram.read(|ledger| ledger.calls_of("sendMessage").count());
        self.lives.push((calls, ended));
    }

    pub(super) fn has_died(&self) -> bool {
        self.lives.iter().any(|(_, ended)| *ended == Ended::Died)
    }

    /// Ends all faults, and waits until everything late has arrived.
    pub(super) async fn calm(&self) {
        self.script.end();
        self.telegram.forget_script();
        self.clock.sleep(Duration::from_secs(10)).await;
    }

    /// The Bot API calls by their text, in order.
    pub(super) fn sendings(&self) -> BTreeMap<String, Vec<Sending>> {
        let calls: Vec<_> = self
            .telegram
            .read(|ledger| ledger.calls_of("sendMessage").map(|call| (call.raw.clone(), call.fate)).collect());
        let mut sendings: BTreeMap<String, Vec<Sending>> = BTreeMap::new();
        for (index, (raw, fate)) in calls.into_iter().enumerate() {
            let body: serde_json::Value = serde_json::from_str(&raw).unwrap();
            let life = self.lives.iter().position(|(calls, _)| index < *calls).unwrap();
            let in_doubt = self.lives[life.saturating_sub(1)..=life].iter().any(|(_, ended)| *ended == Ended::Died);
            sendings.entry(body["text"].as_str().unwrap().to_owned()).or_default().push(Sending { fate, in_doubt });
        }
        sendings
    }
}

/// A unique answer to a chat in this many messages.
fn messages(update_id: i64, (chat_id, parts): (i64, usize)) -> Vec<ReplyMessage> {
    let sentences = if parts == 1 { 1 } else { parts * 110 };
    let sentence = |number| format!("answer {update_id} in sentence {number}, no more.\n\n");
    let answered = Answered { chat_id, chat_type: None, topic: None, message_id: None };
    reply::compose(&(0..sentences).map(sentence).collect::<String>(), None, answered)
}
