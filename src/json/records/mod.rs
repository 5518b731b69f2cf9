//! Cuts the bytes of a foreign JSON file into records, in memory that does not grow with the file.
//!
//! Nobody promised what is in such a file: it may be one line of gigabytes, a million brackets, half an upload or a
//! bomb. So nothing is parsed here. A record is found by where it begins and ends, whatever cannot be a record is
//! still handed on with its [`Fault`], and no byte that means something is dropped without a word.

mod block;
mod reader;
mod source;
mod split;
#[cfg(test)]
mod tests;
mod value;

pub(crate) use reader::Records;
pub(crate) use source::Compression;

/// How records lie in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// As the first line tells.
    #[default]
    Auto,
    /// One on each line.
    Lines,
    /// JSON values one after another, however they are broken into lines; each element of an array at the top is one.
    Documents,
}

/// What one file may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The longest record that is handed on whole.
    pub(crate) record_bytes: usize,
    /// About how long a chunk is.
    pub(crate) chunk_bytes: usize,
    /// How many bytes one compressed byte may become before the file is taken for a bomb.
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
    /// Longer than a record may be. Its text is its first 1,024 bytes, which may end within a character.
    TooLarge {
        /// How long it is.
        bytes: u64,
    },
    /// The rest of a file whose values can no longer be told apart: after a stray byte or a bracket too many.
    Trailing,
}

/// Where a record lies in its chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// From 1: the number of its line in [`Format::Lines`], its own number in [`Format::Documents`].
    pub(crate) row: i64,
    /// Its first byte.
    pub(crate) start: usize,
    /// The byte after its last.
    pub(crate) end: usize,
    /// What is wrong with it, as far as its bytes alone tell.
    pub(crate) fault: Option<Fault>,
}

/// Records of a file, whole and in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The records and what lies between them.
    pub(crate) all: Vec<u8>,
    /// Where the records are; at least one.
    pub(crate) records: Vec<Record>,
}

impl Chunk {
    /// How long it is.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The bytes of one of its records.
    pub(crate) fn bytes(&self, record: &Record) -> &[u8] {
        &self.all[record.start..record.end]
    }

    /// One of its records as text; `None` when it is not UTF-8 or cannot be a record for another reason. Each call looks
    /// at all of its bytes.
    pub(crate) fn text(&self, record: &Record) -> Option<&str> {
        record.fault.is_none().then(|| simdutf8::basic::from_utf8(self.bytes(record)).ok()).flatten()
    }
}

/// Why a file cannot be read on. The records before that point were handed out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The source failed.
    #[error("cannot read the file: {0}; check that it still exists and is readable, then load it again")]
    Io(#[source] std::io::Error),
    /// The gzip or zstd stream is broken or ends too early.
    #[error("cannot decompress the file: {0}; it is damaged or incomplete, so upload it again")]
    Inflate(#[source] std::io::Error),
    /// It inflates to more than a file of records does.
    #[error(
        "{read} compressed bytes expand to {inflated} or more, which looks like a decompression bomb; \
         remove the file, or raise the inflate ratio if you trust it"
    )]
    Bomb {
        /// Bytes that came out so far.
        inflated: u64,
        /// Compressed bytes that went in so far.
        read: u64,
    },
}
