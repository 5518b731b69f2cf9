//! The three stages and what they share.

pub mod bronze;
mod chats;
pub mod reply;
pub mod silver;
mod watermark;
