//! The decompressed bytes of a file. A name may lie, so the first bytes decide; a file that expands without end is
//! stopped.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

use flate2::bufread::GzDecoder;
use zstd::stream::read::Decoder;

use super::ReadError;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// How a skippable zstd frame begins, after a first byte of 0x50 to 0x5f.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];
/// How zstd says that it would need more memory than it allows itself.
const WINDOW_TOO_LARGE: &str = "too much memory";
/// Less output than this is never a bomb: a small file of zeros or of one repeated line is just a small file.
const HARMLESS_BYTES: u64 = 64 << 20;

/// How a file is compressed, according to its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    /// No known extension; the content may still be compressed.
    None,
    /// `.gz` or `.gzip`.
    Gzip,
    /// `.zst` or `.zstd`.
    Zstd,
}

impl Compression {
    /// What the file extension says.
    pub(crate) fn of_name(name: &str) -> Self {
        let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending).to_ascii_lowercase();
        match ending.as_str() {
            "gz" | "gzip" => Self::Gzip,
            "zst" | "zstd" => Self::Zstd,
            _ => Self::None,
        }
    }

    /// What the first bytes say. None of these can begin JSON, so the name only matters if zstd begins with a skippable
    /// frame, as pzstd writes it.
    fn of_content(self, head: &[u8]) -> Self {
        if head.starts_with(GZIP_MAGIC) {
            Self::Gzip
        } else if head.starts_with(ZSTD_MAGIC) || self == Self::Zstd && begins_skippable(head) {
            Self::Zstd
        } else {
            Self::None
        }
    }
}

fn begins_skippable(head: &[u8]) -> bool {
    matches!(head, [0x50..=0x5f, rest @ ..] if rest.starts_with(ZSTD_SKIPPABLE))
}

/// A file, decompressed while it is read. A decoder keeps the window its stream requires: 32 KiB for gzip, at most 128
/// MiB for zstd (as `--long` writes it); zstd itself refuses more.
pub(super) struct Source<R: Read> {
    content: Content<R>,
    inflated: u64,
    inflate_ratio: u64,
}

impl<R: Read> Source<R> {
    /// Looks at the first bytes to decide how to read the rest.
    pub(super) fn open(mut source: R, named: Compression, inflate_ratio: u64) -> Result<Self, ReadError> {
        let mut head = Vec::new();
        source.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut head).map_err(ReadError::Io)?;
        let found = named.of_content(&head);
        let whole = Cursor::new(head).chain(source);
        let content = match found {
            Compression::None => Content::Plain(whole),
            Compression::Gzip => Content::Gzip(Box::new(Members::new(BufReader::new(Packed::new(whole))))),
            Compression::Zstd => {
                let decoder = Decoder::new(Packed::new(whole)).map_err(ReadError::Inflate)?;
                Content::Zstd(Box::new(decoder))
            }
        };
        Ok(Self { content, inflated: 0, inflate_ratio })
    }

    /// Adds up to `most` bytes to the buffer, fewer only at the end. Returns whether there may be more. Bytes read
    /// before an error are in the buffer.
    pub(super) fn fill(&mut self, buffer: &mut Vec<u8>, most: usize) -> Result<bool, ReadError> {
        let before = buffer.len();
        let outcome = self.content.by_ref().take(most as u64).read_to_end(buffer);
        self.inflated += (buffer.len() - before) as u64;
        let Some((read, failed)) = self.content.packed() else {
            return outcome.map(|came| came == most).map_err(ReadError::Io);
        };
        if self.inflated > HARMLESS_BYTES && self.inflated > read.saturating_mul(self.inflate_ratio) {
            return Err(ReadError::Bomb { inflated: self.inflated, read });
        }
        outcome.map(|came| came == most).map_err(|error| match failed {
            true => ReadError::Io(error),
            false if error.to_string().contains(WINDOW_TOO_LARGE) => ReadError::Window,
            false => ReadError::Inflate(error),
        })
    }
}

/// The source, including the bytes already read to detect its format.
type Whole<R> = Chain<Cursor<Vec<u8>>, R>;

enum Content<R: Read> {
    Plain(Whole<R>),
    Gzip(Box<Members<BufReader<Packed<R>>>>),
    Zstd(Box<Decoder<'static, BufReader<Packed<R>>>>),
}

impl<R: Read> Content<R> {
    /// Counts compressed bytes, and remembers whether the last read failed.
    fn packed(&self) -> Option<(u64, bool)> {
        let packed = match self {
            Self::Plain(_) => return None,
            Self::Gzip(members) => members.packed()?.get_ref(),
            Self::Zstd(decoder) => decoder.get_ref().get_ref(),
        };
        Some((packed.read, packed.failed))
    }
}

impl<R: Read> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buffer),
            Self::Gzip(members) => members.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// The members of a gzip file one after another. Like gunzip, it takes zeros after a member for padding, as tapes and
/// block devices add it.
struct Members<R> {
    /// The current member; its source once all have been read.
    current: Option<GzDecoder<R>>,
    rest: Option<R>,
}

impl<R: BufRead> Members<R> {
    fn new(source: R) -> Self {
        Self { current: Some(GzDecoder::new(source)), rest: None }
    }

    fn packed(&self) -> Option<&R> {
        self.current.as_ref().map(GzDecoder::get_ref).or(self.rest.as_ref())
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(current) = &mut self.current {
            let read = current.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let is_more = skip_zeros(current.get_mut())?;
            let source = self.current.take().map(GzDecoder::into_inner);
            match is_more {
                // If it is no member, the decoder says so.
                true => self.current = source.map(GzDecoder::new),
                false => self.rest = source,
            }
        }
        Ok(0)
    }
}

/// Returns whether something follows.
fn skip_zeros(source: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = source.fill_buf()?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        if zeros == 0 {
            return Ok(!bytes.is_empty());
        }
        source.consume(zeros);
    }
}

/// The compressed bytes. A decoder reports both its own errors and those of its source as `io::Error`; only here can
/// they be told apart.
struct Packed<R> {
    source: Whole<R>,
    read: u64,
    failed: bool,
}

impl<R> Packed<R> {
    fn new(source: Whole<R>) -> Self {
        Self { source, read: 0, failed: false }
    }
}

impl<R: Read> Read for Packed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A decoder would take an interruption between two members for an error.
        let outcome = loop {
            match self.source.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        self.failed = outcome.is_err();
        self.read += *outcome.as_ref().unwrap_or(&0) as u64;
        outcome
    }
}
