//! A scene that many tests begin with: a process died between giving a name and making it durable.

use std::path::Path;

use super::{CutAt, Moment, Operation, SimulatedDisk};

/// Reboots that are looked at.
pub(crate) const REBOOTS: usize = 50;

impl SimulatedDisk {
    /// Lets a process work until it dies just before its `nth` sync of a folder; returns the disk for the next process,
    /// which sees everything that the dead one has not made durable.
    pub(crate) async fn after_a_death(&self, nth: u64, work: impl Future<Output = ()> + Send + 'static) -> Self {
        self.cut_at(CutAt { operation: Some(Operation::SyncFolder), nth, moment: Moment::Before });
        let dying = tokio::spawn(work);
        self.out().cancelled().await;
        dying.abort();
        self.release();
        assert!(dying.await.is_err_and(|ended| ended.is_cancelled()));
        self.for_the_next_process()
    }

    /// Of [`REBOOTS`] reboots after a cut now, how many find a file at this path below the folder.
    pub(crate) fn reboots_that_find(&self, path: &str) -> usize {
        let finds = |seed: &u64| {
            let rebooted = tempfile::tempdir().unwrap();
            self.write_survivors(rebooted.path(), *seed).unwrap();
            rebooted.path().join(Path::new(path)).is_file()
        };
        (0..REBOOTS as u64).filter(finds).count()
    }
}
