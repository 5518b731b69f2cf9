//! Data files that are written before it is known which version will refer to them: for more rows than fit in memory.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};

use super::append::{REBUILDS, plan, provenance};
use super::commit::Landing;
use super::head::Moment;
use super::log::Add;
use super::{CommitOutcome, Fence, LakeTable, TxnId, parquet};
use crate::clock::Clock;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::random_id;
use crate::storage::{PutNew, Storage, StorageKey};

/// How long a staged file waits for its version at most. Vacuum leaves files alone that are less than a day old.
const STAGED_LIFE: Duration = Duration::from_secs(12 * 3_600);

/// Writes data files of one table ahead of the commit that refers to them. Several may be written at the same time.
#[derive(Clone, Debug)]
pub struct Stager {
    storage: Storage,
    table: object_store::path::Path,
    stats_columns: Vec<String>,
    clock: Clock,
}

/// A data file that no version refers to yet. If none ever does, it is vacuumed.
#[derive(Clone, Debug)]
pub struct StagedFile {
    add: Add,
    schema: SchemaRef,
    rows: usize,
    put_at: Moment,
}

impl Stager {
    /// Encodes rows as a data file and writes it.
    ///
    /// # Errors
    /// Configuration when a column has a type that Parquet cannot hold; otherwise the store's error.
    pub async fn put(&self, rows: RecordBatch) -> Result<StagedFile> {
        let (schema, count) = (rows.schema(), rows.num_rows());
        let stats_columns = self.stats_columns.clone();
        let encoding =
            tokio::task::spawn_blocking(move || parquet::encode_at(&rows, &stats_columns, parquet::ZSTD_QUICK));
        let encoded = encoding.await.context(ErrorKind::Unavailable, "encode rows as Parquet")??;
        let name = format!("part-{}.parquet", random_id());
        let location = StorageKey::TableFile { table: self.table.clone(), file: name.clone() }.path();
        let put_at = Moment::now(&self.clock);
        match self.storage.put_new(&location, encoded.bytes.clone()).await? {
            PutNew::Created => {
                let now = self.clock.now().as_millis();
                let add = Add::new(&name, encoded.bytes.len(), now, encoded.stats, true);
                Ok(StagedFile { add, schema, rows: count, put_at })
            }
            PutNew::Taken => Err(Error::corrupt(format!("{location} does not contain the bytes that were written"))),
        }
    }
}

impl StagedFile {
    /// Its size in bytes.
    pub fn size_bytes(&self) -> i64 {
        self.add.size
    }

    /// The rows in it.
    pub fn num_rows(&self) -> usize {
        self.rows
    }
}

impl LakeTable {
    /// Writes data files ahead for this table.
    pub fn stager(&self) -> Stager {
        Stager {
            storage: self.log.storage.clone(),
            table: self.log.table.clone(),
            stats_columns: self.stats_columns.clone(),
            clock: self.clock.clone(),
        }
    }

    /// Like [`LakeTable::append`], for rows that were written ahead: all of them in one version, or none.
    ///
    /// # Errors
    /// As [`LakeTable::append`]; Unavailable when a file was written more than half a day ago: write the rows again.
    pub async fn append_staged(
        &mut self,
        fence: &Fence,
        progress: &[(TxnId, i64)],
        staged: &[StagedFile],
    ) -> Result<CommitOutcome> {
        let columns = staged.iter().map(|file| file.schema.as_ref().clone());
        let columns = Schema::try_merge(columns).context(ErrorKind::Configuration, "columns of one batch differ")?;
        let columns = (!staged.is_empty()).then(|| Arc::new(columns));
        let adds: Vec<Add> = staged.iter().map(|file| file.add.clone()).collect();
        let provenance = provenance(&adds, staged.iter().map(|file| file.rows).sum());
        for _ in 0..REBUILDS {
            self.freshen().await?;
            if self.is_stale() {
                return Ok(CommitOutcome::Stale);
            }
            if let Some(outcome) = self.refusal(fence) {
                return Ok(outcome);
            }
            if staged.iter().any(|file| file.put_at.age(&self.clock) > STAGED_LIFE) {
                return Err(Error::unavailable("rows were written too long ago to be committed; writing them again"));
            }
            let shape = self.shape(columns.as_ref())?;
            if let Some(field) = shape.schema.fields().iter().find(|field| !field.is_nullable()) {
                let text = format!(
                    "column {} of table {} is required but has nulls; make it nullable",
                    field.name(),
                    self.log.table
                );
                return Err(Error::configuration(text));
            }
            let landing = self.land(&provenance, |state, _| plan(state, fence, progress, &shape, &adds)).await?;
            match landing {
                Landing::Landed { version, earlier: false } => return Ok(CommitOutcome::Committed { version }),
                Landing::Landed { version, earlier: true } => return Ok(CommitOutcome::AlreadyCommitted { version }),
                Landing::Withdrawn => {}
                Landing::Expired => {
                    self.stale = true;
                    return Ok(CommitOutcome::Stale);
                }
            }
        }
        Err(Error::unavailable(format!(
            "the columns of table {} change faster than rows can be appended",
            self.log.table
        )))
    }
}
