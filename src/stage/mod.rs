//! The stages and what they share.

pub mod bronze;
pub mod clean;
pub mod files;
pub mod reply;
pub mod silver;
mod updates;
