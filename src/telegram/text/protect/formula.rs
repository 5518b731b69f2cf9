//! Formulas in LaTeX: what they consist of would be taken for escapes and emphasis.

use super::{Found, Kind};

/// The longest formula, in bytes: a sign that opens one may be no more than that sign.
const LONGEST: usize = 4_000;
/// The longest name of an environment, in bytes.
const LONGEST_NAME: usize = 32;

/// `\(…\)`, `\[…\]` and `\begin{…}…\end{…}`. Without a sign of a formula in them the brackets are escaped text, and so
/// they are right behind a letter: `f\(x\)`.
pub(super) fn backslash(rest: &str, before: Option<char>) -> Option<Found> {
    let is_behind = before.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '/' | '\\'));
    if let Some(inner) = rest.strip_prefix(r"\(").filter(|_| !is_behind) {
        return between(inner, r"\)", |formula| is_letter(formula) || has_signs(formula));
    }
    if let Some(inner) = rest.strip_prefix(r"\[").filter(|_| !is_behind) {
        return between(inner, r"\]", has_signs);
    }
    let name = rest.strip_prefix(r"\begin{")?;
    let name = &name[..name[..name.floor_char_boundary(LONGEST_NAME)].find('}').filter(|end| *end > 0)?];
    let end = format!(r"\end{{{name}}}");
    let length = window(rest).find(&end)? + end.len();
    is_formula(&rest[..length]).then(|| found(&rest[..length], 0, 0))
}

/// `$$…$$`, and `$…$` where it cannot be money, a regular expression or the name of a variable.
pub(super) fn dollar(rest: &str, before: Option<char>) -> Option<Found> {
    if let Some(inner) = rest.strip_prefix("$$") {
        return between(inner, "$$", |formula| is_letter(formula) || has_signs(formula));
    }
    if before.is_some_and(|c| c.is_alphanumeric() || "$\\+*?)]}".contains(c)) {
        return None;
    }
    let inner = &window(rest)[1..];
    let formula = &inner[..inner.find('$')?];
    let after = inner[formula.len() + 1..].chars().next();
    let goes_on = after.is_some_and(|c| c.is_alphanumeric() || "{(_".contains(c));
    let begins = formula.starts_with(|c: char| c.is_alphanumeric() || "\\([-+".contains(c));
    let is_set = formula.trim() == formula && !formula.contains('\n') && begins && !goes_on;
    (is_set && (is_letter(formula) || has_signs(formula)) && is_formula(formula)).then(|| found(formula, 1, 1))
}

/// A formula up to `close`, after an opening of two bytes.
fn between(inner: &str, close: &str, looks_so: impl Fn(&str) -> bool) -> Option<Found> {
    let formula = &inner[..window(inner).find(close)?];
    (looks_so(formula.trim()) && is_formula(formula)).then(|| found(formula, 2, close.len()))
}

fn is_letter(formula: &str) -> bool {
    formula.len() == 1 && formula.starts_with(|c: char| c.is_ascii_alphabetic())
}

fn has_signs(formula: &str) -> bool {
    formula.contains(['\\', '^', '_', '{', '='])
}

fn found(formula: &str, open: usize, close: usize) -> Found {
    let from = open + formula.len() - formula.trim_start().len();
    let shown = from..open + formula.trim_end().len();
    let kind = if formula.trim().contains('\n') { Kind::Block } else { Kind::Code };
    Found { length: open + formula.len() + close, shown, kind }
}

/// As much of `text` as a formula can be long.
fn window(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST)]
}

/// Whether `inner` can be a formula: not empty, within one paragraph, and with no code and no quote in it.
fn is_formula(inner: &str) -> bool {
    let is_other = |line: &str| line.is_empty() || line.starts_with('>') || line.starts_with("~~~");
    !inner.trim().is_empty() && !inner.contains('`') && !inner.trim().lines().map(str::trim).any(is_other)
}
