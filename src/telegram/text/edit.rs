//! Changes to Markdown at positions that a parser has found.

use std::ops::Range;

/// One change: `with` takes the place of a range.
pub(super) struct Edit {
    pub(super) range: Range<usize>,
    pub(super) with: String,
}

impl Edit {
    /// What stands at `at` becomes text.
    pub(super) fn escape(at: usize) -> Self {
        Self { range: at..at, with: "\\".to_owned() }
    }
}

/// `text` with the edits that `look` asks for; of two that overlap, the first.
pub(super) fn changed(text: String, look: impl FnOnce(&str) -> Vec<Edit>) -> String {
    let mut edits = look(&text);
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let (mut edited, mut at) = (String::with_capacity(text.len()), 0);
    for edit in edits {
        if edit.range.start >= at {
            edited.push_str(&text[at..edit.range.start]);
            edited.push_str(&edit.with);
            at = edit.range.end;
        }
    }
    edited.push_str(&text[at..]);
    edited
}
