//! Failure domains in one process: whatever befalls the store of one stage, what comes is landed and answered with 200,
//! and the stage comes back by itself once the trouble is over.
//!
//! ```text
//! cargo test --lib tests::domains -- --nocapture     the table of stages and troubles, with counts
//! LAKEGRAM_CELL=silver-403-Running cargo test --lib tests::domains::table -- --nocapture     one cell of it
//! ```

mod poll;
mod stop;
mod table;
mod world;
