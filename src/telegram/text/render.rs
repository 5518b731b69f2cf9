//! Markdown to text with entities: every visible character of it, in order; marks only add to it.
//!
//! Entities instead of a `parse_mode`: Telegram then never fails to parse what a model writes.

use std::collections::HashMap;
use std::ops::Range;

use pulldown_cmark::{CodeBlockKind, Event, LinkType, Parser, Tag, TagEnd, TextMergeWithOffset};

use super::emphasis::{self, Marks};
use super::protect::Vault;
use super::table::Table;
use super::writer::Writer;
use super::{Part, address, dialect, prepare};

/// Nested lists are indented by at most this many levels.
const DEEPEST_INDENT: usize = 8;
/// The longest name of a language on the first line of a block of code, in bytes.
const LONGEST_LANGUAGE: usize = 32;

/// Renders Markdown to one text of any length.
pub(super) fn render(markdown: &str) -> Part {
    let markdown = markdown.replace("\r\n", "\n").replace('\r', "\n");
    let (vault, text) = Vault::hide(&markdown);
    let text = prepare::prepare(emphasis::spaced(text), &vault);
    let events = Parser::new_ext(&text, dialect::options()).into_offset_iter();
    let definitions = events.reference_definitions().iter();
    let definitions = definitions.map(|(label, found)| (label.to_lowercase(), found.dest.to_string())).collect();
    let mut renderer = Renderer { source: &text, vault: &vault, definitions, ..Renderer::new(&text, &vault) };
    for (event, range) in TextMergeWithOffset::new(events) {
        renderer.event(event, range);
    }
    renderer.writer.finish()
}

/// A link or a picture that is open.
enum Link {
    /// A link to an address, with its title, and where its label starts, in bytes.
    To { url: String, title: String, label: usize, has_brackets: bool, is_picture: bool },
    /// Brackets that are text.
    Text,
    /// What has been written already.
    Written,
}

/// A link or a picture as the parser sees it.
struct Opening<'t> {
    kind: LinkType,
    url: &'t str,
    title: &'t str,
    /// Of a reference.
    id: &'t str,
}

struct Renderer<'a> {
    source: &'a str,
    vault: &'a Vault<'a>,
    writer: Writer,
    /// The targets of references, by label in lower case.
    definitions: HashMap<String, String>,
    links: Vec<Link>,
    /// Open emphasis: the mark that ends it where it is text.
    emphases: Vec<Option<&'a str>>,
    /// The next number of each open list; `None` for bullets.
    lists: Vec<Option<u64>>,
    is_code: bool,
    /// Where the last event ended in `source`.
    at: usize,
}

impl<'a> Renderer<'a> {
    fn new(source: &'a str, vault: &'a Vault<'a>) -> Self {
        Self {
            source,
            vault,
            writer: Writer::default(),
            definitions: HashMap::new(),
            links: Vec::new(),
            emphases: Vec::new(),
            lists: Vec::new(),
            is_code: false,
            at: 0,
        }
    }

    fn event(&mut self, event: Event<'_>, range: Range<usize>) {
        let at = if let Event::Start(_) = event { range.start } else { range.end };
        match event {
            Event::Start(tag) => self.start(tag, range),
            Event::End(tag) => self.end(tag, range),
            _ if matches!(self.links.last(), Some(Link::Written)) => {}
            Event::Code(text) => self.code(&text),
            Event::SoftBreak | Event::HardBreak => self.writer.push("\n"),
            Event::Rule => {
                self.writer.want_gap(2);
                self.writer.push("———");
                self.writer.want_gap(2);
            }
            Event::TaskListMarker(done) => self.writer.push(if done { "☑ " } else { "☐ " }),
            Event::Html(text) | Event::InlineHtml(text) => self.html(&text),
            Event::Text(text) if self.is_code => self.writer.push(&self.vault.source(&text)),
            Event::Text(text) | Event::FootnoteReference(text) | Event::InlineMath(text) | Event::DisplayMath(text) => {
                self.writer.push_hidden(&text, self.vault)
            }
        }
        self.at = self.at.max(at);
    }

    fn start(&mut self, tag: Tag<'_>, range: Range<usize>) {
        match tag {
            Tag::Paragraph => self.writer.want_gap(if self.lists.is_empty() { 2 } else { 1 }),
            Tag::HtmlBlock => self.writer.want_gap(2),
            Tag::Heading { .. } => self.writer.open_block("bold", None),
            Tag::BlockQuote(_) => self.writer.open_block("blockquote", None),
            Tag::CodeBlock(kind) => self.start_code(&kind),
            Tag::List(first) => {
                self.writer.want_gap(if self.lists.is_empty() { 2 } else { 1 });
                self.lists.push(first);
            }
            Tag::Item => self.start_item(range),
            Tag::Table(_) => self.writer.table = Some(Table::default()),
            Tag::TableHead | Tag::TableRow => self.writer.table.iter_mut().for_each(Table::start_row),
            Tag::TableCell => self.writer.table.iter_mut().for_each(Table::start_cell),
            Tag::Emphasis => self.start_emphasis("italic", range, 1),
            Tag::Strong => self.start_emphasis("bold", range, 2),
            Tag::Strikethrough => {
                let length = if self.source[range.start..].starts_with("~~") { 2 } else { 1 };
                self.start_emphasis("strikethrough", range, length);
            }
            Tag::Link { link_type, dest_url, title, id } | Tag::Image { link_type, dest_url, title, id } => {
                let opening = Opening { kind: link_type, url: &dest_url, title: &title, id: &id };
                let link = self.start_link(&opening, range);
                self.links.push(link);
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd, range: Range<usize>) {
        match tag {
            TagEnd::Paragraph => self.writer.want_gap(if self.lists.is_empty() { 2 } else { 1 }),
            TagEnd::HtmlBlock => self.writer.want_gap(2),
            TagEnd::Heading(_) => self.writer.close_block("bold"),
            TagEnd::BlockQuote(_) => self.writer.close_block("blockquote"),
            TagEnd::CodeBlock => {
                self.is_code = false;
                self.writer.close_block("pre");
            }
            TagEnd::List(_) => {
                self.lists.pop();
                self.writer.want_gap(if self.lists.is_empty() { 2 } else { 1 });
            }
            TagEnd::Item => self.writer.end_item(),
            TagEnd::Table => self.writer.end_table(),
            TagEnd::Emphasis => self.end_emphasis("italic"),
            TagEnd::Strong => self.end_emphasis("bold"),
            TagEnd::Strikethrough => self.end_emphasis("strikethrough"),
            TagEnd::Link | TagEnd::Image => self.end_link(range),
            _ => {}
        }
    }

    fn code(&mut self, text: &str) {
        let text = self.vault.source(text);
        // Code cannot be part of a link, and of the two the link is more useful.
        match self.links.is_empty() {
            true => self.writer.push_as("code", &text),
            false => self.writer.push(&text),
        }
    }

    fn start_code(&mut self, kind: &CodeBlockKind<'_>) {
        self.is_code = true;
        let info =
            if let CodeBlockKind::Fenced(info) = kind { self.vault.source(info).into_owned() } else { String::new() };
        let (language, rest) = language(&info);
        if !rest.is_empty() {
            self.writer.want_gap(2);
            self.writer.push(rest);
        }
        self.writer.open_block("pre", language);
    }

    /// Tags are text, but for the one that breaks a line.
    fn html(&mut self, html: &str) {
        let is_break = html.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("<br"))
            && html[3..].trim_start_matches([' ', '/']).starts_with('>');
        if !is_break {
            self.writer.push(&self.vault.source(html));
            return;
        }
        let rest = html.split_once('>').map_or("", |(_, rest)| rest);
        self.writer.push("\n");
        if !rest.trim().is_empty() {
            self.writer.push(&self.vault.source(rest));
        }
    }

    fn start_item(&mut self, range: Range<usize>) {
        self.writer.want_gap(1);
        let indent = "  ".repeat(self.lists.len().saturating_sub(1).min(DEEPEST_INDENT));
        let Some(Some(number)) = self.lists.last_mut() else {
            return self.writer.push_marker(&format!("{indent}• "));
        };
        // The number as it was written: a reader counts on it.
        let written = self.source[range].trim_start();
        let digits = written.len() - written.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let marker = match written.get(..digits + 1).filter(|_| digits > 0) {
            Some(marker) => marker.to_owned(),
            None => format!("{number}."),
        };
        *number = number.saturating_add(1);
        self.writer.push_marker(&format!("{indent}{marker} "));
    }

    fn start_emphasis(&mut self, kind: &str, range: Range<usize>, length: usize) {
        let marks = Marks::at(self.source, range.start, range.end, length);
        let text = marks.filter(|marks| !marks.are_emphasis()).map(|marks| marks.mark);
        match text {
            Some(mark) => self.writer.push(mark),
            None => self.writer.open(kind, None, None),
        }
        self.emphases.push(text);
    }

    fn end_emphasis(&mut self, kind: &str) {
        match self.emphases.pop().flatten() {
            Some(mark) => self.writer.push(mark),
            None => self.writer.close(kind),
        }
    }

    fn start_link(&mut self, opening: &Opening<'_>, range: Range<usize>) -> Link {
        let &Opening { kind, url, title, id } = opening;
        // Within what was hidden the parser has decoded nothing.
        let url = self.vault.shown(url).replace("&amp;", "&");
        let brackets = self.source[range.clone()].find('[').map_or(range.start, |at| range.start + at + 1);
        let label = self.source[brackets..range.end].split(']').next().unwrap_or_default();
        if kind == LinkType::Inline && !address::is_target(&url) {
            self.writer.push(&self.source[range.start..brackets]);
            self.at = self.at.max(brackets);
            return Link::Text;
        }
        // Two notes beside each other look like one link.
        let first =
            self.definitions.get(&label.to_lowercase()).filter(|_| kind == LinkType::Reference && is_note(label));
        if let Some(first) = first {
            let first = self.vault.shown(first).into_owned();
            self.write_link(&format!("[{label}]"), &first);
            self.write_link(&format!("[{id}]"), &url);
            return Link::Written;
        }
        let has_brackets = is_note(label) && kind != LinkType::Inline && kind != LinkType::Autolink;
        self.writer.open("text_link", Some(url.clone()), None);
        let label = self.writer.target().len();
        if has_brackets {
            self.writer.push("[");
        }
        let is_picture = self.source[range.start..].starts_with('!');
        Link::To { url, title: self.vault.shown(title).into_owned(), label, has_brackets, is_picture }
    }

    fn write_link(&mut self, label: &str, url: &str) {
        self.writer.open("text_link", Some(url.to_owned()), None);
        let start = self.writer.target().len();
        self.writer.push(label);
        self.close_link(url, "", start, true);
    }

    fn end_link(&mut self, range: Range<usize>) {
        match self.links.pop() {
            Some(Link::To { url, title, label, has_brackets, is_picture }) => {
                if has_brackets {
                    self.writer.push("]");
                }
                if self.writer.target()[label..].trim().is_empty() {
                    self.writer.push(&url);
                }
                // Of a link and a picture in it the link is what is pressed.
                let is_within =
                    self.links.iter().any(|outer| matches!(outer, Link::To { url, .. } if address::is_linkable(url)));
                self.close_link(&url, &title, label, is_picture || !is_within);
            }
            Some(Link::Text) => {
                let rest = self.source.get(self.at..range.end).unwrap_or_default();
                self.writer.push_hidden(rest, self.vault);
            }
            Some(Link::Written) | None => {}
        }
    }

    /// Ends a link whose label starts at `label`.
    fn close_link(&mut self, url: &str, title: &str, label: usize, is_alone: bool) {
        self.writer.close("text_link");
        // If the label cannot be a link, the address is added as text, except for an anchor in the text itself.
        let is_pressable = is_alone && self.writer.table.is_none() && address::is_linkable(url);
        let written = address::written(url);
        let shown = &self.writer.target()[label..];
        let is_shown = is_pressable || written.starts_with('#') || shown.contains(&*written);
        let is_said = title.is_empty() || shown.contains(title);
        match (is_shown, is_said) {
            (true, true) => {}
            (true, false) => self.writer.push(&format!(" ({title})")),
            (false, true) => self.writer.push(&format!(" ({written})")),
            (false, false) => self.writer.push(&format!(" ({written}, {title})")),
        }
    }
}

/// The number of a source or a footnote.
fn is_note(label: &str) -> bool {
    let number = label.trim_start_matches('^');
    !label.is_empty() && (label.starts_with('^') || number.chars().all(|c| c.is_ascii_digit()))
}

/// The language named on the first line of a fenced block, and what else is written there.
fn language(info: &str) -> (Option<String>, &str) {
    let info = info.trim();
    let end = info.find([' ', '\t', ',', '{', ':']).unwrap_or(info.len());
    let (name, rest) = info.split_at(end);
    let is_name = !name.is_empty() && name.len() <= LONGEST_LANGUAGE;
    if is_name { (Some(name.to_owned()), rest.trim_start_matches([',', ':']).trim()) } else { (None, info) }
}
