//! Which files are loaded, in sixteen bytes each: a path is identified by 96 bits of its hash.

use std::collections::HashMap;

use object_store::path::Path;
use sha2::{Digest, Sha256};

use crate::clock::Timestamp;

/// Identifies a path. Among a million files, two collide with a probability of 1 in 10^17.
pub(super) type PathHash = [u8; 12];

/// Shows whether a file has changed; 0 is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(pub(super) u32);

/// The loaded files.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Seen(HashMap<PathHash, u32>);

impl Stamp {
    pub(super) const UNKNOWN: Self = Self(0);

    pub(super) fn of(size_bytes: u64, modified: Timestamp) -> Self {
        let mut hash = Sha256::new();
        hash.update(size_bytes.to_le_bytes());
        hash.update(modified.as_micros().to_le_bytes());
        let [a, b, c, d, ..] = <[u8; 32]>::from(hash.finalize());
        Self(u32::from_le_bytes([a, b, c, d]).max(1))
    }
}

impl Seen {
    /// Remembers a file with the stamp it was loaded with.
    pub(super) fn insert(&mut self, hash: PathHash, stamp: Stamp) {
        self.0.insert(hash, stamp.0);
    }

    /// Whether a file still has to be loaded, or loaded again if that is allowed.
    pub(super) fn lacks(&self, path: &Path, stamp: Stamp, allow_overwrites: bool) -> bool {
        match self.get(path) {
            None => true,
            Some(Stamp::UNKNOWN) => false,
            Some(known) => allow_overwrites && known != stamp,
        }
    }

    /// The stamp that a file was loaded with; `None` if it was not loaded.
    pub(super) fn get(&self, path: &Path) -> Option<Stamp> {
        self.0.get(&hash_of(path.as_ref())).copied().map(Stamp)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PathHash, Stamp)> {
        self.0.iter().map(|(hash, stamp)| (hash, Stamp(*stamp)))
    }
}

/// Identifies this path.
pub(super) fn hash_of(path: &str) -> PathHash {
    let hash: [u8; 32] = Sha256::digest(path.as_bytes()).into();
    let mut first = PathHash::default();
    first.copy_from_slice(&hash[..size_of::<PathHash>()]);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_path_and_told_from_what_it_was() {
        let (path, now) = (Path::from("a/b.json"), Timestamp::from_micros(7));
        let mut seen = Seen::default();
        assert_eq!(seen.get(&path), None);
        let (was, is) = (Stamp::of(1, now), Stamp::of(2, now));
        assert!(seen.lacks(&path, is, false));
        seen.insert(hash_of("a/b.json"), was);
        assert_eq!(seen.get(&path), Some(was));
        assert!(!seen.lacks(&path, is, false) && seen.lacks(&path, is, true) && !seen.lacks(&path, was, true));
        seen.insert(hash_of("a/b.json"), Stamp::UNKNOWN);
        assert!(!seen.lacks(&path, is, true), "another process has loaded it, nobody knows as what");
        assert_ne!(Stamp::of(1, now), Stamp::of(2, now));
        assert_ne!(Stamp::of(1, now), Stamp::of(1, Timestamp::from_micros(8)));
    }
}
