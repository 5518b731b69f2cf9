//! Finds where records begin and end in a stream of bytes, for each format. It can stop after any byte and resume
//! later.

use memchr::memchr;

use super::Format;
use super::value::{ValueScan, begins_value, is_blank};

/// What comes next, counted from the given bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This many bytes do not begin or end a record.
    Pass(usize),
    /// A record begins after this many bytes.
    Begin(usize),
    /// The current record ends after this many bytes.
    End(usize),
    /// Cannot tell without more bytes.
    Wait,
}

/// The splitting state of a file in some format.
#[derive(Debug)]
pub(super) enum Splitter {
    Unsettled(FirstLine),
    Lines(Lines),
    Documents(Documents),
}

impl Splitter {
    pub(super) fn new(format: Format, record_bytes: usize) -> Self {
        match format {
            Format::Auto => {
                Self::Unsettled(FirstLine { lines: Lines::new(), value: ValueScan::default(), seen: 0, record_bytes })
            }
            Format::Lines => Self::Lines(Lines::new()),
            Format::Documents => Self::Documents(Documents::new()),
        }
    }

    /// Looks at the bytes after those consumed by earlier steps.
    pub(super) fn step(&mut self, bytes: &[u8]) -> Step {
        match self {
            _ if bytes.is_empty() => Step::Wait,
            Self::Lines(lines) => lines.step(bytes),
            Self::Documents(documents) => documents.step(bytes),
            Self::Unsettled(first) => match first.lines.skip_blank(bytes) {
                0 => match first.tell_format(bytes) {
                    Some(format) => {
                        self.settle(format);
                        Step::Pass(0)
                    }
                    None => Step::Wait,
                },
                blank => Step::Pass(blank),
            },
        }
    }

    /// Signals the end of the file. Returns whether the remaining bytes must be looked at again.
    pub(super) fn end(&mut self) -> bool {
        let unsettled = matches!(self, Self::Unsettled(_));
        if unsettled {
            self.settle(Format::Lines);
        }
        unsettled
    }

    /// The number of the record that began last.
    pub(super) fn row(&self) -> i64 {
        match self {
            Self::Unsettled(first) => first.lines.row,
            Self::Lines(lines) => lines.row,
            Self::Documents(documents) => documents.row,
        }
    }

    /// Whether a carriage return at the end of a record belongs to the line break.
    pub(super) fn is_by_line(&self) -> bool {
        matches!(self, Self::Lines(_))
    }

    /// Whether the values can no longer be told apart.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::Documents(documents) if documents.state == State::Lost)
    }

    fn settle(&mut self, format: Format) {
        if let Self::Unsettled(first) = self {
            *self = match format {
                // Blank lines before the first record count.
                Format::Lines => Self::Lines(Lines { row: first.lines.row, inside: false }),
                _ => Self::Documents(Documents::new()),
            };
        }
    }
}

/// The line that tells the format of a file.
#[derive(Debug)]
pub(super) struct FirstLine {
    lines: Lines,
    value: ValueScan,
    seen: usize,
    record_bytes: usize,
}

impl FirstLine {
    /// The format, if the bytes from the first non-blank one on tell it.
    fn tell_format(&mut self, bytes: &[u8]) -> Option<Format> {
        match bytes[0] {
            b'[' => return Some(Format::Documents),
            b'{' => {}
            _ => return Some(Format::Lines),
        }
        let line_break = memchr(b'\n', &bytes[self.seen..]).map(|index| self.seen + index);
        let line = &bytes[..line_break.unwrap_or(bytes.len())];
        let closes = self.value.find_end(&line[self.seen..]).is_some();
        self.seen = line.len();
        if closes || line.len() > self.record_bytes {
            return Some(Format::Lines);
        }
        line_break?;
        // No document may break a line inside a string: this is a line that was cut off.
        Some(if self.value.is_in_string() { Format::Lines } else { Format::Documents })
    }
}

/// One record per line.
#[derive(Debug)]
pub(super) struct Lines {
    row: i64,
    inside: bool,
}

impl Lines {
    fn new() -> Self {
        Self { row: 1, inside: false }
    }

    fn step(&mut self, bytes: &[u8]) -> Step {
        if self.inside {
            let Some(line_break) = memchr(b'\n', bytes) else { return Step::Pass(bytes.len()) };
            self.inside = false;
            return Step::End(line_break);
        }
        let blank = self.skip_blank(bytes);
        self.inside = blank < bytes.len();
        if self.inside { Step::Begin(blank) } else { Step::Pass(blank) }
    }

    /// How many bytes precede the next non-blank one; counts the lines among them.
    fn skip_blank(&mut self, bytes: &[u8]) -> usize {
        for (index, &byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' => self.row += 1,
                _ if is_blank(byte) => {}
                _ => return index,
            }
        }
        bytes.len()
    }
}

/// Values one after another, and the elements of arrays.
#[derive(Debug)]
pub(super) struct Documents {
    row: i64,
    state: State,
    in_array: bool,
    value: ValueScan,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Outside any value.
    Top,
    /// After the bracket that opens an array.
    ArrayBegun,
    /// After a comma in an array.
    ElementDue,
    /// After an element of an array.
    ElementDone,
    /// Inside a record.
    Value,
    /// After a byte that cannot be where it is. A missing comma could be forgiven, but where the next value begins
    /// would be a guess, and a wrong guess invents records that nobody wrote.
    Lost,
}

impl Documents {
    fn new() -> Self {
        Self { row: 0, state: State::Top, in_array: false, value: ValueScan::default() }
    }

    fn step(&mut self, bytes: &[u8]) -> Step {
        match self.state {
            State::Lost => Step::Pass(bytes.len()),
            State::Value => match self.value.find_end(bytes) {
                Some(length) => {
                    self.state = if self.in_array { State::ElementDone } else { State::Top };
                    Step::End(length)
                }
                None => Step::Pass(bytes.len()),
            },
            State::Top | State::ArrayBegun | State::ElementDue | State::ElementDone => self.cross_gap(bytes),
        }
    }

    /// Up to the next record.
    fn cross_gap(&mut self, bytes: &[u8]) -> Step {
        for (index, &byte) in bytes.iter().enumerate() {
            self.state = match (self.state, byte) {
                _ if is_blank(byte) => continue,
                (State::Top, b'[') => State::ArrayBegun,
                (State::ArrayBegun | State::ElementDone, b']') => State::Top,
                (State::ElementDone, b',') => State::ElementDue,
                (State::Top | State::ArrayBegun | State::ElementDue, _) if begins_value(byte) => State::Value,
                _ => State::Lost,
            };
            match self.state {
                State::ArrayBegun => self.in_array = true,
                State::Top => self.in_array = false,
                State::Value | State::Lost => {
                    self.row += 1;
                    self.value = ValueScan::default();
                    return Step::Begin(index);
                }
                State::ElementDue | State::ElementDone => {}
            }
        }
        Step::Pass(bytes.len())
    }
}
