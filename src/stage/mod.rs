//! The stages: what is done with a row.

pub mod reply;
pub mod silver;
