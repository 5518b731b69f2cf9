//! Cleaning a source: loaded files are deleted or moved, several at a time, each checked once more just before.
//!
//! It is up to a loader's table to prove which files are loaded; this makes sure that they have not changed since.

mod archive;
mod proof;

use std::os::unix::fs::MetadataExt;

use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use prometheus::IntCounter;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub(super) use self::archive::{Archive, Sites};
pub(super) use self::proof::{Rows, rows_of};
use crate::clock::Timestamp;
use crate::error::{Context, ErrorKind, Result};
use crate::storage::{PutNew, Storage};
use crate::telemetry::Telemetry;

/// Files handled at the same time.
const AT_ONCE: usize = 16;
/// File names listed in the output.
const NAMED: usize = 20;

/// What a pass over a source did or, in a dry run, would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cleaned {
    /// Files removed from the source.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first of them.
    pub names: Vec<String>,
    /// Files kept because they may have changed since they were loaded.
    pub changed: u64,
    /// Files kept because another file is at their destination.
    pub taken: u64,
    /// Files kept because the table has only the beginning of one of their records.
    pub shortened: u64,
    /// The first of those.
    pub shortened_names: Vec<String>,
    /// Files that could not be deleted or moved now.
    pub failed: u64,
}

impl Cleaned {
    /// Whether there is nothing to report.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whether there is more to report than changed files, which their loader reports as well.
    pub fn has_news(&self) -> bool {
        self.files + self.taken + self.shortened + self.failed > 0
    }
}

impl Cleaned {
    /// Counts a file of which the table has less than every byte.
    pub(super) fn keep_shortened(&mut self, path: &Path) {
        self.shortened += 1;
        if self.shortened_names.len() < NAMED {
            self.shortened_names.push(path.to_string());
        }
    }
}

/// Removes loaded files from a source.
#[derive(Debug)]
pub(super) struct Cleaner {
    pub(super) storage: Storage,
    /// Where files are moved to; `None` deletes them.
    pub(super) archive: Option<Archive>,
    pub(super) is_dry: bool,
    pub(super) metrics: CleanMetrics,
}

#[derive(Debug)]
pub(super) struct CleanMetrics {
    files: IntCounter,
    bytes: IntCounter,
    failed: IntCounter,
}

/// A loaded file, as it was listed.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) path: Path,
    pub(super) size_bytes: u64,
    pub(super) modified: Timestamp,
    /// Set if only times can tell that it is the file that was loaded: then nothing about a local file may have changed
    /// since, its name and owner included. A file moved over another one keeps its last-modified time.
    pub(super) untouched_since: Option<Timestamp>,
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    size_bytes: u64,
    modified: Timestamp,
    /// Device and inode number of a local file.
    file: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Cleaned,
    /// Another process has cleaned it.
    Gone,
    Changed,
    Taken,
}

impl CleanMetrics {
    pub(super) fn new(telemetry: &Telemetry) -> Self {
        let counter = |name: &str, help: &str| telemetry.counter(&format!("lakegram_source_{name}_total"), help);
        Self {
            files: counter("cleaned", "loaded files that were deleted from or moved out of their source"),
            bytes: counter("cleaned_bytes", "bytes of those files"),
            failed: counter("clean_failed", "failed attempts to delete or move a loaded file"),
        }
    }
}

impl Cleaner {
    /// Cleans these files, until `stop`. One that fails is counted, and found again by the next pass.
    ///
    /// # Errors
    /// Only when the disk fails.
    pub(super) async fn clean(
        &self,
        candidates: Vec<Candidate>,
        cleaned: &mut Cleaned,
        stop: &CancellationToken,
    ) -> Result<()> {
        let (mut waiting, mut acts) = (candidates.into_iter(), FuturesOrdered::new());
        loop {
            while acts.len() < AT_ONCE && !stop.is_cancelled() {
                let Some(file) = waiting.next() else { break };
                acts.push_back(self.act(file).boxed());
            }
            let Some((outcome, file)) = acts.next().await else { break };
            self.count(outcome, &file, cleaned)?;
        }
        Ok(())
    }

    fn count(&self, outcome: Result<Outcome>, file: &Candidate, cleaned: &mut Cleaned) -> Result<()> {
        match outcome {
            Ok(Outcome::Cleaned) => {
                cleaned.files += 1;
                cleaned.bytes += file.size_bytes;
                if cleaned.names.len() < NAMED {
                    cleaned.names.push(file.path.to_string());
                }
                if !self.is_dry {
                    self.metrics.files.inc();
                    self.metrics.bytes.inc_by(file.size_bytes);
                    tracing::debug!(path = %file.path, "cleaned a loaded file from its source");
                }
            }
            Ok(Outcome::Gone) => {}
            Ok(Outcome::Changed) => {
                cleaned.changed += 1;
                tracing::debug!(path = %file.path, "the file may have changed since it was loaded; keeping it");
            }
            Ok(Outcome::Taken) => {
                // The first of a kind is logged in full; for a million of them only the count is useful.
                if cleaned.taken == 0 && !self.is_dry {
                    tracing::warn!(path = %file.path, "another file is already at the destination; keeping this one");
                }
                cleaned.taken += 1;
            }
            Err(error) if error.kind() == ErrorKind::Fatal => return Err(error),
            Err(error) => {
                if cleaned.failed == 0 {
                    tracing::warn!(%error, "could not clean a loaded file from its source; will retry");
                }
                cleaned.failed += 1;
                self.metrics.failed.inc();
            }
        }
        Ok(())
    }

    async fn act(&self, file: Candidate) -> (Result<Outcome>, Candidate) {
        (self.clean_file(&file).await, file)
    }

    async fn clean_file(&self, file: &Candidate) -> Result<Outcome> {
        let Some((look, touched)) = self.stands(&file.path).await? else { return Ok(Outcome::Gone) };
        if !self.is_as_loaded(file, look, touched) {
            return Ok(Outcome::Changed);
        }
        if let Some(archive) = &self.archive {
            if self.is_dry {
                return Ok(if archive.is_taken(&file.path).await? { Outcome::Taken } else { Outcome::Cleaned });
            }
            match archive.take(&file.path).await {
                Ok(PutNew::Created) => {}
                Ok(PutNew::Taken) => return Ok(Outcome::Taken),
                Err(error) if error.kind() == ErrorKind::Fatal => return Err(error),
                // Another process was faster.
                Err(_) if self.storage.head(&file.path).await?.is_none() => return Ok(Outcome::Gone),
                Err(error) => return Err(error),
            }
            // Delete exactly what was copied.
            match self.stands(&file.path).await? {
                None => return Ok(Outcome::Gone),
                Some((now, _)) if now != look => return Ok(Outcome::Changed),
                Some(_) => {}
            }
        }
        if !self.is_dry {
            self.storage.delete(&file.path).await?;
        }
        Ok(Outcome::Cleaned)
    }

    fn is_as_loaded(&self, file: &Candidate, look: Look, touched: Timestamp) -> bool {
        let is_listed = look.size_bytes == file.size_bytes && look.modified == file.modified;
        is_listed && (file.untouched_since.is_none_or(|since| touched < since) || self.is_half_moved(file, look))
    }

    /// Whether a move has already linked it at its new path: that touches a file.
    fn is_half_moved(&self, file: &Candidate, look: Look) -> bool {
        let there = self.archive.as_ref().and_then(|archive| archive.local_file(&file.path));
        let there = there.and_then(|there| std::fs::symlink_metadata(there).ok());
        there.is_some_and(|there| look.file == Some((there.dev(), there.ino())))
    }

    /// What is at a path, and when anything about it last changed. A link to somewhere else always counts as just
    /// changed: its target is not ours to clean.
    async fn stands(&self, path: &Path) -> Result<Option<(Look, Timestamp)>> {
        let Some(root) = self.storage.local_root() else {
            let there = self.storage.head(path).await?;
            return Ok(there.map(|there| {
                let modified = Timestamp::from_micros(there.last_modified.timestamp_micros());
                (Look { size_bytes: there.size, modified, file: None }, modified)
            }));
        };
        let file = root.join(path.as_ref());
        let there = tokio::task::spawn_blocking(move || std::fs::symlink_metadata(file)).await;
        let there = match there.context(ErrorKind::Unavailable, format!("look at {path}"))? {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            there => there.context(ErrorKind::Unavailable, format!("look at {path}"))?,
        };
        let modified = moment(there.mtime(), there.mtime_nsec());
        let size_bytes = if there.is_file() { there.len() } else { u64::MAX };
        let look = Look { size_bytes, modified, file: Some((there.dev(), there.ino())) };
        Ok(Some((look, moment(there.ctime(), there.ctime_nsec()))))
    }
}

/// From the two numbers of a file system, truncated to microseconds as listings are.
fn moment(seconds: i64, nanos: i64) -> Timestamp {
    Timestamp::from_micros(seconds.saturating_mul(1_000_000).saturating_add(nanos.div_euclid(1_000)))
}
