//! Finds what is known in bytes, in one pass: every position is looked up once by the eight bytes before it.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;

use super::decode::Decoded;

/// The shortest beginning of a secret that is hidden, in bytes.
const HEAD: usize = 8;
/// The shortest other piece that is hidden, in bytes.
const PIECE: usize = 12;
/// What is shorter may be part of any word, and is no secret.
const SHORTEST: usize = 6;
/// Words of 64 bits in the filter.
const FILTER_WORDS: usize = 1_024;

/// What is looked for.
#[derive(Debug)]
pub(super) struct Index {
    /// Which hashes of eight bytes occur. Nearly all text is passed over by this alone.
    filter: Vec<u64>,
    /// The first bytes of secrets, up to the length of a piece, by the first eight.
    heads: HashMap<u64, Vec<Box<[u8]>>>,
    pieces: HashSet<[u8; PIECE]>,
    /// Secrets that are too short to have a beginning.
    short: Vec<Box<[u8]>>,
}

impl Default for Index {
    fn default() -> Self {
        Self { filter: vec![0; FILTER_WORDS], heads: HashMap::new(), pieces: HashSet::new(), short: Vec::new() }
    }
}

impl Index {
    pub(super) fn is_empty(&self) -> bool {
        self.heads.is_empty() && self.short.is_empty()
    }

    /// Adds a secret, in every form that the decoder does not undo.
    pub(super) fn add(&mut self, secret: &str) {
        self.add_plain(secret.as_bytes());
        // A password in a URL is escaped there, and not where it is sent.
        if let Some(decoded) = Decoded::of_text(secret) {
            self.add_plain(decoded.bytes());
        }
        self.add_base64(secret.as_bytes());
    }

    fn add_plain(&mut self, secret: &[u8]) {
        let public = public_bytes(secret);
        // A window of eight bytes that ends in the public part of a token is no secret.
        self.add_bytes(&secret[public.saturating_sub(HEAD - 1)..]);
        if public > 0 {
            self.add_bytes(&secret[public..]);
        }
    }

    /// Base64 of the secret, wherever it begins in what is encoded: after a user name and a colon, for instance.
    fn add_base64(&mut self, secret: &[u8]) {
        if secret.len() < SHORTEST {
            return;
        }
        for before in 0..3 {
            let padded: Vec<u8> = std::iter::repeat_n(0, before).chain(secret.iter().copied()).collect();
            // The first and the last character may depend on what is around the secret.
            let skipped = (before * 8).div_ceil(6);
            let whole = padded.len() * 8 / 6;
            for encoded in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
                self.add_bytes(encoded.as_bytes().get(skipped..whole).unwrap_or_default());
            }
        }
    }

    fn add_bytes(&mut self, bytes: &[u8]) {
        let Some(head) = bytes.get(..HEAD).map(window_of) else {
            if bytes.len() >= SHORTEST && !self.short.iter().any(|short| **short == *bytes) {
                self.short.push(bytes.into());
            }
            return;
        };
        self.note(head);
        let heads = self.heads.entry(head).or_default();
        let beginning = &bytes[..bytes.len().min(PIECE)];
        if !heads.iter().any(|there| **there == *beginning) {
            heads.push(beginning.into());
        }
        for piece in bytes.windows(PIECE) {
            self.note(window_of(&piece[PIECE - HEAD..]));
            self.pieces.extend(<[u8; PIECE]>::try_from(piece));
        }
    }

    fn note(&mut self, window: u64) {
        let bit = hash(window);
        self.filter[bit / 64] |= 1 << (bit % 64);
    }

    fn may_have(&self, window: u64) -> bool {
        let bit = hash(window);
        self.filter[bit / 64] & (1 << (bit % 64)) != 0
    }

    /// Reports every range that is to be hidden; ranges may overlap.
    pub(super) fn scan(&self, bytes: &[u8], mut found: impl FnMut(Range<usize>)) {
        for short in &self.short {
            memmem::find_iter(bytes, short).for_each(|start| found(start..start + short.len()));
        }
        let mut window = 0;
        for (at, byte) in bytes.iter().enumerate() {
            window = window << 8 | u64::from(*byte);
            let end = at + 1;
            if end < HEAD || !self.may_have(window) {
                continue;
            }
            let start = end - HEAD;
            for head in self.heads.get(&window).into_iter().flatten() {
                let same = head.iter().zip(&bytes[start..]).take_while(|(one, other)| one == other).count();
                found(start..start + same);
            }
            if end >= PIECE && self.pieces.contains(&bytes[end - PIECE..end]) {
                found(end - PIECE..end);
            }
        }
    }
}

/// How many of the first bytes are no secret: the number of a bot and the colon. They are in paths and in log lines.
fn public_bytes(secret: &[u8]) -> usize {
    let digits = secret.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits > 0 && secret.get(digits) == Some(&b':') { digits + 1 } else { 0 }
}

fn window_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |window, byte| window << 8 | u64::from(*byte))
}

/// Which bit of the filter.
fn hash(window: u64) -> usize {
    // Its high half depends on all bytes.
    let mixed = window.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
    usize::try_from(mixed).unwrap_or_default() % (FILTER_WORDS * 64)
}
