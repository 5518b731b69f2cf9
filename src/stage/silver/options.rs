//! What the silver stage is given, and what a batch reports.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::ask::Asker;
use super::breaker::Breaker;
use crate::clock::Clock;
use crate::flow::permits::Permits;
use crate::id::BotId;
use crate::llm::ModelClient;
use crate::pipeline::Pipeline;
use crate::storage::Storage;
use crate::table::OwnTable;
use crate::telegram::BotClient;
use crate::telemetry::Telemetry;

/// Concurrent acknowledgements.
const MAX_ACKNOWLEDGEMENTS: usize = 32;

/// What the stage works with.
#[derive(Debug)]
pub struct SilverOptions {
    /// The store below `LAKEGRAM_DATA`.
    pub storage: Storage,
    /// The pipeline: tables, routes, model, limits.
    pub pipeline: Pipeline,
    /// The bot whose rows are answered; rows of others are `ignored`. If `None`, all are answered.
    pub bot_id: Option<BotId>,
    /// The columns of the silver table.
    pub schema: SchemaRef,
    /// The silver table that is the pipeline's own.
    pub own: OwnTable,
    /// The model.
    pub model: ModelClient,
    /// The bot that shows users that their message was noticed, as `reply.acknowledge` says; `None` shows nothing.
    pub acknowledger: Option<BotClient>,
    /// Time.
    pub clock: Clock,
    /// Metrics and hops.
    pub telemetry: Telemetry,
    /// Receives the latest version with rows: the hint for the stage that reads the table.
    pub committed: watch::Sender<i64>,
}

/// What a batch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SilverSummary {
    /// Rows added.
    pub rows: u64,
    /// Of them, answered by the model.
    pub answered: u64,
    /// Of them, rows that nobody answers.
    pub ignored: u64,
    /// Of them, rows that the model could not answer.
    pub failed: u64,
    /// Rows still waiting for the model.
    pub waiting: u64,
}

impl SilverOptions {
    /// The asker of a stage, which winds down with `stop`.
    pub(super) fn asker(&self, stop: CancellationToken) -> Asker {
        let settings = &self.pipeline.silver;
        let system = settings.model.system.clone();
        let digest = |text: &String| Sha256::digest(text).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Asker {
            model: self.model.clone(),
            prompt_version: system.as_ref().map(digest),
            system,
            max_tokens: settings.model.max_tokens,
            cut_text: settings.cut_text.clone(),
            failed_text: settings.failed_text.clone(),
            max_attempts: settings.max_attempts,
            breaker: Breaker::new(&self.clock),
            permits: Permits::new(settings.concurrency),
            bot: self.acknowledger.clone(),
            acknowledge: self.pipeline.reply.acknowledge,
            acknowledgements: Arc::new(Semaphore::new(MAX_ACKNOWLEDGEMENTS)),
            clock: self.clock.clone(),
            telemetry: self.telemetry.clone(),
            model_seconds: self.telemetry.latency("lakegram_silver_model_seconds", "time a call of the model took"),
            stop,
        }
    }
}
