//! A Bot API stand-in that behaves like Telegram.
