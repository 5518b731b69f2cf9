//! The replier, with a Bot API that always accepts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use object_store::path::Path;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{PACE, Stage, Trial, Update};
use crate::clock::Clock;
use crate::error::Result;
use crate::pipeline::{self, ReplySettings};
use crate::schema;
use crate::stage::reply::ReplyStage;
use crate::standin::telegram::{Behavior, Options, TelegramStandIn};
use crate::storage::Storage;
use crate::table::{TableRole, TableSpec};
use crate::telegram::reply::{self, Answered};
use crate::tests::kit::{SILVER, Table, integers, once_each, reply_stage, rows};

pub(super) struct Replier {
    storage: Storage,
    clock: Clock,
    telegram: TelegramStandIn,
    settings: ReplySettings,
}

impl Replier {
    async fn open(&self, storage: Storage) -> Result<ReplyStage> {
        reply_stage(storage, &self.telegram, &self.settings, &self.clock).await
    }
}

impl Stage for Replier {
    const NAME: &'static str = "reply";
    const UPSTREAM: TableRole = TableRole::Silver;

    async fn new() -> Self {
        let clock = Clock::fast(PACE);
        let options = Options { clock: clock.clone(), accept_unknown_chats: true, ..Options::default() };
        let settings = pipeline::load::built_in().unwrap().reply;
        Self {
            storage: Storage::memory(),
            telegram: TelegramStandIn::start(options).await.unwrap(),
            // What a call may take is a part of it, on a machine that may be busy.
            settings: ReplySettings { intent_ttl: Duration::from_secs(600), ..settings },
            clock,
        }
    }

    fn storage(&self) -> &Storage {
        &self.storage
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn upstream(&self) -> TableSpec {
        TableSpec {
            path: Path::from(SILVER),
            schema: schema::built_in(schema::RESPONSES).unwrap(),
            stats_columns: vec!["update_id".to_owned()],
            id: None,
        }
    }

    fn rows(&self, updates: &[Update]) -> RecordBatch {
        let reply = |(id, chat_id): &Update| {
            let answered = Answered { chat_id: *chat_id, chat_type: None, topic: None, message_id: None };
            reply::to_json(&reply::compose(&format!("answer {id}."), None, answered)).unwrap()
        };
        let columns: [(&str, ArrayRef); 6] = [
            ("bot_id", integers(vec![self.telegram.bot_id().0; updates.len()])),
            ("update_id", integers(updates.iter().map(|(id, _)| *id))),
            ("attempt", integers(vec![1; updates.len()])),
            ("chat_id", integers(updates.iter().map(|(_, chat_id)| *chat_id))),
            ("reply_parts", integers(vec![1; updates.len()])),
            ("reply", Arc::new(StringArray::from(updates.iter().map(reply).collect::<Vec<_>>()))),
        ];
        rows(columns)
    }

    async fn work(&self, storage: Storage) -> Result<()> {
        self.open(storage).await?.work_until_idle(&CancellationToken::new()).await.map(drop)
    }

    async fn serve(&self, storage: Storage) -> Result<()> {
        let (_versions, hints) = watch::channel(-1);
        self.open(storage).await?.run(hints, CancellationToken::new()).await
    }

    async fn check(&self, updates: &BTreeSet<i64>) -> Vec<String> {
        let replies = Table::read(&self.storage, &self.settings.table).await;
        let mut wrong = replies.check_txns("replies", TableRole::Reply);
        wrong.extend(once_each("replies", &replies.integers("update_id"), updates));
        let mut sent: BTreeMap<String, usize> = BTreeMap::new();
        self.telegram.sent().into_iter().for_each(|message| *sent.entry(message.text).or_default() += 1);
        wrong.extend(sent.iter().filter(|(_, count)| **count > 1).map(|(text, _)| format!("sent twice: {text}")));
        let statuses = replies.texts("status");
        for (id, status) in replies.integers("update_id").into_iter().flatten().zip(statuses) {
            let arrived = sent.contains_key(&format!("answer {id}."));
            match status.as_deref() {
                Some("sent") if arrived => {}
                // Its process died while it was under way.
                Some("unknown") => {}
                other => wrong.push(format!("the reply to {id} is {other:?}, arrived {arrived}")),
            }
        }
        wrong
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_refused_holds_every_chat() {
    let mut trial = Trial::<Replier>::new().await;
    trial.stage.settings.concurrency = 3;
    trial.stage.telegram.script("sendMessage", vec![Behavior::fail(401, "Unauthorized"); 3]);
    trial.append(&(1..=60).map(|id| (id, id)).collect::<Vec<_>>()).await;
    assert!(trial.finish().await.is_empty());
    let calls =
        trial.stage.telegram.read(|ledger| ledger.calls_of("sendMessage").map(|call| call.at).collect::<Vec<_>>());
    // Those that were on the wire together, and a minute later everything.
    let asked = calls.iter().filter(|at| at.since(calls[0]) < Duration::from_secs(55)).count();
    assert!((1..=3).contains(&asked), "{asked} calls with a token that is known to be refused");
}
