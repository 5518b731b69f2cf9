//! The three stages and what they share.

pub mod bronze;
mod chats;
mod feed;
mod ledger;
pub mod reply;
pub mod silver;
mod watermark;
