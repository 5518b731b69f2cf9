//! One binary of integration tests: the real program on loopback, with stand-ins for Telegram and the model.

mod architecture;
mod commands;
mod kills;
mod pipeline;
mod readers;
mod store_calls;
mod support;
mod trouble;
