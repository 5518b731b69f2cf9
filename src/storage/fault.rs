//! What can go wrong with a store: failed file system calls as store errors, and store errors as our own.

use std::io::{self, ErrorKind as IoKind};
use std::path::Path as FilePath;

use object_store::Result;
use object_store::path::Path;

use crate::error::{Error, ErrorKind};

const STORE: &str = "durable local store";

/// The kernel could not persist what was written and may have dropped it: nothing on this disk can be trusted after a
/// retry, so the process must end.
#[derive(Debug, thiserror::Error)]
#[error("the disk failed to persist {path}; check the disk, then start again: {source}")]
struct PersistFailed {
    path: String,
    source: io::Error,
}

/// What is at the root's path is not what was opened, so nothing was written.
#[derive(Debug, thiserror::Error)]
#[error(
    "the data folder {path} is not the one that was opened (unmounted or replaced?); put it back and this process \
     continues, or restart it to use what is there now"
)]
struct NotTheRoot {
    path: String,
    /// Whether it was noticed only after something was written.
    in_doubt: bool,
}

/// The disk did not persist what was written to `path`.
pub(super) fn persist_failed(path: &FilePath, source: io::Error) -> object_store::Error {
    let failed = PersistFailed { path: path.display().to_string(), source };
    object_store::Error::Generic { store: STORE, source: Box::new(failed) }
}

/// The folder at the root's path is not the one that was opened.
pub(super) fn not_the_root_error(path: &FilePath, in_doubt: bool) -> object_store::Error {
    let moved = NotTheRoot { path: path.display().to_string(), in_doubt };
    object_store::Error::Generic { store: STORE, source: Box::new(moved) }
}

/// Whether a call failed because what is at the root's path is not what was opened; if so, whether that was only
/// noticed after something was written.
pub(super) fn not_the_root(error: &object_store::Error) -> Option<bool> {
    let object_store::Error::Generic { source, .. } = error else { return None };
    source.downcast_ref::<NotTheRoot>().map(|moved| moved.in_doubt)
}

/// The error of a put that the disk did not persist.
#[cfg(test)]
pub(crate) fn disk_failure() -> object_store::Error {
    persist_failed(FilePath::new("object"), io::Error::other("input/output error"))
}

/// A failed call to the file system, as the store reports it.
pub(super) fn store_error(path: &FilePath, error: io::Error) -> object_store::Error {
    let (path, source) = (path.display().to_string(), error);
    match source.kind() {
        IoKind::AlreadyExists => object_store::Error::AlreadyExists { path, source: source.into() },
        IoKind::NotFound => object_store::Error::NotFound { path, source: source.into() },
        IoKind::PermissionDenied => object_store::Error::PermissionDenied { path, source: source.into() },
        _ => object_store::Error::Generic { store: STORE, source: format!("{path}: {source}").into() },
    }
}

/// Nothing was put, because the object that must be beside it is gone or another one.
pub(super) fn displaced(beside: &FilePath) -> object_store::Error {
    let path = beside.display().to_string();
    object_store::Error::Precondition { path, source: "it is not what it was".into() }
}

/// A failed read. Only what is missing is told apart: the mode of a file may be changed back at any time.
pub(super) fn unreadable(path: &FilePath, error: io::Error) -> object_store::Error {
    match error.kind() {
        IoKind::NotFound | IoKind::NotADirectory => store_error(path, IoKind::NotFound.into()),
        _ => object_store::Error::Generic { store: STORE, source: format!("{}: {error}", path.display()).into() },
    }
}

/// Runs blocking work on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| object_store::Error::Generic { store: STORE, source: error.into() })?
}

/// What a failed fsync of a staging file means.
pub(super) fn not_persisted(path: &FilePath, error: io::Error) -> object_store::Error {
    match error.kind() {
        // Because of delayed allocation the disk may only now turn out to be full; the file is discarded, nothing else
        // is in doubt.
        IoKind::StorageFull | IoKind::QuotaExceeded => store_error(path, error),
        _ => persist_failed(path, error),
    }
}

/// A failed store call as one of our errors, which says what was being done.
pub(super) fn failed_call(error: object_store::Error, doing: &str, path: &Path) -> Error {
    if is_persist_failure(&error) {
        return Error::new(ErrorKind::Fatal, format!("{doing} {path}")).caused_by(error);
    }
    if not_the_root(&error) == Some(true) {
        return Error::new(ErrorKind::Unknown, format!("{doing} {path}")).caused_by(error);
    }
    Error::from(error).during(format!("{doing} {path}"))
}

/// Whether the disk did not persist what was written.
pub(super) fn is_persist_failure(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::Generic { source, .. } if source.is::<PersistFailed>())
}
