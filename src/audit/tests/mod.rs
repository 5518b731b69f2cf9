//! Planted faults, each found and named.

mod bronze;
mod replies;
mod silver;
mod tables;

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use object_store::path::Path;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Audit, AuditedBot, Check, PipelineAudit};
use crate::clock::{Clock, Timestamp};
use crate::id::{BotId, Name};
use crate::load::lanes::{BronzeOptions, BronzeStage};
use crate::pipeline::Pipeline;
use crate::pipeline::load::{PipelineFile, load};
use crate::schema;
use crate::storage::{Storage, StorageKey};
use crate::table::log::{Action, Add, Remove, commit_bytes};
use crate::table::{Append, CommitOutcome, DataFile, Fence, LakeTable, OwnTable, TableRole, TableSpec, TxnId, parquet};
use crate::telemetry::Telemetry;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const BRONZE: &str = "bronze/telegram_messages";
const SILVER: &str = "silver/telegram_responses";
const REPLIES: &str = "silver/telegram_replies";

/// A pipeline in memory: the real loader, and silver and replies rows by hand.
struct World {
    storage: Storage,
    clock: Clock,
    pipeline: Pipeline,
    now: Timestamp,
}

/// A silver row: an update of an age, its attempt and the parts of its reply.
#[derive(Clone, Copy)]
struct Answer(i64, Duration, i64, i64);

/// A replies row: an update, attempt, send, part and status.
#[derive(Clone, Copy)]
struct Outcome(i64, i64, i64, i64, &'static str);

impl World {
    fn new() -> Self {
        let PipelineFile::Bot(pipeline) = load(FilePath::new("/none"), &[], &[]).unwrap().remove(0) else {
            panic!("the built-in pipeline is one of a bot");
        };
        let clock = Clock::system();
        let now = clock.now();
        Self { storage: Storage::open("memory://").unwrap(), clock, pipeline: *pipeline, now }
    }

    /// Puts a segment of an age, and returns its path.
    async fn put(&self, lane: &str, age: Duration, lines: &str) -> String {
        let (pipeline, lane) = (Name::new("telegram").unwrap(), Name::new(lane).unwrap());
        let path = StorageKey::Segment { pipeline, bot_id: BotId(1), lane, micros: self.now.minus(age) }.path();
        self.storage.put_new(&path, Bytes::copy_from_slice(lines.as_bytes())).await.unwrap();
        path.to_string()
    }

    /// Loads what has landed. Positions follow, for everything has settled.
    async fn load(&self) {
        self.clock.step(i64::try_from(DAY.as_micros()).unwrap());
        let options = BronzeOptions {
            storage: self.storage.clone(),
            pipeline: self.pipeline.name.clone(),
            settings: self.pipeline.bronze.clone(),
            schema: schema::built_in(schema::MESSAGES).unwrap(),
            own: OwnTable::default(),
            clock: self.clock.clone(),
            telemetry: Telemetry::new(),
            committed: watch::Sender::new(-1),
        };
        let mut stage = BronzeStage::open(options).await.unwrap();
        stage.work_until_idle(&CancellationToken::new()).await.unwrap();
    }

    async fn table(&self, path: &str) -> LakeTable {
        LakeTable::open_existing(&self.storage, &Path::from(path), &self.clock).await.unwrap().unwrap()
    }

    async fn version(&self, path: &str) -> i64 {
        self.table(path).await.version()
    }

    /// Appends silver rows that know bronze up to `watermark`.
    async fn answer(&self, answers: &[Answer], watermark: i64) {
        let ages = answers.iter().map(|answer| Some(self.now.minus(answer.1).as_micros()));
        let ages: ArrayRef = Arc::new(ages.collect::<TimestampMicrosecondArray>().with_timezone("UTC"));
        let columns = [
            ("bot_id", integers(answers.iter().map(|_| 1))),
            ("chat_id", integers(answers.iter().map(|_| 5))),
            ("update_id", integers(answers.iter().map(|answer| answer.0))),
            ("attempt", integers(answers.iter().map(|answer| answer.2))),
            ("reply_parts", integers(answers.iter().map(|answer| answer.3))),
            ("received_at", ages),
        ];
        self.append((SILVER, schema::RESPONSES), TableRole::Silver, &columns, watermark).await;
    }

    /// Appends replies rows that know silver up to `watermark`.
    async fn reply(&self, outcomes: &[Outcome], watermark: i64) {
        let now = outcomes.iter().map(|_| Some(self.now.as_micros()));
        let now: ArrayRef = Arc::new(now.collect::<TimestampMicrosecondArray>().with_timezone("UTC"));
        let statuses: ArrayRef = Arc::new(outcomes.iter().map(|outcome| Some(outcome.4)).collect::<StringArray>());
        let columns = [
            ("bot_id", integers(outcomes.iter().map(|_| 1))),
            ("update_id", integers(outcomes.iter().map(|outcome| outcome.0))),
            ("attempt", integers(outcomes.iter().map(|outcome| outcome.1))),
            ("send", integers(outcomes.iter().map(|outcome| outcome.2))),
            ("part", integers(outcomes.iter().map(|outcome| outcome.3))),
            ("status", statuses),
            ("sent_at", now),
        ];
        self.append((REPLIES, schema::REPLIES), TableRole::Reply, &columns, watermark).await;
    }

    async fn append(&self, (table, file): (&str, &str), role: TableRole, columns: &[(&str, ArrayRef)], watermark: i64) {
        let stats = ["update_id", "received_at", "sent_at"].map(str::to_owned).to_vec();
        let schema = schema::built_in(file).unwrap();
        let spec = TableSpec { path: Path::from(table), schema, stats_columns: stats, id: None };
        let mut table = LakeTable::open(&self.storage, &spec, &self.clock).await.unwrap();
        let rows = columns.iter().map(|(name, values)| (*name, Arc::clone(values), true));
        let rows = RecordBatch::try_from_iter_with_nullable(rows).unwrap();
        let fence = Fence { role, seen: table.fence(role) };
        let upstream = if role == TableRole::Silver { BRONZE } else { SILVER };
        let upstream = LakeTable::open_existing(&self.storage, &Path::from(upstream), &self.clock).await.unwrap();
        let upstream = upstream.map_or_else(|| "none".to_owned(), |table| table.table_id().to_owned());
        let progress = vec![(TxnId::Watermark { role, upstream }, watermark)];
        let outcome = table.append(Append { rows: Some(rows), fence, progress }).await.unwrap();
        assert!(matches!(outcome, CommitOutcome::Committed { .. }));
    }

    /// A clean pipeline of three updates, each answered with one message.
    async fn clean(&self) -> String {
        let path = self.put("a", HOUR, &(update(1) + &update(2) + "\n" + &update(3) + "odd\n")).await;
        self.load().await;
        let answers = [1, 2, 3].map(|id| Answer(id, HOUR, 1, 1));
        self.answer(&answers, self.version(BRONZE).await).await;
        let outcomes = [1, 2, 3].map(|id| Outcome(id, 1, 1, 1, "sent"));
        self.reply(&outcomes, self.version(SILVER).await).await;
        path
    }

    async fn audit(&self) -> PipelineAudit {
        self.audit_since(None).await
    }

    async fn audit_since(&self, since: Option<Timestamp>) -> PipelineAudit {
        let bot = AuditedBot { pipeline: self.pipeline.clone(), bot_id: Some(BotId(1)) };
        let (storage, clock) = (self.storage.clone(), self.clock.clone());
        let audit = Audit { storage, clock, bots: vec![bot], loaders: Vec::new(), since };
        audit.run(&|_| ()).await.unwrap().remove(0)
    }

    /// Rewrites a table as another program does, keeping the rows that `keep` says, and again those that `again` says.
    async fn rewrite(&self, table: &str, keep: impl Fn(i64) -> bool, again: impl Fn(i64) -> bool) {
        let handle = self.table(table).await;
        let mut actions = Vec::new();
        for (number, file) in handle.files().await.unwrap().iter().enumerate() {
            let rows = handle.read_file(file, None).await.unwrap();
            let rows = concat_batches(&rows.schema(), &[pick(&rows, &keep), pick(&rows, &again)]).unwrap();
            let name = format!("rewritten-{}-{number}.parquet", handle.version());
            let stats = ["_received_at", "received_at", "sent_at"].map(str::to_owned);
            let encoded = parquet::encode(&rows, &stats).unwrap();
            self.storage.put_new(&Path::from(format!("{table}/{name}")), encoded.bytes.clone()).await.unwrap();
            actions.push(Action::Remove(Remove::of(file, 1, true)));
            actions.push(Action::Add(Add::new(&name, encoded.bytes.len(), 1, encoded.stats, true)));
        }
        self.commit(table, handle.version() + 1, &actions).await;
    }

    async fn commit(&self, table: &str, version: i64, actions: &[Action]) {
        let path = StorageKey::Commit { table: Path::from(table), version }.path();
        self.storage.put_new(&path, commit_bytes(actions).unwrap()).await.unwrap();
    }

    async fn file(&self, table: &str) -> (DataFile, Path) {
        let file = self.table(table).await.files().await.unwrap().remove(0);
        let location = file.location(&Path::from(table)).unwrap();
        (file, location)
    }
}

fn integers(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<Int64Array>())
}

fn pick(rows: &RecordBatch, wanted: impl Fn(i64) -> bool) -> RecordBatch {
    let ids = rows.column_by_name("update_id").unwrap().as_primitive::<Int64Type>();
    let mask: BooleanArray = ids.iter().map(|id| Some(wanted(id.unwrap_or(0)))).collect();
    filter_record_batch(rows, &mask).unwrap()
}

fn update(id: i64) -> String {
    format!("{{\"update_id\": {id}, \"message\": {{\"text\": \"m{id}\"}}}}\n")
}

/// The checks by what they count: checked, waiting, broken, unproven.
fn counts(audit: &PipelineAudit) -> Vec<(&'static str, [u64; 4])> {
    let count = |check: &Check| (check.check, [check.checked, check.waiting, check.broken, check.unproven]);
    audit.checks.iter().map(count).collect()
}

fn check<'a>(audit: &'a PipelineAudit, name: &str) -> &'a Check {
    audit.checks.iter().find(|check| check.check == name).unwrap()
}

/// The findings of a check as printed.
fn broken(audit: &PipelineAudit, name: &str) -> Vec<String> {
    check(audit, name).rows.iter().map(ToString::to_string).collect()
}

/// Whether nothing but these checks is broken.
fn only(audit: &PipelineAudit, names: &[&str]) -> bool {
    audit.checks.iter().all(|check| (check.broken > 0) == names.contains(&check.check))
}
