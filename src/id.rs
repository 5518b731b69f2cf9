//! Identifiers as types of their own, and the only door to randomness.
#![allow(clippy::disallowed_methods)]

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::{Error, Result};

/// The number before the colon of a bot token; identifies the bot in keys and tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BotId(pub i64);

impl BotId {
    /// The bot id in a token of the form `123456:ABC…`, as issued by BotFather.
    ///
    /// # Errors
    /// A configuration error when the token has another form. The error does not repeat the token.
    pub fn of_token(token: &str) -> Result<Self> {
        let number = token.split_once(':').map(|(number, _)| number).and_then(|number| number.parse().ok());
        number.map(Self).ok_or_else(|| {
            Error::configuration(
                "the bot token does not start with a number and a colon; copy all of it from BotFather (123456:ABC…)",
            )
        })
    }
}

impl fmt::Display for BotId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A name used in storage keys: letters, digits, `_`, `-` and `.`, not empty, not hidden.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Name(String);

impl Name {
    /// Checks that `text` is a valid name.
    ///
    /// # Errors
    /// A configuration error that says which characters are allowed.
    pub fn new(text: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if text.is_empty() || text.len() > 128 || text.starts_with('.') || !text.chars().all(fits) {
            return Err(Error::configuration(format!(
                "`{text}` is not a valid name: use 1 to 128 letters, digits, `_`, `-` or `.`, not starting with `.`"
            )));
        }
        Ok(Self(text.to_owned()))
    }

    /// Turns any text into a name by replacing what is not allowed with `-`; for host names.
    pub fn cleaned(text: &str) -> Self {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let kept: String = text.chars().map(|c| if fits(c) { c } else { '-' }).take(128).collect();
        let kept = kept.trim_start_matches('.');
        Self(if kept.is_empty() { "default".to_owned() } else { kept.to_owned() })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// One id from the webhook to the reply: 32 hex digits derived from bot and update, so that every stage and every
/// restart arrives at the same one.
pub fn trace_id(bot_id: BotId, update_id: i64) -> String {
    let digest = Sha256::digest(format!("lakegram/{bot_id}/{update_id}"));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// A fresh random id: a nonce, a commit id, a file name.
pub fn random_id() -> Uuid {
    Uuid::new_v4()
}

/// A random fraction in `0.0..1.0`, for jitter.
pub fn random_fraction() -> f64 {
    let (bits, _) = Uuid::new_v4().as_u64_pair();
    // An f64 holds 53 bits exactly; the version bits of a UUID lie in the low half of this word.
    (bits >> 16) as f64 / (1_u64 << 48) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bot_id_is_the_number_before_the_colon() {
        assert_eq!(BotId::of_token("123456:ABC-def").unwrap(), BotId(123_456));
        assert!(BotId::of_token("ABC").is_err());
        assert!(!BotId::of_token("secret-token").unwrap_err().to_string().contains("secret-token"));
    }

    #[test]
    fn a_trace_id_depends_on_bot_and_update_alone() {
        assert_eq!(trace_id(BotId(1), 2), trace_id(BotId(1), 2));
        assert_ne!(trace_id(BotId(1), 2), trace_id(BotId(12), 2));
        assert_eq!(trace_id(BotId(1), 2).len(), 32);
    }

    #[test]
    fn a_random_fraction_is_a_fraction() {
        assert!((0..1_000).map(|_| random_fraction()).all(|fraction| (0.0..1.0).contains(&fraction)));
    }
}
