//! The loop: what it waits for, and what it then does.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::key::UpdateKey;
use super::work::{Call, Desk, Item, Work};
use super::{CALLS, Flow, Read, Reading, Success, UnderWay, Wanted};
use crate::error::{Error, ErrorKind, Result};
use crate::panic::Panic;

/// How often the upstream table is checked without a hint.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long items in progress may take to finish after an error.
const GRACE: Duration = Duration::from_secs(8);
/// A watermark that moved without a row is committed this often.
const WATERMARK_EVERY: Duration = Duration::from_secs(60);

/// What wakes the loop.
enum Wake<W: Work> {
    Stop,
    Timer,
    /// A version of the upstream table; `None` when no more hints will come.
    Hint(Option<i64>),
    Read(Box<(super::Feed, Read)>),
    Calls(Vec<Call<W::Row>>),
    Ended(Box<std::result::Result<(tokio::task::Id, Result<bool>), tokio::task::JoinError>>),
}

/// Whether the loop ends when there is nothing left to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Service,
    Batch,
}

impl<W: Work> Flow<W> {
    /// Handles everything that is in the upstream table now, until `stop`.
    ///
    /// # Errors
    /// When a table cannot be read or written.
    pub(crate) async fn work_until_idle(&mut self, stop: &CancellationToken) -> Result<()> {
        // Boxed: these futures are large, and stages nest them.
        match Box::pin(self.work_to_head(stop)).await {
            Err(error) => Err(Box::pin(self.drain_after(error)).await),
            done => done,
        }
    }

    async fn work_to_head(&mut self, stop: &CancellationToken) -> Result<()> {
        self.wanted = Wanted::Head;
        let mut hints = None;
        loop {
            self.proceed().await?;
            if self.wanted == Wanted::Nothing && self.reading.is_none() && self.queue.is_empty() {
                return self.commit_watermark().await;
            }
            match self.wake(&mut hints, stop).await {
                Wake::Stop => return Box::pin(self.drain()).await,
                wake => self.handle(wake, Mode::Batch).await?,
            }
        }
    }

    /// Handles rows as they come, until `stop`. Each hint is a version of the upstream table.
    ///
    /// # Errors
    /// When a table cannot be read or written.
    pub(crate) async fn run(mut self, hints: watch::Receiver<i64>, stop: CancellationToken) -> Result<()> {
        // Boxed: these futures are large, and stages nest them.
        match Box::pin(self.work_always(hints, &stop)).await {
            Err(error) => Err(Box::pin(self.drain_after(error)).await),
            done => done,
        }
    }

    async fn work_always(&mut self, hints: watch::Receiver<i64>, stop: &CancellationToken) -> Result<()> {
        let mut hints = Some(hints);
        loop {
            self.proceed().await?;
            match self.wake(&mut hints, stop).await {
                Wake::Stop => return Box::pin(self.drain()).await,
                Wake::Hint(None) => hints = None,
                wake => self.handle(wake, Mode::Service).await?,
            }
        }
    }

    /// Starts whatever can be started, and commits what no other commit will include.
    async fn proceed(&mut self) -> Result<()> {
        let now = self.clock.monotonic();
        if now >= self.look_at && self.wanted == Wanted::Nothing {
            self.wanted = Wanted::Head;
        }
        self.start_ready();
        if self.reading.is_none() && now >= self.retry_at {
            self.reading = self.next_reading();
        }
        // While more is being read, rows that need no work are collected.
        if self.reading.is_none() || self.settled.len() >= CALLS {
            self.commit(Vec::new()).await?;
        }
        if now.saturating_sub(self.watermark_committed_at) >= WATERMARK_EVERY {
            self.commit_watermark().await?;
        }
        Ok(())
    }

    /// Starts the items whose turn it is.
    fn start_ready(&mut self) {
        while let Some(item) = self.queue.next_ready() {
            self.start(item, false);
        }
        self.work.waiting(self.queue.len());
    }

    fn start(&mut self, item: W::Item, has_panicked: bool) {
        let key = item.key();
        let desk = Desk { calls: self.calls_in.clone() };
        let task = self.running.spawn(self.work.begin(item.clone(), desk));
        self.tasks.insert(task.id(), key);
        self.under_way.insert(key, UnderWay { item, is_done: false, has_panicked });
    }

    /// The next thing to read: rows whose turn has come, then whatever is new.
    fn next_reading(&mut self) -> Option<Reading> {
        let mut feed = self.feed.take()?;
        // In turns: neither rows that wait nor new ones hold up the others.
        let is_new_wanted = self.wanted != Wanted::Nothing && self.queue.has_room();
        let later = if self.has_fetched && is_new_wanted { Vec::new() } else { self.queue.next_to_fetch() };
        self.has_fetched = !later.is_empty();
        if !later.is_empty() {
            let positions = later.iter().map(|later| later.position).collect();
            return Some(Box::pin(async move {
                let fetched = feed.fetch(positions).await;
                (feed, Read::Fetched(later, fetched))
            }));
        }
        if let Wanted::Version(version) = self.wanted
            && feed.has_reached(version)
        {
            self.reached();
        }
        if self.wanted == Wanted::Nothing || !self.queue.has_room() {
            self.feed = Some(feed);
            return None;
        }
        Some(Box::pin(async move {
            let step = feed.next().await;
            (feed, Read::Step(step))
        }))
    }

    /// Nothing more is to be read for now.
    pub(super) fn reached(&mut self) {
        self.wanted = Wanted::Nothing;
        self.look_at = self.clock.monotonic() + LOOK_EVERY;
    }

    async fn wake(&mut self, hints: &mut Option<watch::Receiver<i64>>, stop: &CancellationToken) -> Wake<W> {
        let now = self.clock.monotonic();
        let mut until = self.watermark_committed_at + WATERMARK_EVERY;
        if self.wanted == Wanted::Nothing {
            until = until.min(self.look_at);
        }
        if self.retry_at > now {
            until = until.min(self.retry_at);
        }
        let timer = self.clock.sleep(until.saturating_sub(now));
        let mut calls = Vec::new();
        let hinted = async {
            match hints {
                Some(hints) => hints.changed().await.is_ok().then(|| *hints.borrow_and_update()),
                None => std::future::pending().await,
            }
        };
        let read = async {
            match &mut self.reading {
                Some(reading) => reading.await,
                None => std::future::pending().await,
            }
        };
        let wake = tokio::select! {
            () = stop.cancelled() => Wake::Stop,
            read = read => Wake::Read(Box::new(read)),
            _ = self.calls.recv_many(&mut calls, CALLS) => Wake::Calls(calls),
            Some(ended) = self.running.join_next_with_id() => Wake::Ended(Box::new(ended)),
            version = hinted => Wake::Hint(version),
            () = timer => Wake::Timer,
        };
        if matches!(wake, Wake::Read(..)) {
            self.reading = None;
        }
        wake
    }

    async fn handle(&mut self, wake: Wake<W>, mode: Mode) -> Result<()> {
        match wake {
            Wake::Stop | Wake::Timer | Wake::Hint(None) => Ok(()),
            Wake::Hint(Some(version)) => {
                self.wanted = match self.wanted {
                    Wanted::Head => Wanted::Head,
                    Wanted::Version(other) => Wanted::Version(other.max(version)),
                    Wanted::Nothing => Wanted::Version(version),
                };
                Ok(())
            }
            Wake::Read(read) => {
                let (feed, read) = *read;
                self.feed = Some(feed);
                match self.unread(read) {
                    Ok(read) => self.take(read).await,
                    Err(error) if mode == Mode::Service && error.is_transient() => {
                        tracing::warn!(%error, "the upstream table cannot be read; retrying");
                        self.retry_at = self.clock.monotonic() + self.backoff.next_delay();
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            Wake::Calls(calls) => self.answer(calls).await,
            Wake::Ended(ended) => match *ended {
                Ok((id, ended)) => {
                    let key = self.tasks.remove(&id);
                    let is_done = ended?;
                    if let Some(key) = key {
                        self.ended(&key, is_done);
                    }
                    Ok(())
                }
                Err(error) => self.panicked(error).await,
            },
        }
    }

    /// What was read. If that failed, the rows that were to be fetched wait again.
    fn unread(&mut self, read: Read) -> Result<Success> {
        match read {
            Read::Step(step) => step.map(Success::Step),
            Read::Fetched(later, Ok(fetched)) => Ok(Success::Fetched(later, fetched)),
            Read::Fetched(later, Err(error)) => {
                self.queue.not_fetched(later);
                Err(error)
            }
        }
    }

    /// The work on an item has ended.
    fn ended(&mut self, key: &UpdateKey, is_done: bool) {
        let Some(UnderWay { item, is_done: is_recorded, .. }) = self.under_way.remove(key) else { return };
        if !is_recorded && !is_done {
            // Stopped: the next start picks it up.
            return;
        }
        if !is_recorded {
            self.done(&item);
        }
        self.taken.remove(key);
        self.ledger.end(key);
        self.queue.done(item.chat_id());
        self.release_memory();
    }

    async fn panicked(&mut self, error: tokio::task::JoinError) -> Result<()> {
        let Some(key) = self.tasks.remove(&error.id()) else { return Ok(()) };
        let Some(UnderWay { item, is_done, has_panicked }) = self.under_way.get(&key) else { return Ok(()) };
        let (item, is_done, has_panicked) = (item.clone(), *is_done, *has_panicked);
        let Some(panic) = Panic::of_task(error) else {
            return Err(Error::unavailable("a task was cancelled"));
        };
        let text = panic.text();
        if !has_panicked && !is_done {
            tracing::error!(update_id = key.update_id, panic = text, "the work on a row panicked; trying it once more");
            self.start(item, true);
            return Ok(());
        }
        if !is_done {
            tracing::error!(
                update_id = key.update_id,
                panic = text,
                "the work on a row panicked again; setting it aside"
            );
            let row = self.work.set_aside(&item, self.ledger.rows(&key), text);
            self.record(vec![(row, true)]).await?;
        }
        self.ended(&key, true);
        Ok(())
    }

    /// Lets items in progress finish after an error, as far as the ledger can still be written: otherwise the outcome
    /// of what is on the wire would be unknown. Not after a disk failure: then nothing can be trusted. Returns the error
    /// that ends the stage: a disk failure on the way outweighs the one before it.
    async fn drain_after(&mut self, error: Error) -> Error {
        if error.kind() == ErrorKind::Fatal {
            return error;
        }
        // What failed may already count as done in memory: rows are recorded, progress is not.
        self.upstream = None;
        let clock = self.clock.clone();
        let also = match clock.timeout(GRACE, Box::pin(self.drain())).await {
            Some(Ok(())) => return error,
            Some(Err(also)) => also,
            None => Error::unavailable(format!("the items in progress did not end within {GRACE:?}")),
        };
        if also.kind() == ErrorKind::Fatal {
            tracing::error!(%error, "the stage had failed before the disk did");
            return also;
        }
        tracing::warn!(error = %also, "not everything in progress could be recorded; the next start picks it up");
        error
    }

    /// Lets items in progress finish; waiting ones are found again at the next start. An item that fails does not keep
    /// the others from finishing, unless the disk has failed: then nothing more is written.
    async fn drain(&mut self) -> Result<()> {
        self.work.wind_down();
        let (mut hints, never) = (None, CancellationToken::new());
        // What is being read is no longer needed.
        self.reading = None;
        self.watermark_committed_at = self.clock.monotonic();
        let mut failed = Ok(());
        while !self.running.is_empty() {
            match self.wake(&mut hints, &never).await {
                Wake::Ended(ended) if matches!(*ended, Ok((_, Err(_)))) => {
                    match self.handle(Wake::Ended(ended), Mode::Service).await {
                        Err(error) if error.kind() == ErrorKind::Fatal => return Err(error),
                        ended => failed = failed.and(ended),
                    }
                }
                wake => self.handle(wake, Mode::Service).await?,
            }
        }
        self.commit(Vec::new()).await?;
        self.commit_watermark().await?;
        failed
    }
}
