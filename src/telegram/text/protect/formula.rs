//! Formulas in LaTeX: what they consist of would be taken for escapes and emphasis.

use super::{Found, Kind};

/// The longest formula, in bytes: a sign that opens one may be no more than that sign.
const LONGEST: usize = 4_000;

/// `\(…\)`, `\[…\]` and `\begin{…}…\end{…}`.
pub(super) fn backslash(rest: &str) -> Option<Found> {
    if let Some(inner) = rest.strip_prefix(r"\(") {
        return between(inner, r"\)");
    }
    if let Some(inner) = rest.strip_prefix(r"\[") {
        return between(inner, r"\]");
    }
    let name = rest.strip_prefix(r"\begin{")?;
    let name = &name[..name.find('}').filter(|end| *end > 0 && *end <= 32)?];
    let end = format!(r"\end{{{name}}}");
    let length = window(rest).find(&end)? + end.len();
    is_formula(&rest[..length]).then(|| found(&rest[..length], 0, 0))
}

/// `$$…$$`, and `$…$` where it cannot be money or the name of a variable.
pub(super) fn dollar(rest: &str, before: Option<char>) -> Option<Found> {
    if let Some(inner) = rest.strip_prefix("$$") {
        return between(inner, "$$");
    }
    if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '$' | '\\')) {
        return None;
    }
    let inner = &window(rest)[1..];
    let length = inner.find('$')?;
    let after = inner[length + 1..].chars().next();
    let formula = &inner[..length];
    // `${A}_${B}` and `$(a)_$(b)` are for a shell.
    let goes_on = after.is_some_and(|c| c.is_alphanumeric() || matches!(c, '{' | '('));
    let is_set = formula.trim() == formula && !formula.contains('\n') && !goes_on;
    let is_letter = formula.len() == 1 && formula.starts_with(|c: char| c.is_ascii_alphabetic());
    let has_signs = formula.contains(['\\', '^', '_', '{', '=']);
    (is_set && (is_letter || has_signs) && is_formula(formula)).then(|| found(formula, 1, 1))
}

/// A formula up to `close`, after an opening of two bytes.
fn between(inner: &str, close: &str) -> Option<Found> {
    let formula = &inner[..window(inner).find(close)?];
    let is_letter = formula.trim().len() == 1;
    let has_signs = formula.contains(|c: char| c.is_ascii_digit() || "\\^_{=+-*/<>|".contains(c));
    ((is_letter || has_signs) && is_formula(formula)).then(|| found(formula, 2, close.len()))
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

/// Whether `inner` can be a formula: not empty, within one paragraph, and with no code in it.
fn is_formula(inner: &str) -> bool {
    let is_blank = |line: &str| line.trim().is_empty();
    !is_blank(inner) && !inner.contains(['`', '~']) && !inner.trim().lines().any(is_blank)
}
