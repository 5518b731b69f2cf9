//! `LakeTable`: a Delta table with one appending stage, at a cost per commit that does not grow.

mod anchor;
mod append;
mod checkpoint;
mod columns;
mod commit;
pub mod delta;
mod dictionary;
mod head;
mod identity;
mod landmark;
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
pub(crate) mod values;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use serde_json::Value;

use self::anchor::Anchor;
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

/// Files read at the same time, if there are many.
const READ_AHEAD: usize = 8;

/// What a table must be like.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// Its folder, relative to the storage's root.
    pub path: Path,
    /// Its columns; additional ones that the table has are kept.
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
    /// Its rows, if the log says so.
    pub num_records: Option<i64>,
    /// Smallest value by column (`minValues` in the log); an empty object if there are none.
    pub min_values: Value,
    /// Largest value by column (`maxValues` in the log).
    pub max_values: Value,
}

/// What one commit did, as far as stages need to know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Commit {
    /// The version it created.
    pub version: i64,
    /// Files with new rows (adds with `dataChange = true`).
    pub added: Vec<DataFile>,
    /// Whether it also removed rows (removes with `dataChange = true`).
    pub rewritten: bool,
    /// The txns it set.
    pub txns: Vec<(String, i64)>,
}

/// The commit counter of the stage that appends to a table, and the value its planner saw. It belongs to the table and
/// its role, whatever the pipeline is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    /// What the table is.
    pub role: TableRole,
    /// The value the plan is based on ([`LakeTable::fence`]); 0 if no stage has ever committed.
    pub seen: i64,
}

/// One commit of a stage.
#[derive(Clone, Debug)]
pub struct Append {
    /// The rows; `None` for a commit of progress alone. Columns the table lacks are added to it, nullable, in the same
    /// commit; columns the rows lack are null.
    pub rows: Option<RecordBatch>,
    /// Raised by one with this commit, which is refused unless it still has the value that was seen.
    pub fence: Fence,
    /// Positions and watermarks that are included, as txns. Those that the table has already passed are left out.
    pub progress: Vec<(TxnId, i64)>,
}

/// How an append ended. All of these are expected.
#[derive(Clone, Debug, PartialEq)]
pub enum CommitOutcome {
    /// The rows are in the table.
    Committed {
        /// The version that was created.
        version: i64,
    },
    /// The rows were in the table already: an earlier try had succeeded and its response was lost.
    AlreadyCommitted {
        /// The version that was created.
        version: i64,
    },
    /// Another process of the same stage has committed. Adopt its commits, then plan again.
    Fenced {
        /// Every commit since the plan's head, in order.
        commits: Vec<Commit>,
    },
    /// The attempt outlived its ten minutes, or the log it was based on is gone: drop what is known and reopen.
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
    /// When the log was last seen in the store; `None` if it was not since the table was read.
    seen: Option<Moment>,
    /// What tells the table from another one in its place.
    anchor: Option<Anchor>,
    /// The mark of the head's commit, if it is known to belong to the table. Only on a local disk.
    head_mark: Option<Mark>,
    recent: Recent,
    /// Set if what is known may be wrong: only reopening helps.
    stale: bool,
    /// The file of an attempt whose outcome is unknown.
    unsettled: Option<PutFile>,
}

impl LakeTable {
    /// The version this handle has seen last.
    pub fn version(&self) -> i64 {
        self.state.version
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.log.table
    }

    /// The table's id, from its metadata.
    pub fn table_id(&self) -> &str {
        &self.state.metadata.id
    }

    /// What distinguishes the commit of a version from any other; `None` if it is no longer in the log, or says
    /// nothing.
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

    /// The value of a txn; `None` if it was never set.
    pub fn txn(&self, id: &TxnId) -> Option<i64> {
        self.state.txns.get(&id.to_string()).copied()
    }

    /// What the table knows besides its fence: watermarks, positions and so on, including those of release 0.1.
    pub fn progress(&self) -> BTreeMap<TxnId, i64> {
        txn::progress(&self.state.txns)
    }

    /// The commit counter of the stage that appends; 0 if none has ever committed.
    pub fn fence(&self, role: TableRole) -> i64 {
        txn::fence_value(&self.state.txns, role)
    }

    /// By how much one commit of the stage raises its counter: by more than one in a table of release 0.1, whose own
    /// counter is raised too.
    pub fn fence_step(&self, role: TableRole) -> i64 {
        txn::fence_step(&self.state.txns, role)
    }

    /// Whether what this handle knows may be wrong, so that every append ends [`CommitOutcome::Stale`]: reopen.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Reads on to the head, without listing, and returns what was new.
    ///
    /// # Errors
    /// When the store fails; the same commits then come again. Also Unavailable when commits were cleaned up before
    /// they were read: [`LakeTable::is_stale`] says so, and only reopening helps.
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
                let text =
                    format!("commits of table {} were cleaned up before they were read; open it again", self.log.table);
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

    /// The rows of one file, only `columns` if given; a column the file lacks is null.
    ///
    /// # Errors
    /// Corrupt when the file is missing or not Parquet.
    pub async fn read_file(&self, file: &DataFile, columns: Option<&[&str]>) -> Result<RecordBatch> {
        let wanted = parquet::pick(&self.state.schema, columns);
        parquet::read_file(&self.log.storage, &self.log.table, file, wanted).await
    }

    /// The same for many files, in order and several side by side; each batch is dropped by its consumer.
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
