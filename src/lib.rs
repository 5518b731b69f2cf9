//! Lakegram turns a Telegram bot into a lakehouse: every update becomes raw JSON, a bronze row, an answer, a silver
//! row and a reply, each exactly once.
//!
//! A module uses only floors below its own; see `docs/architecture.md`.

pub mod admission;
pub mod app;
pub mod audit;
pub mod clock;
pub mod command;
pub mod connections;
pub mod console;
#[cfg(feature = "demo")]
pub mod demo;
pub mod error;
mod flow;
pub mod health;
pub mod hint;
pub mod id;
pub mod identity;
mod json;
#[cfg(any(test, fuzzing))]
pub mod laws;
pub mod llm;
pub mod load;
pub mod panic;
pub mod pipeline;
pub mod receive;
pub mod redact;
pub mod retry;
mod sabotage;
pub mod schema;
pub mod settings;
pub mod shutdown;
pub mod stage;
#[cfg(feature = "demo")]
pub mod standin;
pub mod storage;
pub mod table;
pub mod telegram;
pub mod telemetry;

#[cfg(test)]
#[cfg(feature = "faults")]
mod tests;
