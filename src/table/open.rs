//! Opening a table: created if it is missing, extended if it is from an earlier release, refused if we do not support
//! it.

use object_store::path::Path;
use serde_json::json;

use super::commit::{Landing, Provenance};
use super::head::{Moment, Recent};
use super::log::{Action, CommitInfo, commit_bytes};
use super::snapshot::{LogObject, TableLog, Want};
use super::state::State;
use super::{Anchor, DataFile, Identity, LakeTable, TableSpec, columns};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::id::random_id;
use crate::storage::{PutNew, Storage};

impl LakeTable {
    /// Opens the table, creates it if it does not exist, and adds nullable columns it lacks.
    ///
    /// # Errors
    /// A configuration error that names a column of another type, or an unsupported table feature.
    pub async fn open(storage: &Storage, spec: &TableSpec, clock: &Clock) -> Result<Self> {
        let found = Self::open_existing(storage, &spec.path, clock).await?;
        let table = match found {
            Some(table) => table,
            None => Self::create(storage, spec, None, clock).await?,
        };
        table.fitted(spec).await
    }

    /// Makes an open table what it must be.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn fitted(mut self, spec: &TableSpec) -> Result<Self> {
        spec.check_id(self.table_id())?;
        self.stats_columns = spec.stats_columns.clone();
        self.widen(spec).await?;
        Ok(self)
    }

    /// Makes the table, unless somebody else has just made it, and opens it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn create(
        storage: &Storage,
        spec: &TableSpec,
        identity: Option<&Identity>,
        clock: &Clock,
    ) -> Result<Self> {
        if spec.id.is_some() {
            return Err(spec.gone());
        }
        put_first_commit(storage, spec, identity, clock).await?;
        let made = Self::open_existing(storage, &spec.path, clock).await?;
        made.ok_or_else(|| Error::corrupt(format!("table {} disappeared right after it was created", spec.path)))
    }

    /// Opens the table as it is; `None` if it does not exist.
    ///
    /// # Errors
    /// When the store fails or the log is not understood.
    pub async fn open_existing(storage: &Storage, path: &Path, clock: &Clock) -> Result<Option<Self>> {
        let touched = Moment::now(clock);
        let log = TableLog::new(storage, path);
        let snapshot = log.snapshot(Want::default()).await?;
        Ok(snapshot.map(|snapshot| Self::at(log, snapshot.state, snapshot.newest, touched, clock)))
    }

    /// Like [`Self::open`], with the files that the table had when it was read. Both come from one reading of the log,
    /// which is most of the cost of a start.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with_files(storage: &Storage, spec: &TableSpec, clock: &Clock) -> Result<(Self, Vec<DataFile>)> {
        let touched = Moment::now(clock);
        let log = TableLog::new(storage, &spec.path);
        let Some(snapshot) = log.snapshot(Want { files: true, at: None }).await? else {
            // If another process creates it first, it may also have filled it already.
            let table = Self::open(storage, spec, clock).await?;
            let files = table.files().await?;
            return Ok((table, files));
        };
        spec.check_id(&snapshot.state.metadata.id)?;
        let read_at = snapshot.state.version;
        let mut table = Self::at(log, snapshot.state, snapshot.newest, touched, clock);
        table.stats_columns = spec.stats_columns.clone();
        table.widen(spec).await?;
        let files = match table.version() == read_at {
            true => snapshot.files.into_values().collect(),
            false => table.files().await?,
        };
        Ok((table, files))
    }

    /// The table at a state that was just read, and what it was read from.
    pub(super) fn at(log: TableLog, state: State, newest: Option<LogObject>, touched: Moment, clock: &Clock) -> Self {
        Self {
            recent: Recent::from(&state.txns),
            stats_columns: columns::stats_columns(&state.metadata),
            log,
            state,
            touched,
            seen: None,
            anchor: newest.map(|object| Anchor::new(object, touched)),
            head_mark: None,
            clock: clock.clone(),
            stale: false,
            unsettled: None,
        }
    }

    async fn widen(&mut self, spec: &TableSpec) -> Result<()> {
        let provenance =
            Provenance { operation: "ADD COLUMNS", parameters: json!({}), metrics: json!({}), blind_append: false };
        let landing = self.land(&provenance, |state, _| {
            let missing = columns::missing(&spec.path, &state.schema, &spec.schema)?;
            if missing.is_empty() {
                return Ok(None);
            }
            Ok(Some(vec![Action::MetaData(columns::widened(&spec.path, &state.metadata, &missing)?)]))
        });
        match landing.await? {
            Landing::Expired => Err(Error::unavailable(format!("could not extend table {} in time", spec.path))),
            Landing::Landed { .. } | Landing::Withdrawn => Ok(()),
        }
    }
}

impl TableSpec {
    /// Refuses a table in the place of the one that is meant.
    fn check_id(&self, found: &str) -> Result<()> {
        match &self.id {
            Some(id) if id != found => Err(Error::configuration(format!(
                "table {} was replaced by another one (id {found}, it was {id}); restore it, or run `lakegram adopt`",
                self.path
            ))),
            _ => Ok(()),
        }
    }

    fn gone(&self) -> Error {
        Error::configuration(format!("table {} was removed; restore it, or run `lakegram adopt`", self.path))
    }
}

async fn put_first_commit(
    storage: &Storage,
    spec: &TableSpec,
    identity: Option<&Identity>,
    clock: &Clock,
) -> Result<()> {
    let now = clock.now().as_millis();
    let information = json!({
        "operation": "CREATE TABLE",
        "operationParameters": { "mode": "ErrorIfExists" },
        "isBlindAppend": true,
        "engineInfo": concat!("lakegram/", env!("CARGO_PKG_VERSION")),
    });
    let information = CommitInfo {
        timestamp: Some(now),
        txn_id: Some(random_id().to_string()),
        other: information.as_object().cloned().unwrap_or_default(),
    };
    let mut metadata = columns::new_metadata(&spec.path, &spec.schema, &spec.stats_columns, now)?;
    if let Some(identity) = identity {
        identity.write(&mut metadata.configuration);
    }
    let protocol = Action::Protocol(columns::new_protocol(&spec.schema));
    let actions = [Action::CommitInfo(information), protocol, Action::MetaData(metadata)];
    let path = TableLog::new(storage, &spec.path).commit_path(0);
    match storage.put_new(&path, commit_bytes(&actions)?).await? {
        PutNew::Created => tracing::info!(table = %spec.path, "created a table"),
        PutNew::Taken => tracing::info!(table = %spec.path, "another process created the table first"),
    }
    Ok(())
}
