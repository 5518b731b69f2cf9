//! What every stage behind bronze runs on: the rows of its upstream table, its own table as a ledger, and progress.

pub(crate) mod chats;
pub(crate) mod feed;
pub(crate) mod ledger;
pub(crate) mod watermark;
