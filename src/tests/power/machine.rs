//! A machine that runs lakegram on a simulated disk, in its own thread, until its work or its power ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{broadcast, oneshot};
use tokio_util::sync::CancellationToken;

use crate::app::{App, Listeners, Role};
use crate::clock::Clock;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::settings::{Environment, Settings};
use crate::storage::Storage;
use crate::storage::tests::simulated::SimulatedDisk;
use crate::table::maintain::MaintainOptions;
use crate::telemetry::Hop;

/// How many times faster time runs while the service runs: otherwise the test would only wait for timers.
const SERVICE_PACE: u32 = 20;
/// The same while the remaining work is done: the intents of dead processes are watched for a minute.
const BATCH_PACE: u32 = 200;
/// Threads for blocking work. A checkpoint blocks one while its reads need others.
const BLOCKING_THREADS: usize = 8;
/// Every thread ends at once when its disk is gone.
const JOIN: Duration = Duration::from_secs(20);

/// What a machine boots with.
pub(super) struct Boot {
    pub(super) disk: SimulatedDisk,
    pub(super) data: PathBuf,
    pub(super) environment: Environment,
    /// Whether its tables are compacted, checkpointed and vacuumed meanwhile.
    pub(super) upkeep: bool,
}

/// How the world reaches a machine.
pub(super) struct Door {
    /// The URL of its webhook.
    pub(super) url: String,
    /// What its pipeline reports.
    pub(super) hops: broadcast::Receiver<Arc<Hop>>,
}

/// A machine that is on.
pub(super) struct Machine {
    /// Available once it is open; closed if the machine ended before.
    pub(super) door: oneshot::Receiver<Door>,
    /// Cancel it to drain the service; the machine then finishes the remaining work and ends.
    pub(super) stop: CancellationToken,
    /// Cancelled when it has ended.
    pub(super) ended: CancellationToken,
    thread: JoinHandle<Result<()>>,
}

impl Boot {
    /// Turns the machine on.
    pub(super) fn start(self) -> Machine {
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let (opened, door) = oneshot::channel();
        let (stopping, ending) = (stop.clone(), ended.clone().drop_guard());
        let thread = thread::spawn(move || {
            let _ending = ending;
            self.run(opened, stopping)
        });
        Machine { door, stop, ended, thread }
    }

    /// Runs until the work is done or the power is out. After that no task takes another step.
    fn run(self, opened: oneshot::Sender<Door>, stop: CancellationToken) -> Result<()> {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build();
        let runtime = runtime.context(ErrorKind::Unavailable, "start a runtime")?;
        let disk = self.disk.clone();
        disk.never_block_this_thread();
        let ended = runtime.block_on(async {
            tokio::select! {
                biased;
                () = disk.out().cancelled() => Ok(()),
                // The result of the last call of this thread no longer matters.
                ended = self.work(opened, stop) => if disk.out().is_cancelled() { Ok(()) } else { ended },
            }
        });
        disk.pull_the_plug();
        disk.release();
        runtime.shutdown_timeout(JOIN);
        ended
    }

    async fn work(&self, opened: oneshot::Sender<Door>, stop: CancellationToken) -> Result<()> {
        let app = self.open(Clock::fast(SERVICE_PACE))?;
        let listeners = Listeners::bind(&app).await?;
        let address = listeners.receive.local_addr().context(ErrorKind::Unavailable, "the listener's address")?;
        let door = Door { url: format!("http://{address}/telegram-webhook"), hops: app.telemetry.watch_hops() };
        // The world may have given up on us already.
        let _given_up = opened.send(door);
        let upkeep = self.keep_up(&app, &stop);
        let roles = Role::all();
        let serving = app.clone().serve(&roles, listeners, stop.clone());
        tokio::try_join!(serving, upkeep)?;
        let app = self.open(Clock::fast(BATCH_PACE))?;
        let summary = app.run(|_| {}, &CancellationToken::new()).await?;
        match summary.waiting() {
            0 => Ok(()),
            waiting => Err(Error::corrupt(format!("{waiting} rows still wait when everything is done"))),
        }
    }

    fn open(&self, clock: Clock) -> Result<App> {
        let mut app = App::open(Settings::of(self.environment.clone())?, &[], &[])?;
        app.storage = Storage::open_folder_on(Arc::new(self.disk.clone()), &self.data)?;
        app.clock = clock;
        Ok(app)
    }

    /// Maintains the tables after every reply, far more eagerly than in real life.
    async fn keep_up(&self, app: &App, stop: &CancellationToken) -> Result<()> {
        let options = MaintainOptions {
            compact_at_files: 2,
            checkpoint_every: 2,
            log_retention: Duration::ZERO,
            ..MaintainOptions::default()
        };
        let options = MaintainOptions { allow_short_retention: true, ..options };
        let mut hops = app.telemetry.watch_hops();
        while self.upkeep && !stop.is_cancelled() {
            app.maintain(&options, |_| {}, stop).await?;
            tokio::select! {
                () = stop.cancelled() => break,
                _replied = hops.recv() => {}
            }
        }
        Ok(())
    }
}

impl Machine {
    /// Waits for its end; returns its error unless the power went out.
    pub(super) fn join(self) -> Result<()> {
        let panicked = |_| Err(Error::new(ErrorKind::Fatal, "the machine panicked"));
        self.thread.join().unwrap_or_else(panicked)
    }
}
