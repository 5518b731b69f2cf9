//! The file system calls that matter in a power cut, in one place, so that a test can put its own disk below the
//! durable local store.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// What the durable local store requires of a disk. Reads do not go through here.
///
/// While the power is on, every call is seen by every later call and by every reader. What a power cut leaves:
/// - the bytes that were in a file when [`Disk::sync_file`] returned; of later ones, and of a file that was never
///   synced, anything: nothing, a beginning, or blocks of zeros;
/// - the names that were in a folder when [`Disk::sync_folder`] returned. Each one that was made, linked, renamed or
///   removed since may have changed or not, independently of the others and of the bytes behind it;
/// - nothing below a folder whose own name is lost, whatever was synced in it.
///
/// After a failed sync nobody knows what is on disk, and a second sync does not tell.
pub(crate) trait Disk: fmt::Debug + Send + Sync {
    /// Creates an empty file with this name and opens it for writing; refuses an existing name.
    fn create(&self, path: &Path) -> io::Result<File>;

    /// Writes all of `bytes` at the cursor of `file`, and advances it.
    fn write(&self, file: &File, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Makes the bytes of a file durable, but not its name.
    fn sync_file(&self, file: &File, path: &Path) -> io::Result<()>;

    /// Gives a file a second name; refuses an existing one.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Renames a file within its folder, replacing whatever has the new name. A power cut leaves the old state or the
    /// new one.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the names in an open folder durable, but not the folder's own name.
    fn sync_folder(&self, folder: &File, path: &Path) -> io::Result<()>;

    /// Removes a name; the file goes with its last one.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Creates an empty folder; refuses an existing name.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
}

/// Who may not do what with a file that is made here: bits of its mode, as in `umask`.
pub(super) const OTHERS: u32 = 0o077;

/// The disk of this machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct OperatingSystem {
    /// Bits that no new file or folder has; the process's own umask takes away more.
    pub(super) umask: u32,
}

impl Default for OperatingSystem {
    /// Files hold what people have written, so they are nobody else's.
    fn default() -> Self {
        Self { umask: OTHERS }
    }
}

impl Disk for OperatingSystem {
    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o666 & !self.umask).open(path)
    }

    fn write(&self, mut file: &File, _path: &Path, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync_file(&self, file: &File, _path: &Path) -> io::Result<()> {
        file.sync_all()
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &File, _path: &Path) -> io::Result<()> {
        folder.sync_all()
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o777 & !self.umask).create(path)
    }
}
