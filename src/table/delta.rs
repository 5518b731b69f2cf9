//! The table as delta-rs sees it, over the same object store: for checkpoints and SQL.

use deltalake::{DeltaTable, DeltaTableBuilder};
use object_store::path::Path;
use url::Url;

use crate::error::{Context, ErrorKind, Result};
use crate::storage::Storage;

/// Loads the table below `path` with delta-rs.
///
/// # Errors
/// Unavailable when the store fails or delta-rs does not take the table.
pub async fn delta_table(storage: &Storage, path: &Path) -> Result<DeltaTable> {
    load(storage, path, |builder| builder).await
}

/// As [`delta_table`], at one version.
pub(super) async fn delta_table_at(storage: &Storage, path: &Path, version: i64) -> Result<DeltaTable> {
    let number = u64::try_from(version).context(ErrorKind::Corrupt, format!("version {version} of table {path}"))?;
    load(storage, path, |builder| builder.with_version(number)).await
}

async fn load(
    storage: &Storage,
    path: &Path,
    narrow: impl FnOnce(DeltaTableBuilder) -> DeltaTableBuilder,
) -> Result<DeltaTable> {
    let unreadable = || format!("load table {path} with delta-rs");
    // delta-rs roots its store by the path of this URL and nothing else, so a scheme without a host names a place in
    // our store whatever our own scheme is.
    let mut url = Url::parse("memory:///").context(ErrorKind::Configuration, unreadable())?;
    url.set_path(path.as_ref());
    let builder = DeltaTableBuilder::from_url(url.clone()).context(ErrorKind::Configuration, unreadable())?;
    let builder = narrow(builder.with_storage_backend(storage.object_store(), url));
    builder.load().await.context(ErrorKind::Unavailable, unreadable())
}
