//! The durable local store: object_store's trait over a folder, with every fsync that a power cut asks for.
//!
//! object_store's own local store never fsyncs. Reads go through it; what writes is ours.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind as IoKind, Read};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use super::disk::{Disk, OperatingSystem};
use super::folders::{Folders, make_root, persist_folder};
use super::identity::Identity;
use super::root::{NotTheRoot, Root};
use super::upload::StagedUpload;
use super::{Mark, walk};
use crate::clock::Clock;
use crate::id::random_id;

/// How staging files begin. Dot files are hidden from listings.
const STAGING_PREFIX: &str = ".lakegram-staging-";
/// Deletes of one stream that run side by side, as in object_store's own local store.
const DELETES_AHEAD: usize = 10;
/// Bytes of a file that are copied at a time.
const COPIED_BYTES: usize = 1 << 20;
const STORE: &str = "durable local store";

/// A folder as an object store whose puts survive a power cut.
#[derive(Clone, Debug)]
pub struct DurableLocal {
    root: Arc<Root>,
    reader: Arc<LocalFileSystem>,
}

/// The kernel could not persist what was written and may have dropped it: nothing on this disk can be trusted to be
/// there after a retry, so the process has to end.
#[derive(Debug, thiserror::Error)]
#[error("the disk failed to persist {path}; check the disk, then start again: {source}")]
pub(super) struct PersistFailed {
    path: String,
    source: io::Error,
}

/// Whether a put may replace what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publish {
    Create,
    Overwrite,
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DurableLocal({})", self.root().display())
    }
}

impl DurableLocal {
    /// A store over `root`, which is made when it is missing.
    ///
    /// # Errors
    /// When the folder cannot be made or is none.
    pub fn open(root: &FilePath) -> Result<Self> {
        Self::open_on(Arc::new(OperatingSystem), root, Arc::default(), true)
    }

    /// As [`DurableLocal::open`], on a disk of one's own. A store that is guarded writes to the folder that was opened
    /// and to no other that takes its path.
    pub(super) fn open_on(
        disk: Arc<dyn Disk>,
        root: &FilePath,
        identity: Arc<Identity>,
        is_guarded: bool,
    ) -> Result<Self> {
        make_root(disk.as_ref(), root)?;
        let root = root.canonicalize().map_err(|error| told(root, error))?;
        let reader = Arc::new(LocalFileSystem::new_with_prefix(&root)?);
        Ok(Self { root: Arc::new(Root::open(root, disk, identity, is_guarded)?), reader })
    }

    /// The folder.
    pub fn root(&self) -> &FilePath {
        self.root.path()
    }

    /// Does something that writes, on a thread that may block, in the folder that was opened and no other.
    async fn write<T: Send + 'static>(&self, work: impl FnOnce(&Folders) -> Result<T> + Send + 'static) -> Result<T> {
        let root = Arc::clone(&self.root);
        blocking(move || root.guarded(work)).await
    }

    /// Where an object lies.
    pub(super) fn file(&self, path: &Path) -> Result<PathBuf> {
        self.reader.path_to_filesystem(path)
    }

    /// What tells a file from any other at its path; `None` when there is none.
    pub(super) fn mark(&self, path: &Path) -> Result<Option<Mark>> {
        let file = self.file(path)?;
        match std::fs::symlink_metadata(&file) {
            Ok(found) => Ok(Some(Mark {
                size_bytes: found.len(),
                modified_nanos: found.mtime().saturating_mul(1_000_000_000).saturating_add(found.mtime_nsec()),
                tag: Some(format!("{}-{}", found.dev(), found.ino())),
            })),
            Err(error) if matches!(error.kind(), IoKind::NotFound | IoKind::NotADirectory) => {
                self.root.look().map(|()| None)
            }
            Err(error) => Err(told(&file, error)),
        }
    }

    /// Opens a lock file, and makes its folder, durably.
    pub(super) fn open_lock_file(&self, path: &Path) -> Result<File> {
        let file = self.file(path)?;
        self.root.guarded(|folders| {
            folders.ensure(folder_of(&file))?;
            let open = OpenOptions::new().create(true).truncate(false).write(true).open(&file);
            open.map_err(|error| told(&file, error))
        })
    }

    /// Persists the folder that holds `path`.
    ///
    /// # Errors
    /// When the disk fails; a folder that is not there has nothing to persist.
    pub(super) async fn persist_folder_of(&self, path: &Path) -> Result<()> {
        let file = self.file(path)?;
        self.write(move |folders| match persist_folder(folders.disk(), folder_of(&file)) {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            persisted => persisted,
        })
        .await
    }

    /// Removes staging files whose last change is longer ago than `older_than`.
    pub(super) async fn sweep(&self, clock: &Clock, older_than: Duration) -> Result<usize> {
        let now = clock.now();
        self.write(move |folders| {
            let mut swept = 0;
            walk::files_named(folders.root(), STAGING_PREFIX, &mut |file, modified| {
                if now.since(modified) > older_than && folders.disk().unlink(file).is_ok() {
                    swept += 1;
                }
            });
            Ok(swept)
        })
        .await
    }

    /// What another folder that has taken the root's path holds says nothing of ours.
    fn listing(&self, prefix: Option<&Path>, offset: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.root.look() {
            Ok(()) => walk::stream(self.root().to_owned(), prefix.cloned(), offset.cloned()),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn publish(&self, path: &Path, payload: PutPayload, publish: Publish) -> Result<PutResult> {
        let file = self.file(path)?;
        self.write(move |folders| put_file(folders, &file, &payload, publish)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    /// Gives an object a second name, which must not be there yet. Where the system allows no such name, on another
    /// disk or of a file of somebody else, it is a copy.
    async fn link(&self, from: &Path, to: &Path) -> Result<()> {
        let (from, to) = (self.file(from)?, self.file(to)?);
        self.write(move |folders| {
            let (disk, folder) = (folders.disk(), folder_of(&to));
            folders.ensure(folder)?;
            let handle = File::open(folder).map_err(|error| told(folder, error))?;
            match disk.link(&from, &to) {
                Err(error) if matches!(error.kind(), IoKind::CrossesDevices | IoKind::PermissionDenied) => {
                    return copy_file(folders, &from, &to);
                }
                linked => linked.map_err(|error| told(&to, error))?,
            }
            disk.sync_folder(&handle, folder).map_err(|error| persist_failed(&to, error))
        })
        .await
    }

    /// Takes an object's name away. That is not persisted: whoever deletes can live with what comes back.
    async fn unlink(&self, path: &Path) -> Result<()> {
        let file = self.file(path)?;
        self.write(move |folders| folders.disk().unlink(&file).map_err(|error| told(&file, error))).await
    }
}

/// Names a staging file beside `file` and makes its folder.
pub(super) fn stage(folders: &Folders, file: &FilePath) -> Result<PathBuf> {
    let folder = folder_of(file);
    folders.ensure(folder)?;
    Ok(folder.join(format!("{STAGING_PREFIX}{}", random_id().simple())))
}

/// Puts a file, durably, where no other stands.
pub(super) fn create_file(folders: &Folders, file: &FilePath, payload: &PutPayload) -> Result<()> {
    put_file(folders, file, payload, Publish::Create)
}

fn put_file(folders: &Folders, file: &FilePath, payload: &PutPayload, publish: Publish) -> Result<()> {
    let (disk, staging) = (folders.disk(), stage(folders, file)?);
    let outcome = write_staged(disk, &staging, payload).and_then(|()| publish_staged(disk, &staging, file, publish));
    finish_staged(disk, &staging, file, outcome)
}

fn write_staged(disk: &dyn Disk, staging: &FilePath, payload: &PutPayload) -> Result<()> {
    let file = disk.create(staging).map_err(|error| told(staging, error))?;
    for chunk in payload {
        disk.write(&file, staging, chunk).map_err(|error| told(staging, error))?;
    }
    persist_file(disk, &file, staging)
}

/// Copies a file, durably, to a name that must not be there yet.
pub(super) fn copy_file(folders: &Folders, from: &FilePath, to: &FilePath) -> Result<()> {
    let (disk, staging) = (folders.disk(), stage(folders, to)?);
    let outcome = write_copy(disk, from, &staging).and_then(|()| publish_staged(disk, &staging, to, Publish::Create));
    finish_staged(disk, &staging, to, outcome)
}

fn write_copy(disk: &dyn Disk, from: &FilePath, staging: &FilePath) -> Result<()> {
    let mut source = File::open(from).map_err(|error| told(from, error))?;
    let file = disk.create(staging).map_err(|error| told(staging, error))?;
    let mut buffer = vec![0; COPIED_BYTES];
    loop {
        let count = source.read(&mut buffer).map_err(|error| told(from, error))?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { break };
        disk.write(&file, staging, read).map_err(|error| told(staging, error))?;
    }
    persist_file(disk, &file, staging)
}

pub(super) fn persist_file(disk: &dyn Disk, file: &File, path: &FilePath) -> Result<()> {
    disk.sync_file(file, path).map_err(|error| not_persisted(path, error))
}

/// What a failed fsync of a staging file means.
pub(super) fn not_persisted(path: &FilePath, error: io::Error) -> object_store::Error {
    match error.kind() {
        // Delayed allocation may find the disk full only now; the file is thrown away, nothing else is in doubt.
        IoKind::StorageFull | IoKind::QuotaExceeded => told(path, error),
        _ => persist_failed(path, error),
    }
}

/// Gives a persisted staging file its name, and persists the name. The folder is opened first: a process that is out
/// of file descriptors then fails a put before anything can be seen of it.
pub(super) fn publish_staged(disk: &dyn Disk, staging: &FilePath, file: &FilePath, publish: Publish) -> Result<()> {
    let folder = folder_of(file);
    let handle = File::open(folder).map_err(|error| told(folder, error))?;
    match publish {
        Publish::Create => disk.link(staging, file),
        Publish::Overwrite => disk.rename(staging, file),
    }
    .map_err(|error| told(file, error))?;
    disk.sync_folder(&handle, folder).map_err(|error| persist_failed(file, error))
}

/// Removes the staging name. After a create it is a second name of the object, after a failure the only one; left
/// behind by a crash it is swept.
pub(super) fn finish_staged(disk: &dyn Disk, staging: &FilePath, file: &FilePath, outcome: Result<()>) -> Result<()> {
    match disk.unlink(staging) {
        Err(error) if error.kind() != IoKind::NotFound => {
            tracing::warn!(%error, file = %file.display(), "a staging file could not be removed");
        }
        _ => {}
    }
    outcome
}

fn folder_of(file: &FilePath) -> &FilePath {
    file.parent().unwrap_or(FilePath::new("."))
}

pub(super) fn persist_failed(path: &FilePath, source: io::Error) -> object_store::Error {
    let failed = PersistFailed { path: path.display().to_string(), source };
    object_store::Error::Generic { store: STORE, source: Box::new(failed) }
}

/// Whether a call failed because what stands at the root's path is not what was opened; if so, whether it was noticed
/// only after something was written.
pub(super) fn not_the_root(error: &object_store::Error) -> Option<bool> {
    let object_store::Error::Generic { source, .. } = error else { return None };
    source.downcast_ref::<NotTheRoot>().map(|moved| moved.in_doubt)
}

/// What a put says when the disk did not persist it.
#[cfg(test)]
pub(crate) fn disk_failure() -> object_store::Error {
    persist_failed(FilePath::new("object"), io::Error::other("input/output error"))
}

pub(super) fn told(path: &FilePath, error: io::Error) -> object_store::Error {
    let (path, source) = (path.display().to_string(), error);
    match source.kind() {
        IoKind::AlreadyExists => object_store::Error::AlreadyExists { path, source: source.into() },
        IoKind::NotFound => object_store::Error::NotFound { path, source: source.into() },
        IoKind::PermissionDenied => object_store::Error::PermissionDenied { path, source: source.into() },
        _ => object_store::Error::Generic { store: STORE, source: format!("{path}: {source}").into() },
    }
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| object_store::Error::Generic { store: STORE, source: error.into() })?
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match options.mode {
            PutMode::Create => self.publish(location, payload, Publish::Create).await,
            PutMode::Overwrite => self.publish(location, payload, Publish::Overwrite).await,
            PutMode::Update(_) => Err(object_store::Error::NotImplemented {
                operation: "put with an expected version".to_owned(),
                implementer: self.to_string(),
            }),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let file = self.file(location)?;
        Ok(Box::new(StagedUpload::start(Arc::clone(&self.root), file).await?))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        // Most reads of a log ask for the version after its head. That it is not there is told sooner than another
        // thread is woken up to look.
        let file = self.file(location)?;
        match std::fs::symlink_metadata(&file) {
            Err(error) if error.kind() == IoKind::NotFound => {
                self.root.look()?;
                Err(told(&file, error))
            }
            _ => self.reader.get_opts(location, options).await,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.reader.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let deleted = locations.map(move |location| {
            let store = store.clone();
            async move {
                let location = location?;
                store.unlink(&location).await?;
                Ok(location)
            }
        });
        deleted.buffered(DELETES_AHEAD).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, None)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (root, prefix) = (Arc::clone(&self.root), prefix.cloned());
        blocking(move || {
            root.look()?;
            walk::one_level(root.path(), prefix.as_ref())
        })
        .await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        if options.mode == CopyMode::Create {
            return self.link(from, to).await;
        }
        let bytes = self.reader.get_opts(from, GetOptions::default()).await?.bytes().await?;
        self.publish(to, bytes.into(), Publish::Overwrite).await.map(drop)
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        let copy = match options.target_mode {
            object_store::RenameTargetMode::Overwrite => CopyMode::Overwrite,
            object_store::RenameTargetMode::Create => CopyMode::Create,
        };
        self.copy_opts(from, to, CopyOptions::new().with_mode(copy)).await?;
        let deleted = self.delete_stream(stream::iter([Ok(from.clone())]).boxed());
        deleted.try_for_each(|_| futures::future::ready(Ok(()))).await
    }
}
