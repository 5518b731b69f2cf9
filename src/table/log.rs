//! The actions of a Delta commit, as plain values to and from newline-delimited JSON.
//!
//! These are ours rather than delta-rs's, because the bytes of a commit must not change while its outcome is open, and
//! because reading one version must not cost a snapshot.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Commit, DataFile};
use crate::clock::Timestamp;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::storage::StorageKey;

/// One action of a commit. Kinds that are not listed here change nothing we rely on and are skipped when read.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Who committed and how.
    CommitInfo(CommitInfo),
    /// What a reader and a writer must support.
    Protocol(Protocol),
    /// Schema, id and properties of the table.
    MetaData(MetaData),
    /// An application's progress.
    Txn(Txn),
    /// A file is added to the table.
    Add(Add),
    /// A file is removed from the table.
    Remove(Remove),
}

/// Provenance of a commit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommitInfo {
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// The commit id: unique to one attempt, and the only proof that a commit is ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txn_id: Option<String>,
    /// Everything else: operation, isBlindAppend, engineInfo, …
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a reader and a writer must support.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    /// 1 to 3.
    pub min_reader_version: i32,
    /// 1 to 7.
    pub min_writer_version: i32,
    /// With reader version 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader_features: Option<Vec<String>>,
    /// With writer version 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_features: Option<Vec<String>>,
}

/// Schema, id and properties of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetaData {
    /// The table's id, given once.
    pub id: String,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A description for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Parquet.
    pub format: Format,
    /// The Delta struct as JSON text.
    pub schema_string: String,
    /// Columns stored in file paths; none in our tables.
    #[serde(default)]
    pub partition_columns: Vec<String>,
    /// Table properties.
    #[serde(default)]
    pub configuration: BTreeMap<String, Option<String>>,
    /// Milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
}

/// The format of data files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// `parquet`.
    pub provider: String,
    /// Empty.
    #[serde(default)]
    pub options: BTreeMap<String, Option<String>>,
}

impl Default for Format {
    fn default() -> Self {
        Self { provider: "parquet".to_owned(), options: BTreeMap::new() }
    }
}

/// An application's progress; the latest per app id counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Txn {
    /// The application.
    pub app_id: String,
    /// Its progress.
    pub version: i64,
    /// Milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<i64>,
}

/// A file is added to the table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Add {
    /// Path relative to the table, percent-encoded.
    pub path: String,
    /// Values of the partition columns.
    #[serde(default)]
    pub partition_values: BTreeMap<String, Option<String>>,
    /// Bytes.
    pub size: i64,
    /// Milliseconds since 1970.
    pub modification_time: i64,
    /// Whether its rows are new to the table, rather than moved by compaction.
    pub data_change: bool,
    /// Statistics as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
    /// Set when rows of the file are marked as deleted; we do not write such tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<Value>,
}

/// A file is removed from the table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remove {
    /// As in its [`Add`].
    pub path: String,
    /// Milliseconds since 1970; vacuum counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<i64>,
    /// Whether its rows leave the table, rather than being moved by compaction.
    pub data_change: bool,
    /// Whether size and partition values are present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_file_metadata: Option<bool>,
    /// Values of the partition columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_values: Option<BTreeMap<String, Option<String>>>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
}

/// One line of a commit: an object with one field, named after the kind.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    commit_info: Option<CommitInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<Protocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta_data: Option<MetaData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    txn: Option<Txn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    add: Option<Add>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remove: Option<Remove>,
}

impl Line {
    fn into_action(self) -> Option<Action> {
        None.or(self.commit_info.map(Action::CommitInfo))
            .or(self.protocol.map(Action::Protocol))
            .or(self.meta_data.map(Action::MetaData))
            .or(self.txn.map(Action::Txn))
            .or(self.add.map(Action::Add))
            .or(self.remove.map(Action::Remove))
    }

    fn of(action: &Action) -> Self {
        let action = action.clone();
        match action {
            Action::CommitInfo(info) => Self { commit_info: Some(info), ..Self::default() },
            Action::Protocol(protocol) => Self { protocol: Some(protocol), ..Self::default() },
            Action::MetaData(metadata) => Self { meta_data: Some(metadata), ..Self::default() },
            Action::Txn(txn) => Self { txn: Some(txn), ..Self::default() },
            Action::Add(add) => Self { add: Some(add), ..Self::default() },
            Action::Remove(remove) => Self { remove: Some(remove), ..Self::default() },
        }
    }
}

/// Reads the actions of one commit file.
///
/// # Errors
/// Corrupt when a line is not a JSON object or an action lacks a required field.
pub fn parse_commit(version: i64, bytes: &Bytes) -> Result<Vec<Action>> {
    parse_lines(bytes).context(ErrorKind::Corrupt, format!("read version {version} of the table log"))
}

/// Parses actions, one per line.
pub(crate) fn parse_lines(bytes: &[u8]) -> serde_json::Result<Vec<Action>> {
    let lines = serde_json::Deserializer::from_slice(bytes).into_iter::<Line>();
    lines.filter_map(|line| line.map(Line::into_action).transpose()).collect()
}

/// Writes actions as the bytes of one commit file.
///
/// # Errors
/// Corrupt when an action cannot be written as JSON.
pub fn commit_bytes(actions: &[Action]) -> Result<Bytes> {
    let mut bytes = Vec::new();
    for action in actions {
        serde_json::to_writer(&mut bytes, &Line::of(action)).context(ErrorKind::Corrupt, "write a table commit")?;
        bytes.push(b'\n');
    }
    Ok(bytes.into())
}

impl Add {
    /// The file as the stages see it.
    pub fn data_file(&self) -> DataFile {
        let stats = self.stats.as_deref().and_then(|text| serde_json::from_str::<Stats>(text).ok()).unwrap_or_default();
        DataFile {
            path: self.path.clone(),
            size_bytes: self.size,
            modification_millis: self.modification_time,
            num_records: stats.num_records,
            min_values: Value::Object(stats.min_values),
            max_values: Value::Object(stats.max_values),
        }
    }

    /// A file at `path` (relative to the table), with its size and its statistics as JSON text.
    pub fn new(path: &str, size_bytes: usize, modification_millis: i64, stats: String, data_change: bool) -> Self {
        Self {
            path: path.to_owned(),
            size: i64::try_from(size_bytes).unwrap_or(i64::MAX),
            modification_time: modification_millis,
            data_change,
            stats: Some(stats),
            ..Self::default()
        }
    }
}

impl Remove {
    /// Removes `file` from the table at a time in milliseconds since 1970.
    pub fn of(file: &DataFile, deletion_millis: i64, data_change: bool) -> Self {
        Self {
            path: file.path.clone(),
            deletion_timestamp: Some(deletion_millis),
            data_change,
            extended_file_metadata: Some(true),
            partition_values: Some(BTreeMap::new()),
            size: Some(file.size_bytes),
        }
    }
}

impl DataFile {
    /// The path of the file in the storage.
    ///
    /// # Errors
    /// Corrupt when the log refers to it by a URL or a path outside the table.
    pub fn location(&self, table: &Path) -> Result<Path> {
        let outside =
            || Error::corrupt(format!("the log of {table} refers to a file outside the table: {}", self.path));
        if self.path.contains("://") || self.path.starts_with('/') {
            return Err(outside());
        }
        let file = Path::from_url_path(&self.path).map_err(|error| outside().caused_by(error))?;
        Ok(StorageKey::TableFile { table: table.clone(), file: file.to_string() }.path())
    }

    /// The time range of a column's values; all of time if the statistics do not say.
    pub fn span(&self, column: &str) -> (Timestamp, Timestamp) {
        let bound = |values: &Value| {
            let text = values.get(column)?.as_str()?;
            Some(Timestamp::from_micros(chrono::DateTime::parse_from_rfc3339(text).ok()?.timestamp_micros()))
        };
        // Statistics are in whole milliseconds, and not every writer rounds a maximum up.
        let newest = bound(&self.max_values).map(|newest| newest.plus(Duration::from_millis(1)));
        (
            bound(&self.min_values).unwrap_or(Timestamp::from_micros(i64::MIN)),
            newest.unwrap_or(Timestamp::from_micros(i64::MAX)),
        )
    }
}

impl Commit {
    /// What a commit did, derived from its actions.
    pub fn from_actions(version: i64, actions: &[Action]) -> Self {
        let mut commit = Self { version, ..Self::default() };
        for action in actions {
            match action {
                Action::Add(add) if add.data_change => commit.added.push(add.data_file()),
                Action::Remove(remove) => commit.rewritten |= remove.data_change,
                Action::Txn(txn) => commit.txns.push((txn.app_id.clone(), txn.version)),
                _ => {}
            }
        }
        commit
    }
}

/// The part of a file's statistics that we read.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Stats {
    num_records: Option<i64>,
    min_values: Map<String, Value>,
    max_values: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPARK: &str = concat!(
        r#"{"commitInfo":{"timestamp":1,"operation":"WRITE","operationParameters":{"mode":"Append"},"txnId":"t-1","isBlindAppend":true}}"#,
        "\n",
        r#"{"domainMetadata":{"domain":"x","configuration":"{}","removed":false}}"#,
        "\n",
        r#"{"txn":{"appId":"lakegram/p/bronze","version":7,"lastUpdated":9}}"#,
        "\n",
        r#"{"add":{"path":"a%20b.parquet","partitionValues":{},"size":10,"modificationTime":3,"dataChange":true,"stats":"{\"numRecords\":2,\"minValues\":{\"x\":1},\"maxValues\":{\"x\":5},\"nullCount\":{\"x\":0}}","tags":{"a":"b"}}}"#,
        "\n",
        r#"{"add":{"path":"moved.parquet","partitionValues":{},"size":10,"modificationTime":3,"dataChange":false}}"#,
        "\n",
        r#"{"remove":{"path":"old.parquet","dataChange":true,"deletionTimestamp":5}}"#,
        "\n\n",
    );

    #[test]
    fn a_line_that_is_no_action_is_corrupt_and_names_the_version() {
        for broken in ["[1]", "{\"add\":{}}", "{\"txn\":{\"appId\":1}}", "{\"add\"", "\u{0}"] {
            let error = parse_commit(12, &Bytes::from(broken)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains("version 12"), "{error}");
        }
    }

    #[test]
    fn a_commit_of_another_engine_is_understood_as_far_as_stages_care() {
        let actions = parse_commit(4, &Bytes::from(SPARK)).unwrap();
        let commit = Commit::from_actions(4, &actions);
        assert_eq!(commit.version, 4);
        assert!(commit.rewritten);
        assert_eq!(commit.txns, [("lakegram/p/bronze".to_owned(), 7)]);
        assert_eq!(commit.added.len(), 1);
        let file = &commit.added[0];
        assert_eq!((file.num_records, &file.min_values["x"], &file.max_values["x"]), (Some(2), &1.into(), &5.into()));
        assert_eq!(file.location(&Path::from("bronze/t")).unwrap().as_ref(), "bronze/t/a b.parquet");
    }

    #[test]
    fn actions_survive_being_written_and_read() {
        let actions = parse_commit(4, &Bytes::from(SPARK)).unwrap();
        let bytes = commit_bytes(&actions).unwrap();
        assert_eq!(parse_commit(4, &bytes).unwrap(), actions);
        assert_eq!(commit_bytes(&actions).unwrap(), bytes);
    }

    #[test]
    fn a_file_outside_the_table_is_refused() {
        for path in ["s3://elsewhere/x.parquet", "/etc/x.parquet", "../x.parquet"] {
            let file = Add { path: path.to_owned(), ..Add::default() }.data_file();
            assert!(file.location(&Path::from("t")).is_err(), "{path}");
        }
    }

    #[test]
    fn statistics_that_are_no_json_are_no_statistics() {
        let file = Add { stats: Some("{".to_owned()), ..Add::default() }.data_file();
        assert_eq!((file.num_records, file.min_values), (None, Value::Object(Map::new())));
    }
}
