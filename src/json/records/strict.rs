//! Whether bytes can be JSON: finds the end of a value like [`super::value`], but also the first byte that cannot be
//! where it is. Slower, and only used where brackets alone do not tell a document from a line that was cut off.

use memchr::memchr3;

use super::value::{begins_value, is_blank};

/// The state of a value that begins with a bracket.
#[derive(Debug, Default)]
pub(super) struct Strict {
    due: Due,
    /// The open brackets: whether each is that of an object.
    open: Vec<bool>,
}

/// What comes of the next bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The value ends after this many of them.
    End(usize),
    /// So many of them can be JSON, the next one cannot.
    Damage(usize),
    /// Nothing yet.
    More,
}

/// What must come next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Due {
    #[default]
    Value,
    /// After an opening square bracket.
    ValueOrEnd,
    /// After an opening curly bracket.
    NameOrEnd,
    Name,
    Colon,
    CommaOrEnd,
    /// The rest of a string; set for a name.
    Text(bool),
    /// The byte after a backslash; set in a name.
    Escaped(bool),
    /// The rest of a number or literal.
    Scalar,
}

impl Strict {
    /// Looks at the next bytes.
    pub(super) fn find(&mut self, bytes: &[u8]) -> Found {
        let mut seen = 0;
        while let Some(&byte) = bytes.get(seen) {
            match self.due {
                Due::Text(is_name) => {
                    let Some(index) = memchr3(b'"', b'\\', b'\n', &bytes[seen..]) else { return Found::More };
                    seen += index;
                    self.due = match bytes[seen] {
                        b'\n' => return Found::Damage(seen),
                        b'\\' => Due::Escaped(is_name),
                        _ if is_name => Due::Colon,
                        _ => Due::CommaOrEnd,
                    };
                }
                Due::Escaped(_) if byte == b'\n' => return Found::Damage(seen),
                Due::Escaped(is_name) => self.due = Due::Text(is_name),
                Due::Scalar if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.') => {}
                Due::Scalar => {
                    self.due = Due::CommaOrEnd;
                    continue;
                }
                _ if is_blank(byte) => {}
                _ => match self.next_due(byte) {
                    Some(due) => self.due = due,
                    None => return Found::Damage(seen),
                },
            }
            seen += 1;
            if self.open.is_empty() {
                return Found::End(seen);
            }
        }
        Found::More
    }

    /// What must come after this byte, outside strings and scalars; `None` if it cannot be here.
    fn next_due(&mut self, byte: u8) -> Option<Due> {
        match (self.due, byte) {
            (Due::Value | Due::ValueOrEnd, b'{') => {
                self.open.push(true);
                Some(Due::NameOrEnd)
            }
            (Due::Value | Due::ValueOrEnd, b'[') => {
                self.open.push(false);
                Some(Due::ValueOrEnd)
            }
            (Due::Value | Due::ValueOrEnd, b'"') => Some(Due::Text(false)),
            (Due::Value | Due::ValueOrEnd, _) if begins_value(byte) => Some(Due::Scalar),
            (Due::NameOrEnd | Due::Name, b'"') => Some(Due::Text(true)),
            (Due::Colon, b':') => Some(Due::Value),
            (Due::CommaOrEnd, b',') => Some(if self.is_in_object() { Due::Name } else { Due::Value }),
            (Due::CommaOrEnd | Due::NameOrEnd, b'}') if self.is_in_object() => self.close(),
            (Due::CommaOrEnd | Due::ValueOrEnd, b']') if !self.is_in_object() => self.close(),
            _ => None,
        }
    }

    fn is_in_object(&self) -> bool {
        self.open.last().copied().unwrap_or(false)
    }

    fn close(&mut self) -> Option<Due> {
        self.open.pop();
        Some(Due::CommaOrEnd)
    }
}

/// Whether this is a number, `true`, `false` or `null`.
pub(super) fn is_scalar(token: &[u8]) -> bool {
    if matches!(token, b"true" | b"false" | b"null") {
        return true;
    }
    let whole = token.strip_prefix(b"-").unwrap_or(token);
    whole.first().is_some_and(u8::is_ascii_digit) && serde_json::from_slice::<serde::de::IgnoredAny>(token).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_or_is_damaged_where_a_parser_says_so() {
        for (text, found) in [
            (r#"{"a":[1,{"b":"}\""},null],"c":{}} x"#, Found::End(33)),
            ("[]", Found::End(2)),
            ("{\"a\":\n{\"b\":1}\n{", Found::Damage(14)),
            ("{\n{", Found::Damage(2)),
            ("{\"a\":\"b\nc", Found::Damage(7)),
            ("{\"a\":[1}", Found::Damage(7)),
            ("{\"a\":1]", Found::Damage(6)),
            ("{\"a\":1,}", Found::Damage(7)),
            ("[1 2]", Found::Damage(3)),
            ("{\"a\" 1}", Found::Damage(5)),
            ("{\"a\":[1,", Found::More),
        ] {
            assert_eq!(Strict::default().find(text.as_bytes()), found, "{text}");
            let mut slow = Strict::default();
            let each = (0..text.len()).find_map(|at| match slow.find(&text.as_bytes()[at..=at]) {
                Found::End(length) => Some(Found::End(at + length)),
                Found::Damage(length) => Some(Found::Damage(at + length)),
                Found::More => None,
            });
            assert_eq!(each.unwrap_or(Found::More), found, "{text}, byte by byte");
        }
        for (token, is_it) in [("-1.5e3", true), ("null", true), ("2026-11-26", false), ("01", false), ("nul", false)] {
            assert_eq!(is_scalar(token.as_bytes()), is_it, "{token}");
        }
    }
}
