//! From an HTTP body to a line of a segment: only a body with the right secret can become one.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::intake::{Admitted, Intake};
use crate::settings::Secret;

/// The header that Telegram sends the secret in (<https://core.telegram.org/bots/api#setwebhook>).
pub const SECRET_HEADER: &str = "x-telegram-bot-api-secret-token";

/// The accepted secrets: one, or two during rotation. Held as digests, compared in constant time.
#[derive(Clone)]
pub(super) struct Secrets {
    digests: Vec<[u8; 32]>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} secrets", self.digests.len())
    }
}

/// The secrets of a setting that may change, as they are now.
#[derive(Debug)]
pub(super) struct LiveSecrets {
    setting: Secret,
    read: Mutex<(Arc<str>, Secrets)>,
}

impl LiveSecrets {
    pub(super) fn new(setting: Secret) -> Self {
        let now = setting.current();
        Self { read: Mutex::new((Arc::clone(&now), Secrets::new(&now))), setting }
    }

    /// As [`Secrets::verify`].
    pub(super) fn verify(&self, presented: Option<&[u8]>) -> Option<Authentic> {
        let now = self.setting.current();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&read.0, &now) {
            *read = (Arc::clone(&now), Secrets::new(&now));
        }
        read.1.verify(presented)
    }
}

/// Proof that a request carried the right secret. Only [`Secrets::verify`] makes one.
#[derive(Debug)]
pub(super) struct Authentic(());

/// An accepted body, with its share of the budget. Nothing else can be landed.
#[derive(Debug)]
pub struct VerifiedBody {
    bytes: Vec<u8>,
    admitted: Admitted,
}

/// Why a body was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is larger than the pipeline allows.
    TooLarge,
    /// Too many bytes are waiting to be landed.
    Full,
    /// The connection broke, or the body is not valid HTTP.
    Broken,
}

impl Secrets {
    /// Of secrets that are separated by commas. An empty one would let everybody in who sends an empty header, so it is
    /// none.
    pub(super) fn new(secrets: &str) -> Self {
        let given = secrets.split(',').map(str::trim).filter(|secret| !secret.is_empty());
        Self { digests: given.map(|secret| Sha256::digest(secret).into()).collect() }
    }

    /// Compares with every secret regardless of matches, so that timing reveals nothing.
    pub(super) fn verify(&self, presented: Option<&[u8]>) -> Option<Authentic> {
        let presented: [u8; 32] = Sha256::digest(presented?).into();
        let fits = self.digests.iter().fold(subtle::Choice::from(0), |fits, digest| fits | digest.ct_eq(&presented));
        bool::from(fits).then_some(Authentic(()))
    }
}

impl VerifiedBody {
    /// Reads a body of at most `limit_bytes`. Each chunk is admitted as it arrives, so that many slow or large bodies
    /// never hold more memory than the budget allows.
    pub(super) async fn read(
        mut body: Body,
        limit_bytes: usize,
        intake: &Intake,
        _proof: &Authentic,
    ) -> Result<Self, Refusal> {
        let mut admitted = intake.try_admit(0).ok_or(Refusal::Full)?;
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            // Trailers are not part of the update.
            let Ok(chunk) = frame.map_err(|_| Refusal::Broken)?.into_data() else { continue };
            if chunk.len() > limit_bytes - bytes.len() {
                return Err(Refusal::TooLarge);
            }
            if !intake.try_grow(&mut admitted, chunk.len()) {
                return Err(Refusal::Full);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Self { bytes, admitted })
    }

    /// An update that we fetched from Telegram ourselves; `None` if too many bytes are waiting to be landed.
    pub(super) fn of_pull(bytes: Vec<u8>, intake: &Intake) -> Option<Self> {
        let admitted = intake.try_admit(bytes.len())?;
        Some(Self { bytes, admitted })
    }

    /// The line of a segment, with its line break, and the body's share of the budget. An object is kept byte for byte,
    /// except for raw line breaks, which become spaces; anything else is wrapped, so that the segment stays valid JSON
    /// lines.
    pub(super) fn into_line(self) -> (Vec<u8>, Admitted) {
        let mut line = match is_object(&self.bytes) {
            true => self.bytes,
            false => wrapped(&self.bytes).to_string().into_bytes(),
        };
        for byte in &mut line {
            if matches!(*byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        line.push(b'\n');
        (line, self.admitted)
    }
}

fn is_object(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes).ok();
    bytes.trim_ascii_start().first() == Some(&b'{')
        && text.is_some_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

fn wrapped(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({"_corrupt_record": text}),
        Err(_) => json!({"_corrupt_record": STANDARD.encode(bytes), "_encoding": "base64"}),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::stream;
    use prometheus::IntGauge;
    use proptest::prelude::*;

    use super::*;
    use crate::admission::Admission;

    fn intake(limit_bytes: usize) -> Intake {
        Intake::new(Admission::new(limit_bytes), IntGauge::new("bytes", "bytes").unwrap())
    }

    fn line(bytes: &[u8]) -> String {
        let body = VerifiedBody::of_pull(bytes.to_vec(), &intake(1_000)).unwrap();
        String::from_utf8(body.into_line().0).unwrap()
    }

    async fn read(chunks: &[&'static str], limit_bytes: usize, intake: &Intake) -> Result<VerifiedBody, Refusal> {
        let chunks: Vec<_> =
            chunks.iter().map(|chunk| Ok::<_, std::io::Error>(Bytes::from_static(chunk.as_bytes()))).collect();
        VerifiedBody::read(Body::from_stream(stream::iter(chunks)), limit_bytes, intake, &Authentic(())).await
    }

    #[tokio::test]
    async fn a_body_is_bounded_by_its_limit_and_by_the_budget() {
        let intake = intake(6);
        assert_eq!(read(&["abc", "de"], 4, &intake).await.unwrap_err(), Refusal::TooLarge);
        let first = read(&["ab", "cd"], 4, &intake).await.unwrap();
        assert_eq!(read(&["ab", "c"], 4, &intake).await.unwrap_err(), Refusal::Full);
        drop(first);
        assert_eq!(read(&["ab", "c"], 4, &intake).await.unwrap().bytes, b"abc");
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_not_taken() {
        let body = Body::from_stream(stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("reset"))]));
        let read = VerifiedBody::read(body, 10, &intake(10), &Authentic(())).await;
        assert_eq!(read.unwrap_err(), Refusal::Broken);
    }

    #[test]
    fn an_object_is_kept_as_it_is_but_for_line_breaks() {
        assert_eq!(line(b"{\"a\" : 1.0,\r\n \"b\":\"\\n\"}"), "{\"a\" : 1.0,   \"b\":\"\\n\"}\n");
    }

    #[test]
    fn anything_else_is_wrapped() {
        assert_eq!(line(b"hello\nworld"), "{\"_corrupt_record\":\"hello\\nworld\"}\n");
        assert_eq!(line(b""), "{\"_corrupt_record\":\"\"}\n");
        assert_eq!(line(b"[1]"), "{\"_corrupt_record\":\"[1]\"}\n");
        assert_eq!(line(b"{} {}"), "{\"_corrupt_record\":\"{} {}\"}\n");
        assert_eq!(line(b"{\"a\":\"\n\"}"), "{\"_corrupt_record\":\"{\\\"a\\\":\\\"\\n\\\"}\"}\n");
        assert_eq!(line(b"\xff"), "{\"_corrupt_record\":\"/w==\",\"_encoding\":\"base64\"}\n");
    }

    #[test]
    fn either_of_two_secrets_is_let_in_and_nothing_else() {
        let secrets = Secrets::new("new, old");
        assert!(secrets.verify(Some(b"new")).is_some() && secrets.verify(Some(b"old")).is_some());
        assert!(secrets.verify(Some(b"other")).is_none() && secrets.verify(None).is_none());
    }

    #[test]
    fn without_a_secret_nobody_is_let_in() {
        for secrets in [Secrets::new(""), Secrets::new(" ,")] {
            assert!(secrets.verify(Some(b"")).is_none() && secrets.verify(None).is_none());
        }
    }

    proptest! {
        #[test]
        fn every_body_is_one_line_of_json(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let line = line(&bytes);
            prop_assert_eq!(line.matches(['\n', '\r']).count(), 1);
            prop_assert!(serde_json::from_str::<serde_json::Map<String, Value>>(&line).is_ok());
        }
    }
}
