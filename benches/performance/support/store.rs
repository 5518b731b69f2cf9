//! An object store that counts its calls and measures how long each kind takes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

/// Calls of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    count: u32,
    time: Duration,
}

/// What went to a store since the last look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    calls: Arc<Mutex<BTreeMap<&'static str, Calls>>>,
}

impl Tally {
    fn note(&self, kind: &'static str, time: Duration) {
        let mut kinds = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = kinds.entry(kind).or_default();
        calls.count += 1;
        calls.time += time;
    }

    /// Starts over.
    pub(crate) fn clear(&self) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How many calls of one kind there were.
    pub(crate) fn count(&self, kind: &str) -> u32 {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).get(kind).map_or(0, |calls| calls.count)
    }

    /// `2 put (0.11 ms each), no list`: the calls of one of `operations`.
    pub(crate) fn text(&self, operations: u32) -> String {
        let kinds = self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let each = |(kind, calls): (&&str, &Calls)| {
            let time = calls.time.as_secs_f64() * 1_000.0 / f64::from(calls.count.max(1));
            format!("{:.2} {kind} ({time:.2} ms each)", f64::from(calls.count) / f64::from(operations.max(1)))
        };
        let mut parts: Vec<String> = kinds.iter().map(each).collect();
        if !kinds.contains_key("list") {
            parts.push("no list".to_owned());
        }
        parts.join(", ")
    }
}

/// Passes every call on and notes it.
#[derive(Clone, Debug)]
pub(crate) struct TimedStore {
    inner: Arc<dyn ObjectStore>,
    tally: Tally,
}

impl TimedStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, tally: &Tally) -> Self {
        Self { inner, tally: tally.clone() }
    }

    async fn timed<T>(&self, kind: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let began = Instant::now();
        let answer = call.await;
        self.tally.note(kind, began.elapsed());
        answer
    }
}

impl std::fmt::Display for TimedStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "TimedStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for TimedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.timed("put", self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.timed("multipart", self.inner.put_multipart_opts(at, options)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.timed(if options.head { "head" } else { "get" }, self.inner.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.timed("get", self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.tally.note("delete", Duration::ZERO);
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.tally.note("list", Duration::ZERO);
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.tally.note("list", Duration::ZERO);
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.timed("list", self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.timed("copy", self.inner.copy_opts(from, to, options)).await
    }
}
