//! What the silver table holds: one row for each bronze row.

use std::collections::HashSet;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use object_store::path::Path;
use serde_json::Value;

use super::rows::{self, KnownRow, RowKey, SilverRow};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::flow::ledger::{Known, Ledger, LedgerRow};
use crate::table::{DataFile, TableSpec};

/// The silver table, opened by the stage that appends to it.
pub(super) type SilverLedger = Ledger<SilverRow>;

impl LedgerRow for SilverRow {
    type Key = RowKey;
    type State = ();
    const COLUMNS: &'static [&'static str] = &rows::SILVER_COLUMNS;
    const VERSION_COLUMN: &'static str = "bronze_version";

    fn key(&self) -> RowKey {
        self.bronze.key()
    }

    fn state(&self) {}

    fn version(&self) -> i64 {
        self.bronze.bronze_version
    }

    fn to_batch(schema: &SchemaRef, silver: &[Self]) -> Result<RecordBatch> {
        rows::to_batch(schema, silver)
    }

    fn known(batch: &RecordBatch) -> Result<Vec<Known<Self>>> {
        let known = |row: KnownRow| Known { key: row.key, state: (), version: row.bronze_version };
        Ok(rows::known_rows(batch)?.into_iter().map(known).collect())
    }
}

/// Every row that silver has: for when bronze has to be compared as a whole.
pub(super) async fn all_keys(ledger: &mut SilverLedger) -> Result<HashSet<RowKey>> {
    let mut keys = HashSet::new();
    for file in ledger.files_anew().await? {
        keys.extend(rows::known_rows(&ledger.read(&file).await?)?.into_iter().map(|row| row.key));
    }
    Ok(keys)
}

/// Rows of `files` received since `from`, for the history of chats.
pub(super) async fn received_since(
    ledger: &SilverLedger,
    files: Vec<DataFile>,
    from: Timestamp,
) -> Result<Vec<KnownRow>> {
    let reaches = |file: &DataFile| {
        let newest = file.max_values.get("received_at").and_then(Value::as_str);
        let newest = newest.and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
        newest.is_none_or(|newest| newest.timestamp_micros() >= from.as_micros())
    };
    let files: Vec<DataFile> = files.into_iter().filter(reaches).collect();
    let (mut rows, mut reads) = (Vec::new(), ledger.read_all(&files));
    while let Some(batch) = reads.next().await {
        rows.extend(rows::known_rows(&batch?)?.into_iter().filter(|row| row.received_at >= from));
    }
    Ok(rows)
}

/// What the silver table must be.
///
/// # Errors
/// A configuration error when `table` is not a path.
pub fn spec(table: &str, schema: SchemaRef) -> Result<TableSpec> {
    let path = Path::parse(table)
        .map_err(|error| Error::configuration(format!("silver.table `{table}` is no path")).caused_by(error))?;
    let stats = ["update_id", "chat_id", "bronze_version", "received_at", "processed_at"];
    Ok(TableSpec { path, schema, stats_columns: stats.map(str::to_owned).to_vec(), id: None })
}
