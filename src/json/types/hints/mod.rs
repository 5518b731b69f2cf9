//! Types chosen by the user, in Spark DDL: `date date, user.dob timestamp, amounts array<double>`.

mod apply;
mod parse;
mod scan;

use arrow::datatypes::DataType;

pub(super) use apply::Columns;
pub(crate) use apply::apply;
pub(crate) use parse::parse_hints;

/// One column or nested field and its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// From the record down; `element` stands for the elements of a list.
    pub(crate) path: Vec<String>,
    pub(crate) data_type: DataType,
    pub(crate) comment: Option<String>,
    /// The character position where it begins, from 1.
    pub(crate) position: usize,
}

/// What is wrong with the hints, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema hints, character {position}: {problem}")]
pub(crate) struct HintError {
    /// The character position, from 1.
    pub(crate) position: usize,
    pub(crate) problem: String,
}
