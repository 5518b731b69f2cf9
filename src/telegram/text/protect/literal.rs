//! Addresses, paths and names of code.

use super::{Found, Kind};

/// What never belongs to an address in running text.
const OUTSIDE: &str = "<>\"`|\\，。；：！？、…—“”‘’（）「」『』【】《》";
/// The longest address that is hidden whole, in bytes; Telegram takes 2,048.
const LONGEST_ADDRESS: usize = 4_096;
/// The longest scheme of an address, in bytes.
const LONGEST_SCHEME: usize = 32;
/// What ends a sentence rather than an address.
const PUNCTUATION: &[char] = &['.', ',', ':', ';', '!', '?', '\''];

/// An address: a scheme and `://`, or `www.`.
pub(super) fn address(rest: &str, before: Option<char>) -> Option<Found> {
    if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '@' | '/' | '.')) {
        return None;
    }
    let from = beginning(rest)?;
    let rest = &rest[..rest.floor_char_boundary(LONGEST_ADDRESS)];
    let end = without_marks(&rest[..from + end_of_address(&rest[from..])]);
    (end > from).then(|| Found::text(end))
}

/// How long `https://` or `www.` is.
fn beginning(rest: &str) -> Option<usize> {
    if rest.get(..4).is_some_and(|www| www.eq_ignore_ascii_case("www.")) {
        return Some(4);
    }
    let is_outside = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    let scheme = rest[..rest.floor_char_boundary(LONGEST_SCHEME + 1)].find(is_outside)?;
    rest[scheme..].starts_with("://").then_some(scheme + 3)
}

/// Up to white space, to a bracket that closes one outside of the address, or to a link right behind it.
fn end_of_address(rest: &str) -> usize {
    let (mut round, mut square, mut bracket) = (0_usize, 0_usize, 0);
    for (at, c) in rest.char_indices() {
        match c {
            _ if c.is_whitespace() || c.is_control() || OUTSIDE.contains(c) => return at,
            '(' => round += 1,
            '[' => (square, bracket) = (square + 1, at),
            ')' if round == 0 => return at,
            ']' if square == 0 => return at,
            ']' if rest[at..].starts_with("](") => return bracket,
            ')' => round -= 1,
            ']' => square -= 1,
            _ => {}
        }
    }
    rest.len()
}

/// The end of an address without the marks and the punctuation that follow it. A mark belongs to the address when it
/// has its partner there.
fn without_marks(address: &str) -> usize {
    let mut kept = address;
    let mut counts = ['*', '_'].map(|mark| address.matches(mark).count());
    loop {
        let Some(last) = kept.chars().next_back() else { return 0 };
        let count = &mut counts[usize::from(last == '_')];
        let is_outside = match last {
            _ if PUNCTUATION.contains(&last) => true,
            '~' => kept.ends_with("~~"),
            '*' | '_' => kept.ends_with("**") || kept.ends_with("__") || *count % 2 == 1,
            _ => false,
        };
        if !is_outside {
            return kept.len();
        }
        *count -= usize::from(matches!(last, '*' | '_'));
        kept = &kept[..kept.len() - last.len_utf8()];
    }
}

/// An address in angle brackets, which are not shown.
pub(super) fn angle(rest: &str) -> Option<Found> {
    let inner = &rest[1..];
    let from = beginning(inner)?;
    let end = inner.find(|c: char| c == '>' || c == '<' || c.is_whitespace() || c.is_control())?;
    let is_closed = inner[end..].starts_with('>') && end > from;
    is_closed.then(|| Found { length: end + 2, shown: 1..end + 1, kind: Kind::Text })
}

/// A name such as `__init__`: one word in lower case between double underscores.
pub(super) fn dunder(rest: &str, before: Option<char>) -> Option<Found> {
    if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let name = rest.strip_prefix("__")?;
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let end = name.find(|c: char| !is_part(c)).unwrap_or(name.len());
    let word = name[..end].strip_suffix("__")?;
    let is_name = word.starts_with(|c: char| c.is_ascii_lowercase()) && !word.ends_with('_');
    is_name.then(|| Found::text(2 + end))
}

/// A Windows path from its drive on.
pub(super) fn drive(rest: &str, before: Option<char>) -> Option<Found> {
    let is_drive = rest.get(1..3) == Some(":\\") && !before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    is_drive.then(|| path(rest, 3)).flatten()
}

/// A Windows path from the name of its host on.
pub(super) fn share(rest: &str, before: Option<char>) -> Option<Found> {
    let host = rest.strip_prefix(r"\\").filter(|_| before.is_none_or(char::is_whitespace))?;
    let end = host.find(|c: char| !(c.is_alphanumeric() || matches!(c, '-' | '.' | '_')))?;
    (end > 0 && host[end..].starts_with('\\')).then(|| path(rest, 2 + end + 1)).flatten()
}

/// A Windows path that goes on behind a dot or a variable with a name that begins with a mark: `.\.venv`, `%HOME%\.aws`.
pub(super) fn rest_of_path(rest: &str, before: Option<char>) -> Option<Found> {
    let goes_on = matches!(before, Some('.' | '%' | '}' | '~')) && rest.starts_with(r"\.");
    goes_on.then(|| path(rest, 1)).flatten()
}

/// A path up to white space, or beyond it where the next word has a backslash of its own.
fn path(rest: &str, from: usize) -> Option<Found> {
    let rest = &rest[..rest.floor_char_boundary(LONGEST_ADDRESS)];
    let mut end = end_of_path(rest, from);
    while let Some(word) = rest[end..].strip_prefix(' ') {
        let next = end + 1 + end_of_path(word, 0);
        let has_folder = rest[end + 1..next].contains('\\') && !rest[end + 1..next].contains(":\\");
        if !has_folder {
            break;
        }
        end = next;
    }
    let end = rest[..end].trim_end_matches(PUNCTUATION).len();
    (end >= from).then(|| Found::text(end))
}

fn end_of_path(rest: &str, from: usize) -> usize {
    let is_end = |(at, c): &(usize, char)| {
        c.is_whitespace()
            || c.is_control()
            || matches!(c, '"' | '<' | '>' | '|' | '`' | ')')
            || (*c == '*' && !rest[from + at..].starts_with("*."))
    };
    rest[from..].char_indices().find(is_end).map_or(rest.len(), |(at, _)| from + at)
}
