//! The stages and what they share.

mod chats;
mod feed;
mod ledger;
pub mod reply;
pub mod silver;
mod watermark;
