//! Vacuum: deletes data files that the table no longer refers to, once nobody can still be reading or adding them.

use std::collections::{BTreeMap, BTreeSet};

use arrow::json::LineDelimitedWriter;
use bytes::Bytes;
use futures::{StreamExt, stream};
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{PAGE, READER_PATIENCE, Work};
use crate::error::{Error, Result};
use crate::table::checkpoint::{rows_with_values, split_version};
use crate::table::log::{Action, Remove, parse_lines};
use crate::table::snapshot::{Snapshot, Want};

/// How many commits a reader may be behind before everything it may need is kept unseen.
const READER_LIMIT: usize = 1_000;
/// What a checkpoint says about removed files.
const REMOVED: [&str; 3] = ["remove.path", "remove.deletionTimestamp", "remove.dataChange"];
/// Commits read, and files deleted, at a time.
const SIDE_BY_SIDE: usize = 8;

/// Data files written long enough ago, each with the time (in milliseconds since 1970) since which it is unused: first
/// its write time, then its removal from the table.
type Idle = BTreeMap<Path, i64>;

/// What a reader still has to read.
enum Unread {
    Files(BTreeSet<Path>),
    /// Too much to look at.
    Anything,
}

impl Work<'_> {
    /// Deletes unused data files; returns how many.
    pub(super) async fn vacuum(&self) -> Result<usize> {
        let old_millis = self.cutoff_millis(self.options.vacuum_retention);
        // First the listing, then the table, so that files added meanwhile are noticed.
        let mut idle = self.list_idle(old_millis).await?;
        if idle.is_empty() {
            return Ok(0);
        }
        let Some(live) = self.log.snapshot(Want { files: true, at: None }).await? else { return Ok(0) };
        for file in live.files.values() {
            idle.remove(&file.location(&self.log.table)?);
        }
        if idle.is_empty() || !self.learn_removals(&live, &mut idle).await? {
            return Ok(0);
        }
        idle.retain(|_, since_millis| *since_millis < old_millis);
        self.spare_unread(&mut idle).await?;
        let mut deleted = 0;
        for path in idle.keys() {
            if self.stop.is_cancelled() {
                break;
            }
            self.log.storage.delete(path).await?;
            deleted += 1;
        }
        Ok(deleted)
    }

    /// The data files written before `old_millis`.
    async fn list_idle(&self, old_millis: i64) -> Result<Idle> {
        let table = &self.log.table;
        let (log, beyond_log) = (self.log_folder(), Path::from(format!("{table}/_delta_log0")));
        let (mut idle, mut after) = (Idle::new(), None);
        while !self.stop.is_cancelled() {
            let page = self.log.storage.list_after(table, after.as_ref(), PAGE).await?;
            for object in &page {
                let modified_millis = object.last_modified.timestamp_millis();
                if modified_millis < old_millis && is_data_file(table, &object.location) {
                    idle.insert(object.location.clone(), modified_millis);
                }
            }
            after = match page.last() {
                // The log is large and not our concern here.
                Some(last) if last.location.prefix_matches(&log) => Some(beyond_log.clone()),
                Some(last) if page.len() == PAGE => Some(last.location.clone()),
                _ => return Ok(idle),
            };
        }
        Ok(Idle::new())
    }

    /// Marks a removed file as unused from then on; false if that time is unknown.
    async fn learn_removals(&self, live: &Snapshot, idle: &mut Idle) -> Result<bool> {
        let mut version = -1;
        if let Some(named) = self.log.last_checkpoint().await? {
            for path in named.paths(&self.log_folder()) {
                let Some(bytes) = self.log.storage.get(&path).await? else { return Ok(false) };
                removals(bytes)?.iter().for_each(|remove| self.learn(idle, remove));
            }
            version = named.version;
        }
        let mut commits =
            stream::iter(version + 1..=live.state.version).map(|version| self.log.read(version)).buffered(SIDE_BY_SIDE);
        while let Some(actions) = commits.next().await {
            let Some(actions) = actions? else { return Ok(false) };
            for action in actions {
                if let Action::Remove(remove) = action {
                    self.learn(idle, &remove);
                }
            }
        }
        Ok(true)
    }

    fn learn(&self, idle: &mut Idle, remove: &Remove) {
        let location = Path::from_url_path(&remove.path).ok();
        let location = location.map(|file| Path::from(format!("{}/{file}", self.log.table)));
        if let Some(since_millis) = location.and_then(|location| idle.get_mut(&location)) {
            *since_millis = (*since_millis).max(remove.deletion_timestamp.unwrap_or(i64::MAX));
        }
    }

    /// Keeps what the reader still has to read, up to its patience.
    async fn spare_unread(&self, idle: &mut Idle) -> Result<()> {
        let Some(watermark) = self.options.reader_watermark else { return Ok(()) };
        let ancient_millis = self.cutoff_millis(READER_PATIENCE);
        if idle.values().all(|since_millis| *since_millis < ancient_millis) {
            return Ok(());
        }
        match self.unread(watermark).await? {
            Unread::Anything => idle.retain(|_, since_millis| *since_millis < ancient_millis),
            Unread::Files(files) => {
                idle.retain(|path, since_millis| *since_millis < ancient_millis || !files.contains(path));
            }
        }
        Ok(())
    }

    /// The files added by commits after `watermark`, as far as the log still has them.
    async fn unread(&self, watermark: i64) -> Result<Unread> {
        let after = (watermark >= 0).then(|| self.log.commit_path(watermark));
        let entries = self.log.storage.list_after(&self.log_folder(), after.as_ref(), 2 * READER_LIMIT).await?;
        let version = |name: &str| split_version(name).filter(|(_, kind)| *kind == "json").map(|(version, _)| version);
        let versions: Vec<i64> =
            entries.iter().filter_map(|entry| version(entry.location.filename()?)).filter(|v| *v > watermark).collect();
        if entries.len() == 2 * READER_LIMIT || versions.len() > READER_LIMIT {
            return Ok(Unread::Anything);
        }
        let mut files = BTreeSet::new();
        let mut commits = stream::iter(versions).map(|version| self.log.read(version)).buffered(SIDE_BY_SIDE);
        while let Some(actions) = commits.next().await {
            for action in actions?.unwrap_or_default() {
                if let Action::Add(add) = action {
                    files.insert(add.data_file().location(&self.log.table)?);
                }
            }
        }
        Ok(Unread::Files(files))
    }
}

/// Whether this is a data file, as writers of unpartitioned tables name them. Anything else in the folder is not ours
/// to delete, including other tables and names with two spellings.
fn is_data_file(table: &Path, location: &Path) -> bool {
    let name = location.as_ref().strip_prefix(table.as_ref()).and_then(|rest| rest.strip_prefix('/'));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.is_some_and(|name| name.ends_with(".parquet") && !name.starts_with(['_', '.']) && name.chars().all(plain))
}

/// The removals recorded in one file of a checkpoint.
fn removals(bytes: Bytes) -> Result<Vec<Remove>> {
    let unreadable = "read the remove actions of a checkpoint";
    let read = || -> std::result::Result<Vec<Action>, Box<dyn std::error::Error + Send + Sync>> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), REMOVED);
        let mut actions = Vec::new();
        for rows in builder.with_projection(mask).build()? {
            let mut lines = LineDelimitedWriter::new(Vec::new());
            lines.write(&rows_with_values(&rows?)?)?;
            lines.finish()?;
            actions.extend(parse_lines(&lines.into_inner())?);
        }
        Ok(actions)
    };
    let actions = read().map_err(|error| Error::corrupt(unreadable).caused_by(error))?;
    let remove = |action| match action {
        Action::Remove(remove) => Some(remove),
        _ => None,
    };
    Ok(actions.into_iter().filter_map(remove).collect())
}
