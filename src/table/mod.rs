//! `LakeTable`: a Delta table with one appending stage, at a cost per commit that does not grow.

mod append;
mod checkpoint;
mod columns;
mod commit;
pub mod delta;
mod dictionary;
mod head;
mod identity;
pub mod log;
pub mod maintain;
mod open;
pub mod parquet;
mod scan;
mod snapshot;
mod staged;
mod state;
mod stats;
pub mod tail;
pub mod txn;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use serde_json::Value;

use self::append::PutFile;
use self::commit::News;
use self::head::{Moment, Recent};
use self::log::Action;
use self::snapshot::{TableLog, Want};
use self::state::State;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::storage::Mark;

pub use self::columns::check_columns;
pub use self::identity::{Identity, OwnTable};
pub(crate) use self::scan::Part;
pub use self::scan::{FileHealth, Scan, Within};
pub use self::staged::{StagedFile, Stager};
pub use self::tail::{Tail, TailStep};
pub use self::txn::{TableRole, TxnId};

/// Files that are read at the same time where many are.
const READ_AHEAD: usize = 8;

/// What a table must be.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// Its folder, relative to the storage's root.
    pub path: Path,
    /// Its columns; more that the table has are kept.
    pub schema: SchemaRef,
    /// Columns whose minimum and maximum go into the log, so that readers can skip files.
    pub stats_columns: Vec<String>,
    /// The id it must have: then it is never made, and another table in its place is refused. `None` where whoever
    /// opens it may make it.
    pub id: Option<String>,
}

/// A data file of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct DataFile {
    /// Its path relative to the table, as the log has it.
    pub path: String,
    /// Its size.
    pub size_bytes: i64,
    /// When it was added, milliseconds since 1970.
    pub modification_millis: i64,
    /// Rows in it, where the log says so.
    pub num_records: Option<i64>,
    /// Smallest value by column (`minValues` of the log), an empty object where there are none.
    pub min_values: Value,
    /// Largest value by column (`maxValues` of the log).
    pub max_values: Value,
}

/// What one commit did, as far as stages care.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Commit {
    /// The version it made.
    pub version: i64,
    /// Files that bring rows (adds with `dataChange = true`).
    pub added: Vec<DataFile>,
    /// Whether it also took rows away (removes with `dataChange = true`).
    pub rewritten: bool,
    /// The txns it set.
    pub txns: Vec<(String, i64)>,
}

/// The commit counter of the stage that appends to a table, and what its planner saw of it. It belongs to the table and
/// its role, whatever the pipeline is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// What the table is.
    pub role: TableRole,
    /// The value the plan is built on ([`LakeTable::fence`]); 0 when no stage has ever committed.
    pub seen: i64,
}

/// One commit of a stage.
#[derive(Clone, Debug)]
pub struct Append {
    /// The rows; `None` for a commit of progress alone. Columns the table lacks are added to it, nullable, in the same
    /// commit; columns the rows lack are null.
    pub rows: Option<RecordBatch>,
    /// Raised by one with this commit, and refused unless it still holds what was seen.
    pub fence: Fence,
    /// Positions and watermarks that ride along, as txns. One that the table has gone past already is left out.
    pub progress: Vec<(TxnId, i64)>,
}

/// How an append ended. All of these are expected.
#[derive(Clone, Debug, PartialEq)]
pub enum CommitOutcome {
    /// The rows are in the table.
    Committed {
        /// The version they made.
        version: i64,
    },
    /// The rows were in the table already: an earlier try had succeeded and its answer was lost.
    AlreadyCommitted {
        /// The version they made.
        version: i64,
    },
    /// Another process of the same stage has committed. Take its commits into what is known, then plan again.
    Fenced {
        /// Every commit since the plan's head, in order.
        commits: Vec<Commit>,
    },
    /// The attempt outlived its ten minutes, or the log it stood on is gone: drop what is known and open again.
    Stale,
}

/// A table opened by the stage that appends to it (or by maintenance). Keeps version, schema and txns in memory.
#[derive(Debug)]
pub struct LakeTable {
    log: TableLog,
    clock: Clock,
    stats_columns: Vec<String>,
    state: State,
    /// When the head was last known to be the head.
    touched: Moment,
    /// When a commit of the log was last seen in the store.
    seen: Moment,
    /// The commit by which the table is told from another at its place.
    anchor: Option<Anchor>,
    recent: Recent,
    /// Set when what is known may be wrong: only opening again helps.
    stale: bool,
    /// The file of an attempt whose fate is not known yet.
    unsettled: Option<PutFile>,
}

/// A commit that stands for the table.
#[derive(Debug)]
struct Anchor {
    version: i64,
    mark: Mark,
    taken: Moment,
}

impl LakeTable {
    /// The version this handle has seen last.
    pub fn version(&self) -> i64 {
        self.state.version
    }

    /// The table's id, from its metadata.
    pub fn table_id(&self) -> &str {
        &self.state.metadata.id
    }

    /// What tells the commit of a version from any other; `None` when it is not in the log any more, or says nothing.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn commit_id(&self, version: i64) -> Result<Option<String>> {
        let actions = self.log.read(version).await?.unwrap_or_default();
        Ok(actions.into_iter().find_map(|action| match action {
            Action::CommitInfo(info) => info.txn_id,
            _ => None,
        }))
    }

    /// Its columns.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.state.schema)
    }

    /// The value of a txn, `None` when it was never set.
    pub fn txn(&self, id: &TxnId) -> Option<i64> {
        self.state.txns.get(&id.to_string()).copied()
    }

    /// What the table knows besides its fence: watermarks, positions and the like, those of release 0.1 included.
    pub fn progress(&self) -> BTreeMap<TxnId, i64> {
        txn::progress(&self.state.txns)
    }

    /// The commit counter of the stage that appends; 0 when none has ever committed.
    pub fn fence(&self, role: TableRole) -> i64 {
        txn::fence_value(&self.state.txns, role)
    }

    /// By how much one commit of the stage raises its counter: by more than one in a table of release 0.1, whose own
    /// counter is raised too.
    pub fn fence_step(&self, role: TableRole) -> i64 {
        txn::fence_step(&self.state.txns, role)
    }

    /// Whether what this handle knows may be wrong, so that every append ends [`CommitOutcome::Stale`]: open again.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Reads on to the head, without listing, and returns what was new.
    ///
    /// # Errors
    /// When the store fails; then the same commits come again. Unavailable as well when commits were cleaned away
    /// before they were read: [`LakeTable::is_stale`] says so, and only opening again helps.
    pub async fn refresh(&mut self) -> Result<Vec<Commit>> {
        let news = match self.touched.age(&self.clock) < head::FRESH {
            _ if self.stale => News::Gap,
            true => News::Commits(self.read_on().await?),
            false => self.renew().await?,
        };
        match news {
            News::Commits(passed) => {
                Ok(passed.iter().map(|passed| Commit::from_actions(passed.version, &passed.actions)).collect())
            }
            News::Gap => {
                self.stale = true;
                let text = format!("commits of table {} are gone before they were read; open it again", self.log.table);
                Err(Error::unavailable(text))
            }
        }
    }

    /// The files of the table at the head this handle has seen, with their statistics.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn files(&self) -> Result<Vec<DataFile>> {
        let want = Want { files: true, at: Some(self.state.version) };
        let snapshot = self.log.snapshot(want).await?;
        let snapshot = snapshot.ok_or_else(|| Error::corrupt(format!("table {} is gone", self.log.table)))?;
        Ok(snapshot.files.into_values().collect())
    }

    /// The rows of one file, only `columns` when given; a column the file lacks is null.
    ///
    /// # Errors
    /// Corrupt when the file is gone or no Parquet.
    pub async fn read_file(&self, file: &DataFile, columns: Option<&[&str]>) -> Result<RecordBatch> {
        let wanted = parquet::pick(&self.state.schema, columns);
        parquet::read_file(&self.log.storage, &self.log.table, file, wanted).await
    }

    /// The same of many files, in their order and some side by side; each batch is dropped by whoever takes it.
    pub fn read_files<'a>(
        &'a self,
        files: &'a [DataFile],
        columns: Option<&'a [&'a str]>,
    ) -> BoxStream<'a, Result<RecordBatch>> {
        let reads = files.iter().map(move |file| self.read_file(file, columns));
        stream::iter(reads).buffered(READ_AHEAD).boxed()
    }
}

#[cfg(test)]
mod tests;
