//! What the rows share: the real binary as a child, a load like Telegram's, readings of `/proc`, figures and the report.

pub(crate) mod disk;
pub(crate) mod figures;
pub(crate) mod generate;
pub(crate) mod history;
pub(crate) mod load;
pub(crate) mod loader;
pub(crate) mod process;
pub(crate) mod report;
pub(crate) mod service;
pub(crate) mod stand_ins;
pub(crate) mod store;
pub(crate) mod webhook;

use std::path::{Path, PathBuf};

/// Whatever goes wrong ends the run with its text.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What every row is given.
#[derive(Debug)]
pub(crate) struct Bench {
    /// On the disk that is measured.
    folder: PathBuf,
    /// Python with the peers' packages.
    pub(crate) python: PathBuf,
    /// Short rounds, to try a change; such a run is never written down.
    pub(crate) quick: bool,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // What is left behind is in the way of nobody but the disk.
        let _left = std::fs::remove_dir_all(&self.folder);
    }
}

impl Bench {
    pub(crate) fn new(folder: PathBuf, python: PathBuf, quick: bool) -> Self {
        Self { folder, python, quick }
    }

    /// An empty folder on the measured disk. It goes at the end of the run: for minutes after files were deleted, ext4
    /// passes over their inodes one by one whenever it makes a file, and the next row would pay for the one before.
    pub(crate) fn folder(&self) -> Result<tempfile::TempDir> {
        std::fs::create_dir_all(&self.folder)?;
        Ok(tempfile::Builder::new().prefix("row-").disable_cleanup(true).tempdir_in(&self.folder)?)
    }

    /// `full`, or `quick` of it in a quick run.
    pub(crate) fn scaled<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// A script beside this bench.
    pub(crate) fn peer(&self, name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(name)
    }
}
