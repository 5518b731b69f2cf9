//! JSON to Arrow: cuts bytes into records, infers columns from them and fills the columns, without losing data.

pub(crate) mod parse;
pub(crate) mod partition;
pub(crate) mod records;
pub(crate) mod types;
pub(crate) mod variant;
