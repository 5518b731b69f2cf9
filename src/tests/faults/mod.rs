//! The pipeline in one process under faults and deaths: nothing is lost, nothing is answered twice.
//!
//! ```text
//! LAKEGRAM_SEEDS=500 cargo test --lib faults::seeds -- --nocapture     500 seeds, and the matrix of what they met
//! LAKEGRAM_SEED=17 cargo test --lib faults::seeds -- --nocapture       one seed again
//! LAKEGRAM_WALK=all cargo test --lib faults::walk -- --nocapture       every point with every kind of death
//! ```
// The environment decides how deep a test goes, and the machine's clock measures how long it takes.
#![allow(clippy::disallowed_methods)]

mod flow;
mod gate;
mod ledger;
mod life;
mod replies;
mod scenarios;
mod script;
mod seeds;
mod store;
mod teeth;
mod walk;
mod world;
