//! Tokenizes hints: words, quoted names, strings and punctuation.

use super::HintError;

/// A position in the text that advances as tokens are taken.
#[derive(Clone, Copy)]
pub(super) struct Scanner<'a> {
    /// The rest of the text.
    rest: &'a str,
    /// The next character's position, from 1.
    position: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, position: 1 }
    }

    /// The next character's position, from 1, after whitespace.
    pub(super) fn position(&mut self) -> usize {
        self.skip_space();
        self.position
    }

    pub(super) fn is_at_end(&mut self) -> bool {
        self.skip_space();
        self.rest.is_empty()
    }

    pub(super) fn error<T>(position: usize, problem: impl Into<String>) -> Result<T, HintError> {
        Err(HintError { position, problem: problem.into() })
    }

    /// Reports what was expected and what was found.
    pub(super) fn expected<T>(&mut self, what: &str) -> Result<T, HintError> {
        let position = self.position();
        let found = match (self.word(), self.rest.chars().next()) {
            (Some(word), _) => format!("found `{word}`"),
            (None, Some(mark)) => format!("found `{mark}`"),
            (None, None) => "the text ends".to_owned(),
        };
        Self::error(position, format!("expected {what}, but {found}"))
    }

    /// Takes this character if it is next.
    pub(super) fn take(&mut self, mark: char) -> bool {
        self.skip_space();
        let is_next = self.rest.starts_with(mark);
        if is_next {
            self.skip(mark.len_utf8());
        }
        is_next
    }

    /// Takes this character, which must be next.
    pub(super) fn require(&mut self, mark: char, what: &str) -> Result<(), HintError> {
        if self.take(mark) { Ok(()) } else { self.expected(what) }
    }

    /// Takes letters, digits and underscores.
    pub(super) fn word(&mut self) -> Option<&'a str> {
        self.skip_space();
        let end = self.rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
        let word = self.skip(end.unwrap_or(self.rest.len()));
        (!word.is_empty()).then_some(word)
    }

    /// Takes this word if it is next, regardless of case.
    pub(super) fn take_word(&mut self, wanted: &str) -> bool {
        let before = *self;
        let is_next = self.word().is_some_and(|word| word.eq_ignore_ascii_case(wanted));
        if !is_next {
            *self = before;
        }
        is_next
    }

    /// Takes a name: a word, or anything in backticks (a backtick inside is doubled).
    pub(super) fn name(&mut self) -> Result<String, HintError> {
        let position = self.position();
        if !self.take('`') {
            return match self.word() {
                Some(word) => Ok(word.to_owned()),
                None => {
                    self.expected("a column name (put it in backticks if it has more than letters, digits and `_`)")
                }
            };
        }
        let mut name = String::new();
        while let Some(letter) = self.next() {
            if letter != '`' {
                name.push(letter);
            } else if self.rest.starts_with('`') {
                name.extend(self.next());
            } else {
                return Ok(name);
            }
        }
        Self::error(position, "unterminated name; close it with a backtick")
    }

    /// Takes a string in either kind of quotes; a backslash escapes a quote.
    pub(super) fn string(&mut self) -> Result<String, HintError> {
        let position = self.position();
        let Some(quote) = self.next().filter(|quote| matches!(quote, '\'' | '"')) else {
            return Self::error(position, "put the comment in quotes, like comment 'when it was paid'");
        };
        let mut string = String::new();
        while let Some(letter) = self.next() {
            match letter {
                '\\' => match self.next() {
                    Some('n') => string.push('\n'),
                    Some('t') => string.push('\t'),
                    escaped => string.extend(escaped),
                },
                end if end == quote => return Ok(string),
                other => string.push(other),
            }
        }
        Self::error(position, format!("unterminated comment; close it with {quote}"))
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.skip(next.len_utf8());
        Some(next)
    }

    fn skip_space(&mut self) {
        self.skip(self.rest.len() - self.rest.trim_start().len());
    }

    fn skip(&mut self, bytes: usize) -> &'a str {
        let (skipped, rest) = self.rest.split_at(bytes);
        self.position += skipped.chars().count();
        self.rest = rest;
        skipped
    }
}
