//! The one place where store calls get their time-outs: an object store that responds in time or fails.
//!
//! A call that timed out may still take effect; callers read back, as after a lost response. What waits for a local disk
//! keeps its thread until the disk answers; only its caller goes on.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

use super::Storage;
use super::fault::blocking;
use crate::clock::Clock;

const MIB: u64 = 1_024 * 1_024;
/// Bytes of a local file that are read at a time.
const PIECE_BYTES: u64 = MIB;

/// How long one attempt of a call may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Any call, and the wait for the next piece of an object.
    call: Duration,
    /// In addition, for each MiB that is put or copied.
    mib: Duration,
    /// The wait for the next object of a listing: a walk may pass many empty folders before it.
    listing: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { call: Duration::from_secs(60), mib: Duration::from_secs(1), listing: Duration::from_secs(300) }
    }
}

/// Nothing arrived in time.
#[derive(Debug, thiserror::Error)]
#[error("no response from the store within {0:?}")]
struct TimedOut(Duration);

#[derive(Clone, Debug)]
struct Bounded {
    inner: Arc<dyn ObjectStore>,
    clock: Clock,
    limits: Limits,
}

impl Storage {
    /// The same storage with a time-out for every attempt of a call, on `clock`.
    #[must_use]
    pub fn bounded(self, clock: &Clock) -> Self {
        self.bounded_by(clock, Limits::default())
    }

    pub(super) fn bounded_by(mut self, clock: &Clock, limits: Limits) -> Self {
        self.store = Arc::new(Bounded { inner: self.store, clock: clock.clone(), limits });
        self
    }
}

async fn within<T>(clock: &Clock, limit: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    let ended = clock.timeout(limit, call).await;
    ended.unwrap_or_else(|| Err(Error::Generic { store: "bounded", source: Box::new(TimedOut(limit)) }))
}

/// The same stream, which fails and ends if its next item does not arrive in time.
fn within_each<T: Send + 'static>(
    clock: Clock,
    limit: Duration,
    items: BoxStream<'static, Result<T>>,
) -> BoxStream<'static, Result<T>> {
    let next = move |(mut items, clock): (BoxStream<'static, Result<T>>, Clock)| async move {
        match within(&clock, limit, async { items.next().await.transpose() }).await {
            Ok(item) => Some((Ok(item?), (items, clock))),
            Err(error) => Some((Err(error), (stream::empty().boxed(), clock))),
        }
    };
    // Fused: whoever collects an object without bytes asks again after the end.
    stream::unfold((items, clock), next).fuse().boxed()
}

/// A range of an open file, piece by piece.
fn pieces_of(file: File, range: Range<u64>) -> BoxStream<'static, Result<Bytes>> {
    let next = |(file, range): (Arc<File>, Range<u64>)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let piece = range.start..range.end.min(range.start + PIECE_BYTES);
        let source = Arc::clone(&file);
        let bytes = blocking(move || read_piece(&source, piece.start, piece.end - piece.start)).await?;
        let rest = range.start + bytes.len() as u64..range.end;
        Ok(Some((bytes, (file, rest))))
    };
    stream::try_unfold((Arc::new(file), range), next).boxed()
}

fn read_piece(file: &File, from: u64, length: u64) -> Result<Bytes> {
    let mut piece = vec![0; usize::try_from(length).unwrap_or_default()];
    let read = file.read_exact_at(&mut piece, from);
    read.map_err(|error| Error::Generic { store: "bounded", source: Box::new(error) })?;
    Ok(piece.into())
}

impl Bounded {
    async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        within(&self.clock, self.limits.call, call).await
    }

    /// The time limit for this many bytes.
    fn limit_of(&self, bytes: usize) -> Duration {
        let mib = u32::try_from(bytes as u64 / MIB).unwrap_or(u32::MAX);
        self.limits.call.saturating_add(self.limits.mib.saturating_mul(mib))
    }

    fn listed(&self, listing: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        within_each(self.clock.clone(), self.limits.listing, listing)
    }
}

impl fmt::Display for Bounded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(formatter)
    }
}

#[async_trait]
impl ObjectStore for Bounded {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let limit = self.limit_of(payload.content_length());
        within(&self.clock, limit, self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.call(self.inner.put_multipart_opts(location, options)).await?;
        Ok(Box::new(BoundedUpload { upload, bounded: self.clone(), bytes: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = self.call(self.inner.get_opts(location, options)).await?;
        let pieces = match found.payload {
            GetResultPayload::Stream(pieces) => pieces,
            // A read of an open file takes as long as its disk does: forever, if that is on a network that is gone.
            GetResultPayload::File(file, _) => pieces_of(file, found.range.clone()),
        };
        found.payload = GetResultPayload::Stream(within_each(self.clock.clone(), self.limits.call, pieces));
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.call(self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        within_each(self.clock.clone(), self.limits.call, self.inner.delete_stream(locations))
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        within(&self.clock, self.limits.listing, self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        // For an object of unknown size.
        within(&self.clock, self.limits.listing, self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        within(&self.clock, self.limits.listing, self.inner.rename_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct BoundedUpload {
    upload: Box<dyn MultipartUpload>,
    bounded: Bounded,
    bytes: usize,
}

#[async_trait]
impl MultipartUpload for BoundedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (clock, limit) = (self.bounded.clock.clone(), self.bounded.limit_of(data.content_length()));
        self.bytes += data.content_length();
        let part = self.upload.put_part(data);
        Box::pin(async move { within(&clock, limit, part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let limit = self.bounded.limit_of(self.bytes);
        within(&self.bounded.clock, limit, self.upload.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        within(&self.bounded.clock, self.bounded.limits.call, self.upload.abort()).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;
    use crate::error::ErrorKind;
    use crate::storage::PutNew;

    /// A store that never responds.
    #[derive(Debug)]
    struct Silent;

    impl fmt::Display for Silent {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("silent")
        }
    }

    #[async_trait]
    impl ObjectStore for Silent {
        async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
            std::future::pending().await
        }
        async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
            std::future::pending().await
        }
        async fn get_opts(&self, location: &Path, _: GetOptions) -> Result<GetResult> {
            if location.as_ref() != "begins" {
                return std::future::pending().await;
            }
            let pieces = stream::once(async { Ok(Bytes::from_static(b"a")) }).chain(stream::pending()).boxed();
            let meta = ObjectMeta {
                location: location.clone(),
                last_modified: chrono::DateTime::UNIX_EPOCH,
                size: 2,
                e_tag: None,
                version: None,
            };
            let payload = GetResultPayload::Stream(pieces);
            Ok(GetResult { payload, meta, range: 0..2, attributes: object_store::Attributes::default() })
        }
        fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
            stream::pending().boxed()
        }
        fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            stream::pending().boxed()
        }
        async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
            std::future::pending().await
        }
        async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn every_kind_of_call_ends_in_time() {
        let (clock, folder) = (Clock::fast(10_000), tempfile::tempdir().unwrap());
        let storage = Storage::open(folder.path().to_str().unwrap()).unwrap();
        let storage = storage.decorated(|_| Arc::new(Silent)).bounded(&clock);
        let (path, begins) = (Path::from("a"), Path::from("begins"));
        let bytes = Bytes::from_static(b"x");
        let (is_same, copied) = (storage.is_same(&path, &path).await, storage.copy_new(&path, &path).await);
        let ended = [
            ("put_new", storage.put_new(&path, bytes.clone()).await.map(drop), ErrorKind::Unknown),
            ("put_overwrite", storage.put_overwrite(&path, bytes).await, ErrorKind::Unavailable),
            ("get", storage.get(&path).await.map(drop), ErrorKind::Unavailable),
            ("the rest of a get", storage.get(&begins).await.map(drop), ErrorKind::Unavailable),
            ("get_marked", storage.get_marked(&begins).await.map(drop), ErrorKind::Unavailable),
            ("mark", storage.mark(&path).await.map(drop), ErrorKind::Unavailable),
            ("head", storage.head(&path).await.map(drop), ErrorKind::Unavailable),
            ("delete", storage.delete(&path).await, ErrorKind::Unavailable),
            ("list_after", storage.list_after(&path, None, 1).await.map(drop), ErrorKind::Unavailable),
            ("list_after", storage.list_after(&path, Some(&path), 1).await.map(drop), ErrorKind::Unavailable),
            ("greatest", storage.greatest_below(&path, |_| Some(1)).await.map(drop), ErrorKind::Unavailable),
            ("list_folders", storage.list_folders(&path).await.map(drop), ErrorKind::Unavailable),
            ("is_same", is_same.map(drop), ErrorKind::Unavailable),
            ("copy_new", copied.map(drop), ErrorKind::Unavailable),
        ];
        for (call, ended, kind) in ended {
            let error = ended.unwrap_err();
            assert_eq!(error.kind(), kind, "{call}: {error}");
            assert!(error.to_string().contains("no response from the store within"), "{call}: {error}");
        }
        assert!(clock.monotonic() >= Duration::from_secs(60));
    }

    #[tokio::test]
    async fn a_local_file_is_read_in_pieces_that_each_have_their_time() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::open(folder.path().to_str().unwrap()).unwrap().bounded(&Clock::system());
        let path = Path::from("a");
        for length in [0, 7, PIECE_BYTES, 2 * PIECE_BYTES + 7] {
            let bytes: Bytes = (0..length).map(|number| (number % 251) as u8).collect::<Vec<_>>().into();
            storage.put_overwrite(&path, bytes.clone()).await.unwrap();
            let found = storage.object_store().get(&path).await.unwrap();
            assert!(matches!(found.payload, GetResultPayload::Stream(_)), "nothing limits the reading of an open file");
            assert_eq!(found.bytes().await.unwrap(), bytes);
            let range = length / 3..length / 2;
            if !range.is_empty() {
                let part = storage.object_store().get_range(&path, range.clone()).await.unwrap();
                assert_eq!(part, bytes.slice(range.start as usize..range.end as usize));
            }
        }
    }

    #[tokio::test]
    async fn what_answers_in_time_is_passed_on() {
        let storage = Storage::memory().bounded(&Clock::system());
        let (path, bytes) = (Path::from("a/b"), Bytes::from_static(b"x"));
        assert_eq!(storage.put_new(&path, bytes.clone()).await.unwrap(), PutNew::Created);
        assert_eq!(storage.get(&path).await.unwrap(), Some(bytes));
        storage.put_overwrite(&path, Bytes::new()).await.unwrap();
        assert_eq!(storage.get(&path).await.unwrap(), Some(Bytes::new()));
        assert_eq!(storage.list_after(&Path::from("a"), None, 9).await.unwrap().len(), 1);
        storage.delete(&path).await.unwrap();
        assert_eq!(storage.head(&path).await.unwrap(), None);
    }
}
