//! Loopback stand-ins for Telegram and for a model, for the demo and the tests.

pub mod model;
pub mod telegram;
