//! A table at one version, read from its newest checkpoint and the commits after it.
//!
//! `_last_checkpoint` is a hint that may be stale or missing, and a commit that is "not found" may have been cleaned up
//! rather than not written yet. So the head is only trusted if a listing shows nothing beyond it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use bytes::Bytes;
use futures::{StreamExt, stream};
use object_store::path::Path;
use serde::Deserialize;

use super::DataFile;
use super::checkpoint::{self, Checkpoint};
use super::log::{Action, parse_commit};
use super::state::{Replay, State};
use crate::error::{Error, Result};
use crate::storage::{Mark, Storage, StorageKey};

/// Commits read ahead at a time.
const READ_AHEAD: usize = 8;
/// How often a read that was overtaken by a clean-up starts over.
const TRIES: usize = 4;
/// No checkpoint has more parts than this.
const PARTS: u32 = 100_000;
/// Keys in one page of a listing.
const PAGE: usize = 1_000;

/// A table at one version.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) state: State,
    /// By path; empty unless requested.
    pub(crate) files: BTreeMap<String, DataFile>,
    pub(crate) newest: Option<LogObject>,
}

/// The newest object of a log that a snapshot was read from. While it is unchanged, the log is the same one.
#[derive(Clone, Debug)]
pub(crate) struct LogObject {
    pub(crate) path: Path,
    pub(crate) mark: Mark,
    /// For a commit.
    pub(crate) digest: Option<u64>,
}

/// What to read of a table.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Want {
    /// Whether to read its files too, not only its state.
    pub(crate) files: bool,
    /// The version to read; the head if not set.
    pub(crate) at: Option<i64>,
}

/// The log of one table.
#[derive(Clone, Debug)]
pub(crate) struct TableLog {
    pub(crate) storage: Storage,
    pub(crate) table: Path,
}

/// What a listing shows beyond a version.
#[derive(Debug, Default)]
struct Beyond {
    next: bool,
    any: bool,
    checkpoint: Option<Checkpoint>,
}

/// How far a read came: to the head, or to a gap with a checkpoint beyond it.
enum Reached {
    Head,
    Gap(Checkpoint),
}

/// The newest object that was read so far.
struct Newest {
    path: Path,
    mark: Mark,
    /// Of a commit.
    bytes: Option<Bytes>,
}

#[derive(Default)]
struct Reading {
    version: i64,
    replay: Replay,
    files: BTreeMap<String, DataFile>,
    newest: Option<Newest>,
    with_files: bool,
}

impl TableLog {
    pub(crate) fn new(storage: &Storage, table: &Path) -> Self {
        Self { storage: storage.clone(), table: table.clone() }
    }

    /// The path of a commit.
    pub(crate) fn commit_path(&self, version: i64) -> Path {
        StorageKey::Commit { table: self.table.clone(), version }.path()
    }

    fn folder(&self) -> Path {
        StorageKey::Log { table: self.table.clone() }.path()
    }

    /// The bytes of one commit; `None` if there is none.
    pub(crate) async fn bytes(&self, version: i64) -> Result<Option<Bytes>> {
        let read = self.storage.get(&self.commit_path(version)).await;
        read.map_err(|error| error.during(format!("read version {version} of table {}", self.table)))
    }

    /// The actions of one commit; `None` if there is none.
    pub(crate) async fn read(&self, version: i64) -> Result<Option<Vec<Action>>> {
        self.bytes(version).await?.map(|bytes| self.parse(version, &bytes)).transpose()
    }

    /// The actions in the bytes of a commit.
    pub(crate) fn parse(&self, version: i64, bytes: &Bytes) -> Result<Vec<Action>> {
        parse_commit(version, bytes).map_err(|error| self.during(error))
    }

    /// The bytes of one commit as it is in the store now, and its mark; `None` if there is none.
    pub(crate) async fn bytes_marked(&self, version: i64) -> Result<Option<(Bytes, Mark)>> {
        let read = self.storage.get_marked(&self.commit_path(version)).await;
        read.map_err(|error| error.during(format!("read version {version} of table {}", self.table)))
    }

    /// The path of `_last_checkpoint`.
    pub(crate) fn last_checkpoint_path(&self) -> Path {
        StorageKey::LastCheckpoint { table: self.table.clone() }.path()
    }

    /// The version that `_last_checkpoint` names; `None` if there is no such file or it makes no sense, since it is
    /// only a hint.
    pub(crate) async fn last_checkpoint(&self) -> Result<Option<Checkpoint>> {
        #[derive(Deserialize)]
        struct Hint {
            version: i64,
            parts: Option<u32>,
        }
        let hint = self.storage.get(&self.last_checkpoint_path()).await.map_err(|error| self.during(error))?;
        let hint = hint.and_then(|bytes| serde_json::from_slice::<Hint>(&bytes).ok());
        let hint = hint.filter(|hint| hint.version >= 0 && hint.parts.is_none_or(|parts| (1..=PARTS).contains(&parts)));
        Ok(hint.map(|hint| Checkpoint { version: hint.version, parts: hint.parts }))
    }

    /// The checkpoint that is named, or the newest listed one if none is named or it is after `at`.
    pub(crate) async fn newest_checkpoint(&self, at: Option<i64>) -> Result<Option<Checkpoint>> {
        let fits = |checkpoint: &Checkpoint| at.is_none_or(|at| checkpoint.version <= at);
        match self.last_checkpoint().await?.filter(fits) {
            Some(hint) => Ok(Some(hint)),
            None => Ok(self.beyond(-1, at).await?.checkpoint),
        }
    }

    fn during(&self, error: Error) -> Error {
        error.during(format!("table {}", self.table))
    }

    /// Reads the table; `None` if there is none.
    ///
    /// # Errors
    /// Corrupt when the log has a gap; configuration when the table requires more than we support; otherwise the
    /// store's error.
    pub(crate) async fn snapshot(&self, want: Want) -> Result<Option<Snapshot>> {
        let mut base = self.newest_checkpoint(want.at).await?;
        for _ in 0..TRIES {
            let mut reading = self.begin(base, want.files).await?;
            match self.read_to_head(&mut reading, want.at).await? {
                Reached::Head if reading.version < 0 => return Ok(None),
                Reached::Head => return self.finish(reading).await.map(Some),
                Reached::Gap(newer) => base = Some(newer),
            }
        }
        Err(Error::unavailable(format!(
            "the log of table {} is being cleaned up faster than it can be read",
            self.table
        )))
    }

    async fn read_to_head(&self, reading: &mut Reading, at: Option<i64>) -> Result<Reached> {
        let mut listed = i64::MIN;
        loop {
            self.read_on(reading, at).await?;
            let next = reading.version + 1;
            if at == Some(reading.version) {
                return Ok(Reached::Head);
            }
            if listed == next {
                let text = format!("version {next} of table {} is listed but cannot be read", self.table);
                return Err(Error::unavailable(text));
            }
            match self.beyond(reading.version, at).await? {
                // Someone has just created it.
                Beyond { next: true, .. } => listed = next,
                Beyond { checkpoint: Some(newer), .. } => return Ok(Reached::Gap(newer)),
                _ if at.is_some() => return Err(self.gone(at)),
                Beyond { any: true, .. } => return Err(self.hole(reading.version)),
                _ => return Ok(Reached::Head),
            }
        }
    }

    fn gone(&self, at: Option<i64>) -> Error {
        let version = at.unwrap_or_default();
        Error::unavailable(format!("version {version} of table {} can no longer be read; open it again", self.table))
    }

    fn hole(&self, version: i64) -> Error {
        Error::corrupt(format!(
            "the log of table {} has a gap after version {version} and no checkpoint beyond it; restore the missing files",
            self.table
        ))
    }

    async fn begin(&self, base: Option<Checkpoint>, with_files: bool) -> Result<Reading> {
        let mut reading = Reading { version: -1, with_files, ..Reading::default() };
        let Some(base) = base else { return Ok(reading) };
        for path in base.paths(&self.folder()) {
            let Some((bytes, mark)) = self.storage.get_marked(&path).await.map_err(|error| self.during(error))? else {
                // The hint refers to something gone. The listing that follows knows better.
                return Ok(Reading { version: -1, with_files, ..Reading::default() });
            };
            let actions = checkpoint::actions(bytes, with_files).map_err(|error| error.during(&path))?;
            actions.into_iter().for_each(|action| reading.take(action));
            reading.newest = Some(Newest { path, mark, bytes: None });
        }
        reading.version = base.version;
        Ok(reading)
    }

    /// Reads commits up to the first that does not exist.
    async fn read_on(&self, reading: &mut Reading, at: Option<i64>) -> Result<()> {
        let last = at.unwrap_or(i64::MAX - 1);
        let versions = reading.version + 1..last + 1;
        let mut commits = stream::iter(versions).map(|version| self.bytes_marked(version)).buffered(READ_AHEAD);
        while let Some(commit) = commits.next().await {
            let Some((bytes, mark)) = commit? else { break };
            let version = reading.version + 1;
            self.parse(version, &bytes)?.into_iter().for_each(|action| reading.take(action));
            reading.version = version;
            reading.newest = Some(Newest { path: self.commit_path(version), mark, bytes: Some(bytes) });
        }
        Ok(())
    }

    async fn finish(&self, reading: Reading) -> Result<Snapshot> {
        // The writer of the head may have died before it was durable.
        self.storage.persist_folder_of(&self.commit_path(reading.version)).await?;
        let state = reading.replay.finish(&self.table, reading.version)?;
        let newest = reading.newest.map(|Newest { path, mark, bytes }| {
            let digest = bytes.as_deref().map(digest);
            LogObject { path, mark, digest }
        });
        Ok(Snapshot { state, files: reading.files, newest })
    }

    /// Lists what lies beyond `version`, including the newest checkpoint that is not after `at`.
    async fn beyond(&self, version: i64, at: Option<i64>) -> Result<Beyond> {
        let folder = self.folder();
        let mut beyond = Beyond::default();
        let mut found = checkpoint::Newest::default();
        let mut after = Path::from(format!("{folder}/{:020}", version + 1));
        loop {
            let page =
                self.storage.list_after(&folder, Some(&after), PAGE).await.map_err(|error| self.during(error))?;
            for object in &page {
                let name = object.location.filename().unwrap_or_default();
                let Some((found_version, rest)) = checkpoint::split_version(name) else { continue };
                beyond.any |= rest == "json" || rest.starts_with("checkpoint");
                beyond.next |= rest == "json" && found_version == version + 1;
                if at.is_none_or(|at| found_version <= at) {
                    found.take(found_version, rest);
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = last.location.clone(),
                _ => break,
            }
        }
        beyond.checkpoint = found.complete();
        Ok(beyond)
    }
}

/// What tells the content of a commit from any other, within this process.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

impl Reading {
    fn take(&mut self, action: Action) {
        match action {
            Action::Add(add) if self.with_files => {
                self.files.insert(add.path.clone(), add.data_file());
            }
            Action::Remove(remove) if self.with_files => {
                self.files.remove(&remove.path);
            }
            other => self.replay.take(other),
        }
    }
}
