//! Which columns a folder of JSON has: inferred from a sample of its records, set by the user's hints, extended when
//! records bring more, and logged version by version.
//!
//! Schemas only grow at the end. An existing column keeps its name, position and type, so that data written earlier
//! stays readable; values that do not fit are rescued by the loader.

mod ddl;
mod evolve;
mod hints;
mod lattice;
mod names;
mod settled;
mod timestamp;
mod version;

#[cfg(test)]
mod tests;

pub(crate) use ddl::to_ddl;
pub(crate) use evolve::{new_names, schema_of, widen};
pub(crate) use hints::{Hint, apply, parse_hints};
pub(crate) use lattice::{InferOptions, JsonType, MAX_COLUMNS};
pub(crate) use names::json_name;
pub(crate) use settled::{leaves, settled};
pub(crate) use timestamp::{begins_with_date, micros_of, timestamp_micros};
pub(crate) use version::SchemaVersion;
