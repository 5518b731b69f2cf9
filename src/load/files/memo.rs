//! The set of loaded files, saved beside the table so that a start need not read the table for it.
//!
//! One line of JSON, then sixteen bytes per loaded file, then the SHA-256 of everything before it. It is only valid for
//! what its first line names: this table, this version, this commit. Otherwise it is ignored, and the table is read.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::seen::{PathHash, Seen, Stamp};
use crate::error::{Context, ErrorKind, Result};

const ENTRY_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// What a memo was made from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Origin {
    pub(super) table_id: String,
    pub(super) version: i64,
    /// Distinguishes this version from the same number in another history of the table.
    pub(super) commit_id: String,
    /// The source that the paths belong to.
    pub(super) source: String,
}

/// The path of a pipeline's memo.
pub(super) fn path_of(checkpoints: &Path, pipeline: &str) -> PathBuf {
    checkpoints.join(pipeline).join("files.seen")
}

/// Replaces the memo.
///
/// # Errors
/// Unavailable when the folder cannot be written.
pub(super) fn write(path: &Path, origin: &Origin, seen: &Seen) -> Result<()> {
    let cannot = || format!("cannot write {}; the next start will read the table instead", path.display());
    let mut bytes = serde_json::to_vec(origin).context(ErrorKind::Unavailable, cannot())?;
    bytes.push(b'\n');
    bytes.reserve(seen.len() * ENTRY_BYTES + HASH_BYTES);
    for (hash, Stamp(stamp)) in seen.iter() {
        bytes.extend_from_slice(hash);
        bytes.extend_from_slice(&stamp.to_le_bytes());
    }
    bytes.extend_from_slice(&Sha256::digest(&bytes));
    let staging = path.with_extension("seen.tmp");
    let writing = || {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        std::fs::File::create(&staging)?.write_all(&bytes)?;
        std::fs::rename(&staging, path)
    };
    writing().context(ErrorKind::Unavailable, cannot())
}

/// Reads a memo; `None` if there is none that is complete.
pub(super) fn read(path: &Path) -> Option<(Origin, Seen)> {
    let mut seen = Seen::default();
    let origin = read_each(path, |hash, stamp| seen.insert(hash, stamp))?;
    Some((origin, seen))
}

/// Like [`read`], entry by entry, for callers that need a few of many.
pub(super) fn read_each(path: &Path, mut take: impl FnMut(PathHash, Stamp)) -> Option<Origin> {
    let bytes = std::fs::read(path).ok()?;
    let (content, hash) = bytes.split_at_checked(bytes.len().checked_sub(HASH_BYTES)?)?;
    if Sha256::digest(content).as_slice() != hash {
        tracing::warn!(path = %path.display(), "incomplete; reading the table instead");
        return None;
    }
    let end = content.iter().position(|byte| *byte == b'\n')?;
    let (head, entries) = content.split_at_checked(end)?;
    let origin = serde_json::from_slice(head).ok()?;
    for entry in entries.get(1..)?.chunks_exact(ENTRY_BYTES) {
        let (hash, stamp) = entry.split_at_checked(size_of::<PathHash>())?;
        take(hash.try_into().ok()?, Stamp(u32::from_le_bytes(stamp.try_into().ok()?)));
    }
    Some(origin)
}

#[cfg(test)]
mod tests {
    use super::super::seen::hash_of;
    use super::*;

    fn origin() -> Origin {
        let text = |text: &str| text.to_owned();
        Origin { table_id: text("t"), version: 7, commit_id: text("c"), source: text("s") }
    }

    #[test]
    fn what_was_written_is_read_and_what_is_torn_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_of(folder.path(), "p");
        assert_eq!(read(&path), None);
        let mut seen = Seen::default();
        for number in 0..1_000 {
            seen.insert(hash_of(&number.to_string()), Stamp(number));
        }
        write(&path, &origin(), &seen).unwrap();
        assert_eq!(read(&path), Some((origin(), seen)));
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.len() < 1_000 * ENTRY_BYTES + 200, "{} bytes", bytes.len());
        for cut in [0, 1, 31, 32, 40, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(read(&path), None, "cut at {cut}");
        }
    }
}
