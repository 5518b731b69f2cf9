//! What a reader has seen of a log, by which it notices that another copy of the table has taken its place.
//!
//! A copy has the table's id, and its own commits may have the versions that were read before. So the content of two
//! commits is compared: of the last one that was read, and of the last one that had been compared before.
//!
//! Whoever writes a table only has to know whether it is still in place, and puts nothing after a commit that it does
//! not know. For that one object with a known mark is enough: the [`Anchor`](super::anchor::Anchor).

use object_store::path::Path;

use super::snapshot::{TableLog, digest};
use crate::error::Result;
use crate::storage::Mark;

/// A commit that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SeenCommit {
    version: i64,
    digest: u64,
}

/// What is known about the log at the version that was read last.
#[derive(Clone, Debug)]
pub(super) struct Landmarks {
    /// The commit of that version. `None` if it was cleaned up: only a change of `_last_checkpoint` can be noticed then.
    last: Option<SeenCommit>,
    /// The last commit that was compared with the log. Those after it may be another copy's already.
    checked: Option<SeenCommit>,
    /// The object that is looked at: that commit, or `_last_checkpoint`.
    path: Path,
    /// The mark it had; `None` if that is not known.
    mark: Option<Mark>,
}

/// How a log compares with what was read of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogComparison {
    /// What was read is there, with the same content.
    Same,
    /// A commit that was read is gone, which a clean-up explains.
    Gone,
    /// A commit that was read has another content.
    Rewritten,
}

impl Landmarks {
    /// Of a commit that was just read, with the mark of the object that was read.
    pub(super) fn of(path: Path, version: i64, digest: u64, mark: Option<Mark>) -> Self {
        let seen = Some(SeenCommit { version, digest });
        Self { last: seen, checked: seen, path, mark }
    }

    /// Of a version whose commit this reader has not read.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn find(log: &TableLog, version: i64) -> Result<Self> {
        let path = log.commit_path(version);
        if let Some((bytes, mark)) = log.bytes_marked(version).await? {
            return Ok(Self::of(path, version, digest(&bytes), Some(mark)));
        }
        let path = log.last_checkpoint_path();
        let mark = log.storage.mark(&path).await?;
        Ok(Self { last: None, checked: None, path, mark })
    }

    /// Replaces what was seen last, and keeps what was checked.
    pub(super) fn passed_to(self, next: Self) -> Self {
        Self { checked: self.checked, ..next }
    }

    /// Whether the object that is looked at may be another one. Only asked on a local disk, where it takes one look.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn may_have_changed(&self, log: &TableLog) -> Result<bool> {
        Ok(log.storage.is_local() && log.storage.mark(&self.path).await? != self.mark)
    }

    /// Compares the log with what was read of it, with one request or two.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn check(&mut self, log: &TableLog) -> Result<LogComparison> {
        let Some(last) = self.last else {
            let is_same = self.mark.is_some() && log.storage.mark(&self.path).await? == self.mark;
            return Ok(if is_same { LogComparison::Same } else { LogComparison::Gone });
        };
        let mut compared = LogComparison::Same;
        let mut found = None;
        // The last one last: its mark is kept.
        for seen in [self.checked.filter(|checked| *checked != last), Some(last)].into_iter().flatten() {
            match log.bytes_marked(seen.version).await? {
                Some((bytes, mark)) if digest(&bytes) == seen.digest => found = Some(mark),
                Some(_) => return Ok(LogComparison::Rewritten),
                None => compared = LogComparison::Gone,
            }
        }
        if compared == LogComparison::Same {
            (self.mark, self.checked) = (found, self.last);
        }
        Ok(compared)
    }
}
