//! Loopback stand-ins for Telegram and a model, the chat page, and the demo made of them.

pub mod model;
pub mod page;
pub mod telegram;
