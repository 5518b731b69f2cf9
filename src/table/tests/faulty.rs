//! A store that counts its calls, fails on command, and gives others a turn before every call.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::clock::Clock;
use crate::storage::Storage;

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
    let (clock, shared) = (clock.clone(), Arc::clone(&script));
    let storage = storage.clone().decorated(|inner| Arc::new(Faulty { inner, script: shared, clock }));
    (storage, script)
}

#[derive(Debug)]
struct Faulty {
    inner: Arc<dyn ObjectStore>,
    script: Arc<Script>,
    clock: Clock,
}

impl fmt::Display for Faulty {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("faulty")
    }
}

fn broken() -> Error {
    Error::Generic { store: "faulty", source: "the connection was reset".into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.script.turn().await;
        self.script.puts.fetch_add(1, Ordering::SeqCst);
        let faults = if location.as_ref().contains("_delta_log") { &self.script.commits } else { &self.script.files };
        let fault = faults.lock().unwrap().pop_front().unwrap_or(Fault::None);
        match fault {
            Fault::Refuse => return Err(broken()),
            Fault::StepBefore(seconds) => self.clock.step(seconds * 1_000_000),
            _ => {}
        }
        let put = self.inner.put_opts(location, payload, options).await;
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

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.script.turn().await;
        self.script.gets.fetch_add(1, Ordering::SeqCst);
        if self.script.blind.swap(0, Ordering::SeqCst) > 0 {
            return Err(broken());
        }
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.script.lists.fetch_add(1, Ordering::SeqCst);
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.script.lists.fetch_add(1, Ordering::SeqCst);
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.script.lists.fetch_add(1, Ordering::SeqCst);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
