//! Tests of the whole crate that need its internals: the pipeline in one process, with faults and crashes.

mod domains;
mod faults;
mod kit;
mod power;
#[cfg(feature = "cloud")]
mod wire;
