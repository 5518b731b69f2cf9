//! Maintenance of every table, once or for as long as the service runs.

use std::collections::BTreeMap;
use std::time::Duration;

use object_store::path::Path;
use tokio_util::sync::CancellationToken;

use super::{App, TableRef};
use crate::error::{ErrorKind, Result};
use crate::storage::StorageKey;
use crate::table::LakeTable;
use crate::table::maintain::{MaintainOptions, MaintainSummary, maintain};

/// How often the service looks after its tables.
const ROUND: Duration = Duration::from_secs(60);
/// How often it cleans logs and looks for data files that no version needs.
const CLEAN_EVERY: Duration = Duration::from_secs(86_400);

/// What maintenance did to one table.
#[derive(Clone, Debug)]
pub struct TableUpkeep {
    /// The pipeline.
    pub pipeline: String,
    /// The table.
    pub table: TableRef,
    /// What was done; `None` when the table is not there yet.
    pub done: Option<MaintainSummary>,
}

impl App {
    /// Maintains every table of every pipeline once.
    ///
    /// # Errors
    /// The first error of a table.
    pub async fn maintain(
        &self,
        options: &MaintainOptions,
        progress: impl Fn(&TableRef),
        stop: &CancellationToken,
    ) -> Result<Vec<TableUpkeep>> {
        let mut upkeep = Vec::new();
        for pipeline in &self.pipelines {
            let tables = self.tables(pipeline);
            for (index, table) in tables.iter().enumerate() {
                progress(table);
                let reader = tables.get(index + 1);
                let done = self.maintain_table(table, reader, options, stop).await;
                let done = done.map_err(|error| error.during(&table.path))?;
                upkeep.push(TableUpkeep { pipeline: pipeline.name.to_string(), table: table.clone(), done });
            }
        }
        Ok(upkeep)
    }

    /// Maintains every table every minute until `stop`. A failure is logged and tried again the next time.
    ///
    /// # Errors
    /// Only when the disk fails.
    pub(super) async fn maintain_always(self, stop: CancellationToken) -> Result<()> {
        let (mut heads, mut cleaned_at) = (BTreeMap::new(), self.clock.monotonic());
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.clock.sleep(ROUND) => {}
            }
            let clean = self.clock.monotonic().saturating_sub(cleaned_at) >= CLEAN_EVERY;
            if clean {
                cleaned_at = self.clock.monotonic();
            }
            match self.maintain_moved(&mut heads, clean, &stop).await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Fatal => return Err(error),
                Err(error) => tracing::warn!(%error, "maintenance failed; trying again in a minute"),
            }
        }
    }

    /// Maintains the tables that have moved since the last round; what stands still costs one look.
    async fn maintain_moved(
        &self,
        heads: &mut BTreeMap<Path, i64>,
        clean: bool,
        stop: &CancellationToken,
    ) -> Result<()> {
        for pipeline in &self.pipelines {
            let tables = self.tables(pipeline);
            for (index, table) in tables.iter().enumerate() {
                if let Some(version) = heads.get(&table.path) {
                    let next = StorageKey::Commit { table: table.path.clone(), version: version + 1 };
                    if !clean && self.storage.head(&next.path()).await?.is_none() {
                        continue;
                    }
                }
                let options = MaintainOptions { clean, ..MaintainOptions::default() };
                let done = self.maintain_table(table, tables.get(index + 1), &options, stop).await?;
                tracing::debug!(table = %table.path, ?done, "maintained");
                if let Some(opened) = LakeTable::open_existing(&self.storage, &table.path, &self.clock).await? {
                    heads.insert(table.path.clone(), opened.version());
                }
            }
        }
        Ok(())
    }

    async fn maintain_table(
        &self,
        table: &TableRef,
        reader: Option<&TableRef>,
        options: &MaintainOptions,
        stop: &CancellationToken,
    ) -> Result<Option<MaintainSummary>> {
        if LakeTable::open_existing(&self.storage, &table.path, &self.clock).await?.is_none() {
            return Ok(None);
        }
        let mut options = options.clone();
        if let (Some(reader), Some(watermark)) = (reader, &table.reader_watermark) {
            // A reader that has never committed has handled nothing.
            options.reader_watermark = Some(-1);
            if let Some(reader) = LakeTable::open_existing(&self.storage, &reader.path, &self.clock).await? {
                options.reader_watermark = Some(reader.txn(watermark).unwrap_or(-1));
            }
        }
        maintain(&self.storage, &table.path, &options, &self.clock, stop).await.map(Some)
    }
}
