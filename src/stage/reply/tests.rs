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
use crate::table::values::{Columns, integer, text};
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
        self.answer_with(updates, "hello").await;
    }

    /// The same with this text, as release 0.1 did it: the rows have no messages.
    async fn answer_with(&self, updates: &[i64], response: &str) {
        let integers = |value: fn(i64) -> i64| -> ArrayRef {
            Arc::new(updates.iter().map(|id| Some(value(*id))).collect::<Int64Array>())
        };
        let columns: [(&str, ArrayRef); 6] = [
            ("bot_id", integers(|_| BOT.0)),
            ("update_id", integers(|id| id)),
            ("attempt", integers(|_| 1)),
            ("chat_id", integers(|id| id)),
            ("reply_parts", integers(|_| 1)),
            ("response", Arc::new(StringArray::from(vec![response; updates.len()]))),
        ];
        let schema = schema::built_in(schema::RESPONSES).unwrap();
        let spec = TableSpec { path: Path::from(SILVER), schema, stats_columns: Vec::new(), id: None };
        let rows = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)));
        self.append(&spec, TableRole::Silver, rows.unwrap()).await;
    }

    /// Another process records that the answer to an update has this status.
    async fn record(&self, update_id: i64, status: &str) {
        self.record_first_of(1, update_id, status).await;
    }

    /// The same of the first of so many parts.
    async fn record_first_of(&self, parts: i64, update_id: i64, status: &str) {
        let schema = schema::built_in(schema::REPLIES).unwrap();
        let outcome = Outcome {
            key: PartKey { bot_id: BOT, update_id, attempt: 1, send: 1, part: 1 },
            parts,
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

    /// The rows of these updates for anything but a part that was sent: part, parts, status and error.
    async fn unsent_rows(&self, updates: &[i64]) -> Vec<(i64, i64, String, String)> {
        let table = LakeTable::open_existing(&self.storage, &Path::from(REPLIES), &self.clock).await.unwrap().unwrap();
        let mut rows = Vec::new();
        for file in table.files().await.unwrap() {
            let batch = table.read_file(&file, None).await.unwrap();
            let columns = Columns::of(&batch);
            let numbers = |name, row| integer(columns.integers(name).unwrap(), row).unwrap();
            let texts = |name, row| text(columns.strings(name).unwrap(), row).unwrap_or_default().to_owned();
            rows.extend((0..columns.len()).filter(|row| texts("status", *row) != "sent").map(|row| {
                let said = (numbers("part", row), numbers("parts", row), texts("status", row), texts("error", row));
                (numbers("update_id", row), said)
            }));
        }
        rows.sort();
        assert_eq!(rows.iter().map(|(update, _)| *update).collect::<Vec<_>>(), updates);
        rows.into_iter().map(|(_, said)| said).collect()
    }

    /// Another process is about to send the answer to an update.
    async fn intend(&self, update_id: i64) {
        self.intend_part(update_id, 1).await;
    }

    async fn intend_part(&self, update_id: i64, part: i64) {
        let pipeline = Name::new("p").unwrap();
        let key = StorageKey::Intent { pipeline, bot_id: BOT, update_id, attempt: 1, send: 1, part };
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

#[tokio::test]
async fn a_reply_that_another_release_has_begun_is_never_continued_with_other_parts() {
    for response in ["hello".to_owned(), "hello ".repeat(1_000), "hello ".repeat(5_000)] {
        let world = World::new();
        drop(world.stage().await);
        for update in [1, 2] {
            world.record_first_of(3, update, "sent").await;
        }
        // The process that began the second one died while it was sending the next part.
        world.intend_part(2, 2).await;
        world.answer_with(&[1, 2], &response).await;
        let mut stage = world.stage().await;
        let stop = CancellationToken::new();
        let worked = world.clock.timeout(Duration::from_secs(3_600), stage.work_until_idle(&stop)).await;
        let summary = worked.expect("it is tried again and again").unwrap();
        assert_eq!(summary, ReplySummary { failed: 1, unknown: 1, ..ReplySummary::default() });
        drop(stage);
        let summary = world.stage().await.work_until_idle(&stop).await.unwrap();
        assert_eq!(summary, ReplySummary::default(), "they are settled, however many parts there are now");
        let [failed, unknown] = &world.unsent_rows(&[1, 2]).await[..] else { panic!("one row each") };
        assert_eq!(*failed, (2, 3, "failed".to_owned(), sender::BEGUN_ELSEWHERE.to_owned()));
        assert_eq!((unknown.0, unknown.1, unknown.2.as_str()), (2, 3, "unknown"), "it may have arrived");
    }
}
