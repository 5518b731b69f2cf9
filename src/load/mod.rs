//! What fills bronze: the loader of our own lanes, the loader of foreign files, and what they share.

pub mod clean;
pub mod files;
pub mod lanes;
mod message;
mod updates;
