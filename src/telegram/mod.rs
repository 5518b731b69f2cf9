//! Telegram: the Bot API client, the update model, and text as Telegram takes it.

pub mod client;
pub mod reply;
pub mod text;
pub mod update;

pub use self::client::{BotClient, SendFault};
pub use self::update::{Update, UpdateColumns};
