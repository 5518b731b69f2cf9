//! Maintenance of every table, once or while the service runs.

use std::collections::BTreeMap;
use std::time::Duration;

use object_store::path::Path;
use tokio_util::sync::CancellationToken;

use super::apart::run_apart;
use super::pace::{self, Pace};
use super::{App, TableRef};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::StorageKey;
use crate::table::LakeTable;
use crate::table::maintain::{MaintainOptions, MaintainSummary, maintain};

/// How often it cleans up logs and looks for data files that no version needs.
const CLEAN_EVERY: Duration = Duration::from_secs(86_400);

/// What maintenance did to one table.
#[derive(Clone, Debug)]
pub struct TableUpkeep {
    /// The pipeline.
    pub pipeline: String,
    /// The table.
    pub table: TableRef,
    /// What was done; `None` if the table does not exist yet.
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
        self.storage.identify(&self.clock).await?;
        let (options, clock, refused) = self.for_clean_up(options).await;
        let mut upkeep = Vec::new();
        for (pipeline, tables) in self.all_tables() {
            for (index, table) in tables.iter().enumerate() {
                progress(table);
                let reader = tables.get(index + 1);
                let done = self.maintain_table(table, reader, (&options, &clock), stop).await;
                let done = done.map_err(|error| error.during(&table.path))?;
                let done = done.map(|(_, summary)| summary);
                upkeep.push(TableUpkeep { pipeline: pipeline.to_string(), table: table.clone(), done });
            }
        }
        refused.map_or(Ok(upkeep), Err)
    }

    /// Maintains every table until `stop`, on a separate thread: merging files and reading logs takes long, and a
    /// message must not wait for it.
    ///
    /// # Errors
    /// Only when the disk fails.
    pub(super) async fn maintain_apart(self, pace: Pace, stop: CancellationToken) -> Result<()> {
        run_apart("maintain", move || self.maintain_always(pace, stop)).await
    }

    /// Maintains tables as they change. A failure is logged and retried the next time.
    async fn maintain_always(self, mut pace: Pace, stop: CancellationToken) -> Result<()> {
        let (mut heads, mut cleaned_at) = (BTreeMap::new(), self.clock.monotonic());
        loop {
            let busy = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                busy = pace.due(&self.clock) => busy,
            };
            let clean = self.clock.monotonic().saturating_sub(cleaned_at) >= CLEAN_EVERY;
            if clean {
                cleaned_at = self.clock.monotonic();
            }
            // A table that has only changed a little, while another changes a lot, waits for the clock.
            let commits = if busy { pace::COMMITS / 2 } else { 1 };
            let options = MaintainOptions { clean, ..MaintainOptions::default() };
            match self.maintain_moved(&mut heads, commits, &options, &stop).await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Fatal => return Err(error),
                Err(error) => tracing::warn!(%error, "maintenance failed; retrying in a minute"),
            }
        }
    }

    /// Maintains the tables that have advanced by enough commits since the last round; any other costs one look.
    async fn maintain_moved(
        &self,
        heads: &mut BTreeMap<Path, i64>,
        commits: i64,
        options: &MaintainOptions,
        stop: &CancellationToken,
    ) -> Result<()> {
        let (options, clock, refused) = self.for_clean_up(options).await;
        for (_, tables) in self.all_tables() {
            for (index, table) in tables.iter().enumerate() {
                if let Some(version) = heads.get(&table.path) {
                    let moved = StorageKey::Commit { table: table.path.clone(), version: version + commits };
                    if !options.clean && self.storage.head(&moved.path()).await?.is_none() {
                        continue;
                    }
                }
                let done = self.maintain_table(table, tables.get(index + 1), (&options, &clock), stop).await?;
                if let Some((version, summary)) = done {
                    tracing::debug!(table = %table.path, version, ?summary, "maintained all tables");
                    heads.insert(table.path.clone(), version);
                }
            }
        }
        refused.map_or(Ok(()), Err)
    }

    async fn maintain_table(
        &self,
        table: &TableRef,
        reader: Option<&TableRef>,
        (options, clock): (&MaintainOptions, &Clock),
        stop: &CancellationToken,
    ) -> Result<Option<(i64, MaintainSummary)>> {
        let mut options = options.clone();
        // Only clean-up needs to know how far the reader is; a reader that has never committed has handled nothing.
        if let (true, Some(reader)) = (options.clean, reader)
            && let Some(opened) = LakeTable::open_existing(&self.storage, &table.path, &self.clock).await?
        {
            let readers = LakeTable::open_existing(&self.storage, &reader.path, &self.clock).await?;
            options.reader_watermark = Some(table.reader_watermark(&opened, readers.as_ref()).unwrap_or(-1));
        }
        maintain(&self.storage, &table.path, &options, clock, stop).await
    }

    /// What deletes by age goes by the store's clock. Where that one cannot be trusted the rest is done all the same, and
    /// why comes last.
    async fn for_clean_up(&self, options: &MaintainOptions) -> (MaintainOptions, Clock, Option<Error>) {
        let mut options = options.clone();
        if !options.clean || options.allow_short_retention {
            return (options, self.clock.clone(), None);
        }
        match self.storage.clock(&self.clock).await {
            Ok(theirs) => (options, theirs, None),
            Err(error) => {
                options.clean = false;
                (options, self.clock.clone(), Some(error))
            }
        }
    }
}
