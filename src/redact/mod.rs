//! The one redactor: it knows every secret of this process and stands before every sink - log lines, text on a
//! terminal, `error` columns, pages and metric labels.
//!
//! What is known is hidden however it is escaped, and so is any beginning of it of eight or more
//! characters and any other piece of twelve or more: what repeats a secret often cuts it.

mod decode;
mod index;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{LazyLock, PoisonError, RwLock};

use self::decode::Decoded;
use self::index::Index;

/// What stands for a secret.
const HIDDEN: &str = "***";
/// The longest text in an `error` column, in characters.
pub const CELL_LIMIT: usize = 2_000;
/// How much of a text is looked at for an excerpt, in bytes.
const EXCERPT_BYTES: usize = 64 * 1_024;
/// How many escapes may be around each other: JSON in JSON, a percent sign that is escaped itself.
const ROUNDS: usize = 3;
/// How much is remembered of secrets that were issued or replaced while the process runs, in bytes. The oldest are
/// forgotten beyond it.
const REMEMBERED_BYTES: usize = 64 * 1_024;

/// The secrets of this process.
static KNOWN: LazyLock<RwLock<Redactor>> = LazyLock::new(RwLock::default);

/// Hides this secret from now on, for as long as the process runs.
pub fn know(secret: &str) {
    let is_known = KNOWN.read().unwrap_or_else(PoisonError::into_inner).kept.iter().any(|kept| kept == secret);
    if !is_known {
        KNOWN.write().unwrap_or_else(PoisonError::into_inner).know(secret);
    }
}

/// Hides a secret that the process was issued, or that replaces another. However many there will be, the latest are
/// known.
pub fn know_for_now(secret: &str) {
    let is_latest = {
        let known = KNOWN.read().unwrap_or_else(PoisonError::into_inner);
        known.latest.back().is_some_and(|latest| latest == secret) || known.kept.iter().any(|kept| kept == secret)
    };
    if !is_latest {
        KNOWN.write().unwrap_or_else(PoisonError::into_inner).know_for_now(secret);
    }
}

/// The text without secrets.
pub fn redact(text: &str) -> Cow<'_, str> {
    KNOWN.read().unwrap_or_else(PoisonError::into_inner).redact(text)
}

/// At most `limit` characters of a text without secrets; if there is more, the end says how much.
pub fn excerpt(text: &str, limit: usize) -> String {
    let (head, tail) = text.split_at(text.floor_char_boundary(EXCERPT_BYTES));
    let shown = redact(head);
    let count = shown.chars().count() + tail.chars().count();
    if count <= limit {
        return shown.into_owned();
    }
    // The note is a little shorter than the longest one.
    let kept = limit.saturating_sub(40);
    let beginning: String = shown.chars().take(kept).collect();
    format!("{beginning}… ({} more characters)", count - beginning.chars().count())
}

/// The first `limit` characters of a text without secrets.
pub fn beginning(text: &str, limit: usize) -> String {
    redact(&text[..text.floor_char_boundary(EXCERPT_BYTES)]).chars().take(limit).collect()
}

/// Secrets, and what finds them.
#[derive(Debug, Default)]
struct Redactor {
    /// Known for good.
    kept: Vec<String>,
    /// Issued or replaced while the process runs, the latest last.
    latest: VecDeque<String>,
    index: Index,
}

impl Redactor {
    fn know(&mut self, secret: &str) {
        let secret = secret.trim();
        if !secret.is_empty() && !self.kept.iter().any(|kept| kept == secret) {
            self.index.add(secret);
            self.kept.push(secret.to_owned());
        }
    }

    fn know_for_now(&mut self, secret: &str) {
        let secret = secret.trim();
        if secret.is_empty() || secret.len() > REMEMBERED_BYTES || self.kept.iter().any(|kept| kept == secret) {
            return;
        }
        match self.latest.iter().position(|latest| latest == secret) {
            Some(place) => drop(self.latest.remove(place)),
            None => self.index.add(secret),
        }
        self.latest.push_back(secret.to_owned());
        let mut bytes: usize = self.latest.iter().map(String::len).sum();
        if bytes > REMEMBERED_BYTES {
            // Half, so that the index is not built anew for every secret.
            while bytes > REMEMBERED_BYTES / 2
                && self.latest.len() > 1
                && let Some(oldest) = self.latest.pop_front()
            {
                bytes -= oldest.len();
            }
            self.index = Index::default();
            self.kept.iter().chain(&self.latest).for_each(|secret| self.index.add(secret));
        }
    }

    fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut found = Vec::new();
        if self.index.is_empty() {
            return text.into();
        }
        self.index.scan(text.as_bytes(), |range| found.push(range));
        let mut decoded = Decoded::of_text(text);
        for _ in 0..ROUNDS {
            let Some(view) = decoded else { break };
            self.index.scan(view.bytes(), |range| found.push(view.origin(range)));
            decoded = view.again();
        }
        if found.is_empty() { text.into() } else { without(text, found).into() }
    }
}

/// The text with every range of bytes hidden.
fn without(text: &str, mut ranges: Vec<Range<usize>>) -> String {
    ranges.sort_unstable_by_key(|range| range.start);
    let (mut out, mut done) = (String::with_capacity(text.len()), 0);
    for range in ranges {
        let (start, end) = (text.floor_char_boundary(range.start), text.ceil_char_boundary(range.end));
        if start > done || done == 0 {
            out.push_str(&text[done..start.max(done)]);
            out.push_str(HIDDEN);
        }
        done = done.max(end);
    }
    out.push_str(&text[done..]);
    out
}

#[cfg(test)]
mod tests;
