//! The silver stage against a scripted model.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use lakegram::clock::Clock;
use lakegram::id::{BotId, trace_id};
use lakegram::llm::{ModelClient, ModelEndpoint};
use lakegram::pipeline::{self, Pipeline};
use lakegram::schema;
use lakegram::stage::silver::{SilverOptions, SilverStage, SilverSummary};
use lakegram::standin::model::{ModelStandIn, ModelStandInOptions, ModelTrouble};
use lakegram::storage::Storage;
use lakegram::table::{Append, CommitOutcome, Fence, LakeTable, TableRole, TableSpec};
use lakegram::telemetry::Telemetry;
use object_store::path::Path;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::{self, PATIENCE};

const BOT: BotId = BotId(1);

/// Kind, update, chat, text.
pub(crate) type Received<'a> = (&'a str, Option<i64>, i64, &'a str);

pub(crate) struct World {
    pub(crate) storage: Storage,
    pub(crate) clock: Clock,
    pub(crate) model: ModelStandIn,
    pub(crate) pipeline: Pipeline,
    pub(crate) bronze: LakeTable,
    /// How long a call of the model may take.
    pub(crate) timeout: Duration,
}

impl World {
    pub(crate) async fn new() -> Self {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let pipeline = pipeline::load::built_in().unwrap();
        let spec = TableSpec {
            path: Path::from(pipeline.bronze.table.as_str()),
            schema: schema::built_in(schema::MESSAGES).unwrap(),
            stats_columns: vec!["update_id".to_owned()],
            id: None,
        };
        let bronze = LakeTable::open(&storage, &spec, &clock).await.unwrap();
        let model = ModelStandIn::start(ModelStandInOptions::default()).await.unwrap();
        Self { storage, clock, model, pipeline, bronze, timeout: Duration::from_secs(5) }
    }

    pub(crate) async fn stage(&self) -> SilverStage {
        let endpoint = ModelEndpoint::OpenAi { base_url: self.model.base_url(), api_key: None };
        SilverStage::open(SilverOptions {
            storage: self.storage.clone(),
            pipeline: self.pipeline.clone(),
            bot_id: Some(BOT),
            schema: schema::built_in(schema::RESPONSES).unwrap(),
            own: lakegram::table::OwnTable::default(),
            model: ModelClient::new(endpoint, "m", self.timeout, &self.clock).unwrap(),
            acknowledger: None,
            clock: self.clock.clone(),
            telemetry: Telemetry::new(),
            committed: watch::Sender::new(-1),
        })
        .await
        .unwrap()
    }

    pub(crate) async fn work(&self) -> SilverSummary {
        self.stage().await.work_until_idle(&CancellationToken::new()).await.unwrap()
    }

    /// Appends bronze rows.
    pub(crate) async fn receive(&mut self, rows: &[Received<'_>]) {
        let now = self.clock.now().as_micros();
        let texts = |value: &dyn Fn(&Received<'_>) -> Option<String>| -> Arc<dyn Array> {
            Arc::new(rows.iter().map(value).collect::<StringArray>())
        };
        let columns: Vec<(&str, Arc<dyn Array>)> = vec![
            ("bot_id", Arc::new(Int64Array::from(vec![BOT.0; rows.len()]))),
            ("update_id", Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>())),
            ("update_type", texts(&|row| Some(row.0.to_owned()))),
            ("chat_id", Arc::new(rows.iter().map(|row| Some(row.2)).collect::<Int64Array>())),
            ("text", texts(&|row| Some(row.3.to_owned()))),
            ("_received_at", Arc::new(TimestampMicrosecondArray::from(vec![now; rows.len()]).with_timezone("UTC"))),
            ("_trace_id", texts(&|row| row.1.map(|id| trace_id(BOT, id)))),
        ];
        let rows =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)));
        let fence = Fence { role: TableRole::Bronze, seen: self.bronze.fence(TableRole::Bronze) };
        let append = Append { rows: Some(rows.unwrap()), fence, progress: Vec::new() };
        assert!(matches!(self.bronze.append(append).await.unwrap(), CommitOutcome::Committed { .. }));
    }

    /// Update, status and error of every silver row.
    pub(crate) async fn silver(&self) -> Vec<(i64, String, Option<String>)> {
        let path = Path::from(self.pipeline.silver.table.as_str());
        let Some(table) = LakeTable::open_existing(&self.storage, &path, &self.clock).await.unwrap() else {
            return Vec::new();
        };
        let mut rows = Vec::new();
        for file in table.files().await.unwrap() {
            let batch = table.read_file(&file, Some(&["update_id", "status", "error"])).await.unwrap();
            let ids = batch.column(0).as_primitive::<arrow::datatypes::Int64Type>();
            let (statuses, errors) = (batch.column(1).as_string::<i32>(), batch.column(2).as_string::<i32>());
            for row in 0..batch.num_rows() {
                let error = errors.is_valid(row).then(|| errors.value(row).to_owned());
                rows.push((ids.value(row), statuses.value(row).to_owned(), error));
            }
        }
        rows.sort();
        rows
    }

    pub(crate) async fn statuses(&self) -> Vec<(i64, String)> {
        self.silver().await.into_iter().map(|(id, status, _)| (id, status)).collect()
    }
}

pub(crate) fn pairs(pairs: &[(i64, &str)]) -> Vec<(i64, String)> {
    pairs.iter().map(|(id, status)| (*id, (*status).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_that_is_not_corrupt_has_one_row_with_its_status() {
    let mut world = World::new().await;
    world
        .receive(&[
            ("message", Some(1), 7, "hello"),
            ("edited_message", Some(2), 7, "hello again"),
            ("channel_post", Some(3), -8, "news"),
            ("callback_query", Some(4), 7, "x"),
            ("message", None, 7, "corrupt"),
        ])
        .await;
    let summary = world.work().await;
    assert_eq!((summary.rows, summary.answered, summary.ignored, summary.failed), (4, 2, 2, 0));
    let expected = pairs(&[(1, "answered"), (2, "ignored"), (3, "answered"), (4, "ignored")]);
    assert_eq!(world.statuses().await, expected);
    assert_eq!(world.work().await.rows, 0, "a second run has nothing to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_chat_are_asked_in_order_with_what_was_said_before() {
    let mut world = World::new().await;
    world.receive(&[("message", Some(1), 7, "one"), ("message", Some(2), 7, "two")]).await;
    world.receive(&[("message", Some(3), 7, "three")]).await;
    world.work().await;
    let asked: Vec<Vec<String>> = world
        .model
        .requests()
        .iter()
        .map(|request| request.messages.iter().skip(1).map(|message| message.content.clone()).collect())
        .collect();
    assert_eq!(asked[0], ["one"]);
    assert_eq!((asked[1][0].as_str(), asked[1][2].as_str(), asked[1].len()), ("one", "two", 3));
    assert_eq!((asked[2].len(), asked[2][4].as_str()), (5, "three"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisonous_question_fails_by_itself_and_holds_up_nobody() {
    let mut world = World::new().await;
    world.model.poison("poison", ModelTrouble::status(500));
    world
        .receive(&[("message", Some(1), 1, "poison"), ("message", Some(2), 2, "fine"), ("message", Some(3), 3, "fine")])
        .await;
    let summary = tokio::time::timeout(PATIENCE, world.work()).await.unwrap();
    assert_eq!((summary.answered, summary.failed), (2, 1));
    let silver = world.silver().await;
    assert_eq!(silver[0].1, "failed");
    assert!(silver[0].2.as_ref().unwrap().contains("500"), "{silver:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn poisonous_questions_alone_fail_as_well() {
    let mut world = World::new().await;
    world.model.poison("poison", ModelTrouble::status(500));
    world.receive(&[("message", Some(1), 1, "poison"), ("message", Some(2), 2, "poison too")]).await;
    let summary = tokio::time::timeout(PATIENCE, world.work()).await.unwrap();
    assert_eq!(summary.failed, 2);
    assert!(world.model.requests().iter().any(|request| request.body["max_tokens"] == 1), "it pinged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_question_fails_at_once_and_an_empty_answer_is_none() {
    let mut world = World::new().await;
    world.model.trouble([ModelTrouble::status(400)]);
    world.receive(&[("message", Some(1), 1, "too long")]).await;
    world.work().await;
    world.model.answer_raw(r#"{"choices":[{"message":{"content":""},"finish_reason":"content_filter"}]}"#);
    world.receive(&[("message", Some(2), 1, "filtered")]).await;
    world.work().await;
    let silver = world.silver().await;
    assert_eq!(world.statuses().await, pairs(&[(1, "failed"), (2, "failed")]));
    assert_eq!(silver[1].2.as_deref(), Some("the model returned no text (finish_reason: content_filter)"));
    assert_eq!(world.model.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_fails_nothing_and_a_row_keeps_its_request_id_across_a_restart() {
    let mut world = World::new().await;
    world.model.fail_all(503);
    world.receive(&[("message", Some(1), 1, "a"), ("message", Some(2), 2, "b")]).await;
    let stop = CancellationToken::new();
    let mut stage = world.stage().await;
    let deadline = stop.clone();
    let working = tokio::spawn(async move { stage.work_until_idle(&deadline).await.unwrap() });
    while world.model.requests().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.cancel();
    assert_eq!(working.await.unwrap().waiting, 2);
    assert!(world.silver().await.is_empty());
    world.model.recover();
    let summary = tokio::time::timeout(PATIENCE, world.work()).await.unwrap();
    assert_eq!((summary.answered, summary.failed), (2, 0));
    let ids: std::collections::BTreeSet<_> =
        world.model.requests().into_iter().filter_map(|request| request.request_id).collect();
    let expected = [trace_id(BOT, 1), trace_id(BOT, 2)];
    assert!(expected.iter().all(|id| ids.contains(id)));
    assert!(ids.iter().all(|id| expected.iter().any(|trace| id.starts_with(trace.as_str()))), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_stages_on_one_table_make_each_row_once() {
    let mut world = World::new().await;
    for id in 0..30 {
        world.receive(&[("message", Some(id), id % 7, "hello")]).await;
    }
    let (mut one, mut other) = (world.stage().await, world.stage().await);
    let stop = CancellationToken::new();
    let (first, second) = tokio::join!(one.work_until_idle(&stop), other.work_until_idle(&stop));
    assert_eq!(first.unwrap().rows + second.unwrap().rows, 30);
    let expected: Vec<_> = (0..30).map(|id| (id, "answered".to_owned())).collect();
    assert_eq!(world.statuses().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_bronze_was_cleaned_up_the_rows_that_silver_lacks_are_the_work() {
    let mut world = World::new().await;
    world.receive(&[("message", Some(1), 1, "a")]).await;
    world.work().await;
    for id in 2..6 {
        world.receive(&[("message", Some(id), 1, "b")]).await;
    }
    support::clean_up(&world.storage, &world.pipeline.bronze.table, &world.clock).await;
    let summary = world.work().await;
    assert_eq!(summary.rows, 4);
    let expected: Vec<_> = (1..6).map(|id| (id, "answered".to_owned())).collect();
    assert_eq!(world.statuses().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_process_that_wakes_after_a_clean_up_doubles_nothing() {
    let mut world = World::new().await;
    world.receive(&[("message", Some(1), 1, "a")]).await;
    let mut stale = world.stage().await;
    let stop = CancellationToken::new();
    // While it sleeps another process does the work, and the logs it stood on are cleaned up.
    for id in 2..6 {
        world.receive(&[("message", Some(id), 1, "b")]).await;
        world.work().await;
    }
    let options = lakegram::table::maintain::MaintainOptions {
        compact_at_files: 2,
        checkpoint_every: 1,
        ..lakegram::table::maintain::MaintainOptions::default()
    };
    for _ in 0..2 {
        for table in [&world.pipeline.bronze.table, &world.pipeline.silver.table] {
            let path = Path::from(table.as_str());
            lakegram::table::maintain::maintain(&world.storage, &path, &options, &world.clock, &stop).await.unwrap();
        }
        world.clock.step(40 * 86_400_000_000);
    }
    world.receive(&[("message", Some(6), 1, "c")]).await;
    stale.work_until_idle(&stop).await.unwrap();
    world.work().await;
    let expected: Vec<_> = (1..7).map(|id| (id, "answered".to_owned())).collect();
    assert_eq!(world.statuses().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_amid_the_rows_of_a_log_that_is_gone_loses_none() {
    let mut world = World::new().await;
    world.receive(&[("message", Some(1), 1, "a")]).await;
    world.work().await;
    for id in 2..6 {
        world.receive(&[("message", Some(id), 1, "b")]).await;
    }
    support::clean_up(&world.storage, &world.pipeline.bronze.table, &world.clock).await;
    world.model.trouble([ModelTrouble::Delay(Duration::ZERO), ModelTrouble::Hang]);
    let mut stage = world.stage().await;
    let working = tokio::spawn(async move { stage.work_until_idle(&CancellationToken::new()).await });
    // The second is asked once the first is committed.
    tokio::time::timeout(PATIENCE, world.model.wait_for_requests(3)).await.unwrap();
    assert_eq!(world.statuses().await.len(), 2);
    working.abort();
    assert!(working.await.unwrap_err().is_cancelled());
    world.model.recover();
    assert_eq!(world.work().await.rows, 3);
    let expected: Vec<_> = (1..6).map(|id| (id, "answered".to_owned())).collect();
    assert_eq!(world.statuses().await, expected);
    assert_eq!(world.work().await.rows, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_under_way_while_bronze_is_rewritten_are_asked_once() {
    let mut world = World::new().await;
    world.receive(&[("message", Some(1), 1, "done")]).await;
    world.work().await;
    world.receive(&[("message", Some(2), 2, "slow"), ("message", Some(3), 2, "behind it")]).await;
    world.model.trouble([ModelTrouble::Hang]);
    let (versions, hints) = watch::channel(-1);
    let stop = CancellationToken::new();
    let running = tokio::spawn(world.stage().await.run(hints, stop.clone()));
    tokio::time::timeout(PATIENCE, world.model.wait_for_requests(2)).await.unwrap();
    support::rewrite(&world.storage, &world.pipeline.bronze.table, &world.clock).await;
    world.receive(&[("message", Some(4), 4, "after it")]).await;
    versions.send_replace(world.bronze.version());
    // It has read past the rewrite once it asks what came after.
    tokio::time::timeout(PATIENCE, world.model.wait_for_requests(3)).await.unwrap();
    world.model.release();
    // Were they asked twice, the last row of their chat would come behind that.
    world.receive(&[("message", Some(5), 2, "the last")]).await;
    versions.send_replace(world.bronze.version());
    tokio::time::timeout(PATIENCE, world.model.wait_for_requests(5)).await.unwrap();
    let asked: Vec<_> = world.model.requests().iter().map(|request| request.question().to_owned()).collect();
    assert_eq!(asked, ["done", "slow", "after it", "behind it", "the last"]);
    stop.cancel();
    running.await.unwrap().unwrap();
    world.work().await;
    let expected: Vec<_> = (1..6).map(|id| (id, "answered".to_owned())).collect();
    assert_eq!(world.statuses().await, expected);
}
