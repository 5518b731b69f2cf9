//! The one loop that every stage behind bronze runs on: rows of an upstream table in, rows of the stage's own table
//! out, each exactly once, with the progress in the same commit.
//!
//! # Contract
//!
//! A stage provides a [`Work`]: what a row of the upstream table requires, and how it is done. The flow does the rest.
//!
//! - **Where it starts.** At the watermark that the stage's table has for the *id* of the current upstream table. If
//!   there is none (a new pair of tables, a replaced table, a table of release 0.1), the contents of both are compared,
//!   and the log is followed from there. The same happens if part of the log is gone, a commit has rewritten the table,
//!   or another copy of the table has taken its place.
//! - **What is taken.** A row is identified by bot, update and attempt ([`UpdateKey`](key::UpdateKey)), never by its
//!   version or file. What is done, in progress or waiting is not taken again, however often the upstream table has it.
//! - **Order.** Items of one chat are processed one after another, in the order of the upstream table; different chats
//!   in parallel. A busy chat delays nobody else ([`queue`]).
//! - **Recording.** Whatever items record is committed together as it arrives: one read of the head and one commit for
//!   everything there is. An item is done with the row that says so, in the same commit that moves the watermark past
//!   it.
//! - **The watermark** is the version up to which everything is done. It is included in every commit of rows; on its
//!   own it is committed once a minute if it has moved, and at the end.
//! - **Waiting.** Without hints nothing is read, except for a look every five seconds. Reading the upstream table,
//!   working and stopping never wait for each other; a commit is waited for.
//! - **Stopping.** Items in progress are told to wind down and may record what they know; waiting ones are found again.
//! - **Errors.** Transient errors are retried: reading after a pause, recording in place, since nothing else knows what
//!   was found out. Any other error ends the stage, and reopening it is always safe.
//! - **Panics.** An item whose work panics is processed once more. If it panics again, it is set aside with a row that
//!   says so, and the others continue.

pub(crate) mod feed;
pub(crate) mod key;
pub(crate) mod ledger;
pub(crate) mod permits;
mod progress;
pub(crate) mod queue;
mod row;
mod run;
#[cfg(test)]
mod tests;
mod unread;
pub(crate) mod watermark;
pub(crate) mod work;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;
use object_store::path::Path;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::feed::{Feed, Fetched, Step};
use self::key::UpdateKey;
use self::ledger::Ledger;
use self::queue::{Later, Queue};
use self::watermark::Watermark;
use self::work::{Call, Work};
use crate::clock::Clock;
use crate::error::Result;
use crate::retry::Backoff;
use crate::storage::Storage;

/// Files up to this size are read whole, with one request; larger ones piece by piece.
const SMALL_FILE_BYTES: i64 = 1_024 * 1_024;

/// What a flow is given.
pub(crate) struct FlowOptions<'a> {
    pub(crate) storage: &'a Storage,
    /// The upstream table.
    pub(crate) upstream: &'a Path,
    /// The columns read from it.
    pub(crate) columns: &'a [&'a str],
    /// Maximum items waiting in memory.
    pub(crate) max_waiting: usize,
    pub(crate) clock: &'a Clock,
}

/// A running stage. One task keeps the ledger; items are processed side by side.
pub(crate) struct Flow<W: Work> {
    work: W,
    ledger: Ledger<W::Row>,
    /// `None` while it is being read.
    feed: Option<Feed>,
    reading: Option<Reading>,
    /// Whether what was read last were rows that waited.
    has_fetched: bool,
    /// The id of the upstream table, once it was found.
    upstream: Option<String>,
    wanted: Wanted,
    /// When the upstream table is checked next without a hint.
    look_at: Duration,
    /// When it is read again after a failure.
    retry_at: Duration,
    backoff: Backoff,
    queue: Queue<W::Item>,
    /// Updates that were taken and are not done.
    taken: HashSet<UpdateKey>,
    watermark: Watermark,
    running: JoinSet<Result<bool>>,
    /// Items in progress.
    under_way: HashMap<UpdateKey, UnderWay<W::Item>>,
    /// By the task that processes it.
    tasks: HashMap<tokio::task::Id, UpdateKey>,
    calls_in: mpsc::Sender<Call<W::Row>>,
    calls: mpsc::Receiver<Call<W::Row>>,
    /// Rows of items that needed no work, to be committed.
    settled: Vec<W::Row>,
    /// Of the same.
    settled_items: Vec<W::Item>,
    watermark_committed_at: Duration,
    clock: Clock,
}

impl<W: Work> fmt::Debug for Flow<W> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Flow").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

/// How far to read the upstream table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Not before the next check or hint.
    Nothing,
    /// To its head.
    Head,
    /// To a version from a hint, beyond which there is no need to look.
    Version(i64),
}

/// An item in progress.
struct UnderWay<I> {
    item: I,
    /// Its last row is recorded.
    is_done: bool,
    has_panicked: bool,
}

/// A read from the upstream table in progress. The feed is returned with it.
type Reading = BoxFuture<'static, (Feed, Read)>;

/// What was read.
enum Read {
    Step(Result<Step>),
    Fetched(Vec<Later>, Result<Option<Vec<Fetched>>>),
}

/// What was read successfully.
enum Success {
    Step(Step),
    Fetched(Vec<Later>, Option<Vec<Fetched>>),
}

impl<W: Work> Flow<W> {
    /// Runs `work` from the upstream table into the table of `ledger`.
    pub(crate) fn new(work: W, ledger: Ledger<W::Row>, options: &FlowOptions<'_>) -> Self {
        let FlowOptions { storage, upstream, columns, max_waiting, clock } = options;
        let (calls_in, calls) = mpsc::channel(CALLS);
        Self {
            feed: Some(Feed::new(storage, upstream, columns, clock)),
            reading: None,
            has_fetched: false,
            upstream: None,
            wanted: Wanted::Head,
            look_at: clock.monotonic(),
            retry_at: Duration::ZERO,
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(30)),
            queue: Queue::new(*max_waiting),
            taken: HashSet::new(),
            watermark: Watermark::new(-1),
            running: JoinSet::new(),
            under_way: HashMap::new(),
            tasks: HashMap::new(),
            settled: Vec::new(),
            settled_items: Vec::new(),
            watermark_committed_at: clock.monotonic(),
            clock: (*clock).clone(),
            calls_in,
            calls,
            work,
            ledger,
        }
    }

    /// The stage.
    pub(crate) fn work(&self) -> &W {
        &self.work
    }

    /// Rows of the upstream table that are not done.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }
}

/// Concurrent calls of items are recorded together.
const CALLS: usize = 1_024;

/// Memory for this many items is kept between two backlogs.
const KEPT_CAPACITY: usize = 1_024;
