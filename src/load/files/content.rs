//! The content of a file as a reader, on a thread that may block.
//!
//! Opening an object of a store costs a round trip, which would dominate for small ones: those are fetched ahead.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::stream::{self, BoxStream, StreamExt};
use object_store::{GetResult, ObjectStoreExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::discover::{Found, Source};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::json::partition::{PartitionValue, Partitioning};
use crate::json::records::{Compression, Format, Limits, Records};
use crate::pipeline::files::{FileFormat, SourceSettings};

/// Pieces of an object buffered for its reader.
const PIECES_AHEAD: usize = 4;
/// Objects up to this size are fetched whole.
const SMALL_BYTES: u64 = 256 << 10;
/// Objects fetched at the same time, which also bounds their bytes.
const FETCHED_AHEAD: usize = 16;

/// How the files of a source are read.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    source: Arc<Source>,
    format: Format,
    limits: Limits,
    partitioning: Partitioning,
}

/// An open file.
pub(super) enum Content {
    /// On this machine.
    Local(File),
    /// In a store: pieces as they arrive.
    Remote(Pieces),
    /// In a store, and entirely in memory.
    Whole(bytes::buf::Reader<Bytes>),
}

/// The result of opening a file; no content if the file is gone.
type Opened = Result<Option<Content>>;

/// Files that are opened one after another.
pub(super) struct Files {
    reader: Reader,
    /// With what was fetched ahead.
    ahead: BoxStream<'static, (Found, Option<Opened>)>,
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
        let limits = Limits { record_bytes, inflate_ratio: settings.max_inflate_ratio, ..Limits::default() };
        Self { source, format, limits, partitioning: Partitioning::new(settings.partition_columns.as_deref()) }
    }

    /// The partition values of a file, from its folders.
    pub(super) fn partition(&self, file: &Found) -> Arc<[PartitionValue]> {
        match file.path.as_ref().contains('=') {
            true => self.partitioning.of(&self.source.below(&file.path)),
            false => Arc::default(),
        }
    }

    /// Opens files one after another, in order. Blocks its thread, which must belong to a runtime.
    pub(super) fn open_each(&self, files: Vec<Found>) -> Files {
        let source = Arc::clone(&self.source);
        let ahead = stream::iter(files).map(move |file| {
            let is_ahead = source.storage.local_root().is_none() && file.size_bytes <= SMALL_BYTES;
            let (source, wanted) = (Arc::clone(&source), file.clone());
            // A task of its own, so it continues while nobody polls it.
            let fetching = is_ahead.then(|| tokio::spawn(async move { Content::open(&source, &wanted).await }));
            let fetching = fetching.map(AbortOnDropHandle::new);
            async move {
                let Some(fetching) = fetching else { return (file, None) };
                let fetched = fetching.await.context(ErrorKind::Unavailable, "fetch a file ahead");
                (file, Some(fetched.and_then(|opened| opened)))
            }
        });
        Files { reader: self.clone(), ahead: ahead.buffered(FETCHED_AHEAD).boxed() }
    }

    /// The records of an opened file: unavailable when the file is gone or cannot be read.
    fn records(&self, file: &Found, opened: Opened) -> Result<Records<Content>> {
        let path = file.path.as_ref();
        let content = opened?.ok_or_else(|| Error::unavailable(format!("{path} disappeared before it was loaded")))?;
        let records = Records::new(content, Compression::of_name(path), self.format, self.limits);
        records.context(ErrorKind::Unavailable, format!("read {path}"))
    }

    /// A local file that has changed meanwhile is still being written, and is loaded when it is finished.
    ///
    /// # Errors
    /// Unavailable when it has changed.
    pub(super) fn check_unchanged(&self, file: &Found) -> Result<()> {
        let Some(root) = self.source.storage.local_root() else { return Ok(()) };
        let metadata = std::fs::metadata(root.join(file.path.as_ref()));
        let metadata = metadata.context(ErrorKind::Unavailable, format!("look at {}", file.path))?;
        match Found::local(file.path.clone(), &metadata) == *file {
            true => Ok(()),
            false => Err(Error::unavailable(format!(
                "{} changed while it was being read; it will be loaded later",
                file.path
            ))),
        }
    }
}

impl Content {
    /// Opens a file; `None` when it is gone.
    ///
    /// # Errors
    /// When the store fails.
    async fn open(source: &Source, file: &Found) -> Opened {
        let context = || format!("open {}", file.path);
        if let Some(root) = source.storage.local_root() {
            return match File::open(root.join(file.path.as_ref())) {
                Ok(file) => Ok(Some(Self::Local(file))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error).context(ErrorKind::Unavailable, context()),
            };
        }
        match source.storage.object_store().get(&file.path).await {
            Ok(found) if found.meta.size <= SMALL_BYTES => {
                let bytes = found.bytes().await.context(ErrorKind::Unavailable, context())?;
                Ok(Some(Self::Whole(bytes.reader())))
            }
            Ok(found) => Ok(Some(Self::Remote(Pieces::of(found)))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error).context(ErrorKind::Unavailable, context()),
        }
    }
}

impl Iterator for Files {
    type Item = (Found, Result<Records<Content>>);

    fn next(&mut self) -> Option<Self::Item> {
        let runtime = Handle::current();
        let (file, ahead) = runtime.block_on(self.ahead.next())?;
        let opened = ahead.unwrap_or_else(|| runtime.block_on(Content::open(&self.reader.source, &file)));
        let records = self.reader.records(&file, opened);
        Some((file, records))
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
            Self::Whole(bytes) => bytes.read(buffer),
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use async_trait::async_trait;
    use object_store::GetOptions;
    use object_store::path::Path;
    use tokio::sync::watch;

    use super::*;
    use crate::clock::{Clock, Timestamp};
    use crate::storage::Storage;
    use crate::storage::tests::intercepted::{Inner, Intercept};

    /// Answers no get before this many wait at the same time, and counts how many do.
    #[derive(Debug)]
    struct Gate {
        wanted: usize,
        is_open: watch::Sender<bool>,
        waiting: AtomicUsize,
        most: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl Intercept for Gate {
        async fn get(&self, inner: &Inner, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
            let waiting = self.waiting.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(waiting, Ordering::SeqCst);
            if waiting >= self.wanted {
                self.is_open.send_replace(true);
            }
            self.is_open.subscribe().wait_for(|is_open| *is_open).await.unwrap();
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            inner.get_opts(location, options).await
        }
    }

    #[test]
    fn a_file_that_was_replaced_by_one_as_long_and_as_old_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let settings: SourceSettings = toml::from_str(&format!("path = {:?}", folder.path())).unwrap();
        let reader = Reader::new(Arc::new(Source::new(&Storage::memory(), &settings).unwrap()), &settings);
        let (file, other) = (folder.path().join("a.json"), folder.path().join("b.json"));
        std::fs::write(&file, "{}").unwrap();
        let found = Found::local(Path::from("a.json"), &file.metadata().unwrap());
        reader.check_unchanged(&found).unwrap();
        std::fs::write(&other, "[]").unwrap();
        File::open(&other).unwrap().set_modified(file.metadata().unwrap().modified().unwrap()).unwrap();
        // The granularity of change times.
        while other.metadata().unwrap().ctime() == file.metadata().unwrap().ctime()
            && other.metadata().unwrap().ctime_nsec() == file.metadata().unwrap().ctime_nsec()
        {
            std::fs::set_permissions(&other, file.metadata().unwrap().permissions()).unwrap();
        }
        std::fs::rename(&other, &file).unwrap();
        assert!(reader.check_unchanged(&found).unwrap_err().to_string().contains("changed while"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn small_objects_are_fetched_side_by_side_and_come_in_their_order() {
        let most = Arc::new(AtomicUsize::new(0));
        let storage = Storage::memory();
        let mut files = Vec::new();
        for number in 0..2 * FETCHED_AHEAD + 2 {
            // Two large ones, which are opened only at their turn: their size is not bounded.
            let (name, records) = match number % (FETCHED_AHEAD + 1) {
                5 => (format!("in/{number:03}-large.json"), usize::try_from(SMALL_BYTES).unwrap()),
                _ => (format!("in/{number:03}.json"), number),
            };
            let (path, text) = (Path::from(name), "{}\n".repeat(records));
            let (size_bytes, modified) = (text.len() as u64, Timestamp::default());
            files.push(Found { path: path.clone(), size_bytes, modified, changed: modified });
            if number != 7 {
                storage.put_new(&path, Bytes::from(text)).await.unwrap();
            }
        }
        // One of the first is large and waits for its turn.
        let (wanted, counted) = (FETCHED_AHEAD - 1, Arc::clone(&most));
        let (is_open, waiting) = (watch::Sender::new(false), AtomicUsize::default());
        let storage = storage.intercepted(Gate { wanted, is_open, waiting, most: counted });
        let settings: SourceSettings = toml::from_str("path = \"in\"").unwrap();
        let reader = Reader::new(Arc::new(Source::new(&storage, &settings).unwrap()), &settings);
        let to_read = files.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let count = |mut records: Records<Content>| {
                let mut count = 0;
                while let Some(chunk) = records.next_chunk().unwrap() {
                    count += chunk.records.len();
                }
                count
            };
            reader.open_each(to_read).map(|(file, records)| (file, records.ok().map(count))).collect::<Vec<_>>()
        });
        let read = Clock::system().timeout(Duration::from_secs(60), reading).await;
        let read = read.expect("they come one by one").unwrap();
        let expected = files.into_iter().map(|file| {
            let records = usize::try_from(file.size_bytes / 3).unwrap();
            let is_there = !file.path.as_ref().contains("007");
            (file, is_there.then_some(records))
        });
        assert_eq!(read, expected.collect::<Vec<_>>());
        let most = most.load(Ordering::SeqCst);
        assert!((FETCHED_AHEAD - 1..=FETCHED_AHEAD + 1).contains(&most), "{most} at the same time");
    }
}
