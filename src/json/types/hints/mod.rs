//! The user's word on types, in Spark DDL: `date date, user.dob timestamp, amounts array<double>`.

mod apply;
mod parse;
mod scan;

use arrow::datatypes::DataType;

pub(super) use apply::Columns;
pub(crate) use apply::apply;
pub(crate) use parse::parse_hints;

/// One column or nested field, and what it shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// From the record down; `element` stands for the elements of a list.
    pub(crate) path: Vec<String>,
    pub(crate) data_type: DataType,
    pub(crate) comment: Option<String>,
    /// Which character of the text it begins at, from 1.
    pub(crate) position: usize,
}

/// What is wrong with the hints, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schema hints, character {position}: {problem}")]
pub(crate) struct HintError {
    /// Which character of the text, from 1.
    pub(crate) position: usize,
    pub(crate) problem: String,
}
