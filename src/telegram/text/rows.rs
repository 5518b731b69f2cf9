//! The rows of a Markdown table as they are written: a parser drops the cells beyond the head.

use std::ops::Range;

use super::edit::Edit;

/// A table of more columns is shown as it was written.
const MAX_COLUMNS: usize = 64;

/// One line of a table: its text with every bar in code escaped, and how many cells it has.
struct Row {
    range: Range<usize>,
    text: String,
    cells: usize,
    is_closed: bool,
}

/// The changes to the table at `range` that give its head as many columns as its widest row has.
pub(super) fn widen(text: &str, range: Range<usize>) -> Vec<Edit> {
    let mut at = range.start;
    let mut rows: Vec<Row> = Vec::new();
    for line in text[range].split_inclusive('\n') {
        let end = at + line.trim_end().len();
        if end > at {
            rows.push(row(&text[at..end], at));
        }
        at += line.len();
    }
    let columns = rows.iter().map(|row| row.cells).max().unwrap_or_default();
    if columns > MAX_COLUMNS {
        let delimiter = rows.get(1).and_then(|row| Some(row.range.start + row.text.find(['|', '-', ':'])?));
        return delimiter.map(|at| Edit { range: at..at, with: "\\".to_owned() }).into_iter().collect();
    }
    let mut edits = Vec::new();
    for (index, mut row) in rows.into_iter().enumerate() {
        let missing = if index < 2 { columns - row.cells } else { 0 };
        if missing > 0 {
            row.text.push_str(if row.is_closed { "" } else { " |" });
            row.text.push_str(&if index == 1 { "---|" } else { " |" }.repeat(missing));
        }
        if row.text != text[row.range.clone()] {
            edits.push(Edit { range: row.range, with: row.text });
        }
    }
    edits
}

fn row(line: &str, at: usize) -> Row {
    let begins = line.len() - line.trim_start_matches([' ', '\t', '>']).len();
    let (mut text, mut cells, mut is_closed) = (line[..begins].to_owned(), 0, false);
    let mut rest = &line[begins..];
    if let Some(first) = rest.strip_prefix('|') {
        text.push('|');
        rest = first;
    }
    let mut is_open = false;
    while let Some(c) = rest.chars().next() {
        is_closed = c == '|';
        let taken = match c {
            '\\' => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            '`' => code(rest),
            _ => c.len_utf8(),
        };
        match c {
            '|' => (cells, is_open) = (cells + 1, false),
            _ => is_open = true,
        }
        match c {
            '`' => text.push_str(&escaped(&rest[..taken])),
            _ => text.push_str(&rest[..taken]),
        }
        rest = &rest[taken..];
    }
    cells += usize::from(is_open);
    Row { range: at..at + line.len(), text, cells, is_closed }
}

/// How long the code is that `rest` begins with, or only its backticks when nothing closes them.
fn code(rest: &str) -> usize {
    let fence = rest.len() - rest.trim_start_matches('`').len();
    let mut at = fence;
    while let Some(next) = rest[at..].find('`') {
        let run = rest[at + next..].len() - rest[at + next..].trim_start_matches('`').len();
        at += next + run;
        if run == fence {
            return at;
        }
    }
    fence
}

/// Code with its bars escaped, which in a table is how they are written.
fn escaped(code: &str) -> String {
    let mut text = String::with_capacity(code.len());
    for c in code.chars() {
        if c == '|' && !text.ends_with('\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}
