//! A disk for tests whose power can be cut: it writes through to a real folder, so that everyone can read, and keeps a
//! journal of what was not synced, so that a cut can lose it.

mod dice;
mod journal;
mod scene;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use tokio_util::sync::CancellationToken;

pub(crate) use self::dice::Dice;
use self::journal::Journal;
pub(crate) use self::scene::REBOOTS;
use crate::storage::disk::{Disk, OperatingSystem};

/// A call of [`Disk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Create,
    Write,
    SyncFile,
    Link,
    Rename,
    SyncFolder,
    Unlink,
    MakeFolder,
}

impl Operation {
    pub(crate) const ALL: [Self; 8] = [
        Self::Create,
        Self::Write,
        Self::SyncFile,
        Self::Link,
        Self::Rename,
        Self::SyncFolder,
        Self::Unlink,
        Self::MakeFolder,
    ];
}

/// Whether the call at which the power goes out was still carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    Before,
    After,
}

/// When the power is to go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CutAt {
    /// Counted are calls of this kind; of any when there is none.
    pub(crate) operation: Option<Operation>,
    /// At so many of them, from 1.
    pub(crate) nth: u64,
    pub(crate) moment: Moment,
}

/// Ways in which a disk, or whoever calls it, may lie about durability. To see that the tests notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lies {
    /// A sync of a file does nothing.
    pub(crate) ignore_file_sync: bool,
    /// A sync of a folder does nothing.
    pub(crate) ignore_folder_sync: bool,
}

/// A disk with a plug. Clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedDisk {
    folder: PathBuf,
    lies: Lies,
    journal: Arc<Mutex<Journal>>,
    state: Arc<Mutex<State>>,
    /// Calls that came when the power was out wait on it, as they would for ever.
    released: Arc<Condvar>,
    out: CancellationToken,
}

/// What one process sees of the power.
#[derive(Debug, Default)]
struct State {
    cut: Option<CutAt>,
    /// Where the power went out.
    fell: Option<(Operation, Moment)>,
    is_out: bool,
    /// Nobody waits for the calls that hang.
    is_released: bool,
    /// Its calls fail instead of hanging.
    never_blocked: Option<ThreadId>,
}

impl SimulatedDisk {
    /// A disk on which everything in `folder` is durable. Whatever is to survive must be made through the disk.
    pub(crate) fn new(folder: &Path, lies: Lies) -> io::Result<Self> {
        Ok(Self {
            folder: folder.to_owned(),
            lies,
            journal: Arc::new(Mutex::new(Journal::of(folder)?)),
            state: Arc::default(),
            released: Arc::default(),
            out: CancellationToken::new(),
        })
    }

    /// The same disk for the next process when only this one has died: what was not synced is there, and is not synced.
    pub(crate) fn for_the_next_process(&self) -> Self {
        Self { state: Arc::default(), released: Arc::default(), out: CancellationToken::new(), ..self.clone() }
    }

    /// Lets the power go out at a call, once.
    pub(crate) fn cut_at(&self, cut: CutAt) {
        self.state().cut = Some(cut);
    }

    /// Lets the power go out now.
    pub(crate) fn pull_the_plug(&self) {
        self.go_out(&mut self.state());
    }

    /// Cancelled when the power is out.
    pub(crate) fn out(&self) -> &CancellationToken {
        &self.out
    }

    /// The call at which the power went out, when it was at one.
    pub(crate) fn fell(&self) -> Option<(Operation, Moment)> {
        self.state().fell
    }

    /// Lets the calls that hang fail. For when nobody is left to see it: their threads could not be joined otherwise.
    pub(crate) fn release(&self) {
        self.state().is_released = true;
        self.released.notify_all();
    }

    /// Calls of this thread fail when the power is out: it is the one that has to notice.
    pub(crate) fn never_block_this_thread(&self) {
        self.state().never_blocked = Some(thread::current().id());
    }

    /// Writes into `to`, an empty folder, what a reboot finds. The seed decides what of the unsynced survives.
    pub(crate) fn write_survivors(&self, to: &Path, seed: u64) -> io::Result<()> {
        self.journal().write_survivors(&self.folder, to, &mut Dice::new(seed))
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn go_out(&self, state: &mut State) {
        state.is_out = true;
        self.out.cancel();
    }

    /// Carries out a call and notes it, unless the power is out or goes out: then it hangs.
    fn call<T>(
        &self,
        operation: Operation,
        act: impl FnOnce() -> io::Result<T>,
        note: impl FnOnce(&mut Journal, &T),
    ) -> io::Result<T> {
        let mut state = self.state();
        let moment = (!state.is_out).then(|| state.count(operation)).flatten();
        if let Some(moment) = moment {
            state.fell = Some((operation, moment));
        }
        if !state.is_out && moment != Some(Moment::Before) {
            let done = act()?;
            note(&mut self.journal(), &done);
            if moment.is_none() {
                return Ok(done);
            }
        }
        self.go_out(&mut state);
        while !state.is_released && state.never_blocked != Some(thread::current().id()) {
            state = self.released.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Err(io::Error::other("the power is out"))
    }
}

impl State {
    /// Counts a call; tells when the power goes out at it.
    fn count(&mut self, operation: Operation) -> Option<Moment> {
        let cut = self.cut.as_mut().filter(|cut| cut.operation.is_none_or(|counted| counted == operation))?;
        cut.nth = cut.nth.saturating_sub(1);
        let moment = cut.moment;
        (cut.nth == 0).then(|| {
            self.cut = None;
            moment
        })
    }
}

impl Disk for SimulatedDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.call(Operation::Create, || OperatingSystem::default().create(path), |journal, _| journal.created(path))
    }

    fn write(&self, mut file: &File, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let write = || {
            let offset = file.stream_position()?;
            OperatingSystem::default().write(file, path, bytes).map(|()| offset)
        };
        let note = |journal: &mut Journal, offset: &u64| journal.written(path, *offset, bytes);
        self.call(Operation::Write, write, note).map(drop)
    }

    // The syncs stay here: no real one is needed, and a slow one would only cost time.

    fn sync_file(&self, _file: &File, path: &Path) -> io::Result<()> {
        let note = |journal: &mut Journal, (): &()| match self.lies.ignore_file_sync {
            true => {}
            false => journal.file_synced(path),
        };
        self.call(Operation::SyncFile, || Ok(()), note)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Operation::Link, || OperatingSystem::default().link(from, to), |journal, ()| journal.linked(from, to))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(
            Operation::Rename,
            || OperatingSystem::default().rename(from, to),
            |journal, ()| journal.renamed(from, to),
        )
    }

    fn sync_folder(&self, _folder: &File, path: &Path) -> io::Result<()> {
        if !path.starts_with(&self.folder) {
            // Above us lies another disk.
            return Ok(());
        }
        let note = |journal: &mut Journal, (): &()| match self.lies.ignore_folder_sync {
            true => {}
            false => journal.folder_synced(path),
        };
        self.call(Operation::SyncFolder, || Ok(()), note)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.call(Operation::Unlink, || OperatingSystem::default().unlink(path), |journal, ()| journal.unlinked(path))
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.call(
            Operation::MakeFolder,
            || OperatingSystem::default().make_folder(path),
            |journal, ()| journal.folder_made(path),
        )
    }
}
