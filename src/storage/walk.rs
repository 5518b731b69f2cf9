//! Listings of a folder in path order that open only the folders they need. Dot files are hidden.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{ListResult, ObjectMeta, Result};
use tokio::sync::mpsc;

use super::fault::store_error;
use crate::clock::Timestamp;

/// Objects read ahead of the consumer.
const READ_AHEAD: usize = 256;
/// Odd files that are named in the log; any more are ignored silently.
const MAX_REPORTED: usize = 1_000;

struct Entry {
    /// Relative to the root, with a trailing `/` for folders: the sort key of listings.
    sort_key: String,
    is_folder: bool,
    file: PathBuf,
}

/// The objects below `prefix` whose path is greater than `offset`, in path order.
pub(super) fn stream(
    root: PathBuf,
    prefix: Option<Path>,
    offset: Option<Path>,
) -> BoxStream<'static, Result<ObjectMeta>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        let folder = prefix.map(String::from).unwrap_or_default();
        let mut walk = Walk { root, offset: offset.map(String::from).unwrap_or_default(), folders_read: 0 };
        // The consumer may leave early: the walk then ends.
        let _left = walk.folder(&folder, &mut |item| sender.blocking_send(item).is_ok());
    });
    stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|item| (item, receiver)) }).boxed()
}

/// A listing under way.
struct Walk {
    root: PathBuf,
    /// Only what is greater than this is returned.
    offset: String,
    /// Folders that were opened: the cost of the listing.
    folders_read: usize,
}

impl Walk {
    /// Gives the objects below `folder`; returns whether the walk should go on.
    fn folder(&mut self, folder: &str, give: &mut impl FnMut(Result<ObjectMeta>) -> bool) -> bool {
        self.folders_read += 1;
        let entries = match entries(&self.root, folder, &self.offset) {
            Ok(entries) => entries,
            Err(error) => return give(Err(store_error(&self.root.join(folder), error))),
        };
        for entry in entries {
            let go_on = if entry.is_folder {
                self.folder(entry.sort_key.trim_end_matches('/'), give)
            } else {
                object(&entry).is_none_or(&mut *give)
            };
            if !go_on {
                return false;
            }
        }
        true
    }
}

/// Objects and folders directly below `prefix`.
pub(super) fn one_level(root: &FilePath, prefix: Option<&Path>) -> Result<ListResult> {
    let folder = prefix.map(Path::as_ref).unwrap_or_default();
    let entries = entries(root, folder, "").map_err(|error| store_error(&root.join(folder), error))?;
    let mut found = ListResult { objects: Vec::new(), common_prefixes: Vec::new() };
    for entry in entries {
        if entry.is_folder {
            found.common_prefixes.extend(Path::parse(entry.sort_key.trim_end_matches('/')));
        } else if let Some(meta) = object(&entry) {
            found.objects.push(meta?);
        }
    }
    Ok(found)
}

/// Every file below `folder`, including hidden ones, whose name starts with `prefix`, with its last change. Files that
/// cannot be read or have disappeared are skipped.
pub(super) fn files_named(folder: &FilePath, prefix: &str, visit: &mut impl FnMut(&FilePath, Timestamp)) {
    let Ok(listing) = fs::read_dir(folder) else { return };
    for entry in listing.flatten() {
        let is_named = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files_named(&entry.path(), prefix, visit);
        } else if is_named && let Ok(modified) = entry.metadata().and_then(|meta| meta.modified()) {
            let age = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
            visit(&entry.path(), Timestamp::from_micros(i64::try_from(age.as_micros()).unwrap_or(i64::MAX)));
        }
    }
}

/// What is directly in a folder and is greater than the offset, or may contain something that is. The rest is dropped
/// as it is read: the log of an old table has 100,000 names, and a listing wants the last few.
fn entries(root: &FilePath, folder: &str, offset: &str) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let listing = match fs::read_dir(root.join(folder)) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(entries),
        listing => listing?,
    };
    let slash = if folder.is_empty() { "" } else { "/" };
    let prefix = format!("{folder}{slash}");
    // What remains of the offset for names in this folder: nothing below it counts, but a folder on the way to it does.
    let from = offset.strip_prefix(&prefix);
    let all_pass = from.is_none() && prefix.as_str() > offset;
    for entry in listing {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let leads = || from.is_some_and(|from| from.starts_with(name));
        if !all_pass && from.is_none_or(|from| name <= from) && !leads() {
            continue;
        }
        let is_folder = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => entry.path().is_dir(),
            Ok(kind) => kind.is_dir(),
            Err(_) => continue,
        };
        let end = if is_folder { "/" } else { "" };
        let sort_key = format!("{prefix}{name}{end}");
        if sort_key.as_str() > offset || (is_folder && offset.starts_with(&sort_key)) {
            entries.push(Entry { sort_key, is_folder, file: entry.path() });
        }
    }
    entries.sort_by(|one, other| one.sort_key.cmp(&other.sort_key));
    Ok(entries)
}

/// Logs that a pipe, a socket or a device is ignored, but not with every listing.
fn report_once(file: &FilePath) {
    static REPORTED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut reported = REPORTED.lock().unwrap_or_else(PoisonError::into_inner);
    if reported.len() < MAX_REPORTED && reported.insert(file.to_owned()) {
        tracing::warn!("{} is not a regular file; ignoring it", file.display());
    }
}

/// `None` if the file has disappeared since it was listed, is not a regular file (opening a pipe would wait forever for
/// a writer), or has a name that no object can have.
fn object(entry: &Entry) -> Option<Result<ObjectMeta>> {
    let location = Path::parse(&entry.sort_key).ok()?;
    let meta = match fs::metadata(&entry.file) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(store_error(&entry.file, error))),
    };
    if !meta.is_file() {
        report_once(&entry.file);
        return None;
    }
    let last_modified: DateTime<Utc> = meta.modified().map(DateTime::from).unwrap_or_default();
    Some(Ok(ObjectMeta { location, last_modified, size: meta.len(), e_tag: None, version: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_at_or_below_the_offset_are_not_opened() {
        let root = tempfile::tempdir().unwrap();
        for day in 1..=20 {
            let folder = root.path().join(format!("lane/2026-01-{day:02}/00"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("1.json"), b"{}").unwrap();
        }
        let read = |offset: &str| {
            let mut walk = Walk { root: root.path().to_owned(), offset: offset.to_owned(), folders_read: 0 };
            let mut found = Vec::new();
            walk.folder("lane", &mut |item| {
                found.push(item.unwrap().location.to_string());
                true
            });
            (found, walk.folders_read)
        };
        assert_eq!(read("").1, 41);
        let (found, folders_read) = read("lane/2026-01-19/00/1.json");
        assert_eq!((found, folders_read), (vec!["lane/2026-01-20/00/1.json".to_owned()], 5));
        assert_eq!(read("lane/2026-02"), (vec![], 1));
    }

    #[test]
    fn an_offset_hides_just_what_is_not_greater() {
        let root = tempfile::tempdir().unwrap();
        let files = ["a", "a-b", "a.d/1", "a.d/2/3", "ab/1", "b/1", "b/10", "b/9", "b0"];
        for file in files {
            let file = root.path().join("t").join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, b"").unwrap();
        }
        let offsets =
            ["", "t", "t/", "t/a", "t/a-", "t/a.", "t/a.d", "t/a.d/2", "t/a.d/2/3", "t/b", "t/b/1", "t/b/9", "u"];
        for offset in offsets {
            let mut walk = Walk { root: root.path().to_owned(), offset: offset.to_owned(), folders_read: 0 };
            let mut found = Vec::new();
            walk.folder("t", &mut |item| {
                found.push(item.unwrap().location.to_string());
                true
            });
            let mut greater: Vec<String> = files.iter().map(|file| format!("t/{file}")).collect();
            greater.retain(|path| path.as_str() > offset);
            greater.sort();
            assert_eq!(found, greater, "after {offset:?}");
        }
    }
}
