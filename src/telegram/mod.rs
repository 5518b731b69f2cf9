//! Telegram: the Bot API client, the update model, and text in the form that Telegram accepts.

pub mod client;
pub(crate) mod pace;
pub mod reply;
pub mod text;
pub mod update;
pub mod webhook_url;

pub use self::client::{BotClient, SendFault};
pub use self::update::{Update, UpdateColumns};
