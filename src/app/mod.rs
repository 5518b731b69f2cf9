//! The one composition root: settings and pipelines in, running stages out.

mod apart;
mod audit;
mod batch;
mod pace;
mod parts;
mod poll;
mod serve;
mod survey;
mod upkeep;

use std::sync::Arc;

use object_store::path::Path;

use crate::clock::Clock;
use crate::error::Result;
use crate::id::{BotId, Name};
use crate::llm::ModelClient;
use crate::pipeline::{self, Pipeline};
use crate::settings::Settings;
use crate::storage::Storage;
use crate::telegram::BotClient;
use crate::telemetry::Telemetry;

pub use self::audit::{AuditStep, AuditedTable, Check, Finding, Listed, PipelineAudit};
pub use self::batch::{BatchSummary, PipelineSummary};
pub use self::serve::{Listeners, Role};
pub use self::survey::{PipelineSurvey, TableSurvey};
pub use self::upkeep::TableUpkeep;

/// Everything a command works with.
#[derive(Clone, Debug)]
pub struct App {
    /// The environment, checked.
    pub settings: Arc<Settings>,
    /// The store below `LAKEGRAM_DATA`.
    pub storage: Storage,
    /// The pipelines this command is about.
    pub pipelines: Vec<Pipeline>,
    /// Time.
    pub clock: Clock,
    /// Metrics and hops.
    pub telemetry: Telemetry,
}

/// A table of a pipeline.
#[derive(Clone, Debug)]
pub struct TableRef {
    /// `bronze`, `silver` or `replies`.
    pub name: &'static str,
    /// Its folder below `LAKEGRAM_DATA`.
    pub path: Path,
    /// The txn that tells how far the stage that reads it has come, where one reads it.
    pub reader_watermark: Option<String>,
}

impl App {
    /// Opens the storage and reads the pipelines named (all, when none is).
    ///
    /// # Errors
    /// A configuration error with the mend.
    pub fn open(settings: Settings, names: &[String], overrides: &[String]) -> Result<Self> {
        let pipelines = pipeline::load::load(&settings.pipelines, names, overrides)?;
        let storage = Storage::open(&settings.data).map_err(|error| error.during("LAKEGRAM_DATA"))?;
        Ok(Self {
            settings: Arc::new(settings),
            storage,
            pipelines,
            clock: Clock::system(),
            telemetry: Telemetry::new(),
        })
    }

    /// The bot id of a pipeline, from its token.
    ///
    /// # Errors
    /// A configuration error when the token is missing or none.
    pub fn bot_id(&self, pipeline: &Pipeline) -> Result<BotId> {
        BotId::of_token(&self.token(pipeline)?).map_err(|error| error.during(&pipeline.bot.token_env))
    }

    /// The Bot API client of a pipeline.
    ///
    /// # Errors
    /// A configuration error when the token or the URL is missing or none.
    pub fn bot_client(&self, pipeline: &Pipeline) -> Result<BotClient> {
        self.bot_id(pipeline)?;
        BotClient::new(&self.settings.bot_api_url, &self.token(pipeline)?)
    }

    /// The webhook secrets of a pipeline: one, or two during rotation.
    ///
    /// # Errors
    /// A configuration error when there is none, or one that Telegram would not take.
    pub fn secrets(&self, pipeline: &Pipeline) -> Result<Vec<String>> {
        parts::webhook_secrets(self.settings.environment(), &pipeline.bot.secret_env)
    }

    /// The model client of a pipeline.
    ///
    /// # Errors
    /// A configuration error that names the missing variable.
    pub fn model_client(&self, pipeline: &Pipeline) -> Result<ModelClient> {
        parts::model_client(&self.settings, &pipeline.silver.model, &self.clock)
    }

    /// The tables of a pipeline.
    pub fn tables(&self, pipeline: &Pipeline) -> [TableRef; 3] {
        let table = |name, path: &str, reader: Option<&str>| TableRef {
            name,
            path: Path::from(path),
            reader_watermark: reader.map(|stage| format!("lakegram/{}/{stage}/watermark", pipeline.name)),
        };
        [
            table("bronze", &pipeline.bronze.table, Some("silver")),
            table("silver", &pipeline.silver.table, Some("reply")),
            table("replies", &pipeline.reply.table, None),
        ]
    }

    /// The lane that this process writes for a pipeline.
    pub fn lane(&self, pipeline: &Pipeline) -> Name {
        pipeline.receive.lane.clone().unwrap_or_else(|| self.settings.host_lane.clone())
    }

    fn token(&self, pipeline: &Pipeline) -> Result<String> {
        let mend = "ask @BotFather for a token and put it into .env (see .env.example)";
        self.settings.environment().require(&pipeline.bot.token_env, mend)
    }
}
