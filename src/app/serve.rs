//! The service: the roles of every pipeline as tasks of one process.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::App;
use super::pace::Pace;
use crate::admission::Admission;
use crate::console::{Console, Readiness};
use crate::error::{Context, ErrorKind, Result};
use crate::hint::{KeyHinter, KeyHints, key_hints};
use crate::load::files::FilesStage;
use crate::load::lanes::{BronzeOptions, BronzeStage};
use crate::pipeline::Pipeline;
use crate::receive::{Endpoint, LaneOptions, LaneWriter, Receiver};
use crate::shutdown::TaskGroup;
use crate::stage::reply::{ReplyOptions, ReplyStage};
use crate::stage::silver::{SilverOptions, SilverStage};

/// A drain takes at most this long.
pub(super) const DRAIN: Duration = Duration::from_secs(10);
/// How long after a start it is swept up behind the process before.
const SWEEP_AFTER: Duration = Duration::from_secs(20);
/// Staging files older than this belong to nobody.
const STALE_STAGING: Duration = Duration::from_secs(3_600);

/// A part of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Role {
    /// Takes webhooks in.
    Receive,
    /// Loads raw JSON into the bronze table.
    Bronze,
    /// Asks the model and writes the silver table.
    Silver,
    /// Replies on Telegram.
    Reply,
}

impl Role {
    /// All of them.
    pub fn all() -> BTreeSet<Self> {
        [Self::Receive, Self::Bronze, Self::Silver, Self::Reply].into()
    }
}

/// The sockets of the service, bound by whoever starts it.
#[derive(Debug)]
pub struct Listeners {
    /// For webhooks and health.
    pub receive: TcpListener,
    /// For metrics and status.
    pub console: TcpListener,
}

impl Listeners {
    /// Binds the addresses of the settings.
    ///
    /// # Errors
    /// A configuration error that names the variable when an address cannot be had.
    pub async fn bind(app: &App) -> Result<Self> {
        let receive = bind("LAKEGRAM_LISTEN", app.settings.listen).await?;
        Ok(Self { receive, console: Self::bind_console(app).await? })
    }

    /// Binds the console's address alone.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub async fn bind_console(app: &App) -> Result<TcpListener> {
        bind("LAKEGRAM_CONSOLE", app.settings.console).await
    }
}

async fn bind(name: &str, address: std::net::SocketAddr) -> Result<TcpListener> {
    let mend = format!("cannot listen on {address}; stop what listens there or change {name}");
    TcpListener::bind(address).await.context(ErrorKind::Configuration, mend)
}

impl App {
    /// Runs the roles of every pipeline until `stop`, then drains.
    ///
    /// # Errors
    /// The first error that ended a part of it.
    pub async fn serve(self, roles: &BTreeSet<Role>, listeners: Listeners, stop: CancellationToken) -> Result<()> {
        let mut tasks = TaskGroup::new(stop.clone());
        tasks.spawn("root", self.clone().watch_root(stop.clone()));
        let (mut endpoints, mut pace) = (Vec::new(), Pace::default());
        for pipeline in &self.pipelines {
            let (hinter, hints) = key_hints();
            if roles.contains(&Role::Receive) {
                let writer = self.start_lane(pipeline, hinter, &mut tasks).await?;
                let secrets = self.secrets(pipeline)?;
                endpoints.push(Endpoint { settings: pipeline.receive.clone(), secrets, writer });
            }
            pace.follow(self.start_stages(pipeline, roles, hints, &mut tasks).await?);
        }
        for loader in self.loaders.iter().filter(|_| roles.contains(&Role::Bronze)) {
            let stage = FilesStage::open(self.files_options(loader)?).await;
            let stage = stage.map_err(|error| error.during(&loader.name))?;
            tasks.spawn("files", stage.run(stop.clone()));
        }
        let address = listeners.receive.local_addr().context(ErrorKind::Unavailable, "the listener's address")?;
        let receiver = Receiver::new(endpoints, &self.clock, &self.telemetry);
        let readiness = receiver.readiness();
        let stopping = stop.clone();
        tasks.spawn("receive", async move { receiver.serve(listeners.receive, stopping).await });
        self.start_console(listeners.console, readiness, &mut tasks, &stop)?;
        if roles.contains(&Role::Bronze) {
            tasks.spawn("maintain", self.clone().maintain_apart(pace, stop.clone()));
        }
        if roles.contains(&Role::Bronze) && self.cleans() {
            tasks.spawn("clean", self.clone().clean_apart(stop.clone()));
        }
        let (app, stopping) = (self.clone(), stop.clone());
        tasks.spawn("sweep", async move { app.sweep(stopping).await });
        tracing::info!("listening on http://{address}");
        tasks.wait(&self.clock, DRAIN).await
    }

    /// Removes what interrupted puts have left behind. Nobody waits for it, and a start is not slowed by it: it walks
    /// every folder there is.
    async fn sweep(self, stop: CancellationToken) -> Result<()> {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = self.clock.sleep(SWEEP_AFTER) => {}
        }
        match self.storage.sweep_staging(&self.clock, STALE_STAGING).await {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "removed what interrupted puts had left behind"),
            Err(error) if error.kind() == ErrorKind::Fatal => return Err(error),
            Err(error) => tracing::warn!(%error, "what interrupted puts left behind stays until the next start"),
        }
        stop.cancelled().await;
        Ok(())
    }

    /// Opens the lane of this process and starts its writer.
    pub(super) async fn start_lane(
        &self,
        pipeline: &Pipeline,
        hinter: KeyHinter,
        tasks: &mut TaskGroup,
    ) -> Result<LaneWriter> {
        let limit = usize::try_from(pipeline.receive.max_in_flight.as_u64()).unwrap_or(usize::MAX);
        let options = LaneOptions {
            storage: self.storage.clone(),
            pipeline: pipeline.name.clone(),
            bot_id: self.bot_id(pipeline)?,
            lane: self.lane(pipeline),
            admission: Admission::new(limit),
            hinter,
            clock: self.clock.clone(),
            telemetry: self.telemetry.clone(),
        };
        let (writer, task) = LaneWriter::open(options).await?;
        tasks.spawn("land", task);
        Ok(writer)
    }

    /// Opens the stages of a pipeline and starts them, each hinting the next. Returns where they tell the versions they
    /// have committed.
    pub(super) async fn start_stages(
        &self,
        pipeline: &Pipeline,
        roles: &BTreeSet<Role>,
        hints: KeyHints,
        tasks: &mut TaskGroup,
    ) -> Result<[watch::Receiver<i64>; 2]> {
        let stop = tasks.stop().clone();
        let (bronze_version, bronze_versions) = watch::channel(-1);
        let (silver_version, silver_versions) = watch::channel(-1);
        let versions = [bronze_versions.clone(), silver_versions.clone()];
        // Side by side: what is read of one table while another is computed on makes the start that much shorter.
        let bronze = async {
            if !roles.contains(&Role::Bronze) {
                return Ok(None);
            }
            BronzeStage::open(self.bronze_options(pipeline, bronze_version)?).await.map(Some)
        };
        let silver = async {
            if !roles.contains(&Role::Silver) {
                return Ok(None);
            }
            SilverStage::open(self.silver_options(pipeline, silver_version)?).await.map(Some)
        };
        let reply = async {
            if !roles.contains(&Role::Reply) {
                return Ok(None);
            }
            ReplyStage::open(self.reply_options(pipeline)?).await.map(Some)
        };
        let (bronze, silver, reply) = tokio::try_join!(bronze, silver, reply)?;
        if let Some(stage) = bronze {
            tasks.spawn("bronze", stage.run(hints, stop.clone()));
        }
        if let Some(stage) = silver {
            tasks.spawn("silver", stage.run(bronze_versions, stop.clone()));
        }
        if let Some(stage) = reply {
            tasks.spawn("reply", stage.run(silver_versions, stop.clone()));
        }
        Ok(versions)
    }

    pub(super) fn bronze_options(&self, pipeline: &Pipeline, committed: watch::Sender<i64>) -> Result<BronzeOptions> {
        Ok(BronzeOptions {
            storage: self.storage.clone(),
            pipeline: pipeline.name.clone(),
            settings: pipeline.bronze.clone(),
            schema: crate::schema::load(&self.settings.schemas, &pipeline.bronze.schema)?,
            clock: self.clock.clone(),
            telemetry: self.telemetry.clone(),
            committed,
        })
    }

    pub(super) fn silver_options(&self, pipeline: &Pipeline, committed: watch::Sender<i64>) -> Result<SilverOptions> {
        let acknowledger = self.bot_client(pipeline)?;
        Ok(SilverOptions {
            storage: self.storage.clone(),
            pipeline: pipeline.clone(),
            bot_id: Some(self.bot_id(pipeline)?),
            schema: crate::schema::load(&self.settings.schemas, crate::schema::RESPONSES)?,
            model: self.model_client(pipeline)?,
            acknowledger: Some(acknowledger),
            clock: self.clock.clone(),
            telemetry: self.telemetry.clone(),
            committed,
        })
    }

    pub(super) fn reply_options(&self, pipeline: &Pipeline) -> Result<ReplyOptions> {
        Ok(ReplyOptions {
            storage: self.storage.clone(),
            pipeline: pipeline.name.clone(),
            settings: pipeline.reply.clone(),
            silver_table: pipeline.silver.table.clone(),
            bot_id: self.bot_id(pipeline)?,
            bot: self.bot_client(pipeline)?,
            schema: crate::schema::load(&self.settings.schemas, crate::schema::REPLIES)?,
            clock: self.clock.clone(),
            telemetry: self.telemetry.clone(),
        })
    }

    pub(super) fn start_console(
        &self,
        listener: TcpListener,
        readiness: Readiness,
        tasks: &mut TaskGroup,
        stop: &CancellationToken,
    ) -> Result<()> {
        let address = listener.local_addr().context(ErrorKind::Unavailable, "the console's address")?;
        let console = Console::new(self.telemetry.clone(), Arc::clone(&readiness));
        tasks.spawn("console", console.serve(listener, stop.clone()));
        tracing::info!("console on http://{address}");
        Ok(())
    }
}
