//! The stage beside another process, with a Bot API that nobody answers for: whatever ends here was never sent.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

use super::*;
use crate::error::ErrorKind;
use crate::id::Name;
use crate::pipeline;
use crate::schema;
use crate::storage::{Storage, StorageKey};
use crate::table::{Append, CommitOutcome, Fence, LakeTable, OwnTable};
use crate::telegram::BotClient;

const BOT: BotId = BotId(1);
const SILVER: &str = "silver";
const REPLIES: &str = "silver/telegram_replies";

struct World {
    storage: Storage,
    clock: Clock,
}

impl World {
    fn new() -> Self {
        Self { storage: Storage::memory(), clock: Clock::fast(300) }
    }

    async fn stage(&self) -> ReplyStage {
        ReplyStage::open(ReplyOptions {
            storage: self.storage.clone(),
            pipeline: Name::new("p").unwrap(),
            settings: pipeline::load::built_in().unwrap().reply,
            silver_table: SILVER.to_owned(),
            bot_id: BOT,
            bot: BotClient::new("http://127.0.0.1:9", "1:x").unwrap(),
            schema: schema::built_in(schema::REPLIES).unwrap(),
            own: OwnTable::default(),
            clock: self.clock.clone(),
            telemetry: Telemetry::new(),
        })
        .await
        .unwrap()
    }

    /// Appends rows in one commit to a table of these columns.
    async fn append(&self, spec: &TableSpec, role: TableRole, rows: RecordBatch) {
        let mut table = LakeTable::open(&self.storage, spec, &self.clock).await.unwrap();
        let fence = Fence { role, seen: table.fence(role) };
        let append = Append { rows: Some(rows), fence, progress: Vec::new() };
        assert!(matches!(table.append(append).await.unwrap(), CommitOutcome::Committed { .. }));
    }

    /// Silver answers these updates, each in a chat of its own.
    async fn answer(&self, updates: &[i64]) {
        let integers = |value: fn(i64) -> i64| -> ArrayRef {
            Arc::new(updates.iter().map(|id| Some(value(*id))).collect::<Int64Array>())
        };
        let columns: [(&str, ArrayRef); 6] = [
            ("bot_id", integers(|_| BOT.0)),
            ("update_id", integers(|id| id)),
            ("attempt", integers(|_| 1)),
            ("chat_id", integers(|id| id)),
            ("reply_parts", integers(|_| 1)),
            ("response", Arc::new(StringArray::from(vec!["hello"; updates.len()]))),
        ];
        let schema = schema::built_in(schema::RESPONSES).unwrap();
        let spec = TableSpec { path: Path::from(SILVER), schema, stats_columns: Vec::new(), id: None };
        let rows = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)));
        self.append(&spec, TableRole::Silver, rows.unwrap()).await;
    }

    /// Another process records that the answer to an update has this status.
    async fn record(&self, update_id: i64, status: &str) {
        let schema = schema::built_in(schema::REPLIES).unwrap();
        let outcome = Outcome {
            key: PartKey { bot_id: BOT, update_id, attempt: 1, send: 1, part: 1 },
            parts: 1,
            chat_id: update_id,
            method: Method::Send,
            telegram_message_id: Some(7),
            status: Status::Sent,
            tries: 1,
            error: None,
            silver_version: 1,
            at: self.clock.now(),
            trace_id: String::new(),
        };
        let rows = rows::to_batch(&schema, &[outcome]).unwrap();
        let columns = schema.fields().iter().zip(rows.columns()).map(|(field, column)| match field.name().as_str() {
            "status" => Arc::new(StringArray::from(vec![status])) as ArrayRef,
            _ => Arc::clone(column),
        });
        let rows = RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap();
        self.append(&table_spec(REPLIES, schema).unwrap(), TableRole::Reply, rows).await;
    }

    /// Another process is about to send the answer to an update.
    async fn intend(&self, update_id: i64) {
        let pipeline = Name::new("p").unwrap();
        let key = StorageKey::Intent { pipeline, bot_id: BOT, update_id, attempt: 1, send: 1, part: 1 };
        self.storage.put_new(&key.path(), "another's".into()).await.unwrap();
    }
}

#[tokio::test]
async fn an_outcome_that_is_not_understood_stops_the_stage_instead_of_being_sent_again() {
    let world = World::new();
    drop(world.stage().await);
    world.record(1, "delivered").await;
    world.answer(&[1]).await;
    for _ in 0..2 {
        let mut stage = world.stage().await;
        let stop = CancellationToken::new();
        let worked = world.clock.timeout(Duration::from_secs(600), stage.work_until_idle(&stop)).await;
        let error = worked.expect("it is sent again and again").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(
            error.to_string(),
            "table silver/telegram_replies: the row of bot 1, update 1, attempt 1, send 1, part 1 has the status \
             `delivered`, but only sent, failed and unknown are known; if a later release wrote it, run that release, \
             otherwise correct the row"
        );
    }
}

#[tokio::test]
async fn an_intent_that_was_watched_is_forgotten_once_its_part_has_an_outcome() {
    let world = World::new();
    let mut stage = world.stage().await;
    let sender = Arc::clone(&stage.flow.work().sender);
    world.answer(&[1, 2]).await;
    world.intend(1).await;
    world.intend(2).await;
    let stop = CancellationToken::new();
    let watched = || sender.first_seen.lock().unwrap().len();
    let recorded_by_another = async {
        while watched() < 2 {
            world.clock.sleep(Duration::from_secs(1)).await;
        }
        world.record(1, "sent").await;
    };
    let (summary, ()) = tokio::join!(stage.work_until_idle(&stop), recorded_by_another);
    // The other one was sent, nobody knows whether, by a process that is dead by now.
    assert_eq!(summary.unwrap(), ReplySummary { unknown: 1, ..ReplySummary::default() });
    assert_eq!(watched(), 0);
}
