//! `LakeTable`: a Delta table with one appending stage, at a cost per commit that does not grow.

pub mod append;
pub mod log;
pub mod maintain;
pub mod parquet;
mod stats;
pub mod tail;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use object_store::path::Path;
use serde_json::Value;

use crate::clock::Clock;
use crate::error::Result;
use crate::storage::Storage;

pub use self::tail::{Tail, TailStep};

/// What a table must be.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// Its folder, relative to the storage's root.
    pub path: Path,
    /// Its columns; more that the table has are kept.
    pub schema: SchemaRef,
    /// Columns whose minimum and maximum go into the log, so that readers can skip files.
    pub stats_columns: Vec<String>,
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

/// The commit counter of a stage and what its planner saw of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// `lakegram/<pipeline>/<stage>`.
    pub app_id: String,
    /// The value the plan is built on; 0 when the stage has never committed.
    pub seen: i64,
}

/// One commit of a stage.
#[derive(Clone, Debug)]
pub struct Append {
    /// The rows; `None` for a commit of progress alone.
    pub rows: Option<RecordBatch>,
    /// Raised by one with this commit, and refused unless it still holds what was seen.
    pub fence: Fence,
    /// Positions and watermarks that ride along, as txns.
    pub progress: Vec<(String, i64)>,
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
    _todo: (),
}

impl LakeTable {
    /// Opens the table, creates it when it is not there, and adds nullable columns it lacks.
    ///
    /// # Errors
    /// A configuration error that names a column of another type, or a table feature that is not known.
    pub async fn open(_storage: &Storage, _spec: &TableSpec, _clock: &Clock) -> Result<Self> {
        todo!()
    }

    /// Opens the table as it is; `None` when it is not there.
    ///
    /// # Errors
    /// When the store fails or the log is not understood.
    pub async fn open_existing(_storage: &Storage, _path: &Path, _clock: &Clock) -> Result<Option<Self>> {
        todo!()
    }

    /// The version this handle has seen last.
    pub fn version(&self) -> i64 {
        todo!()
    }

    /// The table's id, from its metadata.
    pub fn table_id(&self) -> &str {
        todo!()
    }

    /// Its columns.
    pub fn schema(&self) -> SchemaRef {
        todo!()
    }

    /// The value of a txn, `None` when it was never set.
    pub fn txn(&self, _app_id: &str) -> Option<i64> {
        todo!()
    }

    /// All txns, by app id.
    pub fn txns(&self) -> &std::collections::BTreeMap<String, i64> {
        todo!()
    }

    /// Reads on to the head, without listing, and returns what was new.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn refresh(&mut self) -> Result<Vec<Commit>> {
        todo!()
    }

    /// Appends in O(1): one Parquet put and one create-only commit put. Retries what fails for the moment with the
    /// same bytes, within the attempt's ten minutes.
    ///
    /// # Errors
    /// Unavailable when the store fails for the whole life of the attempt; Fatal when the disk fails;
    /// Configuration when the rows do not fit the table.
    pub async fn append(&mut self, _append: Append) -> Result<CommitOutcome> {
        todo!()
    }

    /// The files of the table at the head this handle has seen, with their statistics.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn files(&self) -> Result<Vec<DataFile>> {
        todo!()
    }

    /// The rows of one file, only `columns` when given; a column the file lacks is null.
    ///
    /// # Errors
    /// Corrupt when the file is gone or no Parquet.
    pub async fn read_file(&self, _file: &DataFile, _columns: Option<&[&str]>) -> Result<RecordBatch> {
        todo!()
    }
}
