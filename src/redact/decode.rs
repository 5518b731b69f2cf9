//! Text as it was before it was escaped: for a URL, for HTML, or for JSON. Servers repeat what they were sent in the
//! language of their answer.

use std::ops::Range;

use memchr::memchr3;

/// HTML's names of characters that secrets are made of.
const NAMES: [(&str, char); 32] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("colon", ':'),
    ("semi", ';'),
    ("sol", '/'),
    ("bsol", '\\'),
    ("equals", '='),
    ("plus", '+'),
    ("lowbar", '_'),
    ("UnderBar", '_'),
    ("hyphen", '-'),
    ("dash", '-'),
    ("period", '.'),
    ("comma", ','),
    ("num", '#'),
    ("percnt", '%'),
    ("commat", '@'),
    ("excl", '!'),
    ("quest", '?'),
    ("dollar", '$'),
    ("ast", '*'),
    ("lpar", '('),
    ("rpar", ')'),
    ("lbrack", '['),
    ("rbrack", ']'),
    ("lcub", '{'),
    ("rcub", '}'),
    ("verbar", '|'),
    ("Hat", '^'),
];
/// The longest escape that is looked at, in bytes (`&#x0000003a;`).
const LONGEST_ESCAPE: usize = 14;

/// Decoded bytes that know where they came from.
#[derive(Debug)]
pub(super) struct Decoded {
    bytes: Vec<u8>,
    /// Where each byte began in the text, and where the text ends.
    starts: Vec<usize>,
}

impl Decoded {
    /// The text with its escapes undone; `None` if it has none.
    pub(super) fn of_text(text: &str) -> Option<Self> {
        Self::of(text.as_bytes(), |at| at)
    }

    /// The same once more, for escapes that were escaped.
    pub(super) fn again(&self) -> Option<Self> {
        Self::of(&self.bytes, |at| self.starts[at])
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where decoded bytes were in the text.
    pub(super) fn origin(&self, range: Range<usize>) -> Range<usize> {
        self.starts[range.start]..self.starts[range.end]
    }

    fn of(escaped: &[u8], start_of: impl Fn(usize) -> usize) -> Option<Self> {
        memchr3(b'%', b'&', b'\\', escaped)?;
        let mut decoded = Self { bytes: Vec::with_capacity(escaped.len()), starts: Vec::with_capacity(escaped.len()) };
        let mut at = 0;
        while at < escaped.len() {
            let (taken, character) = unescaped(&escaped[at..]).unwrap_or((1, Unescaped::Byte(escaped[at])));
            let mut buffer = [0; 4];
            let bytes = match character {
                Unescaped::Byte(ref byte) => std::slice::from_ref(byte),
                Unescaped::Character(character) => character.encode_utf8(&mut buffer).as_bytes(),
            };
            decoded.bytes.extend_from_slice(bytes);
            decoded.starts.extend(bytes.iter().map(|_| start_of(at)));
            at += taken;
        }
        decoded.starts.push(start_of(escaped.len()));
        (decoded.bytes.len() < escaped.len()).then_some(decoded)
    }
}

enum Unescaped {
    Byte(u8),
    Character(char),
}

/// What the escape at the beginning stands for, and its length.
fn unescaped(bytes: &[u8]) -> Option<(usize, Unescaped)> {
    let ascii = |length: usize| std::str::from_utf8(&bytes[..bytes.len().min(length)]).ok();
    match bytes.first()? {
        b'%' => {
            let digits = std::str::from_utf8(bytes.get(1..3)?).ok()?;
            Some((3, Unescaped::Byte(hex(digits)?.try_into().ok()?)))
        }
        b'&' => {
            let end = bytes.iter().take(LONGEST_ESCAPE).position(|byte| *byte == b';')?;
            let name = std::str::from_utf8(bytes.get(1..end)?).ok()?;
            Some((end + 1, Unescaped::Character(entity(name)?)))
        }
        b'\\' => match bytes.get(1)? {
            b'u' if bytes.get(2) == Some(&b'{') => {
                let end = bytes.iter().take(LONGEST_ESCAPE).position(|byte| *byte == b'}')?;
                let digits = std::str::from_utf8(bytes.get(3..end)?).ok()?;
                Some((end + 1, Unescaped::Character(char::from_u32(hex(digits)?)?)))
            }
            b'u' => Some((6, Unescaped::Character(char::from_u32(hex(ascii(6)?.get(2..6)?)?)?))),
            b'x' => Some((4, Unescaped::Byte(hex(ascii(4)?.get(2..4)?)?.try_into().ok()?))),
            b'n' => Some((2, Unescaped::Byte(b'\n'))),
            b'r' => Some((2, Unescaped::Byte(b'\r'))),
            b't' => Some((2, Unescaped::Byte(b'\t'))),
            plain @ (b'"' | b'\'' | b'\\' | b'/') => Some((2, Unescaped::Byte(*plain))),
            _ => None,
        },
        _ => None,
    }
}

fn entity(name: &str) -> Option<char> {
    match name.strip_prefix('#') {
        Some(number) => {
            let code = match number.strip_prefix(['x', 'X']) {
                Some(digits) => hex(digits)?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)
        }
        None => NAMES.iter().find(|(known, _)| *known == name).map(|(_, character)| *character),
    }
}

fn hex(digits: &str) -> Option<u32> {
    // `from_str_radix` would take a sign.
    digits.bytes().all(|byte| byte.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}
