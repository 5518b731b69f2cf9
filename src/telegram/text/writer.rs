//! Text with its formatting as it is put together: gaps between blocks, open formatting, and cells of a table.

use std::cmp::Reverse;

use super::address;
use super::protect::{Kind, Vault};
use super::table::Table;
use super::{Entity, Part};

#[derive(Default)]
pub(super) struct Writer {
    text: String,
    /// Length of `text`, in UTF-16 code units.
    length: usize,
    entities: Vec<Entity>,
    /// Formatting that is open.
    open: Vec<Entity>,
    /// Line breaks needed before the next text.
    gap: usize,
    /// Whether only the marker of the current list item has been written.
    at_marker: bool,
    /// The open table; text goes to its cells.
    pub(super) table: Option<Table>,
}

impl Writer {
    /// Where text goes: the message, or a cell of its table.
    pub(super) fn target(&self) -> &str {
        self.table.as_ref().map_or(&self.text, Table::cell)
    }

    pub(super) fn want_gap(&mut self, lines: usize) {
        // An item's first text goes next to its marker.
        if !self.at_marker {
            self.gap = self.gap.max(lines);
        }
    }

    pub(super) fn push(&mut self, text: &str) {
        if let Some(table) = &mut self.table {
            table.push(text);
            return;
        }
        self.fill_gap();
        self.at_marker = false;
        self.text.push_str(text);
        self.length += text.encode_utf16().count();
    }

    /// Adds text of the answer, with what is hidden in it.
    pub(super) fn push_hidden(&mut self, text: &str, vault: &Vault<'_>) {
        let mut from = 0;
        for (at, c) in text.char_indices() {
            let Some(hidden) = vault.get(c) else { continue };
            self.push_some(&text[from..at]);
            from = at + c.len_utf8();
            // Code cannot be part of a link.
            let is_link = self.open.iter().any(|entity| entity.kind == "text_link");
            match hidden.kind {
                _ if is_link => self.push(hidden.shown),
                Kind::Text => self.push_some(hidden.shown),
                Kind::Code => self.push_as("code", hidden.shown),
                Kind::Block => self.push_as("pre", hidden.shown),
            }
        }
        self.push_some(&text[from..]);
    }

    fn push_some(&mut self, text: &str) {
        if !text.is_empty() {
            self.push(text);
        }
    }

    /// Adds text in one kind of formatting.
    pub(super) fn push_as(&mut self, kind: &str, text: &str) {
        self.open(kind, None, None);
        self.push(text);
        self.close(kind);
    }

    /// Adds the marker of a list item; what comes next stands beside it.
    pub(super) fn push_marker(&mut self, marker: &str) {
        self.push(marker);
        self.at_marker = true;
    }

    /// Ends a list item, whether or not anything stands beside its marker.
    pub(super) fn end_item(&mut self) {
        self.at_marker = false;
        self.want_gap(1);
    }

    /// Writes the open table.
    pub(super) fn end_table(&mut self) {
        let Some(table) = self.table.take() else { return };
        if table.is_narrow() {
            self.open_block("pre", None);
            self.push(&table.columns());
            self.close_block("pre");
        } else {
            self.want_gap(2);
            self.push(&table.lines());
            self.want_gap(2);
        }
    }

    fn fill_gap(&mut self) {
        let there = self.text.len() - self.text.trim_end_matches('\n').len();
        let wanted = std::mem::take(&mut self.gap).saturating_sub(there);
        if !self.text.is_empty() {
            self.text.extend(std::iter::repeat_n('\n', wanted));
            self.length += wanted;
        }
    }

    pub(super) fn open_block(&mut self, kind: &str, language: Option<String>) {
        self.want_gap(2);
        self.open(kind, None, language);
    }

    pub(super) fn close_block(&mut self, kind: &str) {
        self.close(kind);
        self.want_gap(2);
    }

    pub(super) fn open(&mut self, kind: &str, url: Option<String>, language: Option<String>) {
        // A cell is code, like all of its table, so nothing in it can be formatted.
        if self.table.is_none() {
            self.fill_gap();
            self.open.push(Entity { kind: kind.to_owned(), offset: self.length, length: 0, url, language });
        }
    }

    pub(super) fn close(&mut self, kind: &str) {
        if self.table.is_some() {
            return;
        }
        let Some(index) = self.open.iter().rposition(|entity| entity.kind == kind) else { return };
        let mut entity = self.open.remove(index);
        // The line break that ends a code block is not part of it.
        let trailing = if kind == "pre" { self.text.len() - self.text.trim_end_matches('\n').len() } else { 0 };
        entity.length = (self.length - entity.offset).saturating_sub(trailing);
        // A link that cannot be one takes nothing from those within it.
        let is_shown = |outer: &Entity| outer.url.as_deref().is_none_or(address::is_linkable);
        let is_nested = self.open.iter().any(|outer| outer.kind == kind && is_shown(outer));
        if entity.length > 0 && !is_nested && entity.url.as_deref().is_none_or(address::is_linkable) {
            self.entities.push(entity);
        }
    }

    pub(super) fn finish(self) -> Part {
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
