//! Panics as values: a panic in one row, task or stage must not take down the process.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tokio::task::JoinError;

use crate::error::{Error, ErrorKind};

/// How much of a panic's message is kept, in characters.
const TEXT_LIMIT: usize = 500;

/// A panic that was caught.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {text}")]
pub struct Panic {
    text: String,
}

impl Panic {
    /// The message of the panic, shortened.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The panic that ended a task; `None` if the task was aborted instead.
    pub fn of_task(error: JoinError) -> Option<Self> {
        error.try_into_panic().ok().map(|payload| Self::of_payload(&*payload))
    }

    fn of_payload(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self { text: text.unwrap_or("no message").chars().take(TEXT_LIMIT).collect() }
    }
}

impl From<Panic> for Error {
    fn from(panic: Panic) -> Self {
        Self::new(ErrorKind::Panicked, panic.to_string())
    }
}

/// Runs a future to its end and returns its panic as a value. The panic drops what the future held; what it shares with
/// others must be consistent at every await, as for any future that may be dropped.
///
/// # Errors
/// The panic.
pub async fn catch<F: Future>(future: F) -> Result<F::Output, Panic> {
    AssertUnwindSafe(future).catch_unwind().await.map_err(|payload| Panic::of_payload(&*payload))
}

/// Like [`catch`], for synchronous work.
///
/// # Errors
/// The panic.
pub fn catch_sync<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panic::of_payload(&*payload))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_value_with_its_text() {
        assert_eq!(catch(async { 7 }).await, Ok(7));
        let number = 7;
        let caught: Result<(), Panic> = catch(async { panic!("row {number}") }).await;
        assert_eq!(caught.unwrap_err().text(), "row 7");
        let caught: Result<(), Panic> = catch_sync(|| panic!("constant"));
        let error = Error::from(caught.unwrap_err());
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Panicked, "panicked: constant"));
        let caught: Result<(), Panic> = catch_sync(|| std::panic::panic_any(7));
        assert_eq!(caught.unwrap_err().text(), "no message");
    }

    #[tokio::test]
    async fn the_panic_of_a_task_is_told_from_an_abort() {
        let panicked = tokio::spawn(async { panic!("{}", "x".repeat(2 * TEXT_LIMIT)) });
        let panic = Panic::of_task(panicked.await.unwrap_err()).unwrap();
        assert_eq!(panic.text().len(), TEXT_LIMIT);
        let aborted = tokio::spawn(std::future::pending::<()>());
        aborted.abort();
        assert_eq!(Panic::of_task(aborted.await.unwrap_err()), None);
    }
}
