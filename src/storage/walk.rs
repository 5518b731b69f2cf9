//! Listings of a folder in path order that open only the folders they need. Dot files are hidden.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path as FilePath, PathBuf};
use std::time::UNIX_EPOCH;

use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{ListResult, ObjectMeta, Result};
use tokio::sync::mpsc;

use super::local::told;
use crate::clock::Timestamp;

/// Objects read ahead of whoever takes them.
const READ_AHEAD: usize = 256;

struct Entry {
    /// Relative to the root, with `/` at its end when it is a folder: what listings are ordered by.
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
        // The listener may leave early: the walk then ends.
        let _left = walk.folder(&folder, &mut |item| sender.blocking_send(item).is_ok());
    });
    stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|item| (item, receiver)) }).boxed()
}

/// A listing under way.
struct Walk {
    root: PathBuf,
    /// Only what is greater than this is given.
    offset: String,
    /// Folders that were opened: the cost of the listing.
    folders_read: usize,
}

impl Walk {
    /// Gives the objects below `folder`; returns whether the walk should go on.
    fn folder(&mut self, folder: &str, give: &mut impl FnMut(Result<ObjectMeta>) -> bool) -> bool {
        self.folders_read += 1;
        let entries = match entries(&self.root, folder) {
            Ok(entries) => entries,
            Err(error) => return give(Err(told(&self.root.join(folder), error))),
        };
        for entry in entries {
            if !self.may_hold_greater(&entry) {
                continue;
            }
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

    /// Whether the entry, or something in it, is greater than the offset.
    fn may_hold_greater(&self, entry: &Entry) -> bool {
        entry.sort_key > self.offset || (entry.is_folder && self.offset.starts_with(&entry.sort_key))
    }
}

/// Objects and folders directly below `prefix`.
pub(super) fn one_level(root: &FilePath, prefix: Option<&Path>) -> Result<ListResult> {
    let folder = prefix.map(Path::as_ref).unwrap_or_default();
    let entries = entries(root, folder).map_err(|error| told(&root.join(folder), error))?;
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

/// Every file below `folder`, hidden ones too, whose name starts with `prefix`, with its last change. What cannot be
/// read or has gone meanwhile is passed over.
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

fn entries(root: &FilePath, folder: &str) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let listing = match fs::read_dir(root.join(folder)) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(entries),
        listing => listing?,
    };
    for entry in listing {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let is_folder = match entry.file_type() {
            Ok(kind) if kind.is_symlink() => entry.path().is_dir(),
            Ok(kind) => kind.is_dir(),
            Err(_) => continue,
        };
        let slash = if folder.is_empty() { "" } else { "/" };
        let end = if is_folder { "/" } else { "" };
        entries.push(Entry { sort_key: format!("{folder}{slash}{name}{end}"), is_folder, file: entry.path() });
    }
    entries.sort_by(|one, other| one.sort_key.cmp(&other.sort_key));
    Ok(entries)
}

/// `None` when the file has gone since it was listed, or has a name that no object can have.
fn object(entry: &Entry) -> Option<Result<ObjectMeta>> {
    let location = Path::parse(&entry.sort_key).ok()?;
    let meta = match fs::metadata(&entry.file) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(told(&entry.file, error))),
    };
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
}
