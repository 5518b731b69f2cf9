//! Tests of the whole that need its internals: the pipeline in one process, under faults and deaths.

mod domains;
mod faults;
mod kit;
mod power;
#[cfg(feature = "cloud")]
mod wire;
