//! Appending: rows, fence and progress in one commit.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use object_store::path::Path;
use serde_json::json;

use super::commit::{Landing, Provenance, PutEnd};
use super::log::{Action, Add, MetaData, Txn};
use super::snapshot::Want;
use super::state::State;
use super::{Append, CommitOutcome, Fence, LakeTable, TxnId, columns, parquet, txn};
use crate::error::{Error, Result};
use crate::id::random_id;
use crate::sabotage::{Sabotage, is_on};
use crate::storage::{PutNew, StorageKey};

/// How often the columns of a table may change under one append.
pub(super) const REBUILDS: usize = 16;

/// A data file in the store and how it is named in the log.
#[derive(Clone, Debug)]
pub(crate) struct PutFile {
    schema: SchemaRef,
    add: Add,
    location: Path,
    bytes: Bytes,
}

/// How writing a file has ended.
enum FilePut {
    Put(PutFile),
    /// The attempt's life ended before.
    Expired,
    /// The head is no longer what it was, so nothing was put.
    Displaced,
}

/// What an append requires of the table's current columns.
pub(super) struct Shape {
    /// The metadata this was made for.
    found: MetaData,
    /// The metadata with the columns that the rows add, if any.
    widened: Option<MetaData>,
    /// The table's columns then.
    pub(super) schema: SchemaRef,
}

impl LakeTable {
    /// Appends in O(1): one Parquet put and one create-only commit put. Retries transient failures with the same bytes,
    /// within the attempt's ten minutes. Columns that the rows have and the table lacks are added in the same commit.
    /// May be dropped at any point: if the commit lands all the same, it fences the next append.
    ///
    /// # Errors
    /// Unavailable when the store fails; Fatal when the disk fails; Configuration when the rows do not match the table.
    /// It is then unknown whether an attempt on the wire still lands: append again on the same handle, and the fence
    /// will tell.
    pub async fn append(&mut self, append: Append) -> Result<CommitOutcome> {
        if self.stale {
            return self.give_up(None).await;
        }
        self.freshen().await?;
        let rows = append.rows.as_ref().filter(|rows| rows.num_rows() > 0);
        if rows.is_some() && self.beside().is_none() {
            // The commit checks this too, but a file that is put before it would create the folder of a removed table.
            self.ensure_there().await?;
        }
        let mut file: Option<PutFile> = None;
        for _ in 0..REBUILDS {
            if self.stale {
                return self.give_up(file).await;
            }
            if let Some(outcome) = self.refusal(&append.fence) {
                return Ok(outcome);
            }
            let shape = self.shape(rows.map(RecordBatch::schema).as_ref())?;
            if let Some(rows) = rows {
                let columns = Arc::new(columns::file_schema(&self.log.table, &shape.schema, rows)?);
                if file.as_ref().is_none_or(|file| file.schema != columns) {
                    match self.put_file(rows, &columns).await? {
                        FilePut::Put(put) => file = Some(put),
                        FilePut::Expired => return self.give_up(None).await,
                        FilePut::Displaced => {
                            self.look_again().await?;
                            continue;
                        }
                    }
                }
            }
            let adds: Vec<Add> = file.iter().map(|file| file.add.clone()).collect();
            let provenance = provenance(&adds, rows.map_or(0, RecordBatch::num_rows));
            let Append { fence, progress, .. } = &append;
            let landing = self.land(&provenance, |state, _| plan(state, fence, progress, &shape, &adds)).await?;
            match landing {
                Landing::Landed { version, earlier: false } => return Ok(CommitOutcome::Committed { version }),
                Landing::Landed { version, earlier: true } => return Ok(CommitOutcome::AlreadyCommitted { version }),
                // The fence or the columns have changed; the head of this loop finds out which.
                Landing::Withdrawn => {}
                Landing::Expired => return self.give_up(file).await,
            }
        }
        let text = format!("the columns of table {} change faster than rows can be appended", self.log.table);
        Err(Error::unavailable(text))
    }

    /// Why an append with this fence is impossible: someone else has raised it since.
    pub(super) fn refusal(&mut self, fence: &Fence) -> Option<CommitOutcome> {
        if self.fence(fence.role) == fence.seen || is_on(Sabotage::Fence) {
            return None;
        }
        match self.recent.since(fence) {
            Some(commits) => Some(CommitOutcome::Fenced { commits }),
            None => {
                self.stale = true;
                Some(CommitOutcome::Stale)
            }
        }
    }

    /// What rows with these columns require of the current table.
    pub(super) fn shape(&self, rows: Option<&SchemaRef>) -> Result<Shape> {
        let (table, state) = (&self.log.table, &self.state);
        let (mut schema, mut widened) = (Arc::clone(&state.schema), None);
        if let Some(rows) = rows {
            let added = columns::missing(table, &schema, rows)?;
            if !added.is_empty() {
                let metadata = columns::widened(table, &state.metadata, &added)?;
                schema = columns::arrow_schema(table, &metadata)?;
                widened = Some(metadata);
            }
        }
        Ok(Shape { found: state.metadata.clone(), widened, schema })
    }

    /// Encodes and writes the rows as a new file.
    async fn put_file(&self, rows: &RecordBatch, schema: &SchemaRef) -> Result<FilePut> {
        let schema = Arc::clone(schema);
        let encoded = parquet::encode_aside(rows.clone(), Arc::clone(&schema), self.stats_columns.clone()).await?;
        let name = format!("part-{}.parquet", random_id());
        let location = StorageKey::TableFile { table: self.log.table.clone(), file: name.clone() }.path();
        match self.put_patiently(&location, encoded.bytes.clone(), self.beside().as_ref()).await? {
            PutEnd::Expired => Ok(FilePut::Expired),
            PutEnd::Displaced => Ok(FilePut::Displaced),
            PutEnd::Taken => Err(Error::corrupt(format!("{location} does not contain the bytes that were written"))),
            PutEnd::Created { .. } => {
                let now = self.clock.now().as_millis();
                let add = Add::new(&name, encoded.bytes.len(), now, encoded.stats, true);
                Ok(FilePut::Put(PutFile { schema, add, location, bytes: encoded.bytes }))
            }
        }
    }

    /// Ends an attempt whose outcome is unknown. If its commit succeeded after all, its file must exist: vacuum may
    /// have deleted it as an orphan while this process slept.
    async fn give_up(&mut self, file: Option<PutFile>) -> Result<CommitOutcome> {
        self.stale = true;
        if file.is_some() {
            self.unsettled = file;
        }
        if let Some(file) = &self.unsettled {
            let live = self.log.snapshot(Want { files: true, at: None }).await?;
            let counts = live.is_some_and(|live| live.files.contains_key(&file.add.path));
            if counts && self.log.storage.head(&file.location).await?.is_none() {
                let put = self.log.storage.put_new(&file.location, file.bytes.clone()).await?;
                tracing::warn!(file = %file.location, created = put == PutNew::Created, "restored a vacuumed file");
            }
            self.unsettled = None;
        }
        Ok(CommitOutcome::Stale)
    }
}

/// The actions of an append on this state; `None` if fence or columns are no longer those it was made for.
pub(super) fn plan(
    state: &State,
    fence: &Fence,
    progress: &[(TxnId, i64)],
    shape: &Shape,
    adds: &[Add],
) -> Result<Option<Vec<Action>>> {
    let is_fenced = txn::fence_value(&state.txns, fence.role) != fence.seen && !is_on(Sabotage::Fence);
    if is_fenced || state.metadata != shape.found {
        return Ok(None);
    }
    let mut txns = BTreeMap::new();
    for (id, value) in progress {
        let app_id = id.to_string();
        let ahead = state.txns.get(&app_id).is_none_or(|there| there < value);
        if ahead && !matches!(id, TxnId::Fence(_)) {
            let highest = txns.entry(app_id).or_insert(*value);
            *highest = (*highest).max(*value);
        }
    }
    txns.extend(txn::raised_fence(&state.txns, fence.role));
    let mut actions = Vec::new();
    actions.extend(shape.widened.clone().map(Action::MetaData));
    actions.extend(txns.into_iter().map(|(app_id, version)| Action::Txn(Txn { app_id, version, last_updated: None })));
    actions.extend(adds.iter().cloned().map(Action::Add));
    Ok(Some(actions))
}

pub(super) fn provenance(adds: &[Add], rows: usize) -> Provenance {
    let bytes: i64 = adds.iter().map(|add| add.size).sum();
    Provenance {
        operation: "WRITE",
        parameters: json!({ "mode": "Append", "partitionBy": "[]" }),
        metrics: json!({
            "numFiles": adds.len().to_string(),
            "numOutputRows": rows.to_string(),
            "numOutputBytes": bytes.to_string(),
        }),
        blind_append: true,
    }
}
