//! Markdown to text with entities.

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use super::{Entity, Part};

/// Renders Markdown to one text of any length.
pub(super) fn render(markdown: &str) -> Part {
    let mut writer = Writer::default();
    for event in Parser::new_ext(markdown, Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TABLES) {
        writer.event(event);
    }
    writer.finish()
}

#[derive(Default)]
struct Writer {
    text: String,
    /// Length of `text`, in UTF-16 code units.
    length: usize,
    entities: Vec<Entity>,
    /// Formatting that is open.
    open: Vec<Entity>,
    /// The next number of each list that is open; `None` for bullets.
    lists: Vec<Option<u64>>,
    /// Blank lines wanted before the next text.
    gap: usize,
    cells: usize,
}

impl Writer {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => self.push(&text),
            Event::Code(text) => {
                self.open("code", None, None);
                self.push(&text);
                self.close("code");
            }
            Event::SoftBreak | Event::HardBreak => self.push("\n"),
            Event::Rule => {
                self.want_gap(2);
                self.push("———");
                self.want_gap(2);
            }
            Event::FootnoteReference(name) => self.push(&name),
            Event::TaskListMarker(done) => self.push(if done { "☑ " } else { "☐ " }),
            Event::InlineMath(text) | Event::DisplayMath(text) => self.push(&text),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph if self.lists.is_empty() => self.want_gap(2),
            Tag::Heading { .. } => {
                self.want_gap(2);
                self.open("bold", None, None);
            }
            Tag::BlockQuote(_) => {
                self.want_gap(2);
                self.open("blockquote", None, None);
            }
            Tag::CodeBlock(kind) => {
                self.want_gap(2);
                let language = match kind {
                    CodeBlockKind::Fenced(language) if !language.trim().is_empty() => Some(language.trim().to_owned()),
                    _ => None,
                };
                self.open("pre", None, language);
            }
            Tag::List(first) => {
                self.want_gap(if self.lists.is_empty() { 2 } else { 1 });
                self.lists.push(first);
            }
            Tag::Item => self.start_item(),
            Tag::Table(_) => {
                self.want_gap(2);
                self.open("pre", None, None);
            }
            Tag::TableHead | Tag::TableRow => {
                self.want_gap(1);
                self.cells = 0;
            }
            Tag::TableCell => {
                if self.cells > 0 {
                    self.push(" | ");
                }
                self.cells += 1;
            }
            Tag::Emphasis => self.open("italic", None, None),
            Tag::Strong => self.open("bold", None, None),
            Tag::Strikethrough => self.open("strikethrough", None, None),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => {
                self.open("text_link", Some(dest_url.into_string()), None);
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) => {
                self.close("bold");
                self.want_gap(2);
            }
            TagEnd::BlockQuote(_) => {
                self.close("blockquote");
                self.want_gap(2);
            }
            TagEnd::CodeBlock | TagEnd::Table => {
                self.close("pre");
                self.want_gap(2);
            }
            TagEnd::List(_) => {
                self.lists.pop();
                self.want_gap(if self.lists.is_empty() { 2 } else { 1 });
            }
            TagEnd::Paragraph => self.want_gap(if self.lists.is_empty() { 2 } else { 1 }),
            TagEnd::Item | TagEnd::TableHead | TagEnd::TableRow | TagEnd::HtmlBlock => self.want_gap(1),
            TagEnd::Emphasis => self.close("italic"),
            TagEnd::Strong => self.close("bold"),
            TagEnd::Strikethrough => self.close("strikethrough"),
            TagEnd::Link | TagEnd::Image => self.close("text_link"),
            _ => {}
        }
    }

    fn start_item(&mut self) {
        self.want_gap(1);
        let indent = "  ".repeat(self.lists.len().saturating_sub(1));
        let marker = match self.lists.last_mut() {
            Some(Some(number)) => {
                *number += 1;
                format!("{indent}{}. ", *number - 1)
            }
            _ => format!("{indent}• "),
        };
        self.push(&marker);
    }

    fn want_gap(&mut self, lines: usize) {
        self.gap = self.gap.max(lines);
    }

    fn push(&mut self, text: &str) {
        self.fill_gap();
        self.text.push_str(text);
        self.length += text.encode_utf16().count();
    }

    fn fill_gap(&mut self) {
        let there = self.text.len() - self.text.trim_end_matches('\n').len();
        let wanted = std::mem::take(&mut self.gap).saturating_sub(there);
        if !self.text.is_empty() {
            self.text.extend(std::iter::repeat_n('\n', wanted));
            self.length += wanted;
        }
    }

    fn open(&mut self, kind: &str, url: Option<String>, language: Option<String>) {
        self.fill_gap();
        self.open.push(Entity { kind: kind.to_owned(), offset: self.length, length: 0, url, language });
    }

    fn close(&mut self, kind: &str) {
        let Some(index) = self.open.iter().rposition(|entity| entity.kind == kind) else { return };
        let mut entity = self.open.remove(index);
        // The line break that ends a code block is not part of it.
        let trailing = if kind == "pre" { self.text.len() - self.text.trim_end_matches('\n').len() } else { 0 };
        entity.length = (self.length - entity.offset).saturating_sub(trailing);
        // A link that Telegram would not take is text.
        let takes = entity.url.as_deref().is_none_or(|url| url.contains("://") || url.starts_with("mailto:"));
        // Code may not hold other formatting, and other formatting may not hold code blocks.
        if entity.length > 0 && takes {
            self.entities.push(entity);
        }
    }

    fn finish(mut self) -> Part {
        self.entities.sort_by_key(|entity| (entity.offset, std::cmp::Reverse(entity.length)));
        let code: Vec<(usize, usize)> = self
            .entities
            .iter()
            .filter(|entity| matches!(entity.kind.as_str(), "pre" | "code"))
            .map(|entity| (entity.offset, entity.offset + entity.length))
            .collect();
        let clashes = |entity: &Entity| {
            let is_code = matches!(entity.kind.as_str(), "pre" | "code");
            let end = entity.offset + entity.length;
            !is_code && code.iter().any(|&(from, to)| entity.offset < to && from < end && entity.kind != "blockquote")
        };
        self.entities.retain(|entity| !clashes(entity));
        Part { text: self.text, entities: self.entities }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(markdown: &str) -> (String, Vec<(String, String)>) {
        let part = render(markdown);
        let units: Vec<u16> = part.text.encode_utf16().collect();
        let stretch = |entity: &Entity| {
            let text = String::from_utf16(&units[entity.offset..entity.offset + entity.length]).unwrap();
            (entity.kind.clone(), text)
        };
        (part.text.clone(), part.entities.iter().map(stretch).collect())
    }

    fn pair(kind: &str, text: &str) -> (String, String) {
        (kind.to_owned(), text.to_owned())
    }

    #[test]
    fn inline_formatting_becomes_entities() {
        let (text, entities) = shown("A 👍 **bold**, *soft*, ~~gone~~, `code` and [a link](https://x.org).");
        assert_eq!(text, "A 👍 bold, soft, gone, code and a link.");
        let expected = [
            pair("bold", "bold"),
            pair("italic", "soft"),
            pair("strikethrough", "gone"),
            pair("code", "code"),
            pair("text_link", "a link"),
        ];
        assert_eq!(entities, expected);
    }

    #[test]
    fn blocks_are_set_apart() {
        let (text, entities) = shown("# Title\nOne.\n\n- a\n- b\n  1. c\n\n```rust\nlet x = 1;\n```\n> quoted");
        assert_eq!(text, "Title\n\nOne.\n\n• a\n• b\n  1. c\n\nlet x = 1;\n\nquoted");
        assert_eq!(entities, [pair("bold", "Title"), pair("pre", "let x = 1;"), pair("blockquote", "quoted")]);
        assert_eq!(render("```rust\nx\n```").entities[0].language.as_deref(), Some("rust"));
    }

    #[test]
    fn html_and_odd_links_are_text() {
        let (text, entities) = shown("<b>x</b> & [here](#top)");
        assert_eq!((text.as_str(), entities.len()), ("<b>x</b> & here", 0));
    }

    #[test]
    fn a_table_is_monospaced() {
        let (text, entities) = shown("| a | b |\n| - | - |\n| 1 | 2 |");
        assert_eq!(text, "a | b\n1 | 2");
        assert_eq!(entities, [pair("pre", "a | b\n1 | 2")]);
    }
}
