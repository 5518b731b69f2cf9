//! One long text to messages: at paragraphs, else lines, else words, and never inside a character.

use super::{Entity, Part};

/// Telegram shows no more formatting than this in a message (<https://core.telegram.org/bots/api#sendmessage>).
const MAX_ENTITIES: usize = 100;

/// Splits a text into parts of at most `limit` UTF-16 code units, each with its share of the formatting.
pub(super) fn split(whole: &Part, limit: usize) -> Vec<Part> {
    let mut parts = Vec::new();
    let (mut rest, mut offset) = (whole.text.as_str(), 0);
    loop {
        let trimmed = rest.trim_start_matches(is_trimmed);
        offset += utf16_length(&rest[..rest.len() - trimmed.len()]);
        rest = trimmed;
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
fn is_trimmed(c: char) -> bool {
    c.is_whitespace() || c.is_control() || matches!(c, '\u{200b}' | '\u{2060}' | '\u{feff}')
}

fn utf16_length(text: &str) -> usize {
    text.chars().map(char::len_utf16).sum()
}

/// Where to cut, in bytes: all of it when it fits, else after the last good break, and at least one character.
fn cut(text: &str, limit: usize) -> usize {
    let mut units = 0;
    let mut end = text.len();
    for (index, c) in text.char_indices() {
        units += c.len_utf16();
        if units > limit {
            end = index;
            break;
        }
    }
    if end == text.len() {
        return end;
    }
    let window = &text[..end];
    // A break in the first half would make a needlessly short message.
    let good = |at: Option<usize>| at.filter(|at| *at > window.len() / 2);
    let paragraph = good(window.rfind("\n\n").map(|at| at + 2));
    let line = || good(window.rfind('\n').map(|at| at + 1));
    let word = || good(window.rfind(char::is_whitespace).map(|at| at + 1).filter(|at| window.is_char_boundary(*at)));
    let found = paragraph.or_else(line).or_else(word);
    found.unwrap_or_else(|| whole_characters(text, end))
}

/// The cut moved back so that it does not part what is shown as one character (emoji with joiners and modifiers).
fn whole_characters(text: &str, end: usize) -> usize {
    let joins = |c: char| matches!(c, '\u{200d}' | '\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}' | '\u{300}'..='\u{36f}');
    let mut cut = end;
    for _ in 0..16 {
        let next = text[cut..].chars().next().is_some_and(joins);
        let Some(before) = text[..cut].chars().next_back() else { return end };
        if !next && before != '\u{200d}' {
            return cut;
        }
        cut -= before.len_utf8();
    }
    end
}

fn share(entities: &[Entity], from: usize, length: usize) -> Vec<Entity> {
    let to = from + length;
    let overlap = |entity: &Entity| {
        let start = entity.offset.max(from);
        let end = (entity.offset + entity.length).min(to);
        (start < end).then(|| Entity { offset: start - from, length: end - start, ..entity.clone() })
    };
    entities.iter().filter_map(overlap).take(MAX_ENTITIES).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::render::render;
    use super::*;

    fn plain(text: &str) -> Part {
        Part { text: text.to_owned(), entities: Vec::new() }
    }

    #[test]
    fn white_space_is_no_message() {
        assert_eq!(split(&plain(" \n\u{200b} "), 10), Vec::new());
    }

    #[test]
    fn a_paragraph_is_a_better_break_than_a_line_and_a_line_than_a_word() {
        let texts = |text: &str| split(&plain(text), 10).into_iter().map(|part| part.text).collect::<Vec<_>>();
        assert_eq!(texts("aaaaaa\n\nb c d e"), ["aaaaaa", "b c d e"]);
        assert_eq!(texts("aaaaaa\nb c d e"), ["aaaaaa", "b c d e"]);
        assert_eq!(texts("aaaaaaa bbbbb"), ["aaaaaaa", "bbbbb"]);
        assert_eq!(texts("aaaaaaaaaaaaaaa"), ["aaaaaaaaaa", "aaaaa"]);
    }

    #[test]
    fn a_code_block_stays_one_in_every_part() {
        let parts = split(&render(&format!("```rust\n{}```", "let x = 1;\n".repeat(100))), 200);
        assert!(parts.len() > 4);
        for part in &parts {
            assert_eq!(part.entities.len(), 1);
            let entity = &part.entities[0];
            assert_eq!((entity.kind.as_str(), entity.language.as_deref()), ("pre", Some("rust")));
            assert_eq!((entity.offset, entity.length), (0, utf16_length(&part.text)));
        }
    }

    #[test]
    fn what_is_shown_as_one_character_is_not_parted() {
        let family = "👩‍👩‍👧‍👦";
        let parts = split(&plain(&family.repeat(10)), 25);
        assert!(parts.iter().all(|part| part.text.starts_with('👩')), "{parts:?}");
    }

    proptest! {
        #[test]
        fn parts_fit_and_together_say_everything(text in "(\\PC|\n| |\\*|`|👍|_|#){0,400}", limit in 8_usize..80) {
            let whole = render(&text);
            let parts = split(&whole, limit);
            let solid = |text: &str| text.chars().filter(|c| !is_trimmed(*c)).collect::<String>();
            let joined: String = parts.iter().map(|part| solid(&part.text)).collect();
            prop_assert_eq!(joined, solid(&whole.text));
            for part in parts {
                let length = utf16_length(&part.text);
                prop_assert!(length > 0 && length <= limit);
                for entity in part.entities {
                    prop_assert!(entity.length > 0 && entity.offset + entity.length <= length);
                }
            }
        }
    }
}
