//! The content of the silver table: one row for each bronze row.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use object_store::path::Path;
use serde_json::Value;

use super::history::History;
use super::rows::{self, SilverRow};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::flow::key::UpdateKey;
use crate::flow::ledger::{ExistingRow, Ledger, LedgerRow, Parts};
use crate::flow::work::Item;
use crate::table::{DataFile, TableSpec, Within};

/// The silver table, opened by the stage that appends to it.
pub(super) type SilverLedger = Ledger<SilverRow>;

impl LedgerRow for SilverRow {
    type Part = ();
    type State = ();
    const COLUMNS: &'static [&'static str] = &rows::KEY_COLUMNS;

    fn key(&self) -> UpdateKey {
        self.bronze.key()
    }

    fn part(&self) {}

    fn state(&self) {}

    fn to_batch(schema: &SchemaRef, silver: &[Self]) -> Result<RecordBatch> {
        rows::to_batch(schema, silver)
    }

    fn known(batch: &RecordBatch) -> Result<Vec<ExistingRow<Self>>> {
        let known = |key| ExistingRow { key, part: (), state: () };
        Ok(rows::known_keys(batch)?.into_iter().map(known).collect())
    }
}

/// There is only one row per update.
pub(super) fn settles(rows: &Parts<SilverRow>) -> bool {
    !rows.is_empty()
}

/// Reads the conversation since `from` into the history of chats, piece by piece.
pub(super) async fn recall(
    history: &mut History,
    ledger: &SilverLedger,
    files: Vec<DataFile>,
    from: Timestamp,
) -> Result<()> {
    let reaches = |file: &DataFile| {
        let newest = file.max_values.get("received_at").and_then(Value::as_str);
        let newest = newest.and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
        newest.is_none_or(|newest| newest.timestamp_micros() >= from.as_micros())
    };
    let within = Within { column: "received_at", from: from.as_micros(), to: i64::MAX };
    let files = files.into_iter().filter(reaches).collect();
    let take = |batch: &arrow::array::RecordBatch| {
        for row in rows::said(batch)?.into_iter().filter(|row| row.received_at >= from) {
            history.add(row.conversation, row.received_at, &row.question, &row.answer);
        }
        Ok(())
    };
    ledger.scan(files, &rows::HISTORY_COLUMNS, within, take).await
}

/// The definition of the silver table.
///
/// # Errors
/// A configuration error when `table` is not a path.
pub fn spec(table: &str, schema: SchemaRef) -> Result<TableSpec> {
    let path = Path::parse(table)
        .map_err(|error| Error::configuration(format!("silver.table `{table}` is not a path")).caused_by(error))?;
    let stats = ["update_id", "chat_id", "bronze_version", "received_at", "processed_at"];
    Ok(TableSpec { path, schema, stats_columns: stats.map(str::to_owned).to_vec(), id: None })
}
