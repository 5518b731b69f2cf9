//! The durable local store: object_store's trait over a folder, with every fsync that surviving a power cut requires.
//!
//! object_store's own local store never fsyncs. Reads go through it; writes are ours.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind as IoKind};
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
    Attributes, CopyMode, CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

use super::disk::{Disk, OperatingSystem};
use super::fault::{blocking, displaced, persist_failed, store_error, unreadable};
use super::folders::{Folders, make_root, persist_folder};
use super::key::StorageKey;
use super::root::Root;
use super::root_state::RootState;
use super::staging::{Publish, STAGING_PREFIX, copy_file, folder_of, put_file};
use super::upload::StagedUpload;
use super::{Beside, Mark, walk};
use crate::clock::Clock;

/// Concurrent deletes of one stream, as in object_store's own local store.
const DELETES_AHEAD: usize = 10;

/// A folder as an object store whose puts survive a power cut.
#[derive(Clone, Debug)]
pub struct DurableLocal {
    root: Arc<Root>,
    reader: Arc<LocalFileSystem>,
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DurableLocal({})", self.root().display())
    }
}

impl DurableLocal {
    /// A store over `root`, which is created if it is missing.
    ///
    /// # Errors
    /// When the folder cannot be created or is not a folder.
    pub fn open(root: &FilePath) -> Result<Self> {
        Self::open_on(Arc::new(OperatingSystem::default()), root, Arc::default(), true)
    }

    /// Like [`DurableLocal::open`], on a given disk. A guarded store writes to the folder that was opened, and to no
    /// other that takes its path.
    pub(super) fn open_on(
        disk: Arc<dyn Disk>,
        root: &FilePath,
        state: Arc<RootState>,
        is_guarded: bool,
    ) -> Result<Self> {
        make_root(disk.as_ref(), root)?;
        let root = root.canonicalize().map_err(|error| store_error(root, error))?;
        let reader = Arc::new(LocalFileSystem::new_with_prefix(&root)?);
        Ok(Self { root: Arc::new(Root::open(root, disk, state, is_guarded)?), reader })
    }

    /// The folder.
    pub fn root(&self) -> &FilePath {
        self.root.path()
    }

    /// Runs a write, on a thread that may block, in the folder that was opened and no other.
    async fn write<T: Send + 'static>(&self, work: impl FnOnce(&Folders) -> Result<T> + Send + 'static) -> Result<T> {
        let root = Arc::clone(&self.root);
        blocking(move || root.guarded(work)).await
    }

    /// The file of an object.
    pub(super) fn file(&self, path: &Path) -> Result<PathBuf> {
        // The reader's own mapping refuses names such as `a#1`, which it uses for unfinished uploads.
        Ok(self.root().join(path.as_ref()))
    }

    /// Opens a lock file, and creates its folder, durably.
    pub(super) fn open_lock_file(&self, path: &Path) -> Result<File> {
        let file = self.file(path)?;
        self.root.guarded(|folders| {
            folders.inside(folder_of(&file), |_| {
                let open = OpenOptions::new().create(true).truncate(false).write(true).open(&file);
                open.map_err(|error| store_error(&file, error))
            })
        })
    }

    /// Persists the folder that contains `path`.
    ///
    /// # Errors
    /// When the disk fails; a missing folder has nothing to persist.
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

    /// What is in another folder at the root's path says nothing about ours.
    fn listing(&self, prefix: Option<&Path>, offset: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.root.look() {
            Ok(()) => walk::stream(self.root().to_owned(), prefix.cloned(), offset.cloned()),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn publish(
        &self,
        path: &Path,
        payload: PutPayload,
        publish: Publish,
        beside: Option<Beside>,
    ) -> Result<PutResult> {
        let (file, is_recognized) = (self.file(path)?, StorageKey::is_in_log(path));
        let beside = match beside {
            Some(Beside { path, mark }) => Some((self.file(&path)?, mark)),
            None => None,
        };
        let root = Arc::clone(&self.root);
        let put = blocking(move || {
            let put = |folders: &Folders| {
                let put = put_file(folders, &file, &payload, publish)?;
                Ok(is_recognized.then(|| put.metadata()))
            };
            match beside {
                None => root.guarded(put),
                // Its device and number tell that the folder is in place.
                Some((beside, mark)) if is_still(&beside, &mark) => root.guarded_after(put),
                Some((beside, _)) => root.look().and(Err(displaced(&beside))),
            }
        });
        let e_tag = put.await?.and_then(io::Result::ok).as_ref().map(tag_of);
        Ok(PutResult { e_tag, version: None })
    }

    /// Gives an object a second name, which must not exist yet. If the system does not allow that (another disk, a file
    /// of another owner), it is copied.
    async fn link(&self, from: &Path, to: &Path) -> Result<()> {
        let (from, to) = (self.file(from)?, self.file(to)?);
        self.write(move |folders| {
            let disk = folders.disk();
            folders.inside(folder_of(&to), |folder| {
                let handle = File::open(folder).map_err(|error| store_error(folder, error))?;
                match disk.link(&from, &to) {
                    Err(error) if matches!(error.kind(), IoKind::CrossesDevices | IoKind::PermissionDenied) => {
                        return copy_file(folders, &from, &to);
                    }
                    linked => linked.map_err(|error| store_error(&to, error))?,
                }
                disk.sync_folder(&handle, folder).map_err(|error| persist_failed(&to, error))
            })
        })
        .await
    }

    /// Removes an object's name. That is not persisted: whoever deletes can live with what comes back.
    async fn unlink(&self, path: &Path) -> Result<()> {
        let file = self.file(path)?;
        self.write(move |folders| folders.disk().unlink(&file).map_err(|error| store_error(&file, error))).await
    }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        match options.mode {
            PutMode::Create => {
                let beside = options.extensions.get::<Beside>().cloned();
                self.publish(location, payload, Publish::Create, beside).await
            }
            PutMode::Overwrite => self.publish(location, payload, Publish::Overwrite, None).await,
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
        let (root, file, location) = (Arc::clone(&self.root), self.file(location)?, location.clone());
        blocking(move || match open_object(&file, location, &options) {
            // What is missing from another folder at the root's path may well be in ours.
            Err(error @ object_store::Error::NotFound { .. }) => root.look().and(Err(error)),
            opened => opened,
        })
        .await
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
        let bytes = self.get_opts(from, GetOptions::default()).await?.bytes().await?;
        self.publish(to, bytes.into(), Publish::Overwrite, None).await.map(drop)
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

/// Opens an object, or only looks at it. What is said about it is said of the file that was opened.
fn open_object(file: &FilePath, location: Path, options: &GetOptions) -> Result<GetResult> {
    let opened = match options.head {
        true => None,
        false => Some(File::open(file).map_err(|error| unreadable(file, error))?),
    };
    let metadata = opened.as_ref().map_or_else(|| std::fs::metadata(file), File::metadata);
    let metadata = metadata.map_err(|error| unreadable(file, error))?;
    if metadata.is_dir() {
        return Err(unreadable(file, IoKind::NotFound.into()));
    }
    let modified = metadata.modified().map_err(|error| unreadable(file, error))?;
    let e_tag = Some(tag_of(&metadata));
    let meta = ObjectMeta { location, last_modified: modified.into(), size: metadata.len(), e_tag, version: None };
    options.check_preconditions(&meta)?;
    let range = match &options.range {
        Some(range) => range.as_range(meta.size).map_err(|error| unreadable(file, io::Error::other(error)))?,
        None => 0..meta.size,
    };
    let payload = match opened {
        Some(opened) => GetResultPayload::File(opened, file.to_owned()),
        None => GetResultPayload::Stream(stream::empty().boxed()),
    };
    Ok(GetResult { payload, meta, range, attributes: Attributes::default() })
}

/// Whether a file is the one with this mark.
fn is_still(file: &FilePath, mark: &Mark) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| mark.tag.as_ref() == Some(&tag_of(&metadata)))
}

/// What tells a file from any other that is, or will be, at its path.
fn tag_of(metadata: &Metadata) -> String {
    let modified_nanos = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    format!("{:x}-{:x}-{modified_nanos:x}-{:x}", metadata.dev(), metadata.ino(), metadata.len())
}
