//! Reads a file piece by piece and returns its records in chunks. Records that are too long are counted and dropped.

use std::io::Read;
use std::mem;

use super::source::{Compression, Source};
use super::split::{Splitter, Step};
use super::{Chunk, Fault, Format, Limits, ReadError, Record};

/// Bytes per read: small enough to stay in the processor's cache until they are searched.
const READ_BYTES: usize = 256 << 10;
/// How much of a too large record is kept.
const PREVIEW_BYTES: usize = 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The records of one file.
pub(crate) struct Records<R: Read> {
    input: Input<R>,
    splitter: Splitter,
    limits: Limits,
    /// Bytes read and not yet returned.
    buffer: Vec<u8>,
    /// How much of the buffer the splitter has consumed.
    position: usize,
    at_start: bool,
    open: Option<OpenRecord>,
    /// Whole records in the buffer.
    records: Vec<Record>,
}

/// The state of the byte source.
enum Input<R: Read> {
    Reading(Source<R>),
    /// All bytes are in the buffer.
    Ended,
    /// An error not returned yet: the records before it come first.
    Failed(ReadError),
    /// Already returned.
    Given,
}

/// A record whose end was not found yet.
struct OpenRecord {
    row: i64,
    start: usize,
    /// How many bytes after its preview were dropped.
    dropped: usize,
}

impl<R: Read> Records<R> {
    /// Looks at the first bytes of the source; `compression` is what the file name suggests.
    pub(crate) fn new(source: R, compression: Compression, format: Format, limits: Limits) -> Result<Self, ReadError> {
        Ok(Self {
            input: Input::Reading(Source::open(source, compression, limits.inflate_ratio)?),
            splitter: Splitter::new(format, limits.record_bytes),
            limits,
            buffer: Vec::new(),
            position: 0,
            at_start: true,
            open: None,
            records: Vec::new(),
        })
    }

    /// The next records; `None` at the end of the file. An error is returned once, after the records before it.
    pub(crate) fn next_chunk(&mut self) -> Result<Option<Chunk>, ReadError> {
        loop {
            self.split();
            self.let_go();
            let ended = !matches!(self.input, Input::Reading(_));
            if self.is_full() || ended && !self.records.is_empty() {
                return Ok(Some(self.cut_chunk()));
            }
            match mem::replace(&mut self.input, Input::Given) {
                Input::Reading(source) => self.input = self.fill(source),
                Input::Failed(error) => return Err(error),
                Input::Ended | Input::Given => return Ok(None),
            }
        }
    }

    /// Finds the records among the bytes that were read.
    fn split(&mut self) {
        while self.records.len() < self.most_records() {
            match self.splitter.step(&self.buffer[self.position..]) {
                Step::Pass(length) => self.position += length,
                Step::Begin(length) => {
                    self.position += length;
                    self.open = Some(OpenRecord { row: self.splitter.row(), start: self.position, dropped: 0 });
                }
                Step::End(length) => {
                    self.position += length;
                    self.close(None);
                }
                Step::Wait if !matches!(self.input, Input::Ended) => return,
                Step::Wait => {
                    if !self.splitter.end() {
                        return self.close(self.splitter.is_lost().then_some(Fault::Trailing));
                    }
                }
            }
        }
    }

    /// Ends the current record, if there is one.
    fn close(&mut self, fault: Option<Fault>) {
        let Some(OpenRecord { row, start, dropped }) = self.open.take() else { return };
        let mut end = self.position;
        if self.splitter.is_by_line() && self.buffer[start..end].ends_with(b"\r") {
            end -= 1;
        }
        let length = dropped + (end - start);
        let record = if length > self.limits.record_bytes {
            let fault = Fault::TooLarge { bytes: length as u64 };
            Record { row, start, end: start + self.preview_bytes(), fault: Some(fault) }
        } else {
            Record { row, start, end, fault }
        };
        self.records.push(record);
    }

    /// Frees what no record will need: the middle of one that is too large, and what precedes the first one.
    fn let_go(&mut self) {
        let preview = self.preview_bytes();
        if let Some(open) = &mut self.open {
            // One byte more than the limit could still be the carriage return of the line break. For the same reason
            // the last byte stays.
            let surely_too_large = self.limits.record_bytes.saturating_add(1);
            if open.dropped > 0 || self.position - open.start > surely_too_large {
                let middle = open.start + preview..self.position - 1;
                open.dropped += middle.len();
                self.position -= middle.len();
                self.buffer.drain(middle);
            }
        }
        if self.records.is_empty() {
            let done = self.done_bytes();
            self.buffer.drain(..done);
            self.move_back(done);
        }
    }

    fn is_full(&self) -> bool {
        let long = self.buffer.len() >= self.limits.chunk_bytes && !self.records.is_empty();
        long || self.records.len() >= self.most_records()
    }

    /// Takes the whole records from the buffer as a chunk; the rest stays.
    fn cut_chunk(&mut self) -> Chunk {
        let done = self.done_bytes();
        let rest = self.buffer.split_off(done);
        let mut bytes = mem::replace(&mut self.buffer, rest);
        self.move_back(done);
        // The caller may hold on to it for long, so it must not hold more memory than it needs.
        bytes.shrink_to_fit();
        Chunk { all: bytes, records: mem::take(&mut self.records) }
    }

    /// Reads more. What the source still holds afterwards tells whether there is more.
    fn fill(&mut self, mut source: Source<R>) -> Input<R> {
        let most = self.limits.chunk_bytes.clamp(BYTE_ORDER_MARK.len(), READ_BYTES);
        self.make_room(most);
        let outcome = source.fill(&mut self.buffer, most);
        if mem::take(&mut self.at_start) && self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.buffer.drain(..BYTE_ORDER_MARK.len());
        }
        match outcome {
            Ok(true) => Input::Reading(source),
            Ok(false) => Input::Ended,
            Err(error) => Input::Failed(error),
        }
    }

    /// Two buffer sizes: one for a chunk, one for the longest record. A buffer that grows by doubling would hold a long
    /// record twice while it moves.
    fn make_room(&mut self, more: usize) {
        let needed = self.buffer.len() + more;
        if needed <= self.buffer.capacity() {
            return;
        }
        let for_chunk = self.limits.chunk_bytes.saturating_add(more);
        let for_record = self.limits.record_bytes.saturating_add(1).saturating_add(more);
        let whole = if needed <= for_chunk { for_chunk } else { for_record };
        // A limit larger than memory is no reason to fail before a record really is that long.
        if self.buffer.try_reserve_exact(whole.saturating_sub(self.buffer.len())).is_err() {
            self.buffer.reserve(more);
        }
    }

    /// How much of the buffer precedes the current record.
    fn done_bytes(&self) -> usize {
        self.open.as_ref().map_or(self.position, |open| open.start)
    }

    /// Adjusts positions after so many bytes at the start of the buffer were removed.
    fn move_back(&mut self, gone: usize) {
        self.position -= gone;
        if let Some(open) = &mut self.open {
            open.start -= gone;
        }
    }

    /// The record list of a chunk takes no more memory than its bytes, even for records as short as `1`.
    fn most_records(&self) -> usize {
        (self.limits.chunk_bytes / size_of::<Record>()).max(1)
    }

    /// Bytes of the file held in memory, for tests of the limits.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.buffer.capacity() + self.records.capacity() * size_of::<Record>()
    }

    fn preview_bytes(&self) -> usize {
        PREVIEW_BYTES.min(self.limits.record_bytes)
    }
}
