//! The one composition root: settings and pipelines in, running stages out.

mod apart;
mod batch;
mod clean;
mod clocks;
mod keeper;
mod own;
mod pace;
mod parts;
mod places;
mod poll;
mod root;
mod serve;
mod stages;
mod survey;
mod troubles;
mod unread;
mod upkeep;

use std::sync::Arc;

use object_store::path::Path;

use crate::clock::Clock;
use crate::error::Result;
use crate::health::Health;
use crate::id::{BotId, Name};
use crate::llm::ModelClient;
use crate::load::files::{FilesOptions, FilesProgress};
use crate::pipeline::files::FilesPipeline;
use crate::pipeline::load::PipelineFile;
use crate::pipeline::{self, Pipeline};
#[cfg(test)]
use crate::settings::Environment;
use crate::settings::{PUBLIC_BOT_API, Secret, Settings};
use crate::storage::Storage;
use crate::table::{LakeTable, TableRole, TxnId};
use crate::telegram::BotClient;
use crate::telemetry::Telemetry;

pub use self::batch::{BatchSummary, PipelineSummary};
pub use self::clean::{SourceCleaning, SourceCleanings};
pub(crate) use self::clocks::keys_ahead;
pub use self::parts::Secrets;
pub use self::serve::{DRAIN, Listeners, Role};
pub use self::survey::{LoaderSurvey, PipelineSurvey, Survey, TableSurvey};
use self::unread::Readers;
pub use self::unread::UnreadRaw;
pub use self::upkeep::TableUpkeep;

/// Everything a command works with.
#[derive(Clone, Debug)]
pub struct App {
    /// The environment, checked.
    pub settings: Arc<Settings>,
    /// The store below `LAKEGRAM_DATA`.
    pub storage: Storage,
    /// The pipelines of bots that this command is about.
    pub pipelines: Vec<Pipeline>,
    /// The loaders of foreign files that it is about.
    pub loaders: Vec<FilesPipeline>,
    /// Their progress.
    pub loading: Arc<FilesProgress>,
    /// Time.
    pub clock: Clock,
    /// Metrics and hops.
    pub telemetry: Telemetry,
    /// The state of each stage.
    pub health: Health,
    /// Who reads what of the raw folders.
    readers: Readers,
    /// What was found of the pipelines' tables.
    looks: own::Looks,
    /// Who it is, and whom it lets in.
    pub secrets: Arc<Secrets>,
}

/// A table of a pipeline.
#[derive(Clone, Debug)]
pub struct TableRef {
    /// `bronze`, `silver` or `replies`.
    pub name: &'static str,
    /// Its folder below `LAKEGRAM_DATA`.
    pub path: Path,
    /// The stage that reads it, if there is one.
    pub reader: Option<TableRole>,
}

impl TableRef {
    /// How far the stage that reads this table has come, according to its own table; `None` if unknown, or if nobody
    /// reads it.
    pub(crate) fn reader_watermark(&self, table: &LakeTable, readers: Option<&LakeTable>) -> Option<i64> {
        let upstream = table.table_id().to_owned();
        readers?.txn(&TxnId::Watermark { role: self.reader?, upstream })
    }
}

/// The table of a loader.
fn loader_table(loader: &FilesPipeline) -> TableRef {
    TableRef { name: "bronze", path: Path::from(loader.bronze.table.as_str()), reader: None }
}

impl App {
    /// Opens the storage and reads the pipelines named (all, when none is).
    ///
    /// # Errors
    /// A configuration error that says how to fix it.
    pub fn open(settings: Settings, names: &[String], overrides: &[String]) -> Result<Self> {
        let umask = settings.umask;
        Self::open_on(settings, names, overrides, |url| Storage::open_masked(url, umask))
    }

    /// Like [`App::open`], for commands that only read: a missing data folder is not created.
    ///
    /// # Errors
    /// As [`App::open`].
    pub fn open_to_read(settings: Settings, names: &[String], overrides: &[String]) -> Result<Self> {
        Self::open_on(settings, names, overrides, Storage::open_to_read)
    }

    fn open_on(
        settings: Settings,
        names: &[String],
        overrides: &[String],
        storage: impl FnOnce(&str) -> Result<Storage>,
    ) -> Result<Self> {
        let (mut pipelines, mut loaders, mut readers) = (Vec::new(), Vec::new(), Readers::default());
        let (chosen, others) = pipeline::load::load_with_others(&settings.pipelines, names, overrides)?;
        chosen.iter().chain(&others).for_each(|file| readers.add(file));
        for file in chosen {
            match file {
                PipelineFile::Bot(pipeline) => pipelines.push(*pipeline),
                PipelineFile::Files(pipeline) => loaders.push(*pipeline),
            }
        }
        let clock = Clock::system();
        let storage = storage(&settings.data).map_err(|error| error.during("LAKEGRAM_DATA"))?.bounded(&clock);
        let app = Self {
            settings: Arc::new(settings),
            storage,
            pipelines,
            loaders,
            loading: Arc::default(),
            clock,
            telemetry: Telemetry::new(),
            health: Health::default(),
            readers,
            looks: own::Looks::default(),
            secrets: Arc::default(),
        };
        app.check_bots()?;
        app.check_sources()?;
        Ok(app)
    }

    /// An app of the built-in pipeline with these variables in its environment, on an empty store in memory.
    #[cfg(test)]
    fn in_memory(variables: &[(&str, &str)]) -> Self {
        let nowhere =
            [("LAKEGRAM_DATA", "memory://"), ("LAKEGRAM_PIPELINES", "nowhere"), ("LAKEGRAM_SCHEMAS", "nowhere")];
        let environment = Environment::from_pairs(nowhere.iter().chain(variables).copied());
        let mut app = Self::open(Settings::of(environment).unwrap(), &[], &[]).unwrap();
        assert_eq!(app.pipelines.len(), 1, "the pipeline that is built in");
        app.storage = Storage::memory();
        app
    }

    /// The bot id of a pipeline, from its token.
    ///
    /// # Errors
    /// A configuration error when the token is missing or invalid.
    pub fn bot_id(&self, pipeline: &Pipeline) -> Result<BotId> {
        BotId::of_token(&self.token(pipeline)?.current()).map_err(|error| error.during(&pipeline.bot.token_env))
    }

    /// The Bot API client of a pipeline.
    ///
    /// # Errors
    /// A configuration error when the token or the URL is missing or invalid.
    pub fn bot_client(&self, pipeline: &Pipeline) -> Result<BotClient> {
        self.bot_id(pipeline)?;
        BotClient::new(&self.settings.bot_api_url, self.token(pipeline)?)
    }

    /// Whether bots are those of Telegram's own servers, and not of a Bot API server nearby.
    pub fn uses_public_bot_api(&self) -> bool {
        self.settings.bot_api_url.trim_end_matches('/') == PUBLIC_BOT_API
    }

    /// The webhook secrets of a pipeline as they are now: one, or two during rotation, separated by a comma.
    ///
    /// # Errors
    /// A configuration error when there is none, or one that Telegram would not accept.
    pub fn webhook_secrets(&self, pipeline: &Pipeline) -> Result<Secret> {
        self.secrets.webhook(self.settings.environment(), &pipeline.bot.secret_env, &self.clock)
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
        let table = |name, path: &str, reader| TableRef { name, path: Path::from(path), reader };
        [
            table("bronze", &pipeline.bronze.table, Some(TableRole::Silver)),
            table("silver", &pipeline.silver.table, Some(TableRole::Reply)),
            table("replies", &pipeline.reply.table, None),
        ]
    }

    /// The tables of every pipeline and loader, by its name, each before the one that reads it.
    pub fn all_tables(&self) -> Vec<(&Name, Vec<TableRef>)> {
        let bots = self.pipelines.iter().map(|pipeline| (&pipeline.name, self.tables(pipeline).to_vec()));
        let loaders = self.loaders.iter().map(|loader| (&loader.name, vec![loader_table(loader)]));
        bots.chain(loaders).collect()
    }

    /// What a loader of foreign files works with.
    ///
    /// # Errors
    /// A configuration error when its schema cannot be read.
    pub fn files_options(&self, loader: &FilesPipeline) -> Result<FilesOptions> {
        let schema = loader.bronze.schema.as_ref().map(|file| crate::schema::load(&self.settings.schemas, file));
        Ok(FilesOptions {
            data: self.storage.clone(),
            pipeline: loader.clone(),
            schema: schema.transpose()?,
            checkpoints: self.settings.checkpoints.clone(),
            clock: self.clock.clone(),
            telemetry: self.telemetry.clone(),
            progress: Arc::clone(&self.loading),
        })
    }

    /// The lane that this process writes for a pipeline.
    pub fn lane(&self, pipeline: &Pipeline) -> Name {
        pipeline.receive.lane.clone().unwrap_or_else(|| self.settings.host_lane.clone())
    }

    fn token(&self, pipeline: &Pipeline) -> Result<Secret> {
        self.secrets.bot_token(self.settings.environment(), &pipeline.bot.token_env, &self.clock)
    }
}
