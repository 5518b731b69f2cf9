//! The data root while the service runs: its identity and its clock, looked at now and then.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::App;
use crate::error::{ErrorKind, Result};
use crate::retry::Backoff;

/// How often a root in the cloud is checked.
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// How often clocks are compared, which costs a put.
const CLOCKS_EVERY: Duration = Duration::from_secs(3_600);
/// The first and the longest pause between retries of a failed check.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl App {
    /// Gives the data root an id if it has none, and checks now and then whether it is still the same root. An
    /// unavailable store only delays this.
    ///
    /// # Errors
    /// When the disk failed.
    pub(super) async fn watch_root(self, stop: CancellationToken) -> Result<()> {
        let mut clocks_due = Duration::ZERO;
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        while !stop.is_cancelled() {
            let looked = async {
                self.storage.look_at_root(&self.clock).await?;
                match self.clock.monotonic() >= clocks_due {
                    true => self.look_at_clocks(CLOCKS_EVERY).await.map(|()| self.clock.monotonic() + CLOCKS_EVERY),
                    false => Ok(clocks_due),
                }
            };
            let wait = match looked.await {
                Ok(due) => {
                    clocks_due = due;
                    backoff.reset();
                    LOOK_EVERY
                }
                Err(error) if error.kind() == ErrorKind::Fatal => return Err(error),
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
}
