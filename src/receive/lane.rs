//! The single writer of a lane: bodies gather while a put is in flight, and every waiter is answered after its put.

use std::time::Duration;

use bytes::Bytes;
use prometheus::{Histogram, IntCounter};
use tokio::sync::{mpsc, oneshot};

use super::body::VerifiedBody;
use crate::admission::{Admission, AdmissionPermit};
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::hint::KeyHinter;
use crate::id::{BotId, Name};
use crate::retry::Backoff;
use crate::storage::{PutNew, Storage, StorageKey, StorageLock};
use crate::telemetry::Telemetry;

/// How long a waiter waits for its put.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// Bodies that gather for one put; their bytes are bounded by the admission.
const BATCH_LIMIT: usize = 10_000;
/// Bytes of one segment, but for a larger body of its own.
const SEGMENT_BYTES: usize = 8 * 1_024 * 1_024;
const LIST_PAGE: usize = 1_000;

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
    /// Bytes in memory.
    pub admission: Admission,
    /// Who is told of new segments.
    pub hinter: KeyHinter,
    /// Time.
    pub clock: Clock,
    /// Metrics.
    pub telemetry: Telemetry,
}

/// What became of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    /// It would survive a power cut.
    Durable,
    /// Too many bytes wait; come back.
    Full,
    /// It could not be landed in time; it may turn up all the same.
    Failed,
}

/// Gives bodies to a lane's writer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LaneWriter {
    queue: mpsc::Sender<Entry>,
    admission: Admission,
    clock: Clock,
}

#[derive(Debug)]
struct Entry {
    line: Vec<u8>,
    permit: AdmissionPermit,
    landed: oneshot::Sender<Landing>,
}

#[derive(Debug)]
struct Writer {
    options: LaneOptions,
    queue: mpsc::Receiver<Entry>,
    last_key: Timestamp,
    landing_seconds: Histogram,
    updates: IntCounter,
    failures: IntCounter,
    _lock: StorageLock,
}

impl LaneWriter {
    /// Opens a lane and takes it for this process. The second value is the writer's task; it ends when every
    /// `LaneWriter` is gone.
    ///
    /// # Errors
    /// A configuration error when another process has the lane.
    pub async fn open(options: LaneOptions) -> Result<(Self, impl Future<Output = Result<()>> + Send + 'static)> {
        let LaneOptions { storage, pipeline, bot_id, lane, .. } = &options;
        let lock = StorageKey::LaneLock { pipeline: pipeline.clone(), bot_id: *bot_id, lane: lane.clone() };
        let Some(lock) = storage.try_lock(&lock.path())? else {
            return Err(Error::configuration(format!(
                "lane `{lane}` is in use by another process; stop that one, or give this one a name in receive.lane"
            )));
        };
        let last_key = newest_key(&options).await?;
        let (sender, queue) = mpsc::channel(BATCH_LIMIT);
        let writer = Self { queue: sender, admission: options.admission.clone(), clock: options.clock.clone() };
        let telemetry = &options.telemetry;
        let task = Writer {
            landing_seconds: telemetry.latency("lakegram_receive_landing_seconds", "time a put of a segment took"),
            updates: telemetry.counter("lakegram_receive_updates_total", "updates that were landed"),
            failures: telemetry.counter("lakegram_receive_landing_failures_total", "puts of segments that failed"),
            queue,
            last_key,
            options,
            _lock: lock,
        };
        Ok((writer, task.run()))
    }

    /// A permit for a body of so many bytes, to be had before it is read; `None` when too many wait.
    pub fn admit(&self, bytes: usize) -> Option<AdmissionPermit> {
        self.admission.try_admit(bytes)
    }

    /// Lands a body; returns when it is durable, or will not be in time.
    pub async fn land(&self, body: VerifiedBody, mut permit: AdmissionPermit) -> Landing {
        let line = body.to_line();
        drop(body);
        // A line is longer than its body by its break, and by much more where something had to be wrapped.
        match line.len().checked_sub(permit.bytes()) {
            None | Some(0) => permit.shrink_to(line.len()),
            Some(more) => match self.admission.try_admit(more) {
                Some(more) => permit.merge(more),
                None => return Landing::Full,
            },
        }
        let (landed, waiting) = oneshot::channel();
        if self.queue.try_send(Entry { line, permit, landed }).is_err() {
            return Landing::Full;
        }
        match self.clock.timeout(LONGEST_WAIT, waiting).await {
            Some(Ok(landing)) => landing,
            Some(Err(_)) | None => Landing::Failed,
        }
    }

    /// Lands an update that was pulled from Telegram.
    ///
    /// # Errors
    /// Unavailable when it could not be landed now; Telegram still has it.
    pub async fn land_pulled(&self, update: Bytes) -> Result<()> {
        let not_now = || Error::unavailable("the update could not be landed now");
        let permit = self.admit(update.len()).ok_or_else(not_now)?;
        match self.land(VerifiedBody::of_pull(update), permit).await {
            Landing::Durable => Ok(()),
            Landing::Full | Landing::Failed => Err(not_now()),
        }
    }
}

/// The newest key of the lane, found by walking only its newest folders.
async fn newest_key(options: &LaneOptions) -> Result<Timestamp> {
    let LaneOptions { storage, pipeline, bot_id, lane, .. } = options;
    let lane = StorageKey::Lane { pipeline: pipeline.clone(), bot_id: *bot_id, lane: lane.clone() }.path();
    for day in storage.list_folders(&lane).await?.into_iter().rev() {
        for hour in storage.list_folders(&day).await?.into_iter().rev() {
            let mut newest = None;
            loop {
                let page = storage.list_after(&hour, newest.as_ref(), LIST_PAGE).await?;
                let Some(last) = page.last() else { break };
                newest = Some(last.location.clone());
            }
            if let Some(StorageKey::Segment { micros, .. }) = newest.as_ref().and_then(StorageKey::parse) {
                return Ok(micros);
            }
        }
    }
    Ok(Timestamp::default())
}

impl Writer {
    async fn run(mut self) -> Result<()> {
        let mut batch = Vec::new();
        let mut held: Option<Entry> = None;
        loop {
            if held.is_none() && self.queue.recv_many(&mut batch, 1).await == 0 {
                return Ok(());
            }
            batch.extend(held.take());
            let mut bytes: usize = batch.iter().map(|entry| entry.line.len()).sum();
            // What has gathered meanwhile goes along, up to the bound.
            while batch.len() < BATCH_LIMIT {
                let Ok(entry) = self.queue.try_recv() else { break };
                bytes += entry.line.len();
                if bytes > SEGMENT_BYTES {
                    held = Some(entry);
                    break;
                }
                batch.push(entry);
            }
            self.put(&mut batch).await?;
        }
    }

    async fn put(&mut self, batch: &mut Vec<Entry>) -> Result<()> {
        let mut segment = Vec::with_capacity(batch.iter().map(|entry| entry.line.len()).sum());
        batch.iter().for_each(|entry| segment.extend_from_slice(&entry.line));
        let timer = self.landing_seconds.start_timer();
        let landing = self.put_segment(segment.into()).await;
        timer.observe_duration();
        let landing = landing?;
        if landing == Landing::Durable {
            self.updates.inc_by(batch.len() as u64);
        }
        for Entry { permit, landed, .. } in batch.drain(..) {
            drop(permit);
            // A waiter that has gone will be asked again by Telegram; the twin is recognised.
            let _gone = landed.send(landing);
        }
        Ok(())
    }

    /// Puts a segment under the next key of the lane. While a put's fate is open the same bytes go to the same key.
    async fn put_segment(&mut self, segment: Bytes) -> Result<Landing> {
        let LaneOptions { storage, pipeline, bot_id, lane, clock, hinter, .. } = &self.options;
        let started = clock.monotonic();
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            self.last_key = clock.now().max(self.last_key.plus(Duration::from_micros(1)));
            let key = StorageKey::Segment {
                pipeline: pipeline.clone(),
                bot_id: *bot_id,
                lane: lane.clone(),
                micros: self.last_key,
            };
            let path = key.path();
            loop {
                match storage.put_new(&path, segment.clone()).await {
                    Ok(PutNew::Created) => {
                        hinter.hint(path);
                        return Ok(Landing::Durable);
                    }
                    Ok(PutNew::Taken) => break,
                    Err(error) if error.kind() == ErrorKind::Fatal => return Err(error),
                    Err(error) => {
                        self.failures.inc();
                        tracing::warn!(%error, "a segment could not be put");
                        if clock.monotonic().saturating_sub(started) >= LONGEST_WAIT {
                            return Ok(Landing::Failed);
                        }
                        clock.sleep(backoff.next_delay()).await;
                    }
                }
            }
        }
    }
}
