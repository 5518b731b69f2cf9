//! Splits one long text into messages: at paragraphs, else lines, else words, and never inside a character.

use super::{Entity, MAX_ENTITIES, Part};

/// How many characters a cut moves back at most to keep a grapheme whole.
const LONGEST_CLUSTER: usize = 16;

/// Splits a text into parts of at most `limit` UTF-16 code units, each with its share of the formatting.
pub(super) fn split(whole: &Part, limit: usize) -> Vec<Part> {
    let mut parts = Vec::new();
    let (mut rest, mut offset) = (whole.text.as_str(), 0);
    loop {
        let skipped = leading_blank(rest, offset, &whole.entities);
        offset += utf16_length(&rest[..skipped]);
        rest = &rest[skipped..];
        if rest.is_empty() {
            return parts;
        }
        let cut = cut(rest, limit);
        let text = rest[..cut].trim_end_matches(is_trimmed);
        if !text.is_empty() {
            parts.push(Part { text: text.to_owned(), entities: share(&whole.entities, offset, utf16_length(text)) });
        }
        offset += utf16_length(&rest[..cut]);
        rest = &rest[cut..];
    }
}

/// What Telegram trims from a message by itself, which would shift its entities.
pub(super) fn is_trimmed(c: char) -> bool {
    c.is_whitespace() || c.is_control() || matches!(c, '\u{200b}' | '\u{2060}' | '\u{feff}')
}

pub(super) fn utf16_length(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// How much of the beginning of `text` is not sent, in bytes: all white space, except the indentation of a line of
/// code, which Telegram also keeps if the code is at the beginning.
fn leading_blank(text: &str, offset: usize, entities: &[Entity]) -> usize {
    let blank = text.len() - text.trim_start_matches(is_trimmed).len();
    if blank == text.len() {
        return blank;
    }
    let line = text[..blank].rfind('\n').map_or(0, |at| at + 1);
    let from = offset + utf16_length(&text[..line]);
    let to = offset + utf16_length(&text[..blank]);
    let is_code = entities.iter().any(|entity| {
        let (start, end) = entity.range();
        entity.kind == "pre" && start <= from && to < end
    });
    if is_code { line } else { blank }
}

/// Where to cut, in bytes: at the end if it fits, otherwise after the last good break, and at least one character.
fn cut(text: &str, limit: usize) -> usize {
    let mut units = 0;
    let too_far = text.char_indices().find(|(_, c)| {
        units += c.len_utf16();
        units > limit
    });
    let Some((end, _)) = too_far else { return text.len() };
    let window = &text[..end];
    // A break in the first half would make a needlessly short message.
    let good = |at: Option<usize>| at.filter(|at| *at > window.len() / 2);
    let paragraph = || good(window.rfind("\n\n").map(|at| at + 2));
    let line = || good(window.rfind('\n').map(|at| at + 1));
    let word = || good(window.char_indices().rfind(|(_, c)| c.is_whitespace()).map(|(at, c)| at + c.len_utf8()));
    paragraph().or_else(line).or_else(word).unwrap_or_else(|| whole_characters(text, end))
}

/// The cut moved back so that it does not split a grapheme (compound emoji, flags, accents).
fn whole_characters(text: &str, end: usize) -> usize {
    let mut cut = end;
    for _ in 0..LONGEST_CLUSTER {
        let Some(before) = text[..cut].chars().next_back() else { return end };
        let continues = text[cut..].chars().next().is_some_and(|next| continues(&text[..cut], before, next));
        if !continues {
            return cut;
        }
        cut -= before.len_utf8();
    }
    end
}

/// Whether `next` is displayed as part of `before`, the last character of `text`.
fn continues(text: &str, before: char, next: char) -> bool {
    let is_flag_letter = |c: &char| matches!(c, '\u{1f1e6}'..='\u{1f1ff}');
    if is_flag_letter(&next) {
        // Flags are pairs of letters.
        return text.chars().rev().take_while(is_flag_letter).count() % 2 == 1;
    }
    let is_mark = matches!(next,
        '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{200c}' | '\u{200d}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}' | '\u{1f3fb}'..='\u{1f3ff}'
        | '\u{e0020}'..='\u{e007f}' | '\u{e0100}'..='\u{e01ef}');
    is_mark || before == '\u{200d}'
}

/// The formatting of so many units from `from` on.
fn share(entities: &[Entity], from: usize, length: usize) -> Vec<Entity> {
    let to = from + length;
    let mut shared: Vec<Entity> = entities
        .iter()
        .filter_map(|entity| {
            let (start, end) = entity.range();
            let (start, end) = (start.max(from), end.min(to));
            (start < end).then(|| Entity { offset: start - from, length: end - start, ..entity.clone() })
        })
        .collect();
    if shared.len() > MAX_ENTITIES {
        // Links and code carry meaning; the rest is looks.
        shared.sort_by_key(|entity| !matches!(entity.kind.as_str(), "text_link" | "pre" | "code"));
        shared.truncate(MAX_ENTITIES);
        shared.sort_by_key(|entity| (entity.offset, std::cmp::Reverse(entity.length)));
    }
    shared
}
