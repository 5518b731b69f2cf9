//! What the table before brings to a stage: the rows of its log and, where the log alone does not tell what is new,
//! every row that might be.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

use arrow::array::RecordBatch;
use object_store::path::Path;

use crate::clock::Clock;
use crate::error::Result;
use crate::storage::Storage;
use crate::table::{DataFile, Tail, TailStep};

/// The next thing a feed brings.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing newer yet.
    AtHead,
    /// A commit of rows that were never there before.
    New {
        /// The version of the commit.
        version: i64,
        /// Its rows.
        batches: Vec<RecordBatch>,
    },
    /// Rows that may be done already come next: the feed waits to be told what is, by [`Feed::compare_with`].
    Unclear {
        /// The version up to which they go.
        version: i64,
    },
    /// Some of these rows; [`Feed::is_new`] tells which are work.
    Chunk {
        /// The version up to which they go.
        version: i64,
        /// The rows.
        batch: RecordBatch,
    },
    /// That was the last chunk.
    Cleared {
        /// The version up to which everything has now been brought.
        version: i64,
    },
}

/// A table, read forward. `K` names a row.
#[derive(Debug)]
pub(crate) struct Feed<K> {
    tail: Tail,
    backlog: Option<Backlog<K>>,
}

/// Rows up to a version that may be done already. Kept until each was brought: the tail does not bring them again.
#[derive(Debug)]
struct Backlog<K> {
    version: i64,
    chunks: VecDeque<Chunk>,
    /// What is done or under way; `None` until the stage has told.
    known: Option<HashSet<K>>,
}

#[derive(Debug)]
enum Chunk {
    File(DataFile),
    Rows(RecordBatch),
}

impl<K: Eq + Hash> Feed<K> {
    /// The `columns` of the table at `path`, after version `after` (-1: from the first).
    pub(crate) fn new(storage: &Storage, path: &Path, after: i64, columns: &[&str], clock: &Clock) -> Self {
        Self { tail: Tail::new(storage, path, after, columns, clock), backlog: None }
    }

    /// Whether everything up to `version` was brought.
    pub(crate) fn has_reached(&self, version: i64) -> bool {
        self.backlog.is_none() && self.tail.version() >= version
    }

    /// The next step.
    ///
    /// # Errors
    /// When the store fails; the same step comes again.
    pub(crate) async fn next(&mut self) -> Result<Step> {
        if let Some(backlog) = &mut self.backlog {
            let version = backlog.version;
            if backlog.known.is_none() {
                return Ok(Step::Unclear { version });
            }
            let batch = match backlog.chunks.front() {
                None => {
                    self.backlog = None;
                    return Ok(Step::Cleared { version });
                }
                Some(Chunk::Rows(batch)) => batch.clone(),
                Some(Chunk::File(file)) => self.tail.read_file(file).await?,
            };
            backlog.chunks.pop_front();
            return Ok(Step::Chunk { version, batch });
        }
        let (version, chunks) = match self.tail.next().await? {
            TailStep::AtHead => return Ok(Step::AtHead),
            TailStep::Rows { version, batches, rewritten } => {
                if !rewritten || batches.is_empty() {
                    return Ok(Step::New { version, batches });
                }
                (version, batches.into_iter().map(Chunk::Rows).collect())
            }
            TailStep::Lost => {
                let (version, files) = self.tail.snapshot().await?;
                tracing::warn!(version, files = files.len(), "a stretch of a table's log is gone; comparing its rows");
                (version, files.into_iter().map(Chunk::File).collect())
            }
        };
        self.backlog = Some(Backlog { version, chunks, known: None });
        Ok(Step::Unclear { version })
    }

    /// Answers [`Step::Unclear`]: what is done, and what is under way.
    pub(crate) fn compare_with(&mut self, known: HashSet<K>) {
        if let Some(backlog) = &mut self.backlog {
            backlog.known = Some(known);
        }
    }

    /// Whether a row of a [`Step::Chunk`] is work; from then on it is known.
    pub(crate) fn is_new(&mut self, key: K) -> bool {
        let known = self.backlog.as_mut().and_then(|backlog| backlog.known.as_mut());
        known.is_none_or(|known| known.insert(key))
    }
}
