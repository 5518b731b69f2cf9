//! The service: the roles of every pipeline as tasks of one process.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::App;
use super::pace::Pace;
use crate::admission::Admission;
use crate::console::{Console, Readiness};
use crate::error::{Context, ErrorKind, Result};
use crate::hint::{KeyHinter, key_hints};
use crate::pipeline::Pipeline;
use crate::receive::{Endpoint, LaneOptions, LaneWriter, Receiver};
use crate::shutdown::TaskGroup;

/// A drain takes at most this long.
pub const DRAIN: Duration = Duration::from_secs(10);
/// How long after a start the leftovers of the previous process are swept up.
const SWEEP_AFTER: Duration = Duration::from_secs(20);
/// Staging files older than this belong to nobody.
const STALE_STAGING: Duration = Duration::from_secs(3_600);

/// A part of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Role {
    /// Receives webhooks.
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

/// The sockets of the service, bound by its starter.
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
    /// A configuration error that names the variable when an address is not available.
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
    let fix = format!("cannot listen on {address}; stop whatever is listening there, or change {name}");
    TcpListener::bind(address).await.context(ErrorKind::Configuration, fix)
}

impl App {
    /// Runs the roles of every pipeline until `stop`, then drains. The receiver opens before anything else, and serves
    /// whatever happens to the stages.
    ///
    /// # Errors
    /// A configuration error before anything is started; afterwards only that the disk failed.
    pub async fn serve(self, roles: &BTreeSet<Role>, listeners: Listeners, stop: CancellationToken) -> Result<()> {
        self.check_settings(roles)?;
        self.check_store().await?;
        let mut tasks = TaskGroup::new(stop.clone());
        self.keep_root(roles.contains(&Role::Receive), &mut tasks);
        let (mut endpoints, mut hints) = (Vec::new(), Vec::new());
        for pipeline in &self.pipelines {
            let (hinter, hinted) = key_hints();
            hints.push(hinted);
            if roles.contains(&Role::Receive) {
                let writer = self.start_lane(pipeline, hinter, &mut tasks)?;
                let secrets = self.webhook_secrets(pipeline)?;
                endpoints.push(Endpoint { settings: pipeline.receive.clone(), secrets, writer });
            }
        }
        let address = listeners.receive.local_addr().context(ErrorKind::Unavailable, "the listener's address")?;
        let receiver = Receiver::new(endpoints, &self.clock, &self.telemetry, &self.health);
        let readiness = receiver.readiness();
        let stopping = stop.clone();
        tasks.spawn("receive", async move { receiver.serve(listeners.receive, stopping).await });
        tracing::info!("listening on http://{address}");
        self.keep_console(listeners.console, readiness, &mut tasks)?;
        let mut pace = Pace::default();
        for (pipeline, hints) in self.pipelines.iter().zip(hints) {
            pace.follow(self.keep_stages(pipeline, roles, hints, &mut tasks));
        }
        if roles.contains(&Role::Bronze) {
            self.loaders.iter().for_each(|loader| self.keep_loader(loader, &mut tasks));
            self.keep_upkeep(&pace, &mut tasks);
        }
        self.keep_sweep(&mut tasks);
        tasks.wait(&self.clock, DRAIN).await
    }

    /// Removes what interrupted puts left behind. Nobody waits for it, and it does not slow down a start: it walks
    /// every folder there is.
    pub(super) async fn sweep(self, stop: CancellationToken) -> Result<()> {
        if stop.run_until_cancelled(self.clock.sleep(SWEEP_AFTER)).await.is_none() {
            return Ok(());
        }
        let sweep = self.storage.sweep_staging(&self.clock, STALE_STAGING);
        let Some(swept) = stop.run_until_cancelled(sweep).await else { return Ok(()) };
        match swept {
            Ok(0) => {}
            Ok(files) => tracing::info!(files, "removed the leftovers of interrupted puts"),
            Err(error) if error.kind() == ErrorKind::Fatal => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "could not remove the leftovers of interrupted puts; trying again at the next start")
            }
        }
        stop.cancelled().await;
        Ok(())
    }

    /// Claims the lane of this process and starts its writer.
    ///
    /// # Errors
    /// A configuration error when another process has the lane.
    pub(super) fn start_lane(
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
        let (writer, task) = LaneWriter::open(options)?;
        tasks.spawn("land", task);
        Ok(writer)
    }

    pub(super) fn keep_console(
        &self,
        listener: TcpListener,
        readiness: Readiness,
        tasks: &mut TaskGroup,
    ) -> Result<()> {
        let address = listener.local_addr().context(ErrorKind::Unavailable, "the console's address")?;
        let console = Console::new(self.telemetry.clone(), readiness, self.health.clone(), self.clock.clone());
        let mut bound = Some(listener);
        let open = move || {
            let listener = bound.take();
            async move {
                match listener {
                    Some(listener) => Ok(listener),
                    None => bind("LAKEGRAM_CONSOLE", address).await,
                }
            }
        };
        let keeper = self.keeper("", "console", tasks.stop());
        keeper.spawn(tasks, open, move |listener, stop| console.clone().serve(listener, stop));
        tracing::info!("console on http://{address}");
        Ok(())
    }
}
