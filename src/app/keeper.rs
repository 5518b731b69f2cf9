//! Keepers: each stage is opened, and reopened after trouble, so that its trouble stays its own.

use std::future::Future;
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};
use tokio_util::sync::CancellationToken;

use super::App;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::health::{Health, StageId, StageState, Unwell};
use crate::panic::{self, Panic};
use crate::retry::Backoff;
use crate::shutdown::TaskGroup;

/// The first and the longest pause before a stage is reopened.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A stage that was in trouble is well again once it has worked for this long.
const WELL_AFTER: Duration = Duration::from_secs(1);
/// A stage that has worked this long starts over with short pauses.
const STEADY: Duration = Duration::from_secs(60);

/// Keeps one stage.
#[derive(Debug)]
pub(super) struct Keeper {
    id: StageId,
    health: Health,
    clock: Clock,
    stop: CancellationToken,
    unwell: IntGauge,
    reopenings: IntCounter,
}

impl App {
    /// The keeper of a stage, which shows as opening from now on; an empty `pipeline` means all of them.
    pub(super) fn keeper(&self, pipeline: &str, stage: &'static str, stop: &CancellationToken) -> Keeper {
        let id = StageId { pipeline: pipeline.to_owned(), stage };
        let labels = ["pipeline", "stage"];
        let unwell = self.telemetry.gauges("lakegram_stage_unwell", "1 while a stage does not work", &labels);
        let help = "times a stage was reopened after trouble";
        let reopenings = self.telemetry.counters("lakegram_stage_reopenings_total", help, &labels);
        let unwell = unwell.with_label_values(&[pipeline, stage]);
        unwell.set(0);
        self.health.note(&id, StageState::Opening);
        Keeper {
            reopenings: reopenings.with_label_values(&[pipeline, stage]),
            unwell,
            id,
            health: self.health.clone(),
            clock: self.clock.clone(),
            stop: stop.clone(),
        }
    }
}

impl Keeper {
    /// Keeps a stage as a task of the group.
    pub(super) fn spawn<S, O, R>(
        self,
        tasks: &mut TaskGroup,
        open: impl FnMut() -> O + Send + 'static,
        run: impl FnMut(S, CancellationToken) -> R + Send + 'static,
    ) where
        S: Send + 'static,
        O: Future<Output = Result<S>> + Send + 'static,
        R: Future<Output = Result<()>> + Send + 'static,
    {
        let name = self.id.stage;
        tasks.spawn(name, self.keep(open, run));
    }

    /// Opens a stage with `open` and runs it with `run` until stopped. After any trouble except an untrustworthy disk
    /// it is reopened after a pause.
    ///
    /// # Errors
    /// Fatal when the disk failed.
    pub(super) async fn keep<S, O, R>(
        self,
        mut open: impl FnMut() -> O,
        mut run: impl FnMut(S, CancellationToken) -> R,
    ) -> Result<()>
    where
        O: Future<Output = Result<S>>,
        R: Future<Output = Result<()>>,
    {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        // Boxed: these futures are large.
        while let Some(opened) = self.stop.run_until_cancelled(panic::catch(async { Box::pin(open()).await })).await {
            let ended = match flat(opened) {
                Ok(stage) => {
                    let began = self.clock.monotonic();
                    let running = panic::catch(async { Box::pin(run(stage, self.stop.clone())).await });
                    let ended = self.watch(running).await;
                    if self.clock.monotonic().saturating_sub(began) >= STEADY {
                        backoff.reset();
                    }
                    flat(ended)
                }
                Err(error) => Err(error),
            };
            let error = match ended {
                Err(error) if error.kind() == ErrorKind::Fatal => return Err(error.during(&self.id)),
                Ok(()) if self.stop.is_cancelled() => return Ok(()),
                Ok(()) => Error::unavailable("it ended unexpectedly"),
                Err(error) => error,
            };
            if self.stop.is_cancelled() {
                tracing::warn!(stage = %self.id, %error, "a stage stopped with an error; the next start continues from there");
                return Ok(());
            }
            let pause = backoff.next_delay();
            self.is_unwell(&error, pause);
            if self.stop.run_until_cancelled(self.clock.sleep(pause)).await.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Shows a stage as well: at once the first time, and after trouble once it has worked for a moment, since the same
    /// trouble often meets it again at its first read.
    async fn watch<T>(&self, running: impl Future<Output = T>) -> T {
        let mut running = std::pin::pin!(running);
        if self.health.is_unwell(&self.id) {
            tokio::select! {
                ended = &mut running => return ended,
                () = self.clock.sleep(WELL_AFTER) => {}
            }
        }
        self.is_well();
        running.await
    }

    fn is_well(&self) {
        self.unwell.set(0);
        if let Some(StageState::Unwell(_)) = self.health.note(&self.id, StageState::Ok) {
            self.reopenings.inc();
            tracing::info!(stage = %self.id, "a stage works again");
        }
    }

    /// Logs a new reason once, however often it occurs.
    fn is_unwell(&self, error: &Error, pause: Duration) {
        self.unwell.set(1);
        let (now, reason) = (self.clock.now(), error.to_string());
        let unwell = Unwell { reason: reason.clone(), since: now, next_try: now.plus(pause) };
        if let Some(StageState::Unwell(before)) = self.health.unwell(&self.id, unwell)
            && before.reason == reason
        {
            return;
        }
        tracing::error!(
            stage = %self.id, reason, retry_in = ?pause,
            "a stage is unwell and will be reopened; its work is kept, and everything else continues"
        );
    }
}

fn flat<T>(caught: std::result::Result<Result<T>, Panic>) -> Result<T> {
    caught.unwrap_or_else(|panic| Err(panic.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]

    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::health::StageHealth;
    use crate::settings::{Environment, Settings};
    use crate::storage::Storage;
    use crate::telemetry::Telemetry;

    fn app() -> App {
        App {
            settings: Arc::new(Settings::of(Environment::from_pairs([])).unwrap()),
            storage: Storage::memory(),
            pipelines: Vec::new(),
            loaders: Vec::new(),
            loading: Arc::default(),
            clock: Clock::fast(1_000),
            telemetry: Telemetry::new(),
            health: Health::default(),
            readers: crate::app::Readers::default(),
            looks: crate::app::own::Looks::default(),
            secrets: Arc::default(),
        }
    }

    fn only(app: &App) -> StageHealth {
        app.health.stages().remove(0)
    }

    #[tokio::test]
    async fn whatever_fails_is_opened_again_and_shown_meanwhile() {
        let (app, stop) = (app(), CancellationToken::new());
        let keeper = app.keeper("telegram", "silver", &stop);
        assert_eq!(only(&app).word(), "opening");
        let (tries, watched, stopping) = (AtomicUsize::new(0), app.clone(), stop.clone());
        let open = || {
            let number = tries.fetch_add(1, Ordering::SeqCst);
            let watched = watched.clone();
            async move {
                // The earlier failure is still shown while it is tried again.
                assert_eq!(only(&watched).is_unwell(), number > 0);
                match number {
                    0 => Err(Error::configuration("a feature we do not know")),
                    1 => panic!("open {number}"),
                    2 => Err(Error::new(ErrorKind::Refused, "403")),
                    number => Ok(number),
                }
            }
        };
        let run = |number: usize, stop: CancellationToken| {
            let (watched, stopping) = (watched.clone(), stopping.clone());
            async move {
                while only(&watched).word() != "ok" {
                    tokio::task::yield_now().await;
                }
                match number {
                    3 => Err(Error::corrupt("torn")),
                    4 => panic!("run {number}"),
                    5 => Ok(()),
                    _ => {
                        stopping.cancel();
                        stop.cancelled().await;
                        Err(Error::unavailable("what had begun was not committed"))
                    }
                }
            }
        };
        keeper.keep(open, run).await.unwrap();
        assert_eq!(tries.load(Ordering::SeqCst), 7);
        let metrics = app.telemetry.render();
        let labels = "{pipeline=\"telegram\",stage=\"silver\"}";
        assert!(metrics.contains(&format!("lakegram_stage_reopenings_total{labels} 4")), "{metrics}");
        assert!(metrics.contains(&format!("lakegram_stage_unwell{labels} 0")), "{metrics}");
    }

    #[tokio::test]
    async fn a_disk_that_fails_ends_it() {
        let (app, stop) = (app(), CancellationToken::new());
        let open = || async { Err(Error::new(ErrorKind::Fatal, "fsync")) as Result<()> };
        let ended = app.keeper("telegram", "bronze", &stop).keep(open, |(), _| async { Ok(()) }).await;
        assert_eq!(ended.unwrap_err().to_string(), "telegram/bronze: fsync");
    }

    #[tokio::test]
    async fn what_hangs_while_it_opens_or_pauses_ends_with_the_service() {
        let (app, stop) = (app(), CancellationToken::new());
        let hanging = app.keeper("", "clean", &stop).keep(std::future::pending::<Result<()>>, |(), _| async { Ok(()) });
        let failing = || async { Err(Error::unavailable("away")) as Result<()> };
        let pausing = app.keeper("", "sweep", &stop).keep(failing, |(), _| async { Ok(()) });
        let stopping = async {
            while !app.health.stages().iter().any(StageHealth::is_unwell) {
                tokio::task::yield_now().await;
            }
            stop.cancel();
        };
        let (hanging, pausing, ()) = tokio::join!(hanging, pausing, stopping);
        hanging.and(pausing).unwrap();
    }
}
