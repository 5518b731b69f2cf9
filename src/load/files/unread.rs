//! Files that could not be read, each held off until it is worth another try.

use std::collections::HashMap;
use std::time::Duration;

use object_store::path::Path;

use super::discover::Found;
use super::seen::Stamp;
use crate::error::Error;
use crate::retry::Backoff;

/// The first and the longest delay before such a file is retried.
const DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// The files, by path.
#[derive(Debug, Default)]
pub(super) struct UnreadFiles(HashMap<Path, Unread>);

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
        self.0.get(&file.path).is_none_or(is_due)
    }

    /// Holds off a file that has just failed, longer each time.
    pub(super) fn hold_off(&mut self, file: &Found, error: &Error, now: Duration) {
        let stamp = Stamp::of(file.size_bytes, file.modified);
        let unread = self.0.entry(file.path.clone()).or_insert_with(|| {
            tracing::warn!(%error, "cannot read a file; it stays where it is and will be retried");
            Unread { stamp, backoff: Backoff::new(DELAYS.0, DELAYS.1), again_at: now }
        });
        unread.stamp = stamp;
        unread.again_at = now + unread.backoff.next_delay();
    }

    pub(super) fn remove(&mut self, file: &Found) {
        self.0.remove(&file.path);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// A file that has been due for long without being listed is gone.
    pub(super) fn forget_gone(&mut self, now: Duration) {
        self.0.retain(|_, unread| now < unread.again_at + DELAYS.1);
    }
}
