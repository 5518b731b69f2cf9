//! Folders that survive a power cut: a file is only as durable as the names of all folders above it.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, ErrorKind as IoKind};
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use object_store::Result;

use super::disk::Disk;
use super::fault::{persist_failed, store_error};

/// The maximum number of folders remembered; a forgotten one is simply persisted once more.
const REMEMBERED: usize = 4_096;

/// The folders below a root whose names this process has persisted. That a folder exists says nothing: its creator may
/// have died, or be about to, before its name was persisted.
#[derive(Debug)]
pub(super) struct Folders {
    root: PathBuf,
    disk: Arc<dyn Disk>,
    persisted: Mutex<HashSet<PathBuf>>,
}

impl Folders {
    /// The folders below `root`, which exists, on `disk`.
    pub(super) fn new(root: PathBuf, disk: Arc<dyn Disk>) -> Self {
        Self { root, disk, persisted: Mutex::default() }
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        self.disk.as_ref()
    }

    pub(super) fn root(&self) -> &FilePath {
        &self.root
    }

    /// Forgets what was persisted: the root is a different folder now.
    pub(super) fn forget(&self) {
        self.persisted.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Runs `work` in a folder, which is created if it is missing. Whether a known one is still there is not asked: work
    /// that finds nothing there is done once more, in a folder that was created again.
    pub(super) fn inside<T>(&self, folder: &FilePath, work: impl Fn(&FilePath) -> Result<T>) -> Result<T> {
        if self.remembers(folder) {
            match work(folder) {
                Err(object_store::Error::NotFound { .. }) => {}
                ended => return ended,
            }
        }
        self.ensure(folder)?;
        work(folder)
    }

    /// Creates `folder` and those above it, and persists the name of each in its parent, once per process.
    fn ensure(&self, folder: &FilePath) -> Result<()> {
        if folder == self.root || (self.remembers(folder) && folder.is_dir()) {
            return Ok(());
        }
        let Some(parent) = folder.parent() else { return Ok(()) };
        self.ensure(parent)?;
        make(self.disk(), folder).map_err(|error| store_error(folder, error))?;
        persist_folder(self.disk(), parent)?;
        self.remember(folder);
        Ok(())
    }

    fn remembers(&self, folder: &FilePath) -> bool {
        self.persisted.lock().unwrap_or_else(PoisonError::into_inner).contains(folder)
    }

    fn remember(&self, folder: &FilePath) {
        let mut persisted = self.persisted.lock().unwrap_or_else(PoisonError::into_inner);
        if persisted.len() >= REMEMBERED {
            persisted.clear();
        }
        persisted.insert(folder.to_owned());
    }
}

/// Creates a root and the folders above it, and persists their names. The lowest existing one counts too: its creator
/// may have died before its name was persisted.
pub(super) fn make_root(disk: &dyn Disk, folder: &FilePath) -> Result<()> {
    if let Ok(there) = folder.canonicalize()
        && there.is_dir()
    {
        // What cannot be opened or persisted up there is not ours.
        if let Some(Err(error)) = there.parent().map(|parent| persist_folder(disk, parent)) {
            tracing::debug!(%error, "could not persist the name of the data folder");
        }
        return Ok(());
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(FilePath::new("."));
    make_root(disk, parent)?;
    make(disk, folder).map_err(|error| store_error(folder, error))?;
    persist_folder(disk, parent)
}

/// Persists the names in a folder. A folder that cannot be opened is a failed call; one that cannot be persisted is
/// fatal.
pub(super) fn persist_folder(disk: &dyn Disk, folder: &FilePath) -> Result<()> {
    let handle = File::open(folder).map_err(|error| store_error(folder, error))?;
    disk.sync_folder(&handle, folder).map_err(|error| persist_failed(folder, error))
}

fn make(disk: &dyn Disk, folder: &FilePath) -> io::Result<()> {
    match disk.make_folder(folder) {
        Err(error) if error.kind() == IoKind::AlreadyExists => match folder.is_dir() {
            true => Ok(()),
            // Not "already exists": that would refer to the object.
            false => Err(IoKind::NotADirectory.into()),
        },
        made => made,
    }
}
