//! The table as delta-rs and its kernel see it, over the same object store: for SQL and for checkpoints.

use std::num::NonZero;
use std::sync::Arc;

use delta_kernel::{Engine, Snapshot};
use delta_kernel_default_engine::DefaultEngineBuilder;
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use deltalake::{DeltaTable, DeltaTableBuilder};
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::runtime::{Handle, RuntimeFlavor};
use url::Url;

use crate::error::{Context, ErrorKind, Result};
use crate::storage::Storage;

/// Log files that the kernel reads ahead. By default it takes a thousand, with a quarter of a megabyte for each.
const READ_AHEAD: NonZero<usize> = NonZero::new(16).expect("is not zero");

/// Loads the table below `path` with delta-rs.
///
/// # Errors
/// Unavailable when the store fails or delta-rs rejects the table.
pub async fn delta_table(storage: &Storage, path: &Path) -> Result<DeltaTable> {
    let unreadable = || format!("load table {path} with delta-rs");
    let url = url_of(path)?;
    let builder = DeltaTableBuilder::from_url(url.clone()).context(ErrorKind::Configuration, unreadable())?;
    let builder = builder.with_storage_backend(storage.object_store(), url);
    builder.load().await.context(ErrorKind::Unavailable, unreadable())
}

/// Writes a checkpoint of a version of the table below `path`, and points `_last_checkpoint` to it.
///
/// # Errors
/// Unavailable when the store fails or the kernel rejects the table.
pub(super) async fn make_checkpoint(storage: &Storage, path: &Path, version: i64) -> Result<()> {
    let context = format!("make a checkpoint of version {version} of table {path}");
    let at = u64::try_from(version).context(ErrorKind::Corrupt, context.clone())?;
    let (store, url) = (storage.object_store(), url_of(path)?);
    // The kernel replays the log and encodes the checkpoint without yielding.
    let runtime = Handle::current();
    let making = tokio::task::spawn_blocking(move || {
        let engine = engine(store, runtime);
        Snapshot::builder_for(url).at_version(at).build(engine.as_ref())?.checkpoint(engine.as_ref(), None)
    });
    let made = making.await.context(ErrorKind::Unavailable, context.clone())?;
    made.map(drop).context(ErrorKind::Unavailable, context)
}

/// The kernel's engine. Its requests to the store end with the runtime they are made on, if that has threads to spare.
fn engine(store: Arc<dyn ObjectStore>, runtime: Handle) -> Box<dyn Engine> {
    let builder = DefaultEngineBuilder::new(store).with_buffer_size(READ_AHEAD);
    match runtime.runtime_flavor() {
        RuntimeFlavor::MultiThread => {
            Box::new(builder.with_task_executor(Arc::new(TokioMultiThreadExecutor::new(runtime))).build())
        }
        _ => Box::new(builder.build()),
    }
}

/// Both root the store at the path of this URL and use nothing else of it, so a scheme without a host refers to a place
/// in our store whatever our own scheme is.
fn url_of(path: &Path) -> Result<Url> {
    let unfit = || format!("the path of table {path} is not a URL");
    let mut url = Url::parse("memory:///").context(ErrorKind::Configuration, unfit())?;
    url.set_path(&format!("{path}/"));
    Ok(url)
}
