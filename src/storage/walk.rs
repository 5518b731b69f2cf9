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
        let prefix = prefix.map(String::from).unwrap_or_default();
        let offset = offset.map(String::from).unwrap_or_default();
        // The listener may leave early: the walk then ends.
        let _left = walk(&root, &prefix, &offset, &mut |item| sender.blocking_send(item).is_ok());
    });
    stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|item| (item, receiver)) }).boxed()
}

/// Returns whether the walk should go on.
fn walk(root: &FilePath, folder: &str, offset: &str, give: &mut impl FnMut(Result<ObjectMeta>) -> bool) -> bool {
    let entries = match entries(root, folder) {
        Ok(entries) => entries,
        Err(error) => return give(Err(told(&root.join(folder), error))),
    };
    for entry in entries {
        if !offset.starts_with(&entry.sort_key) && entry.sort_key.as_str() <= offset {
            continue;
        }
        let go_on = if entry.is_folder {
            walk(root, entry.sort_key.trim_end_matches('/'), offset, give)
        } else {
            // The object at the offset itself starts with itself.
            entry.sort_key == offset || object(&entry).is_none_or(&mut *give)
        };
        if !go_on {
            return false;
        }
    }
    true
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

/// Every file below `folder`, hidden ones too, with its last change.
pub(super) fn every_file(folder: &FilePath, visit: &mut impl FnMut(&FilePath, Timestamp)) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            every_file(&entry.path(), visit)?;
        } else if let Ok(age) = meta.modified().map(|time| time.duration_since(UNIX_EPOCH).unwrap_or_default()) {
            visit(&entry.path(), Timestamp::from_micros(i64::try_from(age.as_micros()).unwrap_or(i64::MAX)));
        }
    }
    Ok(())
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
