//! Tells an array of records from a line that merely begins with a square bracket, such as `[INFO] started`.

use memchr::memchr;

use super::strict::{Found, Strict, is_scalar};
use super::value::{ValueScan, begins_value, blanks};

/// Whether these bytes, which begin with a square bracket, open an array of records; `None` if they do not tell.
/// `is_end` if there are no more. `minds_line` if something else in the line speaks against it.
pub(super) fn opens_array(bytes: &[u8], is_end: bool, minds_line: bool) -> Option<bool> {
    let first = 1 + gap(bytes.get(1..)?);
    let after = match bytes.get(first)? {
        b']' => Some(first),
        byte if begins_value(*byte) => match end_of_value(&bytes[first..])? {
            Ok(length) => Some(first + length),
            Err(Damaged) => None,
        },
        _ => None,
    };
    let Some(after) = after else { return Some(false) };
    let next = after + gap(bytes.get(after..)?);
    match bytes.get(next)? {
        b',' | b']' => {}
        // A missing comma.
        b'{' => return Some(true),
        _ => return Some(!minds_line && bytes.get(first) == Some(&b'{')),
    }
    if minds_line { is_all_of_line(bytes, is_end) } else { Some(true) }
}

struct Damaged;

/// How long the first element is.
fn end_of_value(bytes: &[u8]) -> Option<Result<usize, Damaged>> {
    let line_break = memchr(b'\n', bytes);
    let line = &bytes[..line_break.map_or(bytes.len(), |index| index + 1)];
    let mut scan = ValueScan::default();
    let Some(length) = scan.find_end(line) else {
        line_break?;
        if scan.is_in_string() {
            return Some(Err(Damaged));
        }
        return match Strict::default().find(bytes) {
            Found::End(length) => Some(Ok(length)),
            Found::Damage(_) => Some(Err(Damaged)),
            Found::More => None,
        };
    };
    let is_text = matches!(bytes.first(), Some(b'{' | b'[' | b'"'));
    Some(if is_text || is_scalar(&bytes[..length]) { Ok(length) } else { Err(Damaged) })
}

/// Whether the array goes on after its line, or is followed by nothing but another value.
fn is_all_of_line(bytes: &[u8], is_end: bool) -> Option<bool> {
    let line = match memchr(b'\n', bytes) {
        Some(index) => &bytes[..index],
        None if is_end => bytes,
        // It closes in its line, or the line is long.
        None => ValueScan::default().find_end(bytes).map(|_| bytes)?,
    };
    let Some(end) = ValueScan::default().find_end(line) else { return Some(true) };
    let after = &line[end..];
    let rest = &after[blanks(after)..];
    match rest.first() {
        Some(b'{' | b'[') => Some(true),
        Some(b',') if !rest[1..].trim_ascii().is_empty() => Some(false),
        None | Some(b',') => (line.len() < bytes.len() || is_end).then_some(true),
        Some(_) => Some(false),
    }
}

/// Blanks and line breaks.
fn gap(bytes: &[u8]) -> usize {
    bytes.len() - bytes.trim_ascii_start().len()
}
