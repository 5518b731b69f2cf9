//! Files that could not be read, each held off until it is worth another try.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use object_store::path::Path;

use super::discover::Found;
use super::local::Odd;
use super::seen::Stamp;
use crate::error::Error;
use crate::retry::Backoff;

/// The first and the longest delay before such a file is retried.
const DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// Odd things in a source that are named in the log; any more are left alone silently.
const MOST_TOLD: usize = 1_000;

/// The files, by path.
#[derive(Debug, Default)]
pub(super) struct UnreadFiles {
    files: HashMap<Path, Unread>,
    /// What was said about things that are no files.
    told: BTreeSet<String>,
}

#[derive(Debug)]
struct Unread {
    /// Its stamp at that time.
    stamp: Stamp,
    backoff: Backoff,
    again_at: Duration,
}

impl UnreadFiles {
    /// Whether a file may be tried: it never failed, has changed since, or has waited long enough.
    pub(super) fn is_due(&self, file: &Found, now: Duration) -> bool {
        let is_due =
            |unread: &Unread| now >= unread.again_at || unread.stamp != Stamp::of(file.size_bytes, file.modified);
        self.files.get(&file.path).is_none_or(is_due)
    }

    /// Holds off a file that has just failed, longer each time.
    pub(super) fn hold_off(&mut self, file: &Found, error: &Error, now: Duration) {
        let stamp = Stamp::of(file.size_bytes, file.modified);
        let unread = self.files.entry(file.path.clone()).or_insert_with(|| {
            tracing::warn!(%error, "cannot read a file; it stays where it is and will be retried");
            Unread { stamp, backoff: Backoff::new(DELAYS.0, DELAYS.1), again_at: now }
        });
        unread.stamp = stamp;
        unread.again_at = now + unread.backoff.next_delay();
    }

    /// Logs what in a source cannot be loaded, once. Returns what is said about those that may hide files.
    pub(super) fn tell(&mut self, odd: Vec<Odd>) -> Vec<String> {
        let mut hiding = Vec::new();
        for Odd { message, hides_files, .. } in odd {
            if hides_files {
                hiding.push(message.clone());
            }
            if self.told.len() < MOST_TOLD && !self.told.contains(&message) {
                tracing::warn!("not loaded: {message}");
                self.told.insert(message);
            }
        }
        hiding
    }

    pub(super) fn remove(&mut self, file: &Found) {
        self.files.remove(&file.path);
    }

    pub(super) fn clear(&mut self) {
        self.files.clear();
    }

    /// A file that has been due for long without being listed is gone.
    pub(super) fn forget_gone(&mut self, now: Duration) {
        self.files.retain(|_, unread| now < unread.again_at + DELAYS.1);
    }
}
