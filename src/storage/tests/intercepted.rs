//! An object store some of whose calls a test intercepts; all others are passed on.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use crate::storage::Storage;

pub(crate) type Inner = Arc<dyn ObjectStore>;
pub(crate) type Listing = BoxStream<'static, Result<ObjectMeta>>;

/// What happens to the calls that a test cares about.
#[async_trait]
pub(crate) trait Intercept: fmt::Debug + Send + Sync + 'static {
    async fn put(&self, inner: &Inner, to: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        inner.put_opts(to, payload, options).await
    }

    async fn get(&self, inner: &Inner, from: &Path, options: GetOptions) -> Result<GetResult> {
        inner.get_opts(from, options).await
    }

    fn list(&self, inner: &Inner, prefix: Option<&Path>, offset: Option<&Path>) -> Listing {
        listing(inner, prefix, offset)
    }

    async fn list_folders(&self, inner: &Inner, prefix: Option<&Path>) -> Result<ListResult> {
        inner.list_with_delimiter(prefix).await
    }
}

/// A listing as it is.
pub(crate) fn listing(inner: &Inner, prefix: Option<&Path>, offset: Option<&Path>) -> Listing {
    match offset {
        Some(offset) => inner.list_with_offset(prefix, offset),
        None => inner.list(prefix),
    }
}

#[derive(Debug)]
struct Intercepted<I> {
    inner: Inner,
    interceptor: I,
}

impl Storage {
    /// The same storage with calls that go through `interceptor`.
    pub(crate) fn intercepted(self, interceptor: impl Intercept) -> Self {
        self.decorated(|inner| Arc::new(Intercepted { inner, interceptor }))
    }
}

impl<I: Intercept> fmt::Display for Intercepted<I> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("intercepted")
    }
}

#[async_trait]
impl<I: Intercept> ObjectStore for Intercepted<I> {
    async fn put_opts(&self, to: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.interceptor.put(&self.inner, to, payload, options).await
    }

    async fn put_multipart_opts(&self, to: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        self.interceptor.get(&self.inner, from, options).await
    }

    async fn get_ranges(&self, from: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(from, ranges).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> Listing {
        self.interceptor.list(&self.inner, prefix, None)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> Listing {
        self.interceptor.list(&self.inner, prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.interceptor.list_folders(&self.inner, prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
