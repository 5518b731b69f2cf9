//! A store that counts its calls, fails on command, and gives others a turn before every call.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use object_store::path::Path;
use object_store::{Error, GetOptions, GetResult, ListResult, PutOptions, PutPayload, PutResult, Result};

use crate::clock::Clock;
use crate::storage::Storage;
use crate::storage::tests::intercepted::{Inner, Intercept, Listing, listing};

/// What happens to a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It succeeds.
    None,
    /// It fails and nothing is there.
    Refuse,
    /// It succeeds and its answer is lost.
    Lose,
    /// It succeeds, its answer is lost, and so is that of the next read.
    LoseAndBlind,
    /// The wall clock steps forward so many seconds before it.
    StepBefore(i64),
    /// The wall clock steps forward so many seconds after it.
    StepAfter(i64),
}

/// The commands to a store and its counts.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) commits: Mutex<VecDeque<Fault>>,
    pub(crate) files: Mutex<VecDeque<Fault>>,
    pub(crate) yields: Mutex<VecDeque<u8>>,
    pub(crate) puts: AtomicUsize,
    pub(crate) gets: AtomicUsize,
    pub(crate) lists: AtomicUsize,
    blind: AtomicUsize,
}

impl Script {
    /// Puts, gets and listings since the last call.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let take = |count: &AtomicUsize| count.swap(0, Ordering::SeqCst);
        (take(&self.puts), take(&self.gets), take(&self.lists))
    }

    /// Waits until no more than `left` commands for commits are left.
    pub(crate) async fn until_commits_left(&self, left: usize) {
        while self.commits.lock().unwrap().len() > left {
            tokio::task::yield_now().await;
        }
    }

    async fn turn(&self) {
        let yields = self.yields.lock().unwrap().pop_front().unwrap_or(0);
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
    }
}

/// The same storage under a script.
pub(crate) fn scripted(storage: &Storage, clock: &Clock) -> (Storage, Arc<Script>) {
    let script = Arc::new(Script::default());
    let faulty = Faulty { script: Arc::clone(&script), clock: clock.clone() };
    (storage.clone().intercepted(faulty), script)
}

#[derive(Debug)]
struct Faulty {
    script: Arc<Script>,
    clock: Clock,
}

fn broken() -> Error {
    Error::Generic { store: "faulty", source: "the connection was reset".into() }
}

#[async_trait]
impl Intercept for Faulty {
    async fn put(&self, inner: &Inner, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.script.turn().await;
        self.script.puts.fetch_add(1, Ordering::SeqCst);
        let faults = if location.as_ref().contains("_delta_log") { &self.script.commits } else { &self.script.files };
        let fault = faults.lock().unwrap().pop_front().unwrap_or(Fault::None);
        match fault {
            Fault::Refuse => return Err(broken()),
            Fault::StepBefore(seconds) => self.clock.step(seconds * 1_000_000),
            _ => {}
        }
        let put = inner.put_opts(location, payload, options).await;
        match fault {
            Fault::Lose => Err(broken()),
            Fault::LoseAndBlind => {
                self.script.blind.store(1, Ordering::SeqCst);
                Err(broken())
            }
            Fault::StepAfter(seconds) => {
                self.clock.step(seconds * 1_000_000);
                put
            }
            _ => put,
        }
    }

    async fn get(&self, inner: &Inner, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.script.turn().await;
        self.script.gets.fetch_add(1, Ordering::SeqCst);
        if self.script.blind.swap(0, Ordering::SeqCst) > 0 {
            return Err(broken());
        }
        inner.get_opts(location, options).await
    }

    fn list(&self, inner: &Inner, prefix: Option<&Path>, offset: Option<&Path>) -> Listing {
        self.script.lists.fetch_add(1, Ordering::SeqCst);
        listing(inner, prefix, offset)
    }

    async fn list_folders(&self, inner: &Inner, prefix: Option<&Path>) -> Result<ListResult> {
        self.script.lists.fetch_add(1, Ordering::SeqCst);
        inner.list_with_delimiter(prefix).await
    }
}
