//! One binary of integration tests: the real program on loopback, with stand-ins for Telegram and the model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]
#![allow(clippy::too_many_lines)]
// Tests wait on real processes, with real time.
#![allow(clippy::disallowed_methods)]

mod architecture;
mod audit;
mod clock;
mod commands;
mod domains;
mod exchanges;
mod fair;
mod files;
mod full_disk;
mod identity;
mod kills;
mod pipeline;
mod pressure;
mod readers;
mod reply;
mod root;
mod secrets;
mod silver;
mod soak;
mod store;
mod store_calls;
mod strace;
mod support;
mod trouble;
