//! Which marks are emphasis and which are characters: `2*3*4`, `*.tmp` and `5~7` mean what they say.

use super::protect::NOTHING;

/// Where a pair of marks stands.
pub(super) struct Marks<'a> {
    /// The mark: `*`, `**`, `_`, `__`, `~` or `~~`.
    pub(super) mark: &'a str,
    /// What stands before the first.
    pub(super) before: Option<char>,
    /// What stands between the two.
    pub(super) inner: &'a str,
    /// What stands behind the second.
    pub(super) after: Option<char>,
}

impl<'a> Marks<'a> {
    /// The marks of the emphasis at `start..end`, each `length` long; none if there are no such marks.
    pub(super) fn at(text: &'a str, start: usize, end: usize, length: usize) -> Option<Self> {
        let (mark, inner) = (text.get(start..start + length)?, text.get(start + length..end.checked_sub(length)?)?);
        let is_mark = mark.chars().all(|c| matches!(c, '*' | '_' | '~')) && text[..end].ends_with(mark);
        is_mark.then(|| Self {
            mark,
            before: text[..start].chars().next_back(),
            inner,
            after: text[end..].chars().next(),
        })
    }

    /// Whether a reader takes them for emphasis.
    pub(super) fn are_emphasis(&self) -> bool {
        let [before, after] = [self.before, self.after].map(|c| c.is_some_and(is_word));
        match self.mark {
            "~~" => true,
            "~" => false,
            // Within a word or a formula.
            "**" | "__" => !(before && after),
            _ => !before && !after && !self.is_pattern() && !self.is_quoted(),
        }
    }

    /// Part of a path, a pattern or an expression.
    fn is_pattern(&self) -> bool {
        let is_joint = |c: char| matches!(c, '/' | '\\' | '=' | '&' | '@' | '#' | '$');
        let opens = |c: char| is_joint(c) || matches!(c, '.' | ',' | ';' | ')' | ']' | '}');
        self.before.is_some_and(|c| is_joint(c) || c == '.')
            || self.after.is_some_and(|c| is_joint(c) || (c == '(' && self.mark == "_"))
            || (self.inner.starts_with(opens) && !self.inner.starts_with(".."))
            || self.inner.ends_with(['/', '\\'])
    }

    /// A string in code or JSON.
    fn is_quoted(&self) -> bool {
        (self.before, self.after) == (Some('"'), Some('"'))
    }
}

/// `text` with a letter that stands for nothing between bold marks and what they enclose, in languages without spaces:
/// a parser takes a mark between punctuation and a letter for text, and joins the wrong ones.
pub(super) fn spaced(text: String) -> String {
    if !text.contains("**") || !text.contains(is_unspaced) {
        return text;
    }
    let mut spaced = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while let Some((start, end)) = bold(rest) {
            spaced.push_str(&rest[..start + 2]);
            spaced.push(NOTHING);
            spaced.push_str(&rest[start + 2..end - 2]);
            spaced.push(NOTHING);
            spaced.push_str("**");
            rest = &rest[end..];
        }
        spaced.push_str(rest);
    }
    spaced
}

/// Where the first bold text of a line begins and ends with both marks, in bytes, if there are characters of a script
/// without spaces in it or beside it.
fn bold(line: &str) -> Option<(usize, usize)> {
    let mut from = 0;
    while let Some(start) = line[from..].find("**").map(|at| from + at) {
        let length = line[start + 2..].find("**")?;
        let end = start + 2 + length + 2;
        let inner = &line[start + 2..end - 2];
        let around = [line[..start].chars().next_back(), line[end..].chars().next()];
        let is_tight = !inner.is_empty() && inner.trim() == inner && !inner.contains('*');
        let is_mark = !around.into_iter().flatten().any(|c| matches!(c, '*' | '\\')) && !inner.ends_with('\\');
        if is_tight && is_mark && around.into_iter().flatten().chain(inner.chars()).any(is_unspaced) {
            return Some((start, end));
        }
        from = if is_tight { end } else { start + 2 };
    }
    None
}

/// A letter or digit of a script that puts spaces between words.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() && !is_unspaced(c)
}

/// Of a script without spaces between words, or its punctuation.
fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7ff}' | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe4f}' | '\u{ff00}'..='\u{ffef}'
        | '\u{20000}'..='\u{3ffff}')
}
