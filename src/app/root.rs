//! The data root while the service runs: its identity and its clock, looked at now and then.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::App;
use crate::error::{Error, ErrorKind, Result};
use crate::retry::Backoff;

/// How often a root in the cloud is checked.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// How long a start waits for the store to show that it refuses a second create.
const PROBE_TIME: Duration = Duration::from_secs(3);
/// How often clocks are compared, which costs a put.
const CLOCKS_EVERY: Duration = Duration::from_secs(3_600);
/// The first and the longest pause between retries of a failed check.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl App {
    /// Refuses a store that is known to lose rows, before anything is written to it. One that is away for the moment is
    /// asked again once it is back: what is to be received is received all the same.
    ///
    /// # Errors
    /// A configuration error when the store replaces what was to be created.
    pub(super) async fn check_store(&self) -> Result<()> {
        match self.clock.timeout(PROBE_TIME, self.storage.check_creates()).await {
            Some(Err(error)) if error.kind() == ErrorKind::Configuration => Err(error.during("LAKEGRAM_DATA")),
            Some(Err(error)) => {
                tracing::warn!(%error, "could not see yet whether the store refuses a second create");
                Ok(())
            }
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// Gives the data root an id if it has none, and checks now and then whether it is still the same root. An
    /// unavailable store only delays this.
    ///
    /// # Errors
    /// When the disk failed, or the store turns out to replace what was to be created.
    pub(super) async fn watch_root(self, writes_lanes: bool, stop: CancellationToken) -> Result<()> {
        let mut clocks_due = Duration::ZERO;
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        while !stop.is_cancelled() {
            let looked = match self.storage.look_at_root(&self.clock).await {
                Ok(()) => self.storage.check_creates().await,
                failed => failed,
            };
            if looked.is_ok() && self.clock.monotonic() >= clocks_due {
                clocks_due = self.clock.monotonic() + CLOCKS_EVERY;
                self.compare_clocks(writes_lanes).await?;
            }
            let wait = match looked {
                Ok(()) => {
                    backoff.reset();
                    LOOK_EVERY
                }
                Err(error) if error.kind() == ErrorKind::Fatal => return Err(error),
                // The keeper only lets the process end for what is fatal, as this is.
                Err(error) if error.kind() == ErrorKind::Configuration => {
                    return Err(Error::new(ErrorKind::Fatal, error.to_string()));
                }
                Err(error) => {
                    tracing::warn!(%error, "could not check the identity of the data root; retrying");
                    backoff.next_delay()
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.clock.sleep(wait) => {}
            }
        }
        Ok(())
    }

    /// Compares clocks, apart from the check of the root: neither says anything about the other.
    async fn compare_clocks(&self, writes_lanes: bool) -> Result<()> {
        match self.look_at_clocks(writes_lanes, CLOCKS_EVERY).await {
            Err(error) if error.kind() == ErrorKind::Fatal => Err(error),
            Err(error) => {
                tracing::warn!(%error, "could not compare the clocks; trying again in an hour");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}
