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
    /// How much of the buffer is in records or between them.
    position: usize,
    at_start: bool,
    /// How many bytes of the current record were dropped.
    dropped: usize,
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
            dropped: 0,
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
            let is_end = matches!(self.input, Input::Ended);
            match self.splitter.step(&self.buffer[self.position..], is_end) {
                Step::Skip(length) => self.position += length,
                Step::Record { row, indent, end } => self.take(row, indent, end),
                Step::Wait => return,
            }
        }
    }

    /// Takes a record that begins at the position, after its indent.
    fn take(&mut self, row: i64, indent: usize, end: usize) {
        let (start, end) = (self.position + indent, self.position + end);
        self.position = end;
        let length = mem::take(&mut self.dropped) + (end - start);
        let record = if length > self.limits.record_bytes {
            let fault = Fault::TooLarge { bytes: length as u64 };
            Record { row, indent, start, end: start + self.preview_bytes(), fault: Some(fault) }
        } else {
            Record { row, indent, start, end, fault: None }
        };
        self.records.push(record);
    }

    /// Frees what no record will need: the middle of one that is too large, and what precedes the first one.
    fn let_go(&mut self) {
        if let Some(passed) = self.splitter.passed_bytes() {
            // The last byte could still be the carriage return of a line break.
            let middle = self.position + self.splitter.indent() + self.preview_bytes()..self.position + passed - 1;
            if !middle.is_empty() {
                self.dropped += middle.len();
                self.splitter.drop_bytes(&self.buffer[middle.clone()]);
                self.buffer.drain(middle);
            }
        }
        if self.records.is_empty() {
            self.buffer.drain(..mem::take(&mut self.position));
        }
    }

    fn is_full(&self) -> bool {
        let long = self.buffer.len() >= self.limits.chunk_bytes && !self.records.is_empty();
        long || self.records.len() >= self.most_records()
    }

    /// Takes the whole records from the buffer as a chunk; the rest stays.
    fn cut_chunk(&mut self) -> Chunk {
        let rest = self.buffer.split_off(mem::take(&mut self.position));
        let mut bytes = mem::replace(&mut self.buffer, rest);
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
