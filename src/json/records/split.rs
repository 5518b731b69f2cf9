//! Finds where records begin and end in a stream of bytes. It can stop after any byte and resume later.
//!
//! Nothing about a file is decided once and for all: each value is tried where it begins. What turns out not to be one
//! becomes a record that will be found corrupt, up to the next line that begins like a record, and the rest of the
//! file is as good as ever. A record that is being tried stays in memory, and so do at most as many bytes as the
//! longest one may have; beyond that there is no way back. How the single things are tried is in [`super::tries`].

use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter};

use super::Format;
use super::strict::Strict;
use super::value::{ValueScan, begins_value, blanks};

/// Blanks before a record in its line that are kept with it if it is corrupt; more are dropped.
const INDENT_BYTES: usize = 4096;
/// How many bytes may be looked at again after damage, beyond those already passed. Keeps the time linear.
const CREDIT_BYTES: usize = if cfg!(test) { 1 << 20 } else { 256 << 20 };

/// What comes next, counted from the first byte that is neither skipped nor in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// This many bytes are between records.
    Skip(usize),
    /// A record with this number, from the byte `indent` up to `end`. The blanks before it are part of its line.
    Record { row: i64, indent: usize, end: usize },
    /// Cannot tell without more bytes.
    Wait,
}

/// How records are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbering {
    /// By the line, until the first whole record tells.
    Unsettled,
    Lines,
    Records,
}

/// The splitting state of a file.
#[derive(Debug)]
pub(super) struct Splitter {
    pub(super) format: Format,
    record_bytes: usize,
    numbering: Numbering,
    /// The number of the current line, and how many of its bytes have been passed.
    line: i64,
    /// How many lines of the current record were dropped.
    dropped_lines: i64,
    pub(super) line_bytes: usize,
    /// The number of the last record.
    row: i64,
    pub(super) in_array: bool,
    /// Whether a comma may follow the record.
    pub(super) comma_may_follow: bool,
    pub(super) state: State,
    /// Blanks at the start of the current record's line.
    pub(super) indent: usize,
    /// How much of the current record has been looked at, including these blanks.
    pub(super) scanned: usize,
    /// Whether the current record is certainly too long. Its bytes may be dropped, so it is never looked at again.
    pub(super) is_streaming: bool,
    pub(super) breaks: LineBreaks,
    pub(super) credit: usize,
    two_values: Finder<'static>,
}

/// What is being tried.
#[derive(Debug)]
pub(super) enum State {
    /// Between records.
    Gap,
    /// A line, whatever it is.
    Line,
    /// A line that most likely is an object.
    ObjectLine,
    /// What may be an array of records.
    Array,
    /// A value, within its first line.
    Value(ValueScan),
    /// A value that goes on after its first line.
    Lines(Strict),
    /// After a value, which ends here.
    After { end: usize, has_lines: bool },
    /// Up to where the next record may begin; the bytes up to here have been looked at.
    Damaged { seen: usize, tried_line: bool },
    /// What can be neither in an array nor between values.
    Stray,
}

/// The bytes that the current record may have.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) bytes: &'a [u8],
    /// Whether the file ends here.
    pub(super) is_end: bool,
    /// Whether no record that is passed on whole is longer.
    pub(super) is_full: bool,
}

/// Remembers where the next line break is, or is not, so that a line is searched once.
#[derive(Debug, Default)]
pub(super) struct LineBreaks {
    searched: usize,
    next: Option<usize>,
}

impl LineBreaks {
    pub(super) fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.next.is_none() && self.searched < bytes.len() {
            self.next = memchr(b'\n', &bytes[self.searched..]).map(|index| self.searched + index);
            self.searched = self.next.unwrap_or(bytes.len());
        }
        self.next.filter(|next| *next < bytes.len())
    }

    /// Adjusts to bytes that were dropped from those before `end`.
    fn drop_bytes(&mut self, end: usize, length: usize) {
        self.searched = self.searched.max(end) - length;
        // One among them is not looked for again; that there was one is enough.
        self.next = self.next.map(|next| if next < end { next.min(end - length - 1) } else { next - length });
    }

    fn pass(&mut self, length: usize) {
        self.searched = self.searched.saturating_sub(length);
        self.next = self.next.and_then(|next| next.checked_sub(length));
    }
}

impl Splitter {
    pub(super) fn new(format: Format, record_bytes: usize) -> Self {
        let numbering = match format {
            Format::Auto => Numbering::Unsettled,
            Format::Lines => Numbering::Lines,
            Format::Documents => Numbering::Records,
        };
        Self {
            format,
            record_bytes,
            numbering,
            line: 1,
            dropped_lines: 0,
            line_bytes: 0,
            row: 0,
            in_array: false,
            comma_may_follow: false,
            state: State::Gap,
            indent: 0,
            scanned: 0,
            is_streaming: false,
            breaks: LineBreaks::default(),
            credit: CREDIT_BYTES,
            two_values: Finder::new(b"}{"),
        }
    }

    /// Looks at the bytes after those of earlier steps. `is_end` if there are no more.
    pub(super) fn step(&mut self, bytes: &[u8], is_end: bool) -> Step {
        loop {
            if bytes.is_empty() {
                return Step::Wait;
            }
            let most = self.indent.saturating_add(self.record_bytes).saturating_add(2);
            let view = match bytes.get(..most) {
                Some(first) if !self.is_streaming && bytes.len() > most => {
                    View { bytes: first, is_end: false, is_full: true }
                }
                _ => View { bytes, is_end, is_full: false },
            };
            if let Some(step) = self.try_step(view) {
                return step;
            }
        }
    }

    /// How much of a record that is too long has been passed; its middle may be dropped.
    pub(super) fn passed_bytes(&self) -> Option<usize> {
        self.is_streaming.then_some(self.scanned)
    }

    /// How many blanks precede the current record in its line.
    pub(super) fn indent(&self) -> usize {
        self.indent
    }

    /// Adjusts to bytes that were dropped from what has been passed.
    pub(super) fn drop_bytes(&mut self, dropped: &[u8]) {
        self.dropped_lines += count_lines(dropped);
        self.breaks.drop_bytes(self.scanned, dropped.len());
        self.scanned -= dropped.len();
    }

    /// One step, or none if only what is being tried has changed.
    fn try_step(&mut self, view: View<'_>) -> Option<Step> {
        match self.state {
            State::Gap => self.cross_gap(view),
            State::Line => self.find_line_end(view),
            State::ObjectLine => self.try_object_line(view),
            State::Array => self.try_array(view),
            State::Value(_) => self.try_value(view),
            State::Lines(_) => self.try_lines(view),
            State::After { end, has_lines } => self.look_after(view, end, has_lines),
            State::Damaged { seen, tried_line } => self.resynchronize(view, seen, tried_line),
            State::Stray => self.cross_stray(view),
        }
    }

    fn cross_gap(&mut self, view: View<'_>) -> Option<Step> {
        let bytes = view.bytes;
        let indent = blanks(bytes);
        if bytes.get(indent) == Some(&b'\n') {
            // As many blank lines as there are.
            let mut lines = indent + 1;
            let line = |from: usize| from + bytes.get(from..).map_or(0, blanks);
            while bytes.get(line(lines)) == Some(&b'\n') {
                lines = line(lines) + 1;
            }
            return Some(self.skip(&bytes[..lines]));
        }
        let Some(&byte) = bytes.get(indent) else {
            let is_kept = self.line_bytes == 0 && indent < INDENT_BYTES && !view.is_end && !view.is_full;
            return Some(if is_kept { Step::Wait } else { self.skip(bytes) });
        };
        if self.in_array && matches!(byte, b',' | b']') || !self.in_array && self.comma_may_follow && byte == b',' {
            self.in_array &= byte == b',';
            self.comma_may_follow = false;
            return Some(self.skip(&bytes[..=indent]));
        }
        let is_dropped = self.in_array || self.line_bytes > 0 || indent >= INDENT_BYTES;
        if indent > 0 && is_dropped {
            return Some(self.skip(&bytes[..indent]));
        }
        self.indent = indent;
        self.begin(byte);
        None
    }

    fn begin(&mut self, byte: u8) {
        self.scanned = self.indent;
        self.comma_may_follow = false;
        let value = || State::Value(ValueScan::default());
        self.state = match (self.format, byte) {
            (Format::Lines, _) => State::Line,
            _ if self.in_array && begins_value(byte) => value(),
            _ if self.in_array => State::Stray,
            (_, b'{') if self.is_line_of_lines() => State::ObjectLine,
            (_, b'{') => value(),
            (_, b'[') if self.is_line_of_lines() => State::Line,
            (_, b'[') => State::Array,
            (Format::Documents, _) if begins_value(byte) => value(),
            _ if self.line_bytes > 0 => State::Stray,
            _ => State::Line,
        };
    }

    fn find_line_end(&mut self, view: View<'_>) -> Option<Step> {
        match self.breaks.find(view.bytes) {
            Some(line_break) => Some(self.emit(view, end_of_line(view.bytes, line_break))),
            None if view.is_end => Some(self.emit(view, end_of_line(view.bytes, view.bytes.len()))),
            None => {
                self.scanned = view.bytes.len();
                self.go_on(view)
            }
        }
    }

    /// In a file of lines, a line with curly brackets at both ends is one record without looking further, unless there
    /// may be two in it.
    fn try_object_line(&mut self, view: View<'_>) -> Option<Step> {
        let end = match self.breaks.find(view.bytes) {
            Some(line_break) => line_break,
            None if view.is_end => view.bytes.len(),
            None if !view.is_full => return Some(Step::Wait),
            None => self.indent,
        };
        let line = view.bytes[self.indent..end].trim_ascii_end();
        if line.ends_with(b"}") && !self.may_hold_two(line) {
            return Some(self.emit(view, end_of_line(view.bytes, end)));
        }
        self.state = State::Value(ValueScan::default());
        None
    }

    /// Whether there may be two values in a line.
    pub(super) fn may_hold_two(&self, line: &[u8]) -> bool {
        self.two_values.find(line).is_some()
    }

    /// Waits for more bytes, or gives up going back if the record is too long anyway.
    pub(super) fn go_on(&mut self, view: View<'_>) -> Option<Step> {
        if !view.is_full {
            return Some(Step::Wait);
        }
        self.is_streaming = true;
        self.scanned = view.bytes.len();
        None
    }

    /// Whether the record begins a line, in a file of lines.
    pub(super) fn is_line_of_lines(&self) -> bool {
        self.numbering == Numbering::Lines && self.line_bytes == 0 && !self.in_array
    }

    pub(super) fn settle(&mut self, numbering: Numbering) {
        if self.numbering == Numbering::Unsettled {
            self.numbering = numbering;
        }
    }

    pub(super) fn emit(&mut self, view: View<'_>, end: usize) -> Step {
        let next = self.row + 1;
        self.row = if self.numbering == Numbering::Records { next } else { next.max(self.line) };
        self.line += std::mem::take(&mut self.dropped_lines);
        self.pass(&view.bytes[..end]);
        self.state = State::Gap;
        self.is_streaming = false;
        Step::Record { row: self.row, indent: std::mem::take(&mut self.indent), end }
    }

    pub(super) fn skip(&mut self, bytes: &[u8]) -> Step {
        self.pass(bytes);
        Step::Skip(bytes.len())
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.credit = self.credit.saturating_add(4 * bytes.len());
        // Most records are in one line.
        if self.breaks.find(bytes).is_some() {
            self.line += count_lines(bytes);
            self.line_bytes = bytes.iter().rev().take_while(|byte| **byte != b'\n').count();
        } else {
            self.line_bytes = self.line_bytes.saturating_add(bytes.len());
        }
        self.breaks.pass(bytes.len());
    }
}

fn count_lines(bytes: &[u8]) -> i64 {
    i64::try_from(memchr_iter(b'\n', bytes).count()).unwrap_or(i64::MAX)
}

/// Where a line ends whose line break is at `end`.
pub(super) fn end_of_line(bytes: &[u8], end: usize) -> usize {
    if bytes[..end].ends_with(b"\r") { end - 1 } else { end }
}
