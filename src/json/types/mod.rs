//! Which columns a folder of JSON has: inferred from a sample of its records, set by the user's hints, widened when
//! records bring more, and written down version by version.
//!
//! Types only ever grow at the end. A column that is there keeps its name, its place and its type, so that what was
//! written before stays readable; values that do not fit are the loader's to rescue.

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
pub(crate) use lattice::{InferOptions, JsonType};
pub(crate) use names::json_name;
pub(crate) use settled::{MAX_COLUMNS, leaves, settled};
pub(crate) use timestamp::timestamp_micros;
pub(crate) use version::SchemaVersion;
