//! Finds the next value of a line in which one is damaged.

use memchr::memmem::{find, find_iter};

use super::strict::{Found, Strict};
use super::value::blanks;

/// The longest name that elements of an array are recognized by.
const NAME_BYTES: usize = 256;

/// Where the damaged value at the start of `line` ends because another one follows that is whole. Between two brackets
/// nothing else can begin; an element of an array must also begin with the same name as the damaged one, or it might
/// be a part of it. What is looked at is taken from `credit`.
pub(super) fn next_value(line: &[u8], in_array: bool, credit: &mut usize) -> Option<usize> {
    let between: &[u8] = if in_array { b"},{" } else { b"}{" };
    let name = if in_array { find(&line[..line.len().min(NAME_BYTES)], b"\":").map(|end| &line[..end])? } else { b"{" };
    for end in find_iter(line, between) {
        let next = &line[end + between.len() - 1..];
        if !next.starts_with(name) {
            continue;
        }
        let (seen, is_whole) = match Strict::default().find(next) {
            Found::End(length) => (length, is_followed(&next[length..])),
            Found::Damage(length) => (length, false),
            Found::More => (next.len(), false),
        };
        *credit = credit.checked_sub(seen)?;
        if is_whole {
            return Some(end + 1);
        }
    }
    None
}

fn is_followed(rest: &[u8]) -> bool {
    matches!(rest.get(blanks(rest)), None | Some(b'\n' | b'{' | b',' | b']'))
}
