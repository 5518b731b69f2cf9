//! Tables as columns of monospaced text, or as lines where they are too wide for a phone: Telegram's messages have no
//! others.

use unicode_width::UnicodeWidthStr;

/// The widest table that a phone shows without breaking its lines, in columns of monospaced text.
const WIDEST: usize = 46;
const BETWEEN: &str = " | ";

/// The cells of a table.
#[derive(Default)]
pub(super) struct Table {
    /// The first row is the head.
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn start_row(&mut self) {
        self.rows.push(Vec::new());
    }

    pub(super) fn start_cell(&mut self) {
        if let Some(row) = self.rows.last_mut() {
            row.push(String::new());
        }
    }

    /// Adds to the last cell.
    pub(super) fn push(&mut self, text: &str) {
        if let Some(cell) = self.rows.last_mut().and_then(|row| row.last_mut()) {
            cell.push_str(&text.replace('\n', " "));
        }
    }

    /// The text of the last cell so far.
    pub(super) fn cell(&self) -> &str {
        self.rows.last().and_then(|row| row.last()).map_or("", String::as_str)
    }

    /// Whether a phone shows it as columns.
    pub(super) fn is_narrow(&self) -> bool {
        let widths = self.widths();
        widths.iter().sum::<usize>() + BETWEEN.len() * widths.len().saturating_sub(1) <= WIDEST
    }

    /// The width of each column, as it is displayed.
    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.width()).max().unwrap_or(0)
        };
        (0..columns).map(width).collect()
    }

    /// The rows as lines of aligned columns.
    pub(super) fn columns(&self) -> String {
        let widths = self.widths();
        let mut lines = Vec::with_capacity(self.rows.len() + 1);
        for (index, row) in self.rows.iter().enumerate() {
            let pad =
                |(cell, width): (&String, &usize)| format!("{cell}{}", " ".repeat(width.saturating_sub(cell.width())));
            let cells: Vec<String> = row.iter().zip(&widths).map(pad).collect();
            lines.push(cells.join(BETWEEN).trim_end().to_owned());
            if index == 0 {
                let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                lines.push(rules.join("-|-"));
            }
        }
        lines.join("\n")
    }

    /// The rows as paragraphs with a line for each cell, and the head before them if a column has nothing but its name.
    pub(super) fn lines(&self) -> String {
        let Some((head, rows)) = self.rows.split_first() else { return String::new() };
        let paragraph = |row: &Vec<String>| {
            let cells = row.iter().enumerate().filter(|(_, cell)| !cell.trim().is_empty());
            let line = |(column, cell): (usize, &String)| match head.get(column).map(|name| name.trim()) {
                None | Some("") => cell.clone(),
                Some(name) => format!("{name}: {cell}"),
            };
            cells.map(line).collect::<Vec<_>>().join("\n")
        };
        let is_empty =
            |column| rows.iter().all(|row| row.get(column).is_none_or(|cell: &String| cell.trim().is_empty()));
        let has_bare_name = head.iter().enumerate().any(|(column, name)| !name.trim().is_empty() && is_empty(column));
        let names = has_bare_name.then(|| head.join(BETWEEN));
        let paragraphs = rows.iter().map(paragraph).filter(|paragraph| !paragraph.is_empty());
        names.into_iter().chain(paragraphs).collect::<Vec<_>>().join("\n\n")
    }
}
