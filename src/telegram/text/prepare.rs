//! What is changed in Markdown before it is rendered, so that nothing of it is lost: lines that only look like
//! definitions of links or like quotes, and cells beyond the head of a table.

use std::collections::HashSet;
use std::ops::Range;

use pulldown_cmark::{Event, LinkType, OffsetIter, Parser, Tag, TagEnd};

use super::edit::{Edit, changed};
use super::protect::Vault;
use super::{dialect, rows};

/// `text`, changed where a parser would lose some of it.
pub(super) fn prepare(text: String, vault: &Vault<'_>) -> String {
    // Most answers have none of these, and looking means parsing.
    if !text.contains("]:") && !text.contains(['|', '>']) {
        return text;
    }
    let text = changed(text, |text| look(text, vault, false));
    if !text.contains("]:") {
        return text;
    }
    // What is used in a definition that is text by now is itself unused.
    changed(text, |text| look(text, vault, true))
}

/// What has to change. The definitions that are not used become text, or if there is one and `all` is asked for, all.
fn look(text: &str, vault: &Vault<'_>, all: bool) -> Vec<Edit> {
    let (mut edits, mut used, mut seen, mut quotes) = (Vec::new(), HashSet::new(), Vec::new(), 0_usize);
    let mut events = Parser::new_ext(text, dialect::options()).into_offset_iter();
    for (event, range) in events.by_ref() {
        match event {
            Event::Start(Tag::Table(_)) => edits.extend(rows::widen(text, range)),
            Event::Start(Tag::BlockQuote(_)) => {
                // The lines of an inner one are those of the outer one.
                if quotes == 0 {
                    edits.extend(signs(text, range));
                }
                quotes += 1;
            }
            Event::End(TagEnd::BlockQuote(_)) => quotes = quotes.saturating_sub(1),
            Event::Start(Tag::Link { link_type, id, .. } | Tag::Image { link_type, id, .. }) => {
                if matches!(link_type, LinkType::Reference | LinkType::Collapsed | LinkType::Shortcut) {
                    used.insert(id.to_lowercase());
                }
                if link_type == LinkType::Reference {
                    used.insert(label_at(text, range.start).to_lowercase());
                }
            }
            Event::Start(_) | Event::End(_) => {}
            _ => seen.push(range),
        }
    }
    let definitions = definitions(text, &seen, &events);
    let is_kept = |at: &usize| {
        let label = label_at(text, *at);
        let definition = events.reference_definitions().get(label).filter(|definition| definition.span.contains(at));
        let is_address = definition.is_some_and(|definition| is_address(&vault.shown(&definition.dest)));
        is_address && used.contains(&label.to_lowercase()) && !label.starts_with('^')
    };
    let (kept, lost): (Vec<usize>, Vec<usize>) = definitions.into_iter().partition(is_kept);
    let none_is_kept = all && !lost.is_empty();
    edits.extend(lost.into_iter().map(Edit::escape));
    edits.extend(kept.into_iter().filter(|_| none_is_kept).map(Edit::escape));
    edits
}

/// Where definitions of links begin: those that the parser knows, and lines like them that it passed over.
fn definitions(text: &str, seen: &[Range<usize>], events: &OffsetIter<'_>) -> Vec<usize> {
    let known = events.reference_definitions().iter().map(|(_, definition)| definition.span.start);
    let mut found: Vec<usize> = known.filter(|at| text[*at..].starts_with('[')).collect();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let (start, end) = (at, at + line.len());
        at = end;
        let begins = start + prefix_of(line).len();
        if !text[begins..end].starts_with('[') || !text[begins..end].contains("]:") {
            continue;
        }
        let next = seen.partition_point(|range| range.end <= begins);
        if seen.get(next).is_none_or(|range| range.start >= end) {
            found.push(begins);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// The text between the bracket at `at`, or behind the exclamation mark there, and the next one that closes.
fn label_at(text: &str, at: usize) -> &str {
    let rest = text[at..].trim_start_matches('!').trim_start_matches('[');
    rest.split(']').next().unwrap_or_default()
}

fn is_address(target: &str) -> bool {
    target.contains("://") || ["www.", "mailto:", "tg:"].iter().any(|start| target.starts_with(start))
}

/// The lines of a quote whose last `>` is a sign: a comparison, or the prompt of an interpreter.
fn signs(text: &str, quote: Range<usize>) -> Vec<Edit> {
    let mut edits = Vec::new();
    let mut at = quote.start;
    for line in text[quote].split_inclusive('\n') {
        let (start, prefix) = (line.len() - line.trim_start().len(), prefix_of(line));
        let is_prompt = line[start..].starts_with(">>>");
        let sign = if is_prompt { Some(start) } else { prefix.rfind('>').filter(|last| is_sign(&line[last + 1..])) };
        edits.extend(sign.map(|sign| Edit::escape(at + sign)));
        at += line.len();
    }
    edits
}

/// What stands before the text of a line of a quote.
fn prefix_of(line: &str) -> &str {
    &line[..line.len() - line.trim_start_matches([' ', '\t', '>']).len()]
}

/// Whether a `>` before `rest` means "more than": a number follows at once, or a currency or an equals sign.
fn is_sign(rest: &str) -> bool {
    let number = rest.trim_start_matches(['-', '+', '.']);
    let has_few_signs = rest.len() - number.len() <= 2;
    (has_few_signs && number.starts_with(|c: char| c.is_ascii_digit()))
        || rest.starts_with(['=', '$', '€', '£', '¥', '₹'])
}
