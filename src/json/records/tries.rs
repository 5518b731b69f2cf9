//! How the splitter tries what a record may be, and where it goes on after one that is damaged.

use memchr::{memchr, memrchr};

use super::split::{Numbering, Splitter, State, Step, View, end_of_line};
use super::strict::{Found, Strict};
use super::value::blanks;
use super::{Format, array, inline};

/// A damaged record ends with a line when it is this long, even if the next line does not begin like a record.
const DAMAGED_BYTES: usize = 1 << 20;
/// Bytes looked at to tell an array of records from a line that begins with a bracket.
const ARRAY_BYTES: usize = 64 << 10;
const ARRAY_BYTES_AT_LEAST: usize = 256;

impl Splitter {
    pub(super) fn try_array(&mut self, view: View<'_>) -> Option<Step> {
        let most = if self.credit < ARRAY_BYTES { ARRAY_BYTES_AT_LEAST } else { ARRAY_BYTES };
        let bytes = &view.bytes[self.indent..];
        let head = &bytes[..bytes.len().min(most)];
        let is_end = view.is_end && head.len() == bytes.len();
        let is_array = match array::opens_array(head, is_end, self.format == Format::Auto) {
            Some(is_array) => is_array,
            None if view.is_full || head.len() == most => true,
            None if view.is_end => false,
            None => return Some(Step::Wait),
        };
        if !is_array {
            self.credit = self.credit.saturating_sub(head.len());
            self.state = State::Line;
            return None;
        }
        self.settle(Numbering::Records);
        self.in_array = true;
        self.state = State::Gap;
        let bracket = std::mem::take(&mut self.indent);
        Some(self.skip(&view.bytes[..=bracket]))
    }

    pub(super) fn try_value(&mut self, view: View<'_>) -> Option<Step> {
        let State::Value(scan) = &mut self.state else { return None };
        let line_break = self.breaks.find(view.bytes);
        let most = line_break.map_or(view.bytes.len(), |index| index + 1);
        let rest = view.bytes.get(self.scanned..most).unwrap_or_default();
        let end = scan.find_end(rest).map(|length| self.scanned + length);
        if let Some(end) = end.or_else(|| (view.is_end && line_break.is_none() && scan.is_scalar()).then_some(most)) {
            return self.end_value(view, end, false);
        }
        self.scanned = most;
        match line_break {
            Some(index) if self.is_streaming => Some(self.emit(view, end_of_line(view.bytes, index))),
            // No value may break a line inside a string: this is a line that was cut off.
            Some(_) if scan.is_in_string() => {
                self.damage(most);
                None
            }
            Some(_) => {
                self.scanned = self.indent;
                self.state = State::Lines(Strict::default());
                None
            }
            None if view.is_end => {
                self.damage(most);
                None
            }
            None => self.find_in_full_line(view),
        }
    }

    /// A line may be longer than the longest record because a record in it is damaged.
    fn find_in_full_line(&mut self, view: View<'_>) -> Option<Step> {
        if view.is_full {
            let seen = std::mem::replace(&mut self.scanned, self.indent);
            if let Some(step) = self.find_in_line(view, seen) {
                return Some(step);
            }
        }
        self.go_on(view)
    }

    pub(super) fn try_lines(&mut self, view: View<'_>) -> Option<Step> {
        let State::Lines(strict) = &mut self.state else { return None };
        let rest = view.bytes.get(self.scanned..).unwrap_or_default();
        match strict.find(rest) {
            Found::End(length) => self.end_value(view, self.scanned + length, true),
            Found::Damage(length) => {
                self.damage(self.scanned + length);
                None
            }
            Found::More if view.is_end => {
                self.damage(view.bytes.len());
                None
            }
            Found::More => {
                self.scanned = view.bytes.len();
                self.go_on(view)
            }
        }
    }

    fn end_value(&mut self, view: View<'_>, end: usize, has_lines: bool) -> Option<Step> {
        // A bracket is missing, and one of what follows was taken for it.
        let ends = (view.bytes.get(self.indent), view.bytes.get(end - 1));
        if matches!(ends, (Some(b'{'), Some(b']')) | (Some(b'['), Some(b'}'))) && !self.is_streaming {
            self.damage(end);
            return None;
        }
        if self.in_array || self.is_streaming {
            self.settle(if has_lines { Numbering::Records } else { Numbering::Lines });
            return Some(self.emit(view, end));
        }
        self.state = State::After { end, has_lines };
        None
    }

    /// A value counts if it is alone in its line or followed by another one. Otherwise the line is something else.
    pub(super) fn look_after(&mut self, view: View<'_>, end: usize, has_lines: bool) -> Option<Step> {
        let at = end + blanks(&view.bytes[end..]);
        let is_within = has_lines || self.line_bytes > 0 || self.format == Format::Documents;
        let is_last = match view.bytes.get(at) {
            None if view.is_end => true,
            None if view.is_full => return Some(self.emit(view, end)),
            None => return Some(Step::Wait),
            Some(b'\n') => true,
            Some(b'{' | b'[') => false,
            Some(b',') => {
                let next = at + 1 + blanks(&view.bytes[at + 1..]);
                self.comma_may_follow = matches!(view.bytes.get(next), None | Some(b'\n' | b'{'));
                if view.bytes.get(next).is_none() && !view.is_end && !view.is_full {
                    return Some(Step::Wait);
                }
                if !self.comma_may_follow && !is_within {
                    self.state = State::Line;
                    return None;
                }
                false
            }
            Some(_) if is_within => false,
            Some(_) => match self.breaks.find(view.bytes) {
                None if !view.is_end && !view.is_full => return Some(Step::Wait),
                line_break if self.may_hold_two(&view.bytes[..line_break.unwrap_or(view.bytes.len())]) => false,
                _ => {
                    self.state = State::Line;
                    return None;
                }
            },
        };
        if is_last && !is_within {
            self.settle(Numbering::Lines);
            return Some(self.emit(view, end_of_line(view.bytes, at)));
        }
        self.settle(Numbering::Records);
        Some(self.emit(view, end))
    }

    fn damage(&mut self, seen: usize) {
        self.state = State::Damaged { seen, tried_line: false };
        self.scanned = if self.is_streaming { seen } else { self.indent };
    }

    /// Ends a damaged record before the next line that begins like it: with a bracket, and no deeper. A record within
    /// another one is deeper, or on the same line. In a file of lines it ends with its line.
    pub(super) fn resynchronize(&mut self, view: View<'_>, seen: usize, tried_line: bool) -> Option<Step> {
        let bytes = view.bytes;
        if !tried_line && !self.is_streaming {
            if self.breaks.find(bytes).is_none() && !view.is_end && !view.is_full {
                return Some(Step::Wait);
            }
            self.state = State::Damaged { seen, tried_line: true };
            if let Some(step) = self.find_in_line(view, seen) {
                return Some(step);
            }
        }
        while let Some(index) = bytes.get(self.scanned..).and_then(|rest| memchr(b'\n', rest)) {
            let line = self.scanned + index + 1;
            if self.is_streaming {
                return Some(self.emit(view, end_of_line(bytes, line - 1)));
            }
            let indent = blanks(&bytes[line..]);
            let Some(&byte) = bytes.get(line + indent) else {
                if !view.is_end && !view.is_full {
                    return Some(Step::Wait);
                }
                break;
            };
            self.scanned = line;
            let column = self.line_bytes + self.indent;
            let ends_array = self.in_array && byte == b']' && (indent < column || indent == 0);
            let is_fresh = byte == b'{' && indent <= column || ends_array || self.is_line_of_lines();
            let is_long = line - self.indent >= DAMAGED_BYTES;
            let debt = seen.saturating_sub(line);
            if (is_fresh || is_long) && debt <= self.credit {
                self.credit -= debt;
                return Some(self.emit(view, end_of_line(bytes, line - 1)));
            }
        }
        if view.is_end {
            let end = if bytes.ends_with(b"\n") { bytes.len() - 1 } else { bytes.len() };
            return Some(self.emit(view, end_of_line(bytes, end)));
        }
        // Rather several records than one that is cut.
        if let Some(index) = memrchr(b'\n', &bytes[self.indent..]).filter(|_| view.is_full) {
            return Some(self.emit(view, end_of_line(bytes, self.indent + index)));
        }
        if self.is_streaming {
            self.scanned = bytes.len();
        }
        self.go_on(view)
    }

    /// Ends a damaged record before the next value of its line.
    fn find_in_line(&mut self, view: View<'_>, seen: usize) -> Option<Step> {
        let line = &view.bytes[self.indent..self.breaks.find(view.bytes).unwrap_or(view.bytes.len())];
        let end = self.indent + inline::next_value(line, self.in_array, &mut self.credit)?;
        self.credit = self.credit.checked_sub(seen.saturating_sub(end))?;
        self.settle(Numbering::Records);
        Some(self.emit(view, end))
    }

    /// Up to where an array can go on, or another value may begin.
    pub(super) fn cross_stray(&mut self, view: View<'_>) -> Option<Step> {
        let from = self.scanned.max(self.indent + 1).min(view.bytes.len());
        let in_array = self.in_array;
        let ends = |byte: &u8| matches!(byte, b'{' | b'\n') || in_array && matches!(byte, b',' | b']');
        match view.bytes[from..].iter().position(ends) {
            Some(length) => Some(self.emit(view, from + length)),
            None if view.is_end => Some(self.emit(view, view.bytes.len())),
            None => {
                self.scanned = view.bytes.len();
                self.go_on(view)
            }
        }
    }
}
