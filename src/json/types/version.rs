//! The schema log: one readable document per version of the columns, which a person may also write.

use arrow::datatypes::Schema;
use serde::{Deserialize, Serialize};

use super::ddl::column_ddl;
use super::hints::{Columns, HintError, parse_hints};

/// The columns from some time on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SchemaVersion {
    pub(crate) number: u64,
    /// When, as RFC 3339.
    pub(crate) created_at: String,
    /// Why, for people: `inferred from 12 files`.
    pub(crate) reason: String,
    pub(crate) columns: Schema,
}

/// Why a schema log document cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VersionError {
    #[error("not a schema log document (number, created_at, reason, ddl): {0}")]
    Document(#[from] serde_json::Error),
    #[error("schema version {number}, entry {entry} of ddl: {source}")]
    Column { number: u64, entry: usize, source: HintError },
}

/// The file's content.
#[derive(Deserialize, Serialize)]
struct Document {
    number: u64,
    created_at: String,
    reason: String,
    /// Spark DDL, one entry per column.
    ddl: Vec<String>,
}

impl SchemaVersion {
    /// The document for this version.
    ///
    /// # Errors
    /// None that strings and numbers could cause.
    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(&Document {
            number: self.number,
            created_at: self.created_at.clone(),
            reason: self.reason.clone(),
            ddl: self.columns.fields().iter().map(|field| column_ddl(field)).collect(),
        })
    }

    /// Parses a document.
    ///
    /// # Errors
    /// When it is not one, or one of its columns cannot be parsed; the error says which.
    pub(crate) fn from_json(text: &str) -> Result<Self, VersionError> {
        let Document { number, created_at, reason, ddl } = serde_json::from_str(text)?;
        let mut columns = Columns::default();
        for (column, entry) in ddl.iter().zip(1..) {
            parse_hints(column)
                .and_then(|hints| hints.iter().try_for_each(|hint| columns.set(hint)))
                .map_err(|source| VersionError::Column { number, entry, source })?;
        }
        Ok(Self { number, created_at, reason, columns: Schema::new(columns.fields) })
    }
}
