//! The silver stage: every bronze row becomes one silver row, answered by the model where a route says so.

mod addressee;
mod ask;
mod breaker;
mod history;
mod ledger;
mod options;
mod outcome;
mod route;
mod rows;

use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::path::Path;
use prometheus::{IntCounterVec, IntGauge};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::addressee::BotName;
use self::ask::{Asker, Question};
use self::history::History;
use self::ledger::SilverLedger;
pub use self::ledger::spec as table_spec;
pub use self::options::{SilverOptions, SilverSummary};
use self::route::Decision;
use self::rows::{BronzeRow, Conversation, SilverRow, Status};
use crate::clock::{Clock, Timestamp};
use crate::error::Result;
use crate::flow::ledger::{LedgerOptions, Parts};
use crate::flow::work::{Desk, Work};
use crate::flow::{Flow, FlowOptions};
use crate::id::BotId;
use crate::identity::adopt::HISTORY_ROUTE;
use crate::pipeline::{Answer, Groups, Route};
use crate::table::{TableRole, TableSpec};
use crate::telemetry::{Hop, Telemetry};

/// The stage.
#[derive(Debug)]
pub struct SilverStage {
    flow: Flow<SilverWork>,
}

/// What the stage does with a bronze row.
#[derive(Debug)]
struct SilverWork {
    asker: Arc<Asker>,
    history: History,
    routes: Vec<Route>,
    groups: Groups,
    bot_id: Option<BotId>,
    name: Arc<BotName>,
    /// What was received before this moment was handled before the silver table was made.
    history_before: Option<Timestamp>,
    clock: Clock,
    telemetry: Telemetry,
    committed: watch::Sender<i64>,
    rows_total: IntCounterVec,
    waiting_rows: IntGauge,
    summary: SilverSummary,
    wind_down: CancellationToken,
}

impl SilverStage {
    /// Opens the silver table, and reads the recent conversation.
    ///
    /// # Errors
    /// When the table cannot be opened or the store fails.
    pub async fn open(options: SilverOptions) -> Result<Self> {
        let SilverOptions { storage, pipeline, schema, clock, .. } = &options;
        let settings = &pipeline.silver;
        let (ledger, files) = SilverLedger::open(LedgerOptions {
            storage: storage.clone(),
            spec: TableSpec { id: options.own.id.clone(), ..ledger::spec(&settings.table, Arc::clone(schema))? },
            role: TableRole::Silver,
            settles: ledger::settles,
            clock: clock.clone(),
        })
        .await?;
        let mut history = History::new(settings.model.history);
        let since = clock.now().minus(settings.model.history.max_age);
        ledger::recall(&mut history, &ledger, files, since).await?;
        let work = SilverWork::new(&options, history);
        let upstream = Path::from(pipeline.bronze.table.as_str());
        let columns = &rows::BRONZE_COLUMNS;
        let flow = FlowOptions { storage, upstream: &upstream, columns, max_waiting: settings.max_waiting, clock };
        Ok(Self { flow: Flow::new(work, ledger, &flow) })
    }

    /// Handles everything that is in bronze now, until `stop`.
    ///
    /// # Errors
    /// When a table cannot be read or written.
    pub async fn work_until_idle(&mut self, stop: &CancellationToken) -> Result<SilverSummary> {
        self.flow.work_until_idle(stop).await?;
        Ok(SilverSummary { waiting: self.flow.waiting() as u64, ..self.flow.work().summary.clone() })
    }

    /// Handles bronze rows as they arrive, until `stop`. Each hint is a version of bronze.
    ///
    /// # Errors
    /// When a table cannot be read or written. Reopening the stage is safe.
    pub async fn run(self, bronze_versions: watch::Receiver<i64>, stop: CancellationToken) -> Result<()> {
        self.flow.run(bronze_versions, stop).await
    }
}

impl SilverWork {
    fn new(options: &SilverOptions, history: History) -> Self {
        let SilverOptions { pipeline, clock, telemetry, .. } = options;
        let wind_down = CancellationToken::new();
        Self {
            asker: Arc::new(options.asker(wind_down.clone())),
            history,
            routes: pipeline.routes.clone(),
            groups: pipeline.silver.groups,
            bot_id: options.bot_id,
            name: Arc::new(BotName::new(options.acknowledger.clone(), clock)),
            history_before: options.own.history_before,
            clock: clock.clone(),
            telemetry: telemetry.clone(),
            committed: options.committed.clone(),
            rows_total: telemetry.counters("lakegram_silver_rows_total", "rows added", &["status"]),
            waiting_rows: telemetry.gauge("lakegram_silver_waiting_rows", "rows waiting for the model"),
            summary: SilverSummary::default(),
            wind_down,
        }
    }
}

impl Work for SilverWork {
    type Row = SilverRow;
    type Item = BronzeRow;

    fn items(&self, batch: &RecordBatch, version: i64) -> Result<Vec<Option<BronzeRow>>> {
        rows::bronze_rows(batch, version)
    }

    fn settle(&mut self, row: &BronzeRow) -> Option<SilverRow> {
        if route::is_ours(row, self.bot_id) {
            self.asker.release_button(row);
        }
        if self.history_before.is_some_and(|before| row.received_at < before) {
            let error = Some("received before this table was made".to_owned());
            let route = Some(HISTORY_ROUTE.to_owned());
            return Some(SilverRow { error, ..ignored(row.clone(), route, &self.clock) });
        }
        match route::decide(row, &self.routes, self.groups, self.bot_id) {
            Decision { answer: Answer::Model, .. } => None,
            Decision { answer: Answer::Nobody, route, .. } => Some(ignored(row.clone(), route, &self.clock)),
        }
    }

    fn begin(&mut self, row: BronzeRow, desk: Desk<SilverRow>) -> BoxFuture<'static, Result<bool>> {
        let Decision { route, is_named, .. } = route::decide(&row, &self.routes, self.groups, self.bot_id);
        let history = self.history.before(row.conversation(), row.received_at);
        let (asker, question) = (Arc::clone(&self.asker), Question { row, route, history });
        let (name, clock) = (Arc::clone(&self.name), self.clock.clone());
        let work = async move {
            if is_named {
                let name = tokio::select! {
                    () = asker.stop.cancelled() => return Ok(false),
                    name = name.get() => name,
                };
                if !addressee::is_named(question.row.text.as_deref().unwrap_or_default(), name.as_deref()) {
                    return Ok(desk.record(ignored(question.row, None, &clock), true).await.is_ok());
                }
            }
            let Some(row) = asker.ask(&question).await else { return Ok(false) };
            Ok(desk.record(row, true).await.is_ok())
        };
        work.boxed()
    }

    fn set_aside(&mut self, row: &BronzeRow, _rows: &Parts<SilverRow>, panic: &str) -> SilverRow {
        self.asker.set_aside(row, format!("the work on this row panicked: {panic}"))
    }

    fn committed(&mut self, rows: &[SilverRow], version: i64) {
        for row in rows {
            self.rows_total.with_label_values(&[row.status.as_str()]).inc();
            self.summary.rows += 1;
            match row.status {
                Status::Answered => self.summary.answered += 1,
                Status::Ignored => self.summary.ignored += 1,
                Status::Failed => self.summary.failed += 1,
            }
            if let (Some(group), Some(supergroup)) = (row.bronze.conversation(), row.bronze.context.migrated_to) {
                self.history.migrate(group, Conversation { chat_id: supergroup, topic_id: None });
            }
            if let (Some(conversation), Some(kept_turns)) = (row.bronze.conversation(), row.kept_turns) {
                self.history.shorten(conversation, kept_turns);
            }
            if let (Some(conversation), Some(answer)) = (row.bronze.conversation(), &row.response) {
                let question = row.bronze.text.as_deref().unwrap_or_default();
                self.history.add(conversation, row.bronze.received_at, question, answer);
            }
            let (bot_id, update_id, at) = (row.bronze.bot_id, row.bronze.update_id, self.clock.now());
            self.telemetry.hop(|| Hop { bot_id, update_id, step: "silver", at, detail: version.to_string() });
        }
        self.committed.send_replace(version);
    }

    fn waiting(&self, rows: usize) {
        self.waiting_rows.set(i64::try_from(rows).unwrap_or(i64::MAX));
    }

    fn wind_down(&self) {
        self.wind_down.cancel();
    }
}

fn ignored(bronze: BronzeRow, route: Option<String>, clock: &Clock) -> SilverRow {
    SilverRow {
        bronze,
        status: Status::Ignored,
        response: None,
        route,
        error: None,
        reply: Vec::new(),
        model: None,
        prompt_version: None,
        finish_reason: None,
        input_tokens: None,
        output_tokens: None,
        latency_ms: None,
        model_calls: 0,
        kept_turns: None,
        processed_at: clock.now(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::llm::{ModelClient, ModelEndpoint};
    use crate::pipeline;
    use crate::schema;
    use crate::storage::Storage;
    use crate::table::OwnTable;
    use crate::telegram::BotClient;

    #[tokio::test]
    async fn only_buttons_of_the_stage_s_own_bot_are_released() {
        let (clock, pipeline) = (Clock::system(), pipeline::load::built_in().unwrap());
        let endpoint = ModelEndpoint::OpenAi { base_url: "http://127.0.0.1:9".to_owned(), api_key: None };
        let options = SilverOptions {
            storage: Storage::memory(),
            bot_id: Some(BotId(1)),
            schema: schema::built_in(schema::RESPONSES).unwrap(),
            own: OwnTable::default(),
            model: ModelClient::new(endpoint, "m", Duration::from_secs(1), &clock).unwrap(),
            acknowledger: Some(BotClient::new("http://127.0.0.1:9", "1:x").unwrap()),
            telemetry: Telemetry::new(),
            committed: watch::Sender::new(-1),
            clock: clock.clone(),
            pipeline: pipeline.clone(),
        };
        let mut work = SilverWork::new(&options, History::new(pipeline.silver.model.history));
        let pressed = |bot_id| BronzeRow {
            bot_id: BotId(bot_id),
            update_type: Some("callback_query".to_owned()),
            callback_query_id: Some("q".to_owned()),
            received_at: clock.now(),
            ..BronzeRow::default()
        };
        // Its token is that of bot 1: Telegram knows no such query of it. The calls begin when this task waits.
        let free = work.asker.acknowledgements.available_permits();
        assert_eq!(work.settle(&pressed(2)).unwrap().status, Status::Ignored);
        assert_eq!(work.asker.acknowledgements.available_permits(), free);
        work.settle(&pressed(1));
        assert_eq!(work.asker.acknowledgements.available_permits(), free - 1);
    }
}
