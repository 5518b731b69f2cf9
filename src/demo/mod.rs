//! What the demo shows: the chat page.

pub mod page;
