//! Loads a batch of files: read on one thread, parsed and encoded on others, written before the commit that refers to
//! them.
//!
//! Memory is bounded by the parts in progress, whatever the files contain.

use std::sync::Arc;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::JoinError;

use super::columns::Shared;
use super::content::{Content, Reader};
use super::discover::Found;
use super::part::{Part, Piece};
use super::telegram::Updates;
use crate::clock::Timestamp;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::json::records::Records;
use crate::panic::Panic;
use crate::table::{StagedFile, Stager};

/// Bytes of records in a part: enough to make a decent data file; a part takes several times that in memory.
const PART_BYTES: usize = 8 << 20;
/// A file up to this size is read to its end before any of it is passed on, so that a truncated one does no harm.
const HELD_BYTES: usize = 4 << 20;
/// Pieces that wait for their part.
const PIECES_AHEAD: usize = 2;

/// What a batch is loaded with.
#[derive(Clone, Debug)]
pub(super) struct Loader {
    pub(super) reader: Reader,
    pub(super) shared: Shared,
    /// Set if the records are Telegram updates.
    pub(super) updates: Option<Updates>,
    pub(super) stager: Stager,
    /// The ingestion time of the rows. It precedes the first read of a file, so any later change to the file is newer.
    pub(super) ingested_at: Timestamp,
    /// Parts processed at the same time.
    pub(super) parallel: usize,
}

/// A batch ready to be committed.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// Files that were read to their end.
    pub(super) files: Vec<Found>,
    pub(super) staged: Vec<StagedFile>,
    pub(super) rows: u64,
    pub(super) rescued_rows: u64,
    pub(super) corrupt_rows: u64,
    /// Files that could not be read, and why.
    pub(super) unread: Vec<(Found, Error)>,
}

enum Event {
    Piece(Piece),
    Read(Found),
    /// `has_begun` if pieces of it were already passed on.
    Unread {
        file: Found,
        error: Error,
        has_begun: bool,
    },
}

/// The result of one part.
struct MadePart {
    staged: StagedFile,
    rescued_rows: u64,
    corrupt_rows: u64,
}

impl Loader {
    /// Loads the files. One that cannot be read, or that our own code panics on, is left out.
    ///
    /// # Errors
    /// When the table's store fails, or a new field is to stop the loader.
    pub(super) async fn load(&self, mut files: Vec<Found>) -> Result<Loaded> {
        let error = match self.load_readable(files.clone()).await {
            Err(error) if error.kind() == ErrorKind::Panicked => error,
            loaded => return loaded,
        };
        if files.len() <= 1 {
            let unread = files.into_iter().zip([error]).collect();
            return Ok(Loaded { unread, ..Loaded::default() });
        }
        // Half by half, until the file that it was is alone.
        let rest = files.split_off(files.len() / 2);
        let mut loaded = Box::pin(self.load(files)).await?;
        loaded.append(Box::pin(self.load(rest)).await?);
        Ok(loaded)
    }

    async fn load_readable(&self, files: Vec<Found>) -> Result<Loaded> {
        let (mut files, mut unread) = (files, Vec::new());
        loop {
            let mut loaded = self.load_once(&files).await?;
            let begun = std::mem::take(&mut loaded.begun);
            if begun.is_empty() {
                loaded.loaded.unread.append(&mut unread);
                return Ok(loaded.loaded);
            }
            // Its rows are mixed with the others: load the batch again without it.
            files.retain(|file| !begun.iter().any(|(broken, _)| broken.path == file.path));
            unread.extend(begun);
        }
    }

    async fn load_once(&self, files: &[Found]) -> Result<Attempt> {
        let (sender, mut events) = mpsc::channel(PIECES_AHEAD);
        let (reader, wanted) = (self.clone(), files.to_vec());
        let reading = tokio::task::spawn_blocking(move || reader.read(wanted, &sender));
        let (mut attempt, mut part) = (Attempt::default(), Part::default());
        let mut making: FuturesUnordered<BoxFuture<'static, Result<MadePart>>> = FuturesUnordered::new();
        while let Some(event) = events.recv().await {
            match event {
                Event::Piece(piece) => {
                    part.push(piece);
                    if part.bytes >= PART_BYTES {
                        self.make(std::mem::take(&mut part), &mut making);
                    }
                }
                Event::Read(file) => attempt.loaded.files.push(file),
                Event::Unread { file, error, has_begun: true } => attempt.begun.push((file, error)),
                Event::Unread { file, error, has_begun: false } => attempt.loaded.unread.push((file, error)),
            }
            while making.len() >= self.parallel.max(1) {
                attempt.take(making.next().await)?;
            }
        }
        reading.await.map_err(|error| of_task(error, "read files"))?;
        if attempt.begun.is_empty() && !part.pieces.is_empty() {
            self.make(part, &mut making);
        }
        while let Some(made) = making.next().await {
            attempt.take(Some(made))?;
        }
        Ok(attempt)
    }

    /// Starts processing a part.
    fn make(&self, part: Part, making: &mut FuturesUnordered<BoxFuture<'static, Result<MadePart>>>) {
        let loader = self.clone();
        let made = tokio::spawn(async move { loader.make_part(part).await });
        making.push(Box::pin(async move { made.await.map_err(|error| of_task(error, "load a part"))? }));
    }

    async fn make_part(&self, part: Part) -> Result<MadePart> {
        let loader = self.clone();
        let making = tokio::task::spawn_blocking(move || {
            if let Some(updates) = &loader.updates {
                return updates.make(&part, loader.ingested_at);
            }
            loop {
                let layout = loader.shared.layout();
                let mut parsed = part.parse(&layout)?;
                if !loader
                    .shared
                    .grow(&layout.columns, parsed.seen.take())
                    .map_err(|error| error.during(part.label()))?
                {
                    return part.rows(parsed, &layout, loader.ingested_at);
                }
            }
        });
        let made = making.await.map_err(|error| of_task(error, "parse records"))??;
        let staged = self.stager.put(made.rows).await?;
        Ok(MadePart { staged, rescued_rows: made.rescued_rows, corrupt_rows: made.corrupt_rows })
    }

    /// Reads files one after another and passes their records on until the receiver is gone.
    fn read(&self, files: Vec<Found>, events: &mpsc::Sender<Event>) {
        for (file, records) in self.reader.open_each(files) {
            let mut has_begun = false;
            let read = records.and_then(|records| self.read_file(&file, records, events, &mut has_begun));
            let event = match read {
                Ok(()) => Event::Read(file),
                Err(error) => Event::Unread { file, error, has_begun },
            };
            if events.blocking_send(event).is_err() {
                return;
            }
        }
    }

    fn read_file(
        &self,
        file: &Found,
        mut records: Records<Content>,
        events: &mpsc::Sender<Event>,
        has_begun: &mut bool,
    ) -> Result<()> {
        let (path, partition): (Arc<str>, _) = (file.path.as_ref().into(), self.reader.partition(file));
        let unread = || format!("read {path}");
        let (mut held, mut held_bytes) = (Vec::new(), 0);
        while let Some(chunk) = records.next_chunk().context(ErrorKind::Unavailable, unread())? {
            held_bytes += chunk.len();
            held.push(Piece { file: Arc::clone(&path), partition: Arc::clone(&partition), chunk });
            if *has_begun || held_bytes >= HELD_BYTES {
                *has_begun = true;
                hand_on(&mut held, events)?;
            }
        }
        self.reader.check_unchanged(file)?;
        hand_on(&mut held, events)
    }
}

impl Loaded {
    fn append(&mut self, mut more: Self) {
        self.files.append(&mut more.files);
        self.staged.append(&mut more.staged);
        self.unread.append(&mut more.unread);
        self.rows += more.rows;
        self.rescued_rows += more.rescued_rows;
        self.corrupt_rows += more.corrupt_rows;
    }
}

/// Why a task did not end by itself.
fn of_task(error: JoinError, doing: &str) -> Error {
    match Panic::of_task(error) {
        Some(panic) => Error::from(panic).during(doing),
        None => Error::unavailable(format!("{doing}: it was stopped")),
    }
}

fn hand_on(held: &mut Vec<Piece>, events: &mpsc::Sender<Event>) -> Result<()> {
    for piece in held.drain(..) {
        events.blocking_send(Event::Piece(piece)).context(ErrorKind::Unavailable, "nobody wants the rest")?;
    }
    Ok(())
}

/// One attempt at a batch.
#[derive(Default)]
struct Attempt {
    loaded: Loaded,
    /// Files that failed after some of their rows had gone into parts.
    begun: Vec<(Found, Error)>,
}

impl Attempt {
    fn take(&mut self, made: Option<Result<MadePart>>) -> Result<()> {
        let Some(made) = made.transpose()? else { return Ok(()) };
        self.loaded.rows += made.staged.num_rows() as u64;
        self.loaded.rescued_rows += made.rescued_rows;
        self.loaded.corrupt_rows += made.corrupt_rows;
        self.loaded.staged.push(made.staged);
        Ok(())
    }
}
