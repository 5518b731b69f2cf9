//! The single writer of a lane: lines collect while a put is in flight, and every caller is answered after its put.

use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use prometheus::{Histogram, IntCounter};
use tokio::sync::mpsc;

use super::claim::{self, Claim, newest_key};
use super::landing::{BATCH_LIMIT, Entry, Landing, LaneHealth, LaneOptions};
use super::slumber::{LOOK_EVERY, Slumber};
use crate::clock::Timestamp;
use crate::error::{ErrorKind, Result};
use crate::retry::Backoff;
use crate::storage::{PutNew, StorageKey};

/// Maximum bytes of one segment, except for a single larger line.
const SEGMENT_BYTES: usize = 8 * 1_024 * 1_024;
/// The first and the longest pause between tries of a put.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How often an abandoned segment is tried in the time it was tried before.
const PROBES: u32 = 10;

/// Owns a lane: its claim, its last key and the current put.
#[derive(Debug)]
pub(super) struct Writer {
    options: LaneOptions,
    queue: mpsc::Receiver<Entry>,
    /// Left over from the last batch, which was full.
    held: Option<Entry>,
    last_key: Timestamp,
    slumber: Slumber,
    /// Abandoned, and its callers were told so. It is still retried as long as nothing newer shows whether landing works
    /// again: a receiver that is not ready gets no updates that could show it.
    unlanded: Option<Segment>,
    health: LaneHealth,
    metrics: Metrics,
    /// How long a put is tried.
    patience: Duration,
    /// Of the root that the last key is of. `None` while the lane cannot be claimed in a root that was mounted or
    /// created again: then nothing is landed.
    claim: Option<Claim>,
}

/// The bytes of one put and their key. The bytes of a key never change: an earlier put may still succeed.
#[derive(Debug)]
struct Segment {
    path: Path,
    bytes: Bytes,
    updates: u64,
}

#[derive(Debug)]
struct Metrics {
    landing_seconds: Histogram,
    updates: IntCounter,
    failures: IntCounter,
}

impl Writer {
    /// The writer of a lane with this newest key and claim.
    pub(super) fn new(
        options: LaneOptions,
        queue: mpsc::Receiver<Entry>,
        (last_key, claim): (Timestamp, Claim),
        health: LaneHealth,
        patience: Duration,
    ) -> Self {
        let telemetry = &options.telemetry;
        let metrics = Metrics {
            landing_seconds: telemetry.latency("lakegram_receive_landing_seconds", "time until a segment was durable"),
            updates: telemetry.counter("lakegram_receive_updates_total", "updates that were landed"),
            failures: telemetry.counter("lakegram_receive_landing_failures_total", "failed puts of segments"),
        };
        let slumber = Slumber::new(&options.clock);
        let (held, unlanded, claim) = (None, None, Some(claim));
        Self { options, queue, held, last_key, slumber, unlanded, health, metrics, patience, claim }
    }

    /// Lands what arrives until every sender is gone.
    ///
    /// # Errors
    /// Fatal when the disk failed; callers are told that the landing failed.
    pub(super) async fn run(mut self) -> Result<()> {
        while let Some(first) = self.first_entry().await? {
            let batch = self.gather(first);
            let landing = self.land(&batch).await?;
            for Entry { admitted, landed, .. } in batch {
                drop(admitted);
                // If the caller is gone, Telegram sends the update again; the duplicate is recognized.
                let _gone = landed.send(landing);
            }
        }
        Ok(())
    }

    /// Waits for the first line of the next batch.
    async fn first_entry(&mut self) -> Result<Option<Entry>> {
        if let Some(entry) = self.held.take() {
            return Ok(Some(entry));
        }
        while self.unlanded.is_some() || self.claim.is_none() {
            self.slumber.look(&self.options.clock);
            if let Some(entry) = self.options.clock.timeout(self.patience / PROBES, self.queue.recv()).await {
                // The callers of an abandoned segment were told long ago; the new batch shows whether landing works.
                self.unlanded = None;
                return Ok(entry);
            }
            self.probe().await?;
        }
        loop {
            self.slumber.look(&self.options.clock);
            if let Some(entry) = self.options.clock.timeout(LOOK_EVERY, self.queue.recv()).await {
                return Ok(entry);
            }
        }
    }

    /// Tries whether landing works again.
    async fn probe(&mut self) -> Result<()> {
        if !self.is_claimed().await? {
            return Ok(());
        }
        let Some(mut segment) = self.unlanded.take() else {
            self.health.note(Landing::Durable);
            return Ok(());
        };
        if !self.try_put(&mut segment).await? {
            self.unlanded = Some(segment);
        }
        Ok(())
    }

    /// Adds what has collected meanwhile, up to the bounds of a segment.
    fn gather(&mut self, first: Entry) -> Vec<Entry> {
        let mut bytes = first.line.len();
        let mut batch = vec![first];
        while batch.len() < BATCH_LIMIT {
            let Ok(entry) = self.queue.try_recv() else { break };
            bytes += entry.line.len();
            if bytes > SEGMENT_BYTES {
                self.held = Some(entry);
                break;
            }
            batch.push(entry);
        }
        batch
    }

    /// Puts a batch, retrying for as long as someone may be waiting for it.
    async fn land(&mut self, batch: &[Entry]) -> Result<Landing> {
        if !self.is_claimed().await? {
            return Ok(Landing::Failed);
        }
        let started = self.options.clock.monotonic();
        let mut segment = Segment {
            path: self.next_path(),
            bytes: batch.iter().map(|entry| entry.line.as_slice()).collect::<Vec<_>>().concat().into(),
            updates: batch.len() as u64,
        };
        // Not before the key is taken: a sleep after this point leaves an old key, by which duplicates are recognized.
        if self.slumber.look(&self.options.clock) {
            return Ok(Landing::Failed);
        }
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        let elapsed = |writer: &Self| writer.options.clock.monotonic().saturating_sub(started);
        while !self.try_put(&mut segment).await? {
            if elapsed(self) >= self.patience {
                self.unlanded = Some(segment);
                self.health.note(Landing::Failed);
                return Ok(Landing::Failed);
            }
            self.options.clock.sleep(backoff.next_delay()).await;
        }
        self.metrics.landing_seconds.observe(elapsed(self).as_secs_f64());
        Ok(Landing::Durable)
    }

    /// Whether the lane is claimed in the root that is there now. In one that was mounted or created again it is
    /// claimed again; while that fails nothing can be landed.
    async fn is_claimed(&mut self) -> Result<bool> {
        let epoch = self.options.storage.root_epoch();
        if self.claim.as_ref().is_some_and(|claim| claim.root_epoch == epoch) {
            return Ok(true);
        }
        // Released first: the new root may be the same folder, mounted again, and the lock would be in our own way.
        let is_news = self.claim.take().is_some();
        match self.take_lane_again().await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Fatal => Err(error),
            Err(error) => {
                if is_news {
                    tracing::error!(
                        %error,
                        "the data folder was mounted or created again, and the lane cannot be claimed in it; retrying"
                    );
                }
                self.health.note(Landing::Failed);
                Ok(false)
            }
        }
    }

    /// Takes the lane in a root that was mounted or created again: the lock was of another file, and there may be newer
    /// keys.
    async fn take_lane_again(&mut self) -> Result<()> {
        let claim = claim::take(&self.options)?;
        self.last_key = self.last_key.max(newest_key(&self.options).await?);
        self.claim = Some(claim);
        Ok(())
    }

    /// One put; false if it failed transiently. If another object is there, the next key is used.
    async fn try_put(&mut self, segment: &mut Segment) -> Result<bool> {
        loop {
            match self.options.storage.put_new(&segment.path, segment.bytes.clone()).await {
                Ok(PutNew::Created) => {
                    self.metrics.updates.inc_by(segment.updates);
                    self.health.note(Landing::Durable);
                    self.options.hinter.hint(segment.path.clone());
                    return Ok(true);
                }
                Ok(PutNew::Taken) => segment.path = self.next_path(),
                Err(error) if error.kind() == ErrorKind::Fatal => return Err(error),
                Err(error) => {
                    self.metrics.failures.inc();
                    tracing::warn!(%error, "could not write a segment");
                    return Ok(false);
                }
            }
        }
    }

    /// The path of the next key: the time, or the last key plus one if the clock stands still or steps back.
    fn next_path(&mut self) -> Path {
        let LaneOptions { pipeline, bot_id, lane, clock, .. } = &self.options;
        let micros = clock.now().max(self.last_key.plus(Duration::from_micros(1)));
        self.last_key = micros;
        StorageKey::Segment { pipeline: pipeline.clone(), bot_id: *bot_id, lane: lane.clone(), micros }.path()
    }
}
