//! The stages and what they share.

pub mod bronze;
mod chats;
pub mod clean;
mod feed;
pub mod files;
mod ledger;
pub mod reply;
pub mod silver;
mod updates;
mod watermark;
