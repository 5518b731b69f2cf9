//! The bytes of a file as something to read from, on a thread that may wait for them.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::StreamExt;
use object_store::{GetResult, ObjectStoreExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::discover::{Found, Source};
use super::records::{Compression, Format, Limits, Records};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::pipeline::files::{FileFormat, SourceSettings};

/// Pieces of an object that wait for their reader.
const PIECES_AHEAD: usize = 4;

/// How the files of a source are read.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    source: Arc<Source>,
    format: Format,
    limits: Limits,
}

/// A file that is open.
pub(super) enum Content {
    /// On this machine.
    Local(File),
    /// In a store: pieces as they come.
    Remote(Pieces),
}

/// Pieces of an object.
pub(super) struct Pieces {
    pieces: mpsc::Receiver<object_store::Result<Bytes>>,
    current: Bytes,
}

impl Reader {
    pub(super) fn new(source: Arc<Source>, settings: &SourceSettings) -> Self {
        let format = match settings.format {
            FileFormat::Auto => Format::Auto,
            FileFormat::Lines => Format::Lines,
            FileFormat::Documents => Format::Documents,
        };
        let record_bytes = usize::try_from(settings.max_record.as_u64()).unwrap_or(usize::MAX);
        Self { source, format, limits: Limits { record_bytes, ..Limits::default() } }
    }

    /// Opens a file for its records. Blocks its thread; only for one that belongs to a runtime.
    ///
    /// # Errors
    /// Unavailable when the file is gone or cannot be read.
    pub(super) fn open(&self, file: &Found) -> Result<Records<Content>> {
        let path = file.path.as_ref();
        let content = Handle::current().block_on(Content::open(&self.source, file))?;
        let content = content.ok_or_else(|| Error::unavailable(format!("{path} is gone before it was loaded")))?;
        let records = Records::new(content, Compression::of_name(path), self.format, self.limits);
        records.context(ErrorKind::Unavailable, format!("read {path}"))
    }

    /// A local file that has changed meanwhile is still being written: it is loaded when it is done.
    ///
    /// # Errors
    /// Unavailable when it has.
    pub(super) fn check_unchanged(&self, file: &Found) -> Result<()> {
        let Some(root) = self.source.storage.local_root() else { return Ok(()) };
        let metadata = std::fs::metadata(root.join(file.path.as_ref()));
        let metadata = metadata.context(ErrorKind::Unavailable, format!("look at {}", file.path))?;
        match metadata.len() == file.size_bytes {
            true => Ok(()),
            false => Err(Error::unavailable(format!("{} changed while it was read; it is loaded later", file.path))),
        }
    }
}

impl Content {
    /// Opens a file; `None` when it is gone.
    ///
    /// # Errors
    /// When the store fails.
    async fn open(source: &Source, file: &Found) -> Result<Option<Self>> {
        let context = || format!("open {}", file.path);
        if let Some(root) = source.storage.local_root() {
            return match File::open(root.join(file.path.as_ref())) {
                Ok(file) => Ok(Some(Self::Local(file))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error).context(ErrorKind::Unavailable, context()),
            };
        }
        match source.storage.object_store().get(&file.path).await {
            Ok(found) => Ok(Some(Self::Remote(Pieces::of(found)))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error).context(ErrorKind::Unavailable, context()),
        }
    }
}

impl Pieces {
    fn of(found: GetResult) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        let mut stream = found.into_stream();
        tokio::spawn(async move {
            while let Some(piece) = stream.next().await {
                let failed = piece.is_err();
                if sender.send(piece).await.is_err() || failed {
                    return;
                }
            }
        });
        Self { pieces, current: Bytes::new() }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Local(file) => file.read(buffer),
            Self::Remote(pieces) => pieces.read(buffer),
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
