//! The pipeline file of a plain loader: a folder of JSON in, one Delta table out.

use std::time::Duration;

use bytesize::ByteSize;
use chrono::DateTime;
use serde::Deserialize;

use super::clean::CleanSource;
use super::{Evolution, TablePath, duration};
use crate::clock::Timestamp;
use crate::id::Name;

/// One `pipelines/*.toml` with a `[source]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesPipeline {
    /// Version of this format; 1.
    pub version: u32,
    /// The pipeline's name in commands and logs.
    pub name: Name,
    /// Skipped when no pipeline is named.
    #[serde(default)]
    pub example: bool,
    /// Where the files are.
    pub source: SourceSettings,
    /// The table.
    pub bronze: FilesTableSettings,
}

/// How records are laid out in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// Found out by trying, value by value.
    #[default]
    Auto,
    /// One record per line.
    Lines,
    /// Documents one after another; each element of a top-level array is a record.
    Documents,
}

/// A folder of foreign files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSettings {
    /// Folder relative to `LAKEGRAM_DATA`, or a URL or absolute folder of its own.
    pub path: String,
    /// Which files below it, by their relative path; all that are not hidden when empty.
    #[serde(default)]
    pub glob: Option<String>,
    /// How records are laid out in a file.
    #[serde(default)]
    pub format: FileFormat,
    /// Which folders named `name=value` below the path become columns, in this order; all of them when not set.
    #[serde(default)]
    pub partition_columns: Option<Vec<String>>,
    /// Whether files that exist at the very first start are loaded.
    #[serde(default = "default_true")]
    pub include_existing: bool,
    /// Files last changed before this are left out.
    #[serde(default, deserialize_with = "optional_moment")]
    pub modified_after: Option<Timestamp>,
    /// Files last changed at this time or later are left out.
    #[serde(default, deserialize_with = "optional_moment")]
    pub modified_before: Option<Timestamp>,
    /// Files last changed longer ago than this are left out.
    #[serde(default, deserialize_with = "optional_duration")]
    pub max_file_age: Option<Duration>,
    /// A local file that changed less than this ago may still be growing, and waits.
    #[serde(default = "default_settle", deserialize_with = "duration")]
    pub settle: Duration,
    /// Whether a local folder is also watched, so that new files need not wait for the next listing.
    #[serde(default = "default_true")]
    pub watch: bool,
    /// How often the folder is listed.
    #[serde(default = "default_list_every", deserialize_with = "duration")]
    pub list_every: Duration,
    /// Whether a file that has changed since it was loaded is loaded again, entirely. Its rows are then duplicated.
    #[serde(default)]
    pub allow_overwrites: bool,
    /// The longest record that is loaded whole; of longer ones the table has the length and the beginning.
    #[serde(default = "default_max_record")]
    pub max_record: ByteSize,
    /// How many bytes one compressed byte may expand to before a file counts as a decompression bomb.
    #[serde(default = "default_max_inflate_ratio")]
    pub max_inflate_ratio: u64,
    /// What happens to loaded files.
    #[serde(default)]
    pub clean_source: CleanSource,
}

/// Which types columns get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnTypes {
    /// Inferred from the values.
    #[default]
    Infer,
    /// Text, at every depth.
    Text,
    /// Only the columns of `schema_hints`; nothing is inferred.
    Hints,
}

/// How the column `payload` keeps a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadType {
    /// As it arrived.
    #[default]
    Text,
    /// As Delta's variant. The table then requires readers that know the type.
    Variant,
}

/// The table of a plain loader.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesTableSettings {
    /// Folder of the table, relative to `LAKEGRAM_DATA`.
    pub table: TablePath,
    /// Schema file, if the records are Telegram updates; inferred when not set.
    #[serde(default)]
    pub schema: Option<String>,
    /// The bot that received those updates.
    #[serde(default)]
    pub bot_id: Option<i64>,
    /// Which types columns get.
    #[serde(default)]
    pub types: ColumnTypes,
    /// Whether ISO 8601 text with date, time and offset becomes a timestamp.
    #[serde(default)]
    pub timestamps: bool,
    /// Columns in Spark DDL, in addition to what is inferred.
    #[serde(default)]
    pub schema_hints: String,
    /// What happens to a field that has no column. By default it becomes a column if columns are inferred, and is
    /// rescued otherwise.
    #[serde(default)]
    pub evolution: Option<Evolution>,
    /// Whether to also keep the whole record, in a column `payload`.
    #[serde(default)]
    pub payload: bool,
    /// How that column keeps it.
    #[serde(default)]
    pub payload_type: PayloadType,
    /// Maximum files per commit.
    #[serde(default = "default_max_files")]
    pub max_files: usize,
    /// Maximum bytes per commit; a file is never split, so the last one may exceed it.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: ByteSize,
}

impl FilesTableSettings {
    /// How whole records are kept, if they are.
    pub fn payload_column(&self) -> Option<PayloadType> {
        self.payload.then_some(self.payload_type)
    }

    /// What happens to a field that has no column.
    pub fn evolution(&self) -> Evolution {
        let usual = if self.schema.is_some() { Evolution::Rescue } else { Evolution::AddColumns };
        self.evolution.unwrap_or(usual)
    }
}

fn optional_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

fn optional_moment<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let moment = DateTime::parse_from_rfc3339(&text).map_err(|error| {
        serde::de::Error::custom(format!(
            "`{text}` is not a timestamp ({error}); write it like \"2026-01-31T00:00:00Z\""
        ))
    })?;
    Ok(Some(Timestamp::from_micros(moment.timestamp_micros())))
}

const fn default_true() -> bool {
    true
}
const fn default_settle() -> Duration {
    Duration::from_secs(1)
}
const fn default_list_every() -> Duration {
    Duration::from_secs(5)
}
const fn default_max_inflate_ratio() -> u64 {
    500
}

const fn default_max_record() -> ByteSize {
    ByteSize::mib(32)
}
const fn default_max_files() -> usize {
    10_000
}
const fn default_max_bytes() -> ByteSize {
    ByteSize::gib(1)
}
