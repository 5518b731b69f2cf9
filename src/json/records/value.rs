//! Finds the end of a JSON value by its strings and brackets alone: several times faster than a parser, with a few
//! bytes of state however deep the value nests, and able to stop after any byte.

use memchr::memchr2;

use super::block::{BLOCK_BYTES, Block};

/// The scanning state of a value.
#[derive(Debug, Default)]
pub(super) struct ValueScan {
    place: Place,
    depth: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Start,
    /// Inside brackets, outside strings.
    Structure,
    String,
    /// After a backslash in a string.
    Escape,
    /// In a bare number, `true`, `false` or `null`.
    Scalar,
    End,
}

impl ValueScan {
    /// Looks at the next bytes of the value. Returns how many of them belong to it if it ends among them.
    pub(super) fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut seen = 0;
        while seen < bytes.len() {
            let rest = &bytes[seen..];
            let by_block = rest.first_chunk().and_then(|block| self.cross_block(block));
            seen += by_block.unwrap_or_else(|| self.cross_run(rest));
            if self.place == Place::End {
                return Some(seen);
            }
        }
        None
    }

    /// Whether the bytes so far end inside a string.
    pub(super) fn is_in_string(&self) -> bool {
        matches!(self.place, Place::String | Place::Escape)
    }

    /// Up to the end of the block or of the value; `None` if the value does not end with a bracket or an escape is
    /// outside a string.
    fn cross_block(&mut self, bytes: &[u8; BLOCK_BYTES]) -> Option<usize> {
        if self.depth == 0 {
            return None;
        }
        let block = Block::of(bytes, self.is_in_string(), self.place == Place::Escape)?;
        if u64::from(block.closing.count_ones()) < self.depth {
            self.depth += u64::from(block.opening.count_ones());
            self.depth -= u64::from(block.closing.count_ones());
        } else if let Some(last) = self.find_last_bracket(&block) {
            self.place = Place::End;
            return Some(last + 1);
        }
        self.place = match (block.ends_in_string, block.ends_in_escape) {
            (_, true) => Place::Escape,
            (true, false) => Place::String,
            (false, false) => Place::Structure,
        };
        Some(BLOCK_BYTES)
    }

    fn find_last_bracket(&mut self, block: &Block) -> Option<usize> {
        let mut brackets = block.opening | block.closing;
        while brackets != 0 {
            let index = brackets.trailing_zeros();
            if block.opening >> index & 1 == 1 {
                self.depth += 1;
            } else {
                self.depth -= 1;
                if self.depth == 0 {
                    return Some(index as usize);
                }
            }
            brackets &= brackets - 1;
        }
        None
    }

    /// Byte by byte, until the state changes.
    fn cross_run(&mut self, bytes: &[u8]) -> usize {
        match self.place {
            Place::Start => self.begin(bytes[0]),
            Place::Structure => self.cross_structure(bytes),
            Place::String => self.cross_string(bytes),
            Place::Escape => {
                self.place = Place::String;
                1
            }
            Place::Scalar => self.cross_scalar(bytes),
            Place::End => 0,
        }
    }

    fn begin(&mut self, first: u8) -> usize {
        self.place = match first {
            b'"' => Place::String,
            b'{' | b'[' => {
                self.depth = 1;
                Place::Structure
            }
            _ => Place::Scalar,
        };
        1
    }

    /// Up to the next string or the last bracket. Whether brackets match is left to the parser.
    fn cross_structure(&mut self, bytes: &[u8]) -> usize {
        for (index, byte) in bytes.iter().enumerate() {
            match byte {
                b'"' => {
                    self.place = Place::String;
                    return index + 1;
                }
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.place = Place::End;
                        return index + 1;
                    }
                }
                _ => {}
            }
        }
        bytes.len()
    }

    fn cross_string(&mut self, bytes: &[u8]) -> usize {
        let Some(index) = memchr2(b'"', b'\\', bytes) else { return bytes.len() };
        self.place = match bytes[index] {
            b'\\' => Place::Escape,
            _ if self.depth == 0 => Place::End,
            _ => Place::Structure,
        };
        index + 1
    }

    fn cross_scalar(&mut self, bytes: &[u8]) -> usize {
        let Some(index) = bytes.iter().position(|&byte| ends_scalar(byte)) else { return bytes.len() };
        self.place = Place::End;
        index
    }
}

/// JSON whitespace.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// Whether a JSON value can begin with this byte.
pub(super) fn begins_value(byte: u8) -> bool {
    matches!(byte, b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')
}

fn ends_scalar(byte: u8) -> bool {
    is_blank(byte) || matches!(byte, b',' | b':' | b'"' | b'{' | b'}' | b'[' | b']')
}
