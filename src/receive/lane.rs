//! The entrance to a lane: whoever holds a [`LaneWriter`] can land bodies in it, with or without HTTP.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use super::body::VerifiedBody;
use super::claim;
use super::intake::Intake;
use super::landing::{BATCH_LIMIT, Entry, Landing, LaneHealth, LaneOptions};
use super::writer::Writer;
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::retry::Backoff;

/// How long a caller waits for its put, and how long a put is tried.
const PATIENCE: Duration = Duration::from_secs(20);
/// The first and the longest pause between tries to open a lane.
const OPENING_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Passes bodies to a lane's writer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LaneWriter {
    queue: mpsc::Sender<Entry>,
    intake: Intake,
    health: LaneHealth,
    clock: Clock,
    patience: Duration,
}

/// The newest key of the lane, requested until the store answers.
async fn newest_key(options: &LaneOptions) -> Result<Timestamp> {
    let mut backoff = Backoff::new(OPENING_PAUSES.0, OPENING_PAUSES.1);
    loop {
        match claim::newest_key(options).await {
            Err(error) if error.kind() != ErrorKind::Fatal => {
                let pause = backoff.next_delay();
                tracing::warn!(lane = %options.lane, %error, retry_in = ?pause, "cannot open a lane; nothing is landed until it is open");
                options.clock.sleep(pause).await;
            }
            newest => return newest,
        }
    }
}

impl LaneWriter {
    /// Claims a lane for this process. The second value is the task that opens it, however often the store fails, and
    /// then writes it; until it is open nothing can be landed. The task ends when every `LaneWriter` is gone, or with
    /// the error that makes landing impossible for good.
    ///
    /// # Errors
    /// A configuration error when another process has the lane.
    pub fn open(options: LaneOptions) -> Result<(Self, impl Future<Output = Result<()>> + Send + 'static)> {
        Self::open_with(options, PATIENCE)
    }

    pub(super) fn open_with(
        options: LaneOptions,
        patience: Duration,
    ) -> Result<(Self, impl Future<Output = Result<()>> + Send + 'static)> {
        let claim = claim::take(&options)?;
        let gauge = options.telemetry.gauge("lakegram_receive_in_flight_bytes", "bytes received and not yet durable");
        let (sender, mut queue) = mpsc::channel(BATCH_LIMIT);
        let (open, opened) = watch::channel(false);
        let writer = Self {
            queue: sender,
            intake: Intake::new(options.admission.clone(), gauge),
            health: LaneHealth::new(options.lane.clone(), opened),
            clock: options.clock.clone(),
            patience,
        };
        let health = writer.health.clone();
        let task = async move {
            let newest = tokio::select! {
                newest = newest_key(&options) => newest?,
                // Nobody can send before the lane is open, so this means that all senders are gone.
                _ = queue.recv() => return Ok(()),
            };
            let writer = Writer::new(options, queue, (newest, claim), health, patience);
            open.send_replace(true);
            writer.run().await
        };
        Ok((writer, task))
    }

    /// Lands a body; returns when it is durable, or is not going to be in time.
    pub async fn land(&self, body: VerifiedBody) -> Landing {
        let (line, mut admitted) = body.into_line();
        // A line is longer than its body by its line break, and by much more if it had to be wrapped.
        let more = line.len().saturating_sub(admitted.bytes());
        if !self.intake.try_grow(&mut admitted, more) {
            return Landing::Full;
        }
        if !self.health.is_open(&self.clock).await {
            // No landing has failed: once it is open it is ready.
            return Landing::Failed;
        }
        let (landed, waiting) = oneshot::channel();
        match self.queue.try_send(Entry { line, admitted, landed }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Landing::Full,
            Err(TrySendError::Closed(_)) => return self.failed(),
        }
        match self.clock.timeout(self.patience, waiting).await {
            Some(Ok(landing)) => landing,
            // The writer is gone, or its put hangs.
            Some(Err(_)) | None => self.failed(),
        }
    }

    /// Lands an update that was pulled from Telegram.
    ///
    /// # Errors
    /// Unavailable when it could not be landed now; Telegram still has it.
    pub async fn land_pulled(&self, update: Bytes) -> Result<()> {
        let later = || Error::unavailable("could not land the update now");
        let body = VerifiedBody::of_pull(update.into(), &self.intake).ok_or_else(later)?;
        match self.land(body).await {
            Landing::Durable => Ok(()),
            Landing::Full | Landing::Failed => Err(later()),
        }
    }

    /// Whether bytes can be landed in this lane, judging by the last landing; if not, why.
    pub fn readiness(&self) -> Arc<dyn Fn() -> std::result::Result<(), String> + Send + Sync> {
        let health = self.health.clone();
        Arc::new(move || health.ready())
    }

    /// Bodies that wait for the next put.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    pub(super) fn health(&self) -> &LaneHealth {
        &self.health
    }

    pub(super) fn intake(&self) -> &Intake {
        &self.intake
    }

    fn failed(&self) -> Landing {
        self.health.note(Landing::Failed);
        Landing::Failed
    }
}
