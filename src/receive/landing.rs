//! What a lane's entrance and its writer share: options, lines on their way, and whether landing works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::intake::Admitted;
use crate::admission::Admission;
use crate::clock::Clock;
use crate::hint::KeyHinter;
use crate::id::{BotId, Name};
use crate::storage::Storage;
use crate::telemetry::Telemetry;

/// How long a body waits for a lane that is being opened.
const OPENING_PATIENCE: Duration = Duration::from_secs(1);
/// Bodies collected for one put; their bytes are bounded by the admission.
pub(super) const BATCH_LIMIT: usize = 10_000;

/// What a lane works with.
#[derive(Debug)]
pub struct LaneOptions {
    /// The store below `LAKEGRAM_DATA`.
    pub storage: Storage,
    /// The pipeline.
    pub pipeline: Name,
    /// The bot.
    pub bot_id: BotId,
    /// The lane's name; one process writes a lane.
    pub lane: Name,
    /// The byte budget.
    pub admission: Admission,
    /// Receives a hint for each new segment.
    pub hinter: KeyHinter,
    /// Time.
    pub clock: Clock,
    /// Metrics.
    pub telemetry: Telemetry,
}

/// The fate of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    /// It would survive a power cut.
    Durable,
    /// Too many bytes are waiting; come back later.
    Full,
    /// It could not be landed in time; it may appear all the same.
    Failed,
}

/// A line on its way into a segment, with its share of the budget and whoever is waiting for it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) line: Vec<u8>,
    pub(super) admitted: Admitted,
    pub(super) landed: oneshot::Sender<Landing>,
}

/// Whether a lane is open and its last landing succeeded. Separate from the writer, so that readers of it keep no lane
/// open.
#[derive(Clone, Debug)]
pub(super) struct LaneHealth {
    lane: Name,
    failing: Arc<AtomicBool>,
    opened: watch::Receiver<bool>,
}

impl LaneHealth {
    /// For a lane that is being opened, as `opened` will say.
    pub(super) fn new(lane: Name, opened: watch::Receiver<bool>) -> Self {
        Self { lane, failing: Arc::default(), opened }
    }

    pub(super) fn note(&self, landing: Landing) {
        self.failing.store(landing == Landing::Failed, Ordering::Relaxed);
    }

    pub(super) fn ready(&self) -> std::result::Result<(), String> {
        if !*self.opened.borrow() {
            return Err(format!("lane `{}` is not open yet; see the log", self.lane));
        }
        match self.failing.load(Ordering::Relaxed) {
            true => Err(format!("segments of lane `{}` cannot be written; see the log", self.lane)),
            false => Ok(()),
        }
    }

    /// Waits a moment for a lane that is being opened.
    pub(super) async fn is_open(&self, clock: &Clock) -> bool {
        if *self.opened.borrow() {
            return true;
        }
        let mut opened = self.opened.clone();
        let soon = clock.timeout(OPENING_PATIENCE, opened.wait_for(|is_open| *is_open)).await;
        matches!(soon, Some(Ok(_)))
    }
}
