//! Markdown to text with entities.
//!
//! Entities instead of a `parse_mode`: Telegram then never fails to parse what a model writes.

use std::cmp::Reverse;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use url::Url;

use super::table::Table;
use super::{Entity, Part};

/// Renders Markdown to one text of any length.
pub(super) fn render(markdown: &str) -> Part {
    let markdown = markdown.replace("\r\n", "\n").replace('\r', "\n");
    let mut writer = Writer::default();
    for event in Parser::new_ext(&markdown, Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TABLES) {
        writer.event(event);
    }
    writer.finish()
}

/// Nested lists are indented by at most this many levels.
const DEEPEST_INDENT: usize = 8;

#[derive(Default)]
struct Writer {
    text: String,
    /// Length of `text`, in UTF-16 code units.
    length: usize,
    entities: Vec<Entity>,
    /// Formatting that is open.
    open: Vec<Entity>,
    /// Open links: their targets, and where their labels start, in bytes.
    links: Vec<(String, usize)>,
    /// The next number of each open list; `None` for bullets.
    lists: Vec<Option<u64>>,
    /// Line breaks needed before the next text.
    gap: usize,
    /// Whether only the marker of the current list item has been written.
    at_marker: bool,
    /// The open table; text goes to its cells.
    table: Option<Table>,
}

impl Writer {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Code(text) => {
                // Code cannot be part of a link, and of the two the link is more useful.
                if self.links.is_empty() {
                    self.open("code", None, None);
                }
                self.push(&text);
                self.close("code");
            }
            Event::SoftBreak | Event::HardBreak => self.push("\n"),
            Event::Rule => {
                self.want_gap(2);
                self.push("———");
                self.want_gap(2);
            }
            Event::TaskListMarker(done) => self.push(if done { "☑ " } else { "☐ " }),
            Event::Text(text)
            | Event::Html(text)
            | Event::InlineHtml(text)
            | Event::FootnoteReference(text)
            | Event::InlineMath(text)
            | Event::DisplayMath(text) => self.push(&text),
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph => self.want_gap(if self.lists.is_empty() { 2 } else { 1 }),
            Tag::HtmlBlock => self.want_gap(2),
            Tag::Heading { .. } => self.open_block("bold", None),
            Tag::BlockQuote(_) => self.open_block("blockquote", None),
            Tag::CodeBlock(CodeBlockKind::Fenced(info)) => self.open_block("pre", language(&info)),
            Tag::CodeBlock(CodeBlockKind::Indented) => self.open_block("pre", None),
            Tag::List(first) => {
                self.want_gap(if self.lists.is_empty() { 2 } else { 1 });
                self.lists.push(first);
            }
            Tag::Item => self.start_item(),
            Tag::Table(_) => self.table = Some(Table::default()),
            Tag::TableHead | Tag::TableRow => self.table.iter_mut().for_each(Table::start_row),
            Tag::TableCell => self.table.iter_mut().for_each(Table::start_cell),
            Tag::Emphasis => self.open("italic", None, None),
            Tag::Strong => self.open("bold", None, None),
            Tag::Strikethrough => self.open("strikethrough", None, None),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => self.start_link(dest_url.into_string()),
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph => self.want_gap(if self.lists.is_empty() { 2 } else { 1 }),
            TagEnd::HtmlBlock => self.want_gap(2),
            TagEnd::Heading(_) => self.close_block("bold"),
            TagEnd::BlockQuote(_) => self.close_block("blockquote"),
            TagEnd::CodeBlock => self.close_block("pre"),
            TagEnd::List(_) => {
                self.lists.pop();
                self.want_gap(if self.lists.is_empty() { 2 } else { 1 });
            }
            TagEnd::Item => {
                self.at_marker = false;
                self.want_gap(1);
            }
            TagEnd::Table => self.end_table(),
            TagEnd::Emphasis => self.close("italic"),
            TagEnd::Strong => self.close("bold"),
            TagEnd::Strikethrough => self.close("strikethrough"),
            TagEnd::Link | TagEnd::Image => self.end_link(),
            _ => {}
        }
    }

    fn start_item(&mut self) {
        self.want_gap(1);
        let indent = "  ".repeat(self.lists.len().saturating_sub(1).min(DEEPEST_INDENT));
        let marker = match self.lists.last_mut() {
            Some(Some(number)) => {
                let marker = format!("{indent}{number}. ");
                *number = number.saturating_add(1);
                marker
            }
            _ => format!("{indent}• "),
        };
        self.push(&marker);
        self.at_marker = true;
    }

    fn end_table(&mut self) {
        let Some(table) = self.table.take() else { return };
        self.open_block("pre", None);
        self.push(&table.to_string());
        self.close_block("pre");
    }

    fn start_link(&mut self, url: String) {
        self.open("text_link", Some(url.clone()), None);
        let label = self.target().len();
        self.links.push((url, label));
    }

    fn end_link(&mut self) {
        let Some((url, start)) = self.links.pop() else { return };
        if self.target()[start..].trim().is_empty() {
            self.push(&url);
        }
        self.close("text_link");
        // If the label cannot be a link, the address is added as text, except for an anchor in the text itself.
        let address = url.strip_prefix("mailto:").unwrap_or(&url);
        let is_pressable = self.table.is_none() && is_linkable(&url);
        if !is_pressable && !address.starts_with('#') && !self.target()[start..].contains(address) {
            self.push(&format!(" ({address})"));
        }
    }

    /// Where text goes: the message, or a cell of its table.
    fn target(&self) -> &str {
        self.table.as_ref().map_or(&self.text, Table::cell)
    }

    fn want_gap(&mut self, lines: usize) {
        // An item's first text goes next to its marker.
        if !self.at_marker {
            self.gap = self.gap.max(lines);
        }
    }

    fn push(&mut self, text: &str) {
        if let Some(table) = &mut self.table {
            table.push(text);
            return;
        }
        self.fill_gap();
        self.at_marker = false;
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

    fn open_block(&mut self, kind: &str, language: Option<String>) {
        self.want_gap(2);
        self.open(kind, None, language);
    }

    fn close_block(&mut self, kind: &str) {
        self.close(kind);
        self.want_gap(2);
    }

    fn open(&mut self, kind: &str, url: Option<String>, language: Option<String>) {
        // A cell is code, like all of its table, so nothing in it can be formatted.
        if self.table.is_none() {
            self.fill_gap();
            self.open.push(Entity { kind: kind.to_owned(), offset: self.length, length: 0, url, language });
        }
    }

    fn close(&mut self, kind: &str) {
        if self.table.is_some() {
            return;
        }
        let Some(index) = self.open.iter().rposition(|entity| entity.kind == kind) else { return };
        let mut entity = self.open.remove(index);
        // The line break that ends a code block is not part of it.
        let trailing = if kind == "pre" { self.text.len() - self.text.trim_end_matches('\n').len() } else { 0 };
        entity.length = (self.length - entity.offset).saturating_sub(trailing);
        let is_nested = self.open.iter().any(|outer| outer.kind == kind);
        if entity.length > 0 && !is_nested && entity.url.as_deref().is_none_or(is_linkable) {
            self.entities.push(entity);
        }
    }

    fn finish(self) -> Part {
        let is_code = |entity: &Entity| matches!(entity.kind.as_str(), "pre" | "code");
        let mut code: Vec<(usize, usize)> =
            self.entities.iter().filter(|entity| is_code(entity)).map(Entity::range).collect();
        code.sort_unstable();
        let is_split = |entity: &Entity| matches!(entity.kind.as_str(), "bold" | "italic" | "strikethrough");
        let mut entities: Vec<Entity> = self
            .entities
            .into_iter()
            .flat_map(|entity| if is_split(&entity) { around(&entity, &code) } else { vec![entity] })
            .collect();
        entities.sort_by_key(|entity| (entity.offset, Reverse(entity.length)));
        Part { text: self.text, entities }
    }
}

/// The pieces of `entity` outside `code`, which is sorted: code cannot be part of other formatting.
fn around(entity: &Entity, code: &[(usize, usize)]) -> Vec<Entity> {
    let (mut start, end) = entity.range();
    let first = code.partition_point(|(_, to)| *to <= start);
    let inside = code[first..].iter().take_while(|(from, _)| *from < end);
    let mut pieces = Vec::new();
    for (from, to) in inside.chain([&(end, end)]) {
        if *from > start {
            pieces.push(Entity { offset: start, length: from - start, ..entity.clone() });
        }
        start = *to;
    }
    pieces
}

/// The language named on the first line of a fenced block.
fn language(info: &str) -> Option<String> {
    let name = info.split([' ', '\t', ',', '{']).next().unwrap_or_default();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Whether Telegram accepts `url` as a link target.
fn is_linkable(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https" | "tg"))
}
