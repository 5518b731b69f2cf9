//! The three stages and what they share.

pub mod bronze;
pub mod reply;
pub mod silver;
