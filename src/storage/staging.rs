//! How a file is created, completely or not at all: written under a name of its own, persisted, and only then named.

use std::fs::File;
use std::io::{ErrorKind as IoKind, Read};
use std::path::{Path as FilePath, PathBuf};

use object_store::{PutPayload, Result};

use super::disk::Disk;
use super::fault::{not_persisted, persist_failed, store_error};
use super::folders::Folders;
use crate::id::random_id;

/// How staging files begin. Dot files are hidden from listings.
pub(super) const STAGING_PREFIX: &str = ".lakegram-staging-";
/// Bytes of a file that are copied at a time.
const COPIED_BYTES: usize = 1 << 20;

/// Whether a put may replace what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publish {
    Create,
    Overwrite,
}

/// Names a staging file in a folder.
pub(super) fn staging_in(folder: &FilePath) -> PathBuf {
    folder.join(format!("{STAGING_PREFIX}{}", random_id().simple()))
}

/// Writes a file durably, if there is none yet.
pub(super) fn create_file(folders: &Folders, file: &FilePath, payload: &PutPayload) -> Result<()> {
    put_file(folders, file, payload, Publish::Create).map(drop)
}

/// Writes a file durably. Returns it open, whatever has its name by now.
pub(super) fn put_file(folders: &Folders, file: &FilePath, payload: &PutPayload, publish: Publish) -> Result<File> {
    folders.inside(folder_of(file), |folder| {
        let (disk, staging) = (folders.disk(), staging_in(folder));
        let written = write_staged(disk, &staging, payload);
        let outcome = written.and_then(|written| publish_staged(disk, &staging, file, publish).map(|()| written));
        finish_staged(disk, &staging, file, outcome)
    })
}

fn write_staged(disk: &dyn Disk, staging: &FilePath, payload: &PutPayload) -> Result<File> {
    let file = disk.create(staging).map_err(|error| store_error(staging, error))?;
    for chunk in payload {
        disk.write(&file, staging, chunk).map_err(|error| store_error(staging, error))?;
    }
    persist_file(disk, &file, staging).map(|()| file)
}

/// Copies a file durably to a name that must not exist yet.
pub(super) fn copy_file(folders: &Folders, from: &FilePath, to: &FilePath) -> Result<()> {
    folders.inside(folder_of(to), |folder| {
        let (disk, staging) = (folders.disk(), staging_in(folder));
        let written = write_copy(disk, from, &staging);
        let outcome = written.and_then(|()| publish_staged(disk, &staging, to, Publish::Create));
        finish_staged(disk, &staging, to, outcome)
    })
}

fn write_copy(disk: &dyn Disk, from: &FilePath, staging: &FilePath) -> Result<()> {
    let mut source = File::open(from).map_err(|error| store_error(from, error))?;
    let file = disk.create(staging).map_err(|error| store_error(staging, error))?;
    let mut buffer = vec![0; COPIED_BYTES];
    loop {
        let count = source.read(&mut buffer).map_err(|error| store_error(from, error))?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { break };
        disk.write(&file, staging, read).map_err(|error| store_error(staging, error))?;
    }
    persist_file(disk, &file, staging)
}

pub(super) fn persist_file(disk: &dyn Disk, file: &File, path: &FilePath) -> Result<()> {
    disk.sync_file(file, path).map_err(|error| not_persisted(path, error))
}

/// Gives a persisted staging file its name, and persists the name. The folder is opened first: a process without free
/// file descriptors then fails a put before any of it is visible.
pub(super) fn publish_staged(disk: &dyn Disk, staging: &FilePath, file: &FilePath, publish: Publish) -> Result<()> {
    let folder = folder_of(file);
    let handle = File::open(folder).map_err(|error| store_error(folder, error))?;
    match publish {
        Publish::Create => disk.link(staging, file),
        Publish::Overwrite => disk.rename(staging, file),
    }
    .map_err(|error| store_error(file, error))?;
    disk.sync_folder(&handle, folder).map_err(|error| persist_failed(file, error))
}

/// Removes the staging name. After a create it is a second name of the object, after a failure the only one; if a crash
/// leaves it behind, it is swept.
pub(super) fn finish_staged<T>(disk: &dyn Disk, staging: &FilePath, file: &FilePath, outcome: Result<T>) -> Result<T> {
    match disk.unlink(staging) {
        Err(error) if error.kind() != IoKind::NotFound => {
            tracing::warn!(%error, file = %file.display(), "could not remove a staging file");
        }
        _ => {}
    }
    outcome
}

/// The folder that a file is in.
pub(super) fn folder_of(file: &FilePath) -> &FilePath {
    file.parent().unwrap_or(FilePath::new("."))
}
