//! What a row of a stage's own table is to its ledger.

use std::fmt;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::key::UpdateKey;
use crate::error::Result;

/// A row that a stage writes once.
pub(crate) trait LedgerRow: Clone + Send + Sync + 'static {
    /// Identifies a row among those of its update: no second row with this key is written.
    type Part: Copy + Eq + Send + Sync + fmt::Debug;
    /// What needs to be known about an existing row.
    type State: Copy + Send + Sync + fmt::Debug;
    /// The columns read back from the table.
    const COLUMNS: &'static [&'static str];

    /// The update it is about.
    fn key(&self) -> UpdateKey;
    fn part(&self) -> Self::Part;
    fn state(&self) -> Self::State;
    /// Rows as a batch of a table with `schema`; columns that the stage does not fill are null.
    fn to_batch(schema: &SchemaRef, rows: &[Self]) -> Result<RecordBatch>;
    /// Parses a batch of the table.
    fn known(batch: &RecordBatch) -> Result<Vec<ExistingRow<Self>>>;
}

/// An existing row.
#[derive(Clone, Debug)]
pub(crate) struct ExistingRow<R: LedgerRow> {
    pub(crate) key: UpdateKey,
    pub(crate) part: R::Part,
    pub(crate) state: R::State,
}

/// The existing rows of one update.
pub(crate) type Parts<R> = [(<R as LedgerRow>::Part, <R as LedgerRow>::State)];

/// The result of a commit.
#[derive(Debug)]
pub(crate) struct Recorded<R> {
    /// A version that has all the rows, if there were rows.
    pub(crate) version: Option<i64>,
    /// The rows that are ours; the others were written first by another process, or by an earlier try of ours whose
    /// outcome was unknown.
    pub(crate) rows: Vec<R>,
}
