//! Faults one level below the object store: on the HTTP between `object_store` and S3, with its own retries, its
//! reading of answers and its time-outs in the loop.
//!
//! ```text
//! LAKEGRAM_SEEDS=500 cargo test --lib wire -- --nocapture     500 seeds, and the matrix of what they met
//! LAKEGRAM_SEED=17 cargo test --lib wire -- --nocapture       one seed again
//! ```
//!
//! A seed fixes the faults, not the order in which tasks run.
// Whether a test goes deep is said by the environment, and its length is measured by the machine's clock.
#![allow(clippy::disallowed_methods)]

mod bucket;
mod connection;
mod life;
mod script;
mod seeds;
mod single;
