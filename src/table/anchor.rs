//! Whether the table that was read is still in place, before anything is put to it.

use std::time::Duration;

use object_store::path::Path;

use super::LakeTable;
use super::commit::{News, is_transient};
use super::head::{FRESH, Moment};
use super::snapshot::LogObject;
use crate::error::Result;
use crate::sabotage::{Sabotage, is_on};
use crate::storage::{Beside, Mark};

/// In the cloud, a table that was seen this recently is assumed to be still there.
const SEEN: Duration = Duration::from_secs(30);

/// An object of the log that is known to belong to the table: a commit, or the checkpoint that the table was read from.
/// While it is unchanged, the table is in place. What a reader compares is its
/// [`Landmarks`](super::landmark::Landmarks).
#[derive(Debug)]
pub(super) struct Anchor {
    path: Path,
    mark: Mark,
    taken: Moment,
}

impl LakeTable {
    /// Checks that the table is still there: nobody could read a commit in a folder that was removed, or in another
    /// table's. On a local disk this takes a look or two; in the cloud a request now and then. Returns news if the table
    /// is there, but its log was cleaned up past the known head.
    ///
    /// # Errors
    /// Corrupt when the table was removed or replaced.
    pub(crate) async fn ensure_there(&mut self) -> Result<Option<News>> {
        if is_on(Sabotage::StaleHead) {
            return Ok(None);
        }
        let began = Moment::now(&self.clock);
        let is_there = match self.log.storage.is_local() {
            true => self.is_head_there().await?,
            false if self.seen.is_some_and(|seen| seen.age(&self.clock) < SEEN) => return Ok(None),
            false => match self.is_anchored().await {
                // If the store is in trouble, the put reports it.
                Err(error) if is_transient(&error) => return Ok(None),
                looked => looked?,
            },
        };
        if is_there {
            self.seen = Some(began);
            return Ok(None);
        }
        let version = self.state.version;
        let news = self.read_anew(began).await?;
        // Some writers clean up even the commit of the checkpoint, so a head may have no commit.
        Ok((self.state.version > version).then_some(news))
    }

    /// The head's commit, if it is known so well that a put beside it needs no other look.
    pub(super) fn beside(&self) -> Option<Beside> {
        let mark = self.head_mark.clone().filter(|_| self.log.storage.is_local() && !is_on(Sabotage::StaleHead))?;
        Some(Beside { path: self.log.commit_path(self.state.version), mark })
    }

    /// After the head was not what it was.
    ///
    /// # Errors
    /// As [`Self::ensure_there`].
    pub(super) async fn look_again(&mut self) -> Result<()> {
        self.head_mark = None;
        self.ensure_there().await.map(drop)
    }

    /// The head's commit is there: the table is recognized by it from now on, if by an old one before.
    pub(super) fn keep_anchor(&mut self, path: Path, mark: Mark, taken: Moment) {
        if self.anchor.as_ref().is_none_or(|anchor| anchor.taken.age(&self.clock) >= FRESH) {
            self.anchor = Some(Anchor { path, mark, taken });
        }
    }

    /// Whether the head's commit is there, and the table is the one that was read.
    async fn is_head_there(&mut self) -> Result<bool> {
        let (path, taken) = (self.log.commit_path(self.state.version), Moment::now(&self.clock));
        let Some(mark) = self.log.storage.mark(&path).await? else { return Ok(false) };
        let anchor = self.anchor.as_ref().filter(|anchor| anchor.path == path);
        if self.head_mark.as_ref().or(anchor.map(|anchor| &anchor.mark)) == Some(&mark) {
            self.head_mark = Some(mark.clone());
            self.keep_anchor(path, mark, taken);
            return Ok(true);
        }
        let is_there = self.is_anchored().await?;
        // One after the other: the table was still this one after the look at its head.
        self.head_mark = is_there.then_some(mark);
        Ok(is_there)
    }

    /// Whether the object of the log that the table is recognized by is unchanged. It is taken from the snapshot that
    /// the table was read from, and from time to time replaced by the head's commit, since a log is cleaned.
    pub(super) async fn is_anchored(&mut self) -> Result<bool> {
        let (path, taken) = (self.log.commit_path(self.state.version), Moment::now(&self.clock));
        if let Some(anchor) = &mut self.anchor {
            let there = self.log.storage.mark(&anchor.path).await?;
            let is_same = there.as_ref() == Some(&anchor.mark);
            if is_same && anchor.path == path {
                anchor.taken = taken;
            }
            if !is_same || anchor.taken.age(&self.clock) < FRESH {
                return Ok(is_same);
            }
        }
        let mark = self.log.storage.mark(&path).await?;
        self.anchor = mark.map(|mark| Anchor { path, mark, taken });
        Ok(self.anchor.is_some())
    }
}

impl Anchor {
    pub(super) fn new(object: LogObject, taken: Moment) -> Self {
        Self { path: object.path, mark: object.mark, taken }
    }
}
