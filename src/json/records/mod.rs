//! Splits the bytes of a foreign JSON file into records, in memory that does not grow with the file.
//!
//! Such a file can contain anything: a single line of gigabytes, a million brackets, half an upload or a decompression
//! bomb. So nothing is parsed here. A record is found by where it begins and ends, whatever cannot be a record is still
//! passed on with its [`Fault`], and no meaningful byte is dropped silently.

mod array;
mod block;
mod inline;
mod reader;
mod source;
mod split;
mod strict;
#[cfg(test)]
mod tests;
mod tries;
mod value;

pub(crate) use reader::Records;
pub(crate) use source::Compression;

/// How records are laid out in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// Tried out, value by value.
    #[default]
    Auto,
    /// One record per line.
    Lines,
    /// JSON values one after another, in any number of lines; each element of a top-level array is a record.
    Documents,
}

/// Limits for one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The longest record that is passed on whole.
    pub(crate) record_bytes: usize,
    /// The approximate size of a chunk.
    pub(crate) chunk_bytes: usize,
    /// How many bytes one compressed byte may expand to before the file counts as a bomb.
    pub(crate) inflate_ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { record_bytes: 32 << 20, chunk_bytes: 4 << 20, inflate_ratio: 500 }
    }
}

/// Why a record cannot be parsed as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Longer than allowed. Its text is the first 1,024 bytes, which may end in the middle of a character.
    TooLarge {
        /// Its length.
        bytes: u64,
    },
}

/// Where a record lies in its chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// From 1, and growing: the line number in a file of lines, the record number in one of documents.
    pub(crate) row: i64,
    /// How many blanks precede it in its line. They are a part of it if it is not JSON.
    pub(crate) indent: usize,
    /// Its first byte.
    pub(crate) start: usize,
    /// The byte after its last.
    pub(crate) end: usize,
    /// What is wrong with it, as far as its bytes alone tell.
    pub(crate) fault: Option<Fault>,
}

/// Consecutive whole records of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The records and the bytes between them.
    pub(crate) all: Vec<u8>,
    /// Where the records are; at least one.
    pub(crate) records: Vec<Record>,
}

impl Chunk {
    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The bytes of one of its records.
    pub(crate) fn bytes(&self, record: &Record) -> &[u8] {
        &self.all[record.start..record.end]
    }

    /// The same with the blanks before it in its line.
    pub(crate) fn indented_bytes(&self, record: &Record) -> &[u8] {
        &self.all[record.start - record.indent..record.end]
    }

    /// The same as text; `None` as in [`Chunk::text`].
    pub(crate) fn indented_text(&self, record: &Record) -> Option<&str> {
        record.fault.is_none().then(|| simdutf8::basic::from_utf8(self.indented_bytes(record)).ok()).flatten()
    }

    /// One of its records as text; `None` when it is not UTF-8 or cannot be a record for another reason. Every call
    /// validates all of its bytes.
    pub(crate) fn text(&self, record: &Record) -> Option<&str> {
        record.fault.is_none().then(|| simdutf8::basic::from_utf8(self.bytes(record)).ok()).flatten()
    }
}

/// Why a file cannot be read any further. The records before that point were already returned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The source failed.
    #[error("cannot read the file: {0}; check that it still exists and is readable, then load it again")]
    Io(#[source] std::io::Error),
    /// The gzip or zstd stream is corrupt or truncated.
    #[error("cannot decompress the file: {0}; it is damaged or incomplete, so upload it again")]
    Inflate(#[source] std::io::Error),
    /// The zstd stream refers to more of what precedes than is kept in memory.
    #[error(
        "cannot decompress the file: it was compressed with a window of more than 128 MiB; \
         compress it again with zstd --long=27 or without --long"
    )]
    Window,
    /// It expands to more than a file of records would.
    #[error(
        "{read} compressed bytes expand to {inflated} or more, which looks like a decompression bomb; \
         remove the file, or raise source.max_inflate_ratio if you trust it"
    )]
    Bomb {
        /// Bytes decompressed so far.
        inflated: u64,
        /// Compressed bytes consumed so far.
        read: u64,
    },
}
