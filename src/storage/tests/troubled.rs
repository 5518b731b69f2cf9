//! A store that refuses, hangs or panics below chosen paths for as long as a test wants.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::watch;

/// What befalls the calls below the paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    Unauthenticated,
    Forbidden,
    NotFound,
    /// Create-only puts find something that is not there.
    Conflict,
    Busy,
    Server,
    Hang,
    /// Objects and listings break off half way.
    Torn,
    /// A commit that asks for a feature we do not know; not a fault of the store.
    UnknownFeature,
    Panic,
}

impl Trouble {
    pub(crate) const ALL: [Self; 10] = [
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::Busy,
        Self::Server,
        Self::Hang,
        Self::Torn,
        Self::UnknownFeature,
        Self::Panic,
    ];

    /// As the table of the test names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unauthenticated => "401",
            Self::Forbidden => "403",
            Self::NotFound => "404",
            Self::Conflict => "409",
            Self::Busy => "429",
            Self::Server => "500",
            Self::Hang => "hang",
            Self::Torn => "torn",
            Self::UnknownFeature => "feature",
            Self::Panic => "panic",
        }
    }
}

/// A trouble and where it is.
#[derive(Clone, Debug, Default)]
struct Present {
    trouble: Option<Trouble>,
    prefixes: &'static [&'static str],
    only_creates: bool,
}

/// The test's hand on the store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Switch {
    present: watch::Sender<Present>,
    met: Arc<AtomicU64>,
}

impl Switch {
    pub(crate) fn begin(&self, trouble: Trouble, prefixes: &'static [&'static str]) {
        self.present.send_replace(Present { trouble: Some(trouble), prefixes, only_creates: false });
    }

    /// As [`Self::begin`], for create-only puts: what is there can be read.
    pub(crate) fn begin_creates(&self, trouble: Trouble, prefixes: &'static [&'static str]) {
        self.present.send_replace(Present { trouble: Some(trouble), prefixes, only_creates: true });
    }

    pub(crate) fn end(&self) {
        self.present.send_replace(Present::default());
    }

    /// Calls that have met a trouble.
    pub(crate) fn met(&self) -> u64 {
        self.met.load(Ordering::SeqCst)
    }

    pub(crate) fn wrap(&self, inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(Troubled { inner, switch: self.clone() })
    }

    fn at(&self, path: &str, is_create: bool) -> Option<Trouble> {
        let present = self.present.borrow();
        let is_meant =
            (is_create || !present.only_creates) && present.prefixes.iter().any(|prefix| path.starts_with(prefix));
        present.trouble.filter(|_| is_meant)
    }
}

#[derive(Clone, Debug)]
struct Troubled {
    inner: Arc<dyn ObjectStore>,
    switch: Switch,
}

impl fmt::Display for Troubled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("troubled")
    }
}

fn generic(why: &'static str) -> Error {
    Error::Generic { store: "troubled", source: why.into() }
}

impl Troubled {
    /// Suffers what is there for a call to `path`; whether its answer is to break off.
    async fn enter(&self, path: &Path, is_create: bool) -> Result<bool> {
        let Some(trouble) = self.switch.at(path.as_ref(), is_create) else { return Ok(false) };
        let (place, source) = (path.to_string(), "as the test wants it".into());
        if trouble != Trouble::UnknownFeature && (trouble != Trouble::Conflict || is_create) {
            self.switch.met.fetch_add(1, Ordering::SeqCst);
        }
        match trouble {
            Trouble::Unauthenticated => Err(Error::Unauthenticated { path: place, source }),
            Trouble::Forbidden => Err(Error::PermissionDenied { path: place, source }),
            Trouble::NotFound => Err(Error::NotFound { path: place, source }),
            Trouble::Conflict if is_create => Err(Error::AlreadyExists { path: place, source }),
            Trouble::Busy => Err(generic("429 Too Many Requests")),
            Trouble::Server => Err(generic("500 Internal Server Error")),
            Trouble::Panic => panic!("the store panics at {path}"),
            Trouble::Hang => {
                let mut present = self.switch.present.subscribe();
                let _over = present.wait_for(|present| present.trouble != Some(Trouble::Hang)).await;
                Ok(false)
            }
            Trouble::Torn => Ok(true),
            Trouble::Conflict | Trouble::UnknownFeature => Ok(false),
        }
    }

    fn listing(&self, prefix: Option<&Path>, offset: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, folder) = (self.clone(), prefix.cloned().unwrap_or_default());
        let listing = match offset {
            Some(offset) => self.inner.list_with_offset(prefix, offset),
            None => self.inner.list(prefix),
        };
        let entered = async move {
            match this.enter(&folder, false).await {
                Ok(false) => listing,
                Ok(true) => listing.take(1).chain(stream::iter([Err(generic("the listing broke off"))])).boxed(),
                Err(error) => stream::iter([Err(error)]).boxed(),
            }
        };
        stream::once(entered).flatten().boxed()
    }
}

async fn torn(found: GetResult) -> Result<GetResult> {
    let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
    let bytes = found.bytes().await?;
    let half = bytes.slice(..bytes.len() / 2);
    let payload = stream::iter([Ok(half), Err(generic("the object broke off"))]).boxed();
    Ok(GetResult { payload: GetResultPayload::Stream(payload), meta, range, attributes })
}

#[async_trait]
impl ObjectStore for Troubled {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.enter(location, options.mode == object_store::PutMode::Create).await?;
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.enter(at, false).await?;
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let is_torn = self.enter(location, false).await? && !options.head;
        let found = self.inner.get_opts(location, options).await?;
        if is_torn { torn(found).await } else { Ok(found) }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match self.enter(location, false).await? {
            true => Err(generic("the object broke off")),
            false => self.inner.get_ranges(location, ranges).await,
        }
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deleted = locations.then(move |location| {
            let this = this.clone();
            async move {
                let location = location?;
                this.enter(&location, false).await?;
                this.inner.delete(&location).await?;
                Ok(location)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, None)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        match self.enter(&prefix.cloned().unwrap_or_default(), false).await? {
            true => Err(generic("the listing broke off")),
            false => self.inner.list_with_delimiter(prefix).await,
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.enter(to, false).await?;
        self.inner.copy_opts(from, to, options).await
    }
}
