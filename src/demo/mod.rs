//! Loopback stand-ins for Telegram and a model, and the demo made of them.

pub mod model;
pub mod telegram;
