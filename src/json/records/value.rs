//! Finds the end of a JSON value by its strings and brackets alone: several times faster than a parser, with a few
//! bytes of state however deep the value nests, and able to stop after any byte.

use memchr::memchr2;

use super::block::{BLOCK_BYTES, Block};

/// The scanning state of a value.
#[derive(Debug, Default)]
pub(super) struct ValueScan {
    state: State,
    depth: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
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
            if self.state == State::End {
                return Some(seen);
            }
        }
        None
    }

    /// Whether the bytes so far end inside a string.
    pub(super) fn is_in_string(&self) -> bool {
        matches!(self.state, State::String | State::Escape)
    }

    /// Whether it is a number or literal, which the end of the file ends as well.
    pub(super) fn is_scalar(&self) -> bool {
        self.state == State::Scalar
    }

    /// Up to the end of the block or of the value; `None` if the value does not end with a bracket or an escape is
    /// outside a string.
    fn cross_block(&mut self, bytes: &[u8; BLOCK_BYTES]) -> Option<usize> {
        if self.depth == 0 {
            return None;
        }
        let block = Block::of(bytes, self.is_in_string(), self.state == State::Escape)?;
        if u64::from(block.closing.count_ones()) < self.depth {
            self.depth += u64::from(block.opening.count_ones());
            self.depth -= u64::from(block.closing.count_ones());
        } else if let Some(last) = self.find_last_bracket(&block) {
            self.state = State::End;
            return Some(last + 1);
        }
        self.state = match (block.ends_in_string, block.ends_in_escape) {
            (_, true) => State::Escape,
            (true, false) => State::String,
            (false, false) => State::Structure,
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
        match self.state {
            State::Start => self.begin(bytes[0]),
            State::Structure => self.cross_structure(bytes),
            State::String => self.cross_string(bytes),
            State::Escape => {
                self.state = State::String;
                1
            }
            State::Scalar => self.cross_scalar(bytes),
            State::End => 0,
        }
    }

    fn begin(&mut self, first: u8) -> usize {
        self.state = match first {
            b'"' => State::String,
            b'{' | b'[' => {
                self.depth = 1;
                State::Structure
            }
            _ => State::Scalar,
        };
        1
    }

    /// Up to the next string or the last bracket. Whether brackets match is left to the parser.
    fn cross_structure(&mut self, bytes: &[u8]) -> usize {
        for (index, byte) in bytes.iter().enumerate() {
            match byte {
                b'"' => {
                    self.state = State::String;
                    return index + 1;
                }
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.state = State::End;
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
        self.state = match bytes[index] {
            b'\\' => State::Escape,
            _ if self.depth == 0 => State::End,
            _ => State::Structure,
        };
        index + 1
    }

    fn cross_scalar(&mut self, bytes: &[u8]) -> usize {
        let Some(index) = bytes.iter().position(|&byte| ends_scalar(byte)) else { return bytes.len() };
        self.state = State::End;
        index
    }
}

/// JSON whitespace.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// How many bytes precede the next line break or non-blank byte.
pub(super) fn blanks(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| byte == b'\n' || !is_blank(byte)).unwrap_or(bytes.len())
}

/// Whether a JSON value can begin with this byte.
pub(super) fn begins_value(byte: u8) -> bool {
    matches!(byte, b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n')
}

fn ends_scalar(byte: u8) -> bool {
    is_blank(byte) || matches!(byte, b',' | b':' | b'"' | b'{' | b'}' | b'[' | b']')
}
