//! Reads the file `.env`: a variable a line, as shells and other tools write it. What is wrong with it is told by the
//! number of the line alone, because any line may hold a secret.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

use crate::error::{Error, Result};

/// The variables of a text, in the form `NAME=value`: with `export` before it, in quotes, over several lines in quotes,
/// with `$NAME` of `outside` or of an earlier line in it, and with a comment behind it.
///
/// # Errors
/// A configuration error that names the line.
pub(super) fn parse(text: &str, outside: impl Fn(&str) -> Option<String>) -> Result<BTreeMap<String, String>> {
    let mut reader = Reader { rest: text.trim_start_matches('\u{feff}').chars().peekable(), line: 1 };
    let mut values = BTreeMap::new();
    loop {
        reader.skip(char::is_whitespace);
        let line = reader.line;
        match reader.rest.peek() {
            None => return Ok(values),
            Some('#') => reader.skip(|c| c != '\n'),
            Some(_) => {
                let known = |name: &str| outside(name).or_else(|| values.get(name).cloned());
                let (name, value) = reader.variable(known).ok_or_else(|| {
                    Error::configuration(format!(
                        ".env: line {line} cannot be read; write NAME=value, one per line, and quotes around a value \
                         with blanks"
                    ))
                })?;
                values.insert(name, value);
            }
        }
    }
}

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    fn next_if(&mut self, is_wanted: impl Fn(char) -> bool) -> Option<char> {
        match self.rest.peek() {
            Some(c) if is_wanted(*c) => self.next(),
            _ => None,
        }
    }

    fn skip(&mut self, is_skipped: impl Fn(char) -> bool) {
        while self.next_if(&is_skipped).is_some() {}
    }

    fn name(&mut self, is_in_name: impl Fn(char) -> bool) -> String {
        std::iter::from_fn(|| self.next_if(&is_in_name)).collect()
    }

    fn variable(&mut self, known: impl Fn(&str) -> Option<String>) -> Option<(String, String)> {
        let is_in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let is_blank = |c: char| c != '\n' && c.is_whitespace();
        let mut name = self.name(is_in_name);
        self.skip(is_blank);
        if name == "export" && self.rest.peek() != Some(&'=') {
            name = self.name(is_in_name);
            self.skip(is_blank);
        }
        if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') || self.next() != Some('=') {
            return None;
        }
        self.skip(is_blank);
        let value = self.value(known)?;
        self.skip(is_blank);
        match self.rest.peek() {
            None | Some('\n') => {}
            Some('#') => self.skip(|c| c != '\n'),
            Some(_) => return None,
        }
        Some((name, value))
    }

    /// The value up to a blank outside quotes; `None` when a quote is not closed, or an escape is not known.
    fn value(&mut self, known: impl Fn(&str) -> Option<String>) -> Option<String> {
        let (mut value, mut quote) = (String::new(), None);
        while let Some(&c) = self.rest.peek() {
            if quote.is_none() && c.is_whitespace() {
                break;
            }
            self.next();
            match c {
                '\'' | '"' if quote == Some(c) => quote = None,
                '\'' | '"' if quote.is_none() => quote = Some(c),
                c if quote == Some('\'') => value.push(c),
                '\\' => value.push(match self.next()? {
                    'n' => '\n',
                    plain @ ('\\' | '\'' | '"' | '$' | ' ') => plain,
                    _ => return None,
                }),
                '$' => value.push_str(&self.substitute(&known)?),
                c => value.push(c),
            }
        }
        quote.is_none().then_some(value)
    }

    /// What stands for `$NAME` or `${NAME}`; a lone `$` stands for itself.
    fn substitute(&mut self, known: impl Fn(&str) -> Option<String>) -> Option<String> {
        if self.next_if(|c| c == '{').is_some() {
            let name = self.name(|c| c != '}' && c != '\n');
            return (self.next() == Some('}')).then(|| known(&name).unwrap_or_default());
        }
        let name = self.name(|c| c.is_alphanumeric() || c == '_');
        Some(if name.is_empty() { "$".to_owned() } else { known(&name).unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<BTreeMap<String, String>> {
        parse(text, |name| (name == "HOME").then(|| "/home".to_owned()))
    }

    #[test]
    fn what_people_write_is_read() {
        for (text, expected) in [
            ("A=b", "b"),
            ("\u{feff}# a comment\n\n  export A = b # another\r\n", "b"),
            ("A=", ""),
            ("A=\nB=c", ""),
            ("A=b#c", "b#c"),
            ("A='b # $HOME \\n'", "b # $HOME \\n"),
            ("A=\"b # ${HOME}/\\\"x\\\"\\n\"", "b # /home/\"x\"\n"),
            ("A=\"two\nlines\"\nB=c", "two\nlines"),
            ("B_1=c\nA=$B_1/$C$", "c/$"),
            ("A=b\\ c'd'\"e\"", "b cde"),
            ("A=first\nA=last", "last"),
            ("A=1:AAE-x_y==", "1:AAE-x_y=="),
        ] {
            assert_eq!(of(text).unwrap()["A"], expected, "{text}");
        }
        assert!(of("").unwrap().is_empty() && of("\r\n#").unwrap().is_empty());
    }

    #[test]
    fn a_line_that_is_none_is_told_by_its_number() {
        for broken in
            ["s3cret", "A=s3cret next", "A='s3cret", "A=\"s3cret", "1A=s3cret", "= s3cret", "A=s3cret\\q", "A=${s3cret"]
        {
            let error = of(&format!("# first\nB=\"second\nline\"\n{broken}\n")).unwrap_err().to_string();
            assert!(error.starts_with(".env: line 4 cannot be read; write NAME=value"), "{error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
