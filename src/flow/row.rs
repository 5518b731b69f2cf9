//! What a row of a stage's own table is to its ledger.

use std::fmt;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::key::UpdateKey;
use crate::error::Result;

/// A row that a stage writes once.
pub(crate) trait LedgerRow: Clone + Send + Sync + 'static {
    /// Names a row among those of its update: no second row of the same name is written.
    type Part: Copy + Eq + Send + Sync + fmt::Debug;
    /// What is worth knowing of a row that is there.
    type State: Copy + Send + Sync + fmt::Debug;
    /// What is read back of the table.
    const COLUMNS: &'static [&'static str];

    /// The update that it is about.
    fn key(&self) -> UpdateKey;
    fn part(&self) -> Self::Part;
    fn state(&self) -> Self::State;
    /// Rows as a batch of a table with `schema`; columns that are not the stage's are null.
    fn to_batch(schema: &SchemaRef, rows: &[Self]) -> Result<RecordBatch>;
    /// What a batch of the table says.
    fn known(batch: &RecordBatch) -> Result<Vec<ExistingRow<Self>>>;
}

/// A row that is there.
#[derive(Clone, Debug)]
pub(crate) struct ExistingRow<R: LedgerRow> {
    pub(crate) key: UpdateKey,
    pub(crate) part: R::Part,
    pub(crate) state: R::State,
}

/// The rows there are of one update.
pub(crate) type Parts<R> = [(<R as LedgerRow>::Part, <R as LedgerRow>::State)];
