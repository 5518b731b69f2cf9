//! Silver, with a model that always answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};
use object_store::path::Path;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{PACE, Stage, Update};
use crate::clock::Clock;
use crate::error::Result;
use crate::id::{BotId, trace_id};
use crate::llm::{ModelClient, ModelEndpoint};
use crate::pipeline::{self, Pipeline};
use crate::schema;
use crate::stage::silver::{SilverOptions, SilverStage};
use crate::standin::model::{ModelStandIn, ModelStandInOptions};
use crate::storage::Storage;
use crate::table::{TableRole, TableSpec};
use crate::telemetry::Telemetry;
use crate::tests::kit::{Table, integers, once_each, rows};

const BOT: BotId = BotId(1);

pub(super) struct Silver {
    storage: Storage,
    clock: Clock,
    model: ModelStandIn,
    pipeline: Pipeline,
}

impl Silver {
    async fn open(&self, storage: Storage) -> Result<SilverStage> {
        let endpoint = ModelEndpoint::OpenAi { base_url: self.model.base_url(), api_key: None };
        let options = SilverOptions {
            storage,
            pipeline: self.pipeline.clone(),
            bot_id: Some(BOT),
            schema: schema::built_in(schema::RESPONSES).unwrap(),
            own: crate::table::OwnTable::default(),
            model: ModelClient::new(endpoint, "m", Duration::from_secs(60), &self.clock).unwrap(),
            acknowledger: None,
            clock: self.clock.clone(),
            telemetry: Telemetry::new(),
            committed: watch::Sender::new(-1),
        };
        SilverStage::open(options).await
    }
}

impl Stage for Silver {
    const NAME: &'static str = "silver";
    const UPSTREAM: TableRole = TableRole::Bronze;

    async fn new() -> Self {
        Self {
            storage: Storage::memory(),
            clock: Clock::fast(PACE),
            model: ModelStandIn::start(ModelStandInOptions::default()).await.unwrap(),
            pipeline: pipeline::load::built_in().unwrap(),
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
            path: Path::from(self.pipeline.bronze.table.as_str()),
            schema: schema::built_in(schema::MESSAGES).unwrap(),
            stats_columns: vec!["update_id".to_owned()],
            id: None,
        }
    }

    fn rows(&self, updates: &[Update]) -> RecordBatch {
        let texts = |values: Vec<String>| Arc::new(StringArray::from(values)) as ArrayRef;
        let received = vec![self.clock.now().as_micros(); updates.len()];
        let columns: [(&str, ArrayRef); 7] = [
            ("bot_id", integers(vec![BOT.0; updates.len()])),
            ("update_id", integers(updates.iter().map(|(id, _)| *id))),
            ("chat_id", integers(updates.iter().map(|(_, chat_id)| *chat_id))),
            ("update_type", texts(vec!["message".to_owned(); updates.len()])),
            ("text", texts(updates.iter().map(|(id, _)| format!("question {id}.")).collect())),
            ("_received_at", Arc::new(TimestampMicrosecondArray::from(received).with_timezone("UTC"))),
            ("_trace_id", texts(updates.iter().map(|(id, _)| trace_id(BOT, *id)).collect())),
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
        let silver = Table::read(&self.storage, &self.pipeline.silver.table).await;
        let mut wrong = silver.check_txns("silver", TableRole::Silver);
        wrong.extend(once_each("silver", &silver.integers("update_id"), updates));
        let odd = silver.texts("status").into_iter().filter(|status| status.as_deref() != Some("answered"));
        wrong.extend(odd.map(|status| format!("a row is {status:?}")));
        wrong
    }
}
