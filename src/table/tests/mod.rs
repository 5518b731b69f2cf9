//! The promises of the commit path, against a store that fails in every way we can think of.

mod append;
mod durable;
pub(super) mod faulty;
mod open;
mod race;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use object_store::path::Path;

use super::{Append, Commit, CommitOutcome, Fence, LakeTable, TableRole, TableSpec, TxnId};
use crate::clock::Clock;
use crate::id::{BotId, Name};
use crate::storage::{Storage, StorageKey};

pub(crate) const STAGE: TableRole = TableRole::Bronze;
/// A stage that appends to the same table with a counter of its own.
const OTHER: TableRole = TableRole::Silver;

fn position(lane: &str) -> TxnId {
    TxnId::Position { pipeline: Name::cleaned("p"), bot_id: BotId(1), lane: Name::cleaned(lane) }
}

fn table_path() -> Path {
    Path::from("bronze/messages")
}

fn columns(columns: &[(&str, DataType)]) -> SchemaRef {
    let field = |(name, kind): &(&str, DataType)| Field::new(*name, kind.clone(), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

fn spec() -> TableSpec {
    TableSpec {
        path: table_path(),
        schema: columns(&[("id", DataType::Int64), ("text", DataType::Utf8)]),
        stats_columns: vec!["id".to_owned()],
        id: None,
    }
}

fn rows(ids: impl IntoIterator<Item = i64>) -> RecordBatch {
    let ids: Vec<i64> = ids.into_iter().collect();
    let texts: Vec<String> = ids.iter().map(|id| format!("text {id}")).collect();
    let columns: Vec<(&str, ArrayRef)> =
        vec![("id", Arc::new(Int64Array::from(ids))), ("text", Arc::new(StringArray::from(texts)))];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, values)| (name, values, true))).unwrap()
}

async fn open(storage: &Storage, clock: &Clock) -> LakeTable {
    LakeTable::open(storage, &spec(), clock).await.unwrap()
}

/// Appends on the fence as this handle knows it.
async fn append(table: &mut LakeTable, role: TableRole, batch: RecordBatch) -> CommitOutcome {
    let fence = Fence { role, seen: table.fence(role) };
    table.append(Append { rows: Some(batch), fence, progress: Vec::new() }).await.unwrap()
}

async fn ids(table: &LakeTable, commits: &[Commit]) -> Vec<i64> {
    let mut ids = Vec::new();
    for file in commits.iter().flat_map(|commit| &commit.added) {
        let rows = table.read_file(file, Some(&["id"])).await.unwrap();
        ids.extend(rows.column(0).as_primitive::<Int64Type>().values().iter().copied());
    }
    ids.sort_unstable();
    ids
}

/// All ids in the table, as somebody who has just come reads it.
async fn all_ids(storage: &Storage) -> Vec<i64> {
    let table = LakeTable::open_existing(storage, &table_path(), &Clock::system()).await.unwrap().unwrap();
    let added = table.files().await.unwrap();
    ids(&table, &[Commit { added, ..Commit::default() }]).await
}

async fn put_commit(storage: &Storage, version: i64, text: &str) {
    let path = StorageKey::Commit { table: table_path(), version }.path();
    storage.put_new(&path, text.to_owned().into()).await.unwrap();
}

/// Makes a checkpoint with delta-rs and deletes every commit up to it.
async fn checkpoint_and_clean(storage: &Storage) -> i64 {
    let table = super::delta::delta_table(storage, &table_path()).await.unwrap();
    deltalake::checkpoints::create_checkpoint(&table, None).await.unwrap();
    let version = i64::try_from(table.version().unwrap()).unwrap();
    for version in 0..=version {
        storage.delete(&StorageKey::Commit { table: table_path(), version }.path()).await.unwrap();
    }
    version
}
