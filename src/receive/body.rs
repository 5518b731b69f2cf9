//! From an HTTP body to a line of a segment: only what carried the right secret can become one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The header that Telegram sends the secret in (<https://core.telegram.org/bots/api#setwebhook>).
pub const SECRET_HEADER: &str = "x-telegram-bot-api-secret-token";

/// The secrets that are let in: one, or two during rotation. Held as digests, compared in constant time.
#[derive(Clone)]
pub(super) struct Secrets {
    digests: Vec<[u8; 32]>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} secrets", self.digests.len())
    }
}

/// Proof that a request carried the right secret.
#[derive(Debug)]
pub(super) struct Authentic(());

/// A body that is let in. Nothing else can be landed.
#[derive(Clone, Debug)]
pub struct VerifiedBody {
    bytes: Bytes,
}

impl Secrets {
    pub(super) fn new(secrets: &[String]) -> Self {
        Self { digests: secrets.iter().map(|secret| Sha256::digest(secret).into()).collect() }
    }

    /// Compares with every secret, whichever fits, so that time tells nothing.
    pub(super) fn verify(&self, presented: Option<&[u8]>) -> Option<Authentic> {
        let presented: [u8; 32] = Sha256::digest(presented?).into();
        let fits = self.digests.iter().fold(subtle::Choice::from(0), |fits, digest| fits | digest.ct_eq(&presented));
        bool::from(fits).then_some(Authentic(()))
    }
}

impl VerifiedBody {
    pub(super) fn of_request(bytes: Bytes, _proof: &Authentic) -> Self {
        Self { bytes }
    }

    /// An update that we fetched from Telegram ourselves.
    pub(super) fn of_pull(bytes: Bytes) -> Self {
        Self { bytes }
    }

    /// The line of a segment, with its line break. An object is kept byte for byte but for raw line breaks, which
    /// become spaces; anything else is wrapped, so that the segment stays JSON lines.
    pub(super) fn to_line(&self) -> Vec<u8> {
        let text = std::str::from_utf8(&self.bytes).ok();
        let is_object = text.is_some_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
            && self.bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        let mut line = if is_object { self.bytes.to_vec() } else { wrapped(&self.bytes).to_string().into_bytes() };
        for byte in &mut line {
            if matches!(*byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        line.push(b'\n');
        line
    }
}

fn wrapped(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({"_corrupt_record": text}),
        Err(_) => json!({"_corrupt_record": STANDARD.encode(bytes), "_encoding": "base64"}),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(bytes: &[u8]) -> String {
        String::from_utf8(VerifiedBody::of_pull(Bytes::copy_from_slice(bytes)).to_line()).unwrap()
    }

    #[test]
    fn an_object_is_kept_as_it_is_but_for_line_breaks() {
        assert_eq!(line(b"{\"a\" : 1.0,\n \"b\":\"\\n\"}"), "{\"a\" : 1.0,  \"b\":\"\\n\"}\n");
    }

    #[test]
    fn anything_else_is_wrapped() {
        assert_eq!(line(b"hello\nworld"), "{\"_corrupt_record\":\"hello\\nworld\"}\n");
        assert_eq!(line(b""), "{\"_corrupt_record\":\"\"}\n");
        assert_eq!(line(b"[1]"), "{\"_corrupt_record\":\"[1]\"}\n");
        assert_eq!(line(b"\xff"), "{\"_corrupt_record\":\"/w==\",\"_encoding\":\"base64\"}\n");
    }

    #[test]
    fn either_of_two_secrets_is_let_in_and_nothing_else() {
        let secrets = Secrets::new(&["new".to_owned(), "old".to_owned()]);
        assert!(secrets.verify(Some(b"new")).is_some() && secrets.verify(Some(b"old")).is_some());
        assert!(secrets.verify(Some(b"other")).is_none() && secrets.verify(None).is_none());
    }

    proptest! {
        #[test]
        fn every_body_is_one_line_of_json(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let line = line(&bytes);
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert!(serde_json::from_str::<serde_json::Map<String, Value>>(&line).is_ok());
        }
    }
}
