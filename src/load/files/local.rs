//! The listing of a source on this machine. Its folders may hold what no store has: pipes, links that lead nowhere or
//! in a circle, folders that may not be opened, names that are no text. Each is told by name, and the rest is listed.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FilePath, PathBuf};

use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use tokio::sync::mpsc;

use crate::clock::Timestamp;

/// Entries read ahead of the consumer.
const READ_AHEAD: usize = 256;

/// A file to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: Path,
    pub(super) size_bytes: u64,
    pub(super) modified: Timestamp,
    /// When anything about a local file last changed, by the clock of its disk. Anybody can set the other time.
    pub(super) changed: Timestamp,
}

impl Found {
    /// A file on this machine.
    pub(super) fn local(path: Path, metadata: &Metadata) -> Self {
        let modified: DateTime<Utc> = metadata.modified().map(DateTime::from).unwrap_or_default();
        let changed = metadata.ctime().saturating_mul(1_000_000).saturating_add(metadata.ctime_nsec() / 1_000);
        Self {
            path,
            size_bytes: metadata.len(),
            modified: Timestamp::from_micros(modified.timestamp_micros()),
            changed: Timestamp::from_micros(changed),
        }
    }
}

/// What is in a source.
#[derive(Debug)]
pub(super) enum Listed {
    File(Found),
    /// What cannot be loaded, and why.
    Odd(Odd),
    /// The listing ends here.
    Failed(object_store::Error),
}

/// Something in a folder that is not a file to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Odd {
    /// Its path below the source, as far as it is text.
    pub(super) below: String,
    /// Where it is, why it is left alone and what to do.
    pub(super) message: String,
    /// Whether there may be files to load behind it.
    pub(super) hides_files: bool,
}

/// Lists the files below `folder`, in the order of their paths.
pub(super) fn stream(root: PathBuf, folder: &Path) -> BoxStream<'static, Listed> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let folder = folder.as_ref().to_owned();
    tokio::task::spawn_blocking(move || {
        let top = root.join(&folder);
        let followed = top.canonicalize().into_iter().collect();
        let mut walk = Walk { folder: folder.clone(), root, followed };
        // The consumer may leave early: the walk then ends.
        let _left = walk.folder(&folder, &mut |listed| sender.blocking_send(listed).is_ok());
    });
    stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|item| (item, receiver)) }).boxed()
}

struct Walk {
    root: PathBuf,
    /// The source in it.
    folder: String,
    /// The source, and the folders elsewhere that links in it lead to: what is in one of them is listed already.
    followed: Vec<PathBuf>,
}

struct Entry {
    /// Relative to the root, with a trailing `/` for folders: the order of the listing.
    sort_key: String,
    file: PathBuf,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Folder,
    LinkedFolder,
    Other,
}

impl Walk {
    /// Gives what is below a folder; returns whether the walk should go on.
    fn folder(&mut self, folder: &str, give: &mut impl FnMut(Listed) -> bool) -> bool {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let (mut entries, mut is_listed) = (Vec::new(), true);
        let path = self.root.join(folder);
        let listing = match fs::read_dir(&path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return true,
            Err(error) if folder == self.folder => return give(failed(&path, error)),
            Err(error) => return give(self.odd(&path, &unreadable("be opened", &error), true)),
            Ok(listing) => listing,
        };
        for entry in listing {
            match entry.map(|entry| self.entry(&prefix, entry.path(), &entry.file_name(), entry.file_type())) {
                Ok(Ok(entry)) => entries.extend(entry),
                Ok(Err(odd)) => is_listed &= give(odd),
                Err(error) => is_listed &= give(self.odd(&path, &unreadable("be listed", &error), true)),
            }
        }
        entries.sort_by(|one, other| one.sort_key.cmp(&other.sort_key));
        is_listed
            && entries.into_iter().all(|entry| match entry.kind {
                Kind::Folder => self.folder(entry.sort_key.trim_end_matches('/'), give),
                Kind::LinkedFolder => match self.follow(&entry.file) {
                    Ok(()) => self.folder(entry.sort_key.trim_end_matches('/'), give),
                    Err(odd) => give(odd),
                },
                Kind::Other => self.file(&entry).is_none_or(&mut *give),
            })
    }

    /// An entry of a folder, none if it is hidden.
    fn entry(
        &self,
        prefix: &str,
        file: PathBuf,
        name: &OsStr,
        kind: io::Result<fs::FileType>,
    ) -> Result<Option<Entry>, Listed> {
        let Some(name) = name.to_str().filter(|name| !name.chars().any(|char| char.is_ascii_control())) else {
            return Err(self.odd(&file, "has a name that is not UTF-8 or has control characters; rename it", true));
        };
        if name.starts_with('.') {
            return Ok(None);
        }
        let kind = match kind {
            Ok(kind) if kind.is_symlink() && file.is_dir() => Kind::LinkedFolder,
            Ok(kind) if kind.is_dir() => Kind::Folder,
            Ok(_) => Kind::Other,
            Err(_) => return Ok(None),
        };
        let end = if kind == Kind::Other { "" } else { "/" };
        Ok(Some(Entry { sort_key: format!("{prefix}{name}{end}"), file, kind }))
    }

    /// Whether what a link leads to is not listed yet.
    fn follow(&mut self, link: &FilePath) -> Result<(), Listed> {
        let target = link.canonicalize().map_err(|error| self.odd(link, &unreadable("be followed", &error), true))?;
        if self.followed.iter().any(|known| target.starts_with(known) || known.starts_with(&target)) {
            let why = "is a link to a folder whose files are listed anyway; each is loaded once";
            return Err(self.odd(link, why, false));
        }
        self.followed.push(target);
        Ok(())
    }

    /// `None` if it has disappeared since it was listed.
    fn file(&self, entry: &Entry) -> Option<Listed> {
        let meta = match fs::metadata(&entry.file) {
            Ok(meta) if meta.is_file() => meta,
            Ok(_) => return Some(self.odd(&entry.file, "is not a regular file; ignoring it", false)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let is_link = entry.file.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
                return is_link.then(|| self.odd(&entry.file, "is a link to nothing; ignoring it", false));
            }
            Err(error) => return Some(self.odd(&entry.file, &unreadable("be looked at", &error), false)),
        };
        let path = Path::parse(&entry.sort_key).ok()?;
        Some(Listed::File(Found::local(path, &meta)))
    }

    fn odd(&self, file: &FilePath, why: &str, hides_files: bool) -> Listed {
        let below = file.strip_prefix(self.root.join(&self.folder)).unwrap_or(file);
        // Whatever the name holds, it is shown as one line of plain text.
        Listed::Odd(Odd {
            below: below.to_string_lossy().into_owned(),
            message: format!("{} {why}", format!("{file:?}").trim_matches('"')),
            hides_files,
        })
    }
}

fn unreadable(what: &str, error: &io::Error) -> String {
    format!("cannot {what}: {error}; fix its permissions or remove it")
}

fn failed(path: &FilePath, error: io::Error) -> Listed {
    let text = format!("{}: {error}", path.display());
    Listed::Failed(object_store::Error::Generic {
        store: "local",
        source: Box::new(io::Error::new(error.kind(), text)),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    async fn listed(root: &FilePath) -> (Vec<String>, Vec<String>) {
        let (mut files, mut odd) = (Vec::new(), Vec::new());
        let mut listing = stream(root.to_owned(), &Path::from("in"));
        while let Some(listed) = listing.next().await {
            match listed {
                Listed::File(file) => files.push(file.path.to_string()),
                Listed::Odd(one) => odd.push(one.message),
                Listed::Failed(error) => panic!("{error}"),
            }
        }
        (files, odd)
    }

    #[tokio::test]
    async fn what_is_no_file_is_told_by_name_and_the_rest_is_listed() {
        let folder = tempfile::tempdir().unwrap();
        let (source, elsewhere) = (folder.path().join("in"), folder.path().join("elsewhere"));
        fs::create_dir_all(source.join("b")).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        for file in ["in/a.json", "in/b/a#1", "in/z.json", "elsewhere/e.json"] {
            fs::write(folder.path().join(file), "{}").unwrap();
        }
        assert_eq!(
            listed(folder.path()).await,
            (["in/a.json", "in/b/a#1", "in/z.json"].map(str::to_owned).to_vec(), vec![])
        );
        let _socket = UnixListener::bind(source.join("socket")).unwrap();
        symlink("loop", source.join("loop")).unwrap();
        symlink("nowhere", source.join("lost")).unwrap();
        symlink("..", source.join("b/up")).unwrap();
        symlink(&source, source.join("again")).unwrap();
        symlink(&elsewhere, source.join("linked")).unwrap();
        symlink(&elsewhere, source.join("linked2")).unwrap();
        fs::write(source.join(OsStr::from_bytes(b"latin\xe9.json")), "{}").unwrap();
        fs::write(source.join("bell\u{7}\u{1b}[1m.json"), "{}").unwrap();
        let (files, odd) = listed(folder.path()).await;
        assert_eq!(files, ["in/a.json", "in/b/a#1", "in/linked/e.json", "in/z.json"]);
        for name in ["socket", "loop", "lost", "up", "again", "linked2", "latin\\xE9", "bell\\u{7}\\u{1b}[1m"] {
            assert_eq!(
                odd.iter().filter(|message| message.contains(&format!("/{name}"))).count(),
                1,
                "{name} {odd:#?}"
            );
        }
        assert_eq!(odd.len(), 8, "{odd:#?}");
    }
}
