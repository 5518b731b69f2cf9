//! Ordered shutdown: one token that says "stop", and named tasks that are awaited; the first error ends all of them.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};

/// Gives work a moment after `stop` to end what it had begun, however long what it waits for takes.
///
/// # Errors
/// Those of the work; unavailable when it did not end in time.
pub async fn in_time<T>(
    work: impl Future<Output = Result<T>>,
    clock: &Clock,
    stop: &CancellationToken,
    grace: Duration,
) -> Result<T> {
    let late = async {
        stop.cancelled().await;
        clock.sleep(grace).await;
    };
    tokio::select! {
        done = work => done,
        () = late => Err(Error::unavailable("not ended in time; the next run goes on from there")),
    }
}

/// A group of tasks that stop together.
#[derive(Debug)]
pub struct TaskGroup {
    stop: CancellationToken,
    tasks: JoinSet<(&'static str, Result<()>)>,
}

impl TaskGroup {
    /// An empty group that stops with `stop`.
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, tasks: JoinSet::new() }
    }

    /// The token that stops the group.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Starts a task. If it ends before the group is stopped, in whatever way, it stops the group.
    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// Waits until the group is stopped or a task ends, then gives the rest `grace` to finish.
    ///
    /// # Errors
    /// The first error of a task, said to have happened in it.
    pub async fn wait(mut self, clock: &Clock, grace: Duration) -> Result<()> {
        let mut outcome = Ok(());
        tokio::select! {
            () = self.stop.cancelled() => {}
            Some(ended) = self.tasks.join_next() => outcome = Self::outcome_of(ended),
        }
        self.stop.cancel();
        let drained = clock.timeout(grace, async {
            while let Some(ended) = self.tasks.join_next().await {
                let ended = Self::outcome_of(ended);
                if outcome.is_ok() {
                    outcome = ended;
                }
            }
        });
        if drained.await.is_none() {
            tracing::warn!(?grace, "some tasks did not finish in time; the next start continues from there");
        }
        self.tasks.abort_all();
        outcome
    }

    fn outcome_of(ended: std::result::Result<(&'static str, Result<()>), tokio::task::JoinError>) -> Result<()> {
        match ended {
            Ok((name, outcome)) => outcome.map_err(|error| error.during(name)),
            Err(error) if error.is_cancelled() => Ok(()),
            Err(error) => Err(Error::new(ErrorKind::Panicked, "a task panicked").caused_by(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_hangs_ends_a_moment_after_the_stop() {
        let (clock, stop) = (Clock::fast(1_000), CancellationToken::new());
        assert_eq!(in_time(async { Ok(7) }, &clock, &stop, Duration::ZERO).await.unwrap(), 7);
        stop.cancel();
        let hanging = in_time(std::future::pending::<Result<()>>(), &clock, &stop, Duration::from_secs(10));
        assert_eq!(hanging.await.unwrap_err().kind(), ErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn the_first_error_stops_the_others_and_is_told() {
        let stop = CancellationToken::new();
        let mut group = TaskGroup::new(stop.clone());
        let waiter = stop.clone();
        group.spawn("waiter", async move {
            waiter.cancelled().await;
            Ok(())
        });
        group.spawn("failer", async { Err(Error::unavailable("the store is away")) });
        let error = group.wait(&Clock::system(), Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.to_string(), "failer: the store is away");
        assert!(stop.is_cancelled());
    }
}
