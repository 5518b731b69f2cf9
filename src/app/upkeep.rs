//! Maintenance of every table, once or while the service runs.

use std::collections::BTreeMap;
use std::time::Duration;

use object_store::path::Path;
use tokio_util::sync::CancellationToken;

use super::apart::run_apart;
use super::pace::{self, Pace};
use super::troubles::Troubles;
use super::{App, TableRef};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::StorageKey;
use crate::table::LakeTable;
use crate::table::maintain::{MaintainOptions, MaintainSummary, maintain};

/// How often it cleans up logs and looks for data files that no version needs.
const CLEAN_EVERY: Duration = Duration::from_secs(86_400);
/// When a clean-up that failed is tried again.
const CLEAN_AGAIN: Duration = Duration::from_secs(3_600);

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

/// When logs and data files are cleaned up next, on the monotonic clock.
#[derive(Debug)]
struct CleanUps {
    due: Duration,
}

impl CleanUps {
    fn new(now: Duration) -> Self {
        Self { due: now + CLEAN_EVERY }
    }

    fn is_due(&self, now: Duration) -> bool {
        now >= self.due
    }

    fn note(&mut self, now: Duration, has_failed: bool) {
        self.due = now + if has_failed { CLEAN_AGAIN } else { CLEAN_EVERY };
    }
}

impl App {
    /// Maintains every table of every pipeline once.
    ///
    /// # Errors
    /// The gravest of the tables' errors; the other tables were maintained.
    pub async fn maintain(
        &self,
        options: &MaintainOptions,
        progress: impl Fn(&TableRef),
        stop: &CancellationToken,
    ) -> Result<Vec<TableUpkeep>> {
        self.storage.identify(&self.clock).await?;
        let (options, clock, refused) = self.for_clean_up(options).await;
        let (mut upkeep, mut troubles) = (Vec::new(), Troubles::default());
        for (pipeline, tables) in self.all_tables() {
            for (index, table) in tables.iter().enumerate() {
                progress(table);
                let reader = tables.get(index + 1);
                let done = self.maintain_table(table, reader, (&options, &clock), stop).await;
                let done = troubles.pass(done.map_err(|error| error.during(&table.path)))?;
                upkeep.extend(done.map(|done| {
                    let done = done.map(|(_, summary)| summary);
                    TableUpkeep { pipeline: pipeline.to_string(), table: table.clone(), done }
                }));
            }
        }
        refused.into_iter().for_each(|error| troubles.note(error));
        troubles.outcome().map(|()| upkeep)
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
        let (mut heads, mut clean_ups) = (BTreeMap::new(), CleanUps::new(self.clock.monotonic()));
        loop {
            let busy = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                busy = pace.due(&self.clock) => busy,
            };
            let clean = clean_ups.is_due(self.clock.monotonic());
            // A table that has only changed a little, while another changes a lot, waits for the clock.
            let commits = if busy { pace::COMMITS / 2 } else { 1 };
            let options = MaintainOptions { clean, ..MaintainOptions::default() };
            let done = self.maintain_moved(&mut heads, commits, &options, &stop).await;
            if clean {
                clean_ups.note(self.clock.monotonic(), done.is_err());
            }
            match done {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Fatal => return Err(error),
                Err(error) if clean => tracing::warn!(%error, "clean-up failed; retrying in an hour"),
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
        let mut troubles = Troubles::default();
        for (_, tables) in self.all_tables() {
            for (index, table) in tables.iter().enumerate() {
                let maintained = async {
                    let known = heads.get(&table.path).filter(|_| !options.clean);
                    match known {
                        Some(version) if !self.has_moved(table, version + commits).await? => Ok(None),
                        _ => self.maintain_table(table, tables.get(index + 1), (&options, &clock), stop).await,
                    }
                };
                let done = maintained.await.map_err(|error| error.during(&table.path));
                if let Some(Some((version, summary))) = troubles.pass(done)? {
                    tracing::debug!(table = %table.path, version, ?summary, "maintained a table");
                    heads.insert(table.path.clone(), version);
                }
            }
        }
        refused.into_iter().for_each(|error| troubles.note(error));
        troubles.outcome()
    }

    /// Whether a table has reached a version.
    async fn has_moved(&self, table: &TableRef, version: i64) -> Result<bool> {
        let commit = StorageKey::Commit { table: table.path.clone(), version };
        Ok(self.storage.head(&commit.path()).await?.is_some())
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

    /// The options and the clock to maintain tables with, where that may delete by age: the store's clock. If it cannot
    /// be trusted, the options leave the clean-up out, and the error says why.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::tests::troubled::{Switch, Trouble};
    use crate::table::TableSpec;

    #[test]
    fn a_clean_up_that_failed_is_due_again_in_an_hour_and_any_other_in_a_day() {
        let mut clean_ups = CleanUps::new(Duration::ZERO);
        assert!(!clean_ups.is_due(CLEAN_AGAIN) && clean_ups.is_due(CLEAN_EVERY));
        clean_ups.note(CLEAN_EVERY, true);
        assert!(!clean_ups.is_due(CLEAN_EVERY) && clean_ups.is_due(CLEAN_EVERY + CLEAN_AGAIN));
        clean_ups.note(CLEAN_EVERY, false);
        assert!(!clean_ups.is_due(CLEAN_EVERY + CLEAN_AGAIN) && clean_ups.is_due(2 * CLEAN_EVERY));
    }

    #[tokio::test]
    async fn trouble_with_one_table_keeps_no_other_from_its_turn() {
        let (mut app, switch, stop) = (App::in_memory(&[]), Switch::default(), CancellationToken::new());
        app.storage = app.storage.decorated(|inner| switch.wrap(inner));
        let tables = app.tables(&app.pipelines[0]);
        let schema = crate::schema::built_in(crate::schema::MESSAGES).unwrap();
        for table in &tables {
            let (path, schema) = (table.path.clone(), schema.clone());
            let spec = TableSpec { path, schema, stats_columns: Vec::new(), id: None };
            LakeTable::open(&app.storage, &spec, &app.clock).await.unwrap();
        }
        switch.begin(Trouble::Server, &["bronze/"]);
        let options = MaintainOptions { clean: false, ..MaintainOptions::default() };
        let mut heads = BTreeMap::new();
        let error = app.maintain_moved(&mut heads, 1, &options, &stop).await.unwrap_err().to_string();
        assert!(error.starts_with("bronze/"), "{error}");
        assert_eq!(heads.keys().collect::<Vec<_>>(), [&tables[2].path, &tables[1].path]);
        let error = app.maintain(&options, |_| {}, &stop).await.unwrap_err().to_string();
        assert!(error.starts_with("bronze/"), "{error}");
        switch.end();
        app.maintain_moved(&mut heads, 1, &options, &stop).await.unwrap();
        assert_eq!(heads.len(), 3);
    }
}
