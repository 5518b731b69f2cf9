//! A store that a test can stop, break and mend while it is in use.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::watch;

use crate::storage::{Storage, disk_failure};

/// What puts do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Puts {
    Work,
    /// Nothing is written.
    Fail,
    /// It is written, and the answer is lost.
    LoseAnswers,
    /// They wait until something else is said.
    Hang,
    /// The disk does not persist them.
    BreakTheDisk,
}

/// The test's hand on the store.
#[derive(Debug)]
pub(super) struct Control {
    puts: watch::Sender<Puts>,
    begun: watch::Sender<usize>,
}

impl Control {
    pub(super) fn set(&self, puts: Puts) {
        self.puts.send_replace(puts);
    }

    /// Returns when so many puts have begun.
    pub(super) async fn begun(&self, puts: usize) {
        self.begun.subscribe().wait_for(|begun| *begun >= puts).await.unwrap();
    }
}

pub(super) fn controlled(storage: Storage) -> (Storage, Arc<Control>) {
    let control = Arc::new(Control { puts: watch::Sender::new(Puts::Work), begun: watch::Sender::new(0) });
    let given = Arc::clone(&control);
    (storage.decorated(|inner| Arc::new(Controlled { inner, control: given })), control)
}

#[derive(Debug)]
struct Controlled {
    inner: Arc<dyn ObjectStore>,
    control: Arc<Control>,
}

impl fmt::Display for Controlled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("controlled")
    }
}

fn broken() -> Error {
    Error::Generic { store: "controlled", source: "the connection was reset".into() }
}

#[async_trait]
impl ObjectStore for Controlled {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.control.begun.send_modify(|begun| *begun += 1);
        let puts = *self.control.puts.subscribe().wait_for(|puts| *puts != Puts::Hang).await.unwrap();
        match puts {
            Puts::Work | Puts::Hang => self.inner.put_opts(location, payload, options).await,
            Puts::Fail => Err(broken()),
            Puts::LoseAnswers => {
                self.inner.put_opts(location, payload, options).await?;
                Err(broken())
            }
            Puts::BreakTheDisk => Err(disk_failure()),
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
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
