//! The reply stage against the Bot API stand-in.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use lakegram::clock::Clock;
use lakegram::id::Name;
use lakegram::pipeline::{self, OnUnknown, ReplySettings};
use lakegram::schema;
use lakegram::stage::reply::{ReplyOptions, ReplyStage, ReplySummary};
use lakegram::standin::telegram::{Behavior, Options, TelegramStandIn};
use lakegram::storage::{Storage, StorageKey};
use lakegram::table::{Append, CommitOutcome, Fence, LakeTable, TableRole, TableSpec};
use lakegram::telegram::BotClient;
use lakegram::telemetry::Telemetry;
use object_store::path::Path;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::{self, PATIENCE};

pub(crate) struct World {
    pub(crate) storage: Storage,
    pub(crate) clock: Clock,
    pub(crate) telegram: TelegramStandIn,
    pub(crate) settings: ReplySettings,
    pub(crate) silver: LakeTable,
}

impl World {
    pub(crate) async fn new() -> Self {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let spec = TableSpec {
            path: Path::from("silver/telegram_responses"),
            schema: schema::built_in(schema::RESPONSES).unwrap(),
            stats_columns: Vec::new(),
            id: None,
        };
        let silver = LakeTable::open(&storage, &spec, &clock).await.unwrap();
        let options = Options { accept_unknown_chats: true, ..Options::default() };
        let telegram = TelegramStandIn::start(options).await.unwrap();
        let settings = pipeline::load::built_in().unwrap().reply;
        Self { storage, clock, telegram, settings, silver }
    }

    pub(crate) async fn stage(&self) -> ReplyStage {
        ReplyStage::open(ReplyOptions {
            storage: self.storage.clone(),
            pipeline: Name::new("p").unwrap(),
            settings: self.settings.clone(),
            silver_table: "silver/telegram_responses".to_owned(),
            bot_id: self.telegram.bot_id(),
            bot: BotClient::new(&self.telegram.api_url(), self.telegram.token()).unwrap(),
            schema: schema::built_in(schema::REPLIES).unwrap(),
            own: lakegram::table::OwnTable::default(),
            clock: self.clock.clone(),
            telemetry: Telemetry::new(),
        })
        .await
        .unwrap()
    }

    pub(crate) async fn work(&self) -> ReplySummary {
        let mut stage = self.stage().await;
        tokio::time::timeout(PATIENCE, stage.work_until_idle(&CancellationToken::new())).await.unwrap().unwrap()
    }

    /// Appends silver rows: update, chat, response.
    pub(crate) async fn answer(&mut self, rows: &[(i64, i64, &str)]) {
        let integers = |value: &dyn Fn(&(i64, i64, &str)) -> i64| -> Arc<dyn Array> {
            Arc::new(rows.iter().map(|row| Some(value(row))).collect::<Int64Array>())
        };
        let bot_id = self.telegram.bot_id().0;
        let responses: StringArray = rows.iter().map(|row| Some(row.2)).collect();
        let columns: Vec<(&str, Arc<dyn Array>)> = vec![
            ("bot_id", integers(&|_| bot_id)),
            ("update_id", integers(&|row| row.0)),
            ("attempt", integers(&|_| 1)),
            ("chat_id", integers(&|row| row.1)),
            ("response", Arc::new(responses)),
            ("reply_parts", integers(&|row| i64::from(!row.2.is_empty()))),
        ];
        let rows =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)));
        let fence = Fence { role: TableRole::Silver, seen: self.silver.fence(TableRole::Silver) };
        let append = Append { rows: Some(rows.unwrap()), fence, progress: Vec::new() };
        assert!(matches!(self.silver.append(append).await.unwrap(), CommitOutcome::Committed { .. }));
    }

    /// Update, send, part and status of every replies row.
    pub(crate) async fn replies(&self) -> Vec<(i64, i64, i64, String)> {
        let path = Path::from(self.settings.table.as_str());
        let table = LakeTable::open_existing(&self.storage, &path, &self.clock).await.unwrap().unwrap();
        let mut rows = Vec::new();
        for file in table.files().await.unwrap() {
            let batch = table.read_file(&file, Some(&["update_id", "send", "part", "status"])).await.unwrap();
            let integers = |index: usize| batch.column(index).as_primitive::<arrow::datatypes::Int64Type>().clone();
            let statuses = batch.column(3).as_string::<i32>();
            for row in 0..batch.num_rows() {
                let key = (integers(0).value(row), integers(1).value(row), integers(2).value(row));
                rows.push((key.0, key.1, key.2, statuses.value(row).to_owned()));
            }
        }
        rows.sort();
        rows
    }

    pub(crate) async fn intents(&self) -> usize {
        let folder = StorageKey::Intents { pipeline: Name::new("p").unwrap() }.path();
        self.storage.list_after(&folder, None, 1_000).await.unwrap().len()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_is_sent_once_with_one_outcome_and_no_intent_left() {
    let mut world = World::new().await;
    world.answer(&[(1, 10, "**hello**"), (2, 11, "world"), (3, 10, "")]).await;
    let summary = world.work().await;
    assert_eq!((summary.sent, summary.failed, summary.unknown), (2, 0, 0));
    assert_eq!(world.work().await.sent, 0);
    let sent = |update| (update, 1, 1, "sent".to_owned());
    assert_eq!(world.replies().await, [sent(1), sent(2)]);
    assert_eq!((world.telegram.sent().len(), world.intents().await), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_senders_on_one_table_send_each_answer_once() {
    let mut world = World::new().await;
    for id in 0..40 {
        world.answer(&[(id, id + 1, "hello")]).await;
    }
    let (mut one, mut other) = (world.stage().await, world.stage().await);
    let stop = CancellationToken::new();
    let both = async { tokio::join!(one.work_until_idle(&stop), other.work_until_idle(&stop)) };
    let (first, second) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert_eq!((first.unwrap().waiting, second.unwrap().waiting), (0, 0));
    assert_eq!(world.telegram.sent().len(), 40);
    let expected: Vec<_> = (0..40).map(|id| (id, 1, 1, "sent".to_owned())).collect();
    assert_eq!(world.replies().await, expected);
    assert_eq!(world.intents().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_knows_is_not_sent_again_and_ends_its_reply() {
    let mut world = World::new().await;
    let long = "word ".repeat(2_000);
    world.telegram.script("sendMessage", vec![Behavior::Proceed, Behavior::AcceptThenDropConnection]);
    world.answer(&[(1, 10, &long)]).await;
    let summary = world.work().await;
    assert_eq!((summary.sent, summary.unknown), (1, 1));
    assert_eq!(world.replies().await, [(1, 1, 1, "sent".to_owned()), (1, 1, 2, "unknown".to_owned())]);
    assert_eq!(world.work().await, ReplySummary::default());
    assert_eq!(world.telegram.sent().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resend_starts_at_the_first_part_that_is_not_sent() {
    let mut world = World::new().await;
    world.settings.on_unknown = OnUnknown::Resend;
    let long = "word ".repeat(1_500);
    world.telegram.script("sendMessage", vec![Behavior::Proceed, Behavior::DropBefore]);
    world.answer(&[(1, 10, &long)]).await;
    world.work().await;
    let row = |send, part, status: &str| (1, send, part, status.to_owned());
    assert_eq!(world.replies().await, [row(1, 1, "sent"), row(1, 2, "unknown"), row(2, 2, "sent")]);
    assert_eq!(world.telegram.sent().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_repaired_waited_for_or_final() {
    let mut world = World::new().await;
    world.telegram.script(
        "sendMessage",
        vec![
            Behavior::too_many_requests(1),
            Behavior::fail(400, "Bad Request: can't parse entities: unsupported"),
            Behavior::migrated_to(-1_001),
        ],
    );
    world.answer(&[(1, 10, "**bold**")]).await;
    assert_eq!(world.work().await.sent, 1);
    let sent = world.telegram.sent().remove(0);
    assert_eq!((sent.chat_id, sent.text.as_str()), (-1_001, "bold"));
    world.telegram.script("sendMessage", vec![Behavior::fail(403, "Forbidden: bot was blocked by the user")]);
    world.answer(&[(2, 11, "hello")]).await;
    assert_eq!(world.work().await.failed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_whose_outcome_was_recorded_is_swept_at_the_start() {
    let mut world = World::new().await;
    world.answer(&[(1, 10, "hello")]).await;
    world.work().await;
    let bot_id = world.telegram.bot_id();
    let intent =
        StorageKey::Intent { pipeline: Name::new("p").unwrap(), bot_id, update_id: 1, attempt: 1, send: 1, part: 1 };
    let body = format!(
        r#"{{"nonce":"{0}","id":"{0}","ttl_ms":30000,"silver_version":1,"split":[5]}}"#,
        "00000000-0000-4000-8000-000000000000"
    );
    world.storage.put_new(&intent.path(), body.into()).await.unwrap();
    world.work().await;
    assert_eq!((world.intents().await, world.telegram.sent().len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_that_its_owner_deletes_frees_the_part() {
    let mut world = World::new().await;
    world.answer(&[(1, 10, "hello")]).await;
    let bot_id = world.telegram.bot_id();
    let intent =
        StorageKey::Intent { pipeline: Name::new("p").unwrap(), bot_id, update_id: 1, attempt: 1, send: 1, part: 1 };
    world.storage.put_new(&intent.path(), "another's".into()).await.unwrap();
    let mut stage = world.stage().await;
    let working = tokio::spawn(async move { stage.work_until_idle(&CancellationToken::new()).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(world.telegram.sent().is_empty(), "the part is another's");
    world.storage.delete(&intent.path()).await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, working).await.unwrap().unwrap().unwrap().sent, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_amid_the_answers_of_a_log_that_is_gone_loses_and_doubles_none() {
    let mut world = World::new().await;
    world.answer(&[(1, 10, "first")]).await;
    world.work().await;
    for id in 2..5 {
        world.answer(&[(id, 10, "hello")]).await;
    }
    support::clean_up(&world.storage, "silver/telegram_responses", &world.clock).await;
    let mut stage = world.stage().await;
    let working = tokio::spawn(async move { stage.work_until_idle(&CancellationToken::new()).await });
    // A chat gets one message a second: when the second has its outcome the others still wait.
    while world.replies().await.len() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    working.abort();
    assert!(working.await.unwrap_err().is_cancelled());
    world.work().await;
    let expected: Vec<_> = (1..5).map(|id| (id, 1, 1, "sent".to_owned())).collect();
    assert_eq!((world.replies().await, world.telegram.sent().len()), (expected, 4));
    assert_eq!(world.work().await, ReplySummary::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_again_when_silver_is_rewritten() {
    let mut world = World::new().await;
    world.answer(&[(1, 10, "done")]).await;
    world.work().await;
    world.telegram.script("sendMessage", vec![Behavior::too_many_requests(1)]);
    world.answer(&[(2, 11, "waits"), (3, 11, "behind it")]).await;
    let (versions, hints) = watch::channel(-1);
    let stop = CancellationToken::new();
    let running = tokio::spawn(world.stage().await.run(hints, stop.clone()));
    assert!(world.telegram.wait_for(|ledger| ledger.calls_of("sendMessage").count() == 2, PATIENCE).await);
    support::rewrite(&world.storage, "silver/telegram_responses", &world.clock).await;
    world.answer(&[(4, 12, "after it")]).await;
    versions.send_replace(world.silver.version());
    let all = async {
        while world.replies().await.len() < 4 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
    stop.cancel();
    running.await.unwrap().unwrap();
    world.work().await;
    let expected: Vec<_> = (1..5).map(|id| (id, 1, 1, "sent".to_owned())).collect();
    assert_eq!((world.replies().await, world.telegram.sent().len()), (expected, 4));
}
