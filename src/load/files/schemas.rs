//! The schema log: one readable file per version of the columns, so that people can see how a table grew.

use std::path::{Path, PathBuf};

use arrow::datatypes::Schema;
use chrono::{SecondsFormat, Utc};

use crate::clock::Timestamp;
use crate::error::{Context, ErrorKind, Result};
use crate::json::types::SchemaVersion;

/// A version of the columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedSchema {
    /// From 1.
    pub number: u64,
    /// When, as RFC 3339.
    pub created_at: String,
    /// Why.
    pub reason: String,
    /// The columns in Spark DDL, one entry each.
    pub ddl: String,
}

/// The schema log of a pipeline, oldest version first. Files that cannot be read are left out, with a warning.
///
/// # Errors
/// Unavailable when the folder exists but cannot be read.
pub fn logged_schemas(checkpoints: &Path, pipeline: &str) -> Result<Vec<LoggedSchema>> {
    let mut logged = Vec::new();
    for (_, path) in files(checkpoints, pipeline)? {
        let text =
            std::fs::read_to_string(&path).context(ErrorKind::Unavailable, format!("read {}", path.display()))?;
        match SchemaVersion::from_json(&text) {
            Ok(version) => logged.push(LoggedSchema {
                ddl: crate::json::types::to_ddl(&version.columns),
                number: version.number,
                created_at: version.created_at,
                reason: version.reason,
            }),
            Err(error) => tracing::warn!(%error, path = %path.display(), "not read"),
        }
    }
    Ok(logged)
}

/// Writes the next version, unless the last one already has these columns.
///
/// # Errors
/// Unavailable when the folder cannot be written.
pub(super) fn write(checkpoints: &Path, pipeline: &str, columns: &Schema, reason: &str, now: Timestamp) -> Result<()> {
    let folder = folder(checkpoints, pipeline);
    let cannot = || format!("cannot write below {}", folder.display());
    let last = files(checkpoints, pipeline)?.pop();
    let written =
        last.as_ref().and_then(|(_, path)| SchemaVersion::from_json(&std::fs::read_to_string(path).ok()?).ok());
    if written
        .is_some_and(|version| crate::json::types::to_ddl(&version.columns) == crate::json::types::to_ddl(columns))
    {
        return Ok(());
    }
    let number = last.map_or(0, |(number, _)| number) + 1;
    let moment = chrono::DateTime::<Utc>::from_timestamp_micros(now.as_micros()).unwrap_or_default();
    let version = SchemaVersion {
        number,
        created_at: moment.to_rfc3339_opts(SecondsFormat::Secs, true),
        reason: reason.to_owned(),
        columns: columns.clone(),
    };
    let text = version.to_json().context(ErrorKind::Unavailable, cannot())?;
    std::fs::create_dir_all(&folder).context(ErrorKind::Unavailable, cannot())?;
    std::fs::write(folder.join(format!("{number}.json")), text).context(ErrorKind::Unavailable, cannot())
}

fn folder(checkpoints: &Path, pipeline: &str) -> PathBuf {
    checkpoints.join(pipeline).join("schemas")
}

/// The files of the log, by number.
fn files(checkpoints: &Path, pipeline: &str) -> Result<Vec<(u64, PathBuf)>> {
    let folder = folder(checkpoints, pipeline);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let context = || format!("read {}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).context(ErrorKind::Unavailable, context())? {
        let path = entry.context(ErrorKind::Unavailable, context())?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|extension| extension == "json")) {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files)
}
