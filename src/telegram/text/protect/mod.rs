//! Text whose marks are not Markdown: addresses, paths, names of code and formulas. Each is hidden from the parser behind
//! one character of a private use area, and comes back as it was written.

mod formula;
mod literal;

use std::borrow::Cow;

/// Characters that stand for hidden text: of a private use area, so that the parser takes them for letters.
const FIRST: u32 = 0xF_0000;
const LAST: u32 = 0xF_FFFD;
/// Stands for nothing: a letter for the parser, beside a mark that it would not take for one otherwise.
pub(super) const NOTHING: char = '\u{FFFFD}';
static HIDDEN_NOTHING: Hidden<'static> = Hidden { source: "", shown: "", kind: Kind::Text };

/// How hidden text is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// As text.
    Text,
    /// As code: a formula within a line.
    Code,
    /// As a block of code: a formula of its own.
    Block,
}

/// One piece of hidden text.
#[derive(Debug)]
pub(super) struct Hidden<'a> {
    /// As it was written.
    source: &'a str,
    /// What of it is shown.
    pub(super) shown: &'a str,
    pub(super) kind: Kind,
}

/// The hidden text of an answer.
#[derive(Debug, Default)]
pub(super) struct Vault<'a> {
    hidden: Vec<Hidden<'a>>,
}

/// A piece of text as it is recognized: how many bytes it takes, and which of them are shown.
struct Found {
    length: usize,
    shown: std::ops::Range<usize>,
    kind: Kind,
}

impl Found {
    fn text(length: usize) -> Self {
        Self { length, shown: 0..length, kind: Kind::Text }
    }
}

impl<'a> Vault<'a> {
    /// Hides what is no Markdown in `markdown`, and returns the text without it.
    pub(super) fn hide(markdown: &'a str) -> (Self, String) {
        let (mut vault, mut text) = (Self::default(), String::with_capacity(markdown.len()));
        // Up to where `markdown` is copied, and where the next piece may begin.
        let (mut copied, mut at) = (0, 0);
        while let Some(next) = markdown[at..].find(begins) {
            at += next;
            let found = vault.stand_in().and_then(|stand_in| Some((stand_in, find(markdown, at)?)));
            let Some((stand_in, found)) = found else {
                // Within a word nothing begins.
                let rest = &markdown[at..];
                let word = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
                at += word.max(rest.chars().next().map_or(1, char::len_utf8));
                continue;
            };
            text.push_str(&markdown[copied..at]);
            text.push(stand_in);
            let source = &markdown[at..at + found.length];
            vault.hidden.push(Hidden { source, shown: &source[found.shown], kind: found.kind });
            at += found.length;
            copied = at;
        }
        text.push_str(&markdown[copied..]);
        (vault, text)
    }

    /// The character for the next piece, while there are any.
    fn stand_in(&self) -> Option<char> {
        let next = FIRST + u32::try_from(self.hidden.len()).ok()?;
        // The last one stands for nothing.
        (next < LAST).then(|| char::from_u32(next)).flatten()
    }

    /// What `c` stands for.
    pub(super) fn get(&self, c: char) -> Option<&Hidden<'a>> {
        if c == NOTHING {
            return Some(&HIDDEN_NOTHING);
        }
        let index = u32::from(c).checked_sub(FIRST)?;
        self.hidden.get(usize::try_from(index).ok()?)
    }

    /// `text` with all that is hidden as it was written.
    pub(super) fn source<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.replace(text, |hidden| hidden.source)
    }

    /// `text` with all that is hidden as it is shown.
    pub(super) fn shown<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.replace(text, |hidden| hidden.shown)
    }

    fn replace<'t>(&self, text: &'t str, part: impl Fn(&Hidden<'a>) -> &'a str) -> Cow<'t, str> {
        if !text.chars().any(|c| self.get(c).is_some()) {
            return Cow::Borrowed(text);
        }
        let mut replaced = String::with_capacity(text.len());
        for c in text.chars() {
            match self.get(c) {
                Some(hidden) => replaced.push_str(part(hidden)),
                None => replaced.push(c),
            }
        }
        Cow::Owned(replaced)
    }
}

/// Whether `c` may be the first of something hidden: a mark, a letter, or a private one.
fn begins(c: char) -> bool {
    c.is_ascii_alphabetic() || matches!(c, '<' | '_' | '\\' | '$') || is_private(c)
}

fn is_private(c: char) -> bool {
    (FIRST..=LAST).contains(&u32::from(c))
}

/// What begins at `at` and is no Markdown.
fn find(text: &str, at: usize) -> Option<Found> {
    let rest = &text[at..];
    let before = text[..at].chars().next_back();
    match rest.chars().next()? {
        '<' => literal::angle(rest),
        '_' => literal::dunder(rest, before),
        '\\' => formula::backslash(rest, before)
            .or_else(|| literal::share(rest, before))
            .or_else(|| literal::rest_of_path(rest, before)),
        '$' => formula::dollar(rest, before),
        // Lest one be taken for what it stands for.
        c if is_private(c) => Some(Found::text(c.len_utf8())),
        _ => literal::address(rest, before).or_else(|| literal::drive(rest, before)),
    }
}
