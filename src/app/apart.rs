//! Work that must not take turns with the stages, on its own thread and runtime.

use std::future::Future;

use tokio::sync::oneshot;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::panic;

/// Runs a task on its own thread; the threads for its blocking work have the same name, so that system tools show what
/// it costs. Returns when the task and everything it started have ended.
///
/// # Errors
/// The task's error; Panicked if it panicked.
pub(super) async fn run_apart<T, F>(name: &'static str, task: T) -> Result<()>
where
    T: FnOnce() -> F + Send + 'static,
    F: Future<Output = Result<()>>,
{
    let cannot = || format!("cannot start the thread `{name}`");
    // A worker beside the thread that runs the task: delta-rs blocks on a runtime from within it, and connections must
    // be served while the task computes.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().thread_name(name).build();
    let runtime = runtime.context(ErrorKind::Unavailable, cannot())?;
    let (done, ended) = oneshot::channel();
    let run = move || {
        let outcome = runtime.block_on(panic::catch(async { task().await }));
        drop(runtime);
        // Nobody waits any more once the drain is over.
        let _unheard = done.send(outcome);
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run).context(ErrorKind::Unavailable, cannot())?;
    match ended.await {
        Ok(outcome) => outcome?,
        Err(_) => Err(Error::new(ErrorKind::Panicked, format!("the thread `{name}` ended early"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_task_and_its_blocking_work_run_under_its_name() {
        let here = || std::thread::current().name().map(str::to_owned);
        let task = move || async move {
            assert_eq!(here().as_deref(), Some("apart"));
            let blocking = tokio::task::spawn_blocking(here).await;
            assert_eq!(blocking.unwrap().as_deref(), Some("apart"));
            Err(Error::unavailable("the store is away"))
        };
        let error = run_apart("apart", task).await.unwrap_err();
        assert_eq!(error.to_string(), "the store is away");
    }

    #[tokio::test]
    async fn a_panic_is_an_error_with_its_text() {
        let error = run_apart("apart", || async { unreachable!("on purpose") }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Panicked);
        assert!(error.to_string().ends_with("on purpose"), "{error}");
    }
}
