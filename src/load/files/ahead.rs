//! Counts the files ahead of the loader, so that the remaining time can be estimated. Only the counts are kept.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::task::AbortOnDropHandle;

use super::discover::Source;
use super::options::FilesProgress;
use super::seen::Seen;
use crate::clock::Timestamp;

/// Files listed between two updates of the counts.
const FILES_AT_ONCE: usize = 1_000;

/// Counts the files of a source, loaded or not, for as long as the handle is held.
pub(super) fn count(source: &Arc<Source>, now: Timestamp, progress: &Arc<FilesProgress>) -> AbortOnDropHandle<()> {
    let (source, progress) = (Arc::clone(source), Arc::clone(progress));
    progress.is_counted.store(false, Ordering::Relaxed);
    AbortOnDropHandle::new(tokio::spawn(async move {
        let (mut walk, nothing) = (source.walk(), Seen::default());
        loop {
            match walk.next_batch(&source, &nothing, now, (FILES_AT_ONCE, u64::MAX)).await {
                Ok(files) if files.is_empty() => return progress.is_counted.store(true, Ordering::Relaxed),
                Ok(files) => {
                    FilesProgress::add(&progress.listed_files, files.len() as u64);
                    FilesProgress::add(&progress.listed_bytes, files.iter().map(|file| file.size_bytes).sum());
                }
                Err(error) => return tracing::debug!(%error, "could not count the remaining files"),
            }
        }
    }))
}
