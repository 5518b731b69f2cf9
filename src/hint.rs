//! Hints: nudges from one part of a process to the next that name new work.
//!
//! A hint only saves time. The queue is bounded, and an overflow sets a flag that means "look for yourself": the
//! listing and the tables are the truth.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use object_store::path::Path;
use tokio::sync::{Mutex, mpsc};

/// How many hinted keys wait at most; more are found by listing.
const QUEUE_LIMIT: usize = 4_096;

/// The sending end of hinted keys. Cheap to clone.
#[derive(Clone, Debug)]
pub struct KeyHinter {
    queue: mpsc::Sender<Path>,
    overflowed: Arc<AtomicBool>,
}

/// The receiving end of hinted keys. Clones share the queue, so that a reopened stage continues with it; only one
/// receives at a time.
#[derive(Clone, Debug)]
pub struct KeyHints {
    queue: Arc<Mutex<mpsc::Receiver<Path>>>,
    overflowed: Arc<AtomicBool>,
}

/// The hints since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HintedKeys {
    /// The hinted keys, in order.
    pub keys: Vec<Path>,
    /// Whether some were lost, so that only a listing can find them.
    pub overflowed: bool,
}

/// A connected pair of hint ends.
pub fn key_hints() -> (KeyHinter, KeyHints) {
    let (sender, receiver) = mpsc::channel(QUEUE_LIMIT);
    let overflowed = Arc::new(AtomicBool::new(false));
    (
        KeyHinter { queue: sender, overflowed: Arc::clone(&overflowed) },
        KeyHints { queue: Arc::new(Mutex::new(receiver)), overflowed },
    )
}

impl KeyHinter {
    /// Sends a hint for `key`; never waits.
    pub fn hint(&self, key: Path) {
        if self.queue.try_send(key).is_err() {
            self.overflowed.store(true, Ordering::Release);
        }
    }
}

impl KeyHints {
    /// Waits for a hint and takes it along with up to `limit - 1` more; `None` when every sender is gone.
    /// Safe to cancel.
    pub async fn next(&mut self, limit: usize) -> Option<HintedKeys> {
        let mut keys = Vec::new();
        if self.queue.lock().await.recv_many(&mut keys, limit).await == 0 {
            return None;
        }
        Some(HintedKeys { keys, overflowed: self.overflowed.swap(false, Ordering::AcqRel) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_is_told_once() {
        let (hinter, mut hints) = key_hints();
        for number in 0..=QUEUE_LIMIT {
            hinter.hint(Path::from(format!("raw/{number}")));
        }
        let taken = hints.next(QUEUE_LIMIT * 2).await.unwrap();
        assert_eq!((taken.keys.len(), taken.overflowed), (QUEUE_LIMIT, true));
        hinter.hint(Path::from("raw/next"));
        assert_eq!(hints.next(10).await.unwrap(), HintedKeys { keys: vec![Path::from("raw/next")], overflowed: false });
        hinter.hint(Path::from("raw/after"));
        assert_eq!(hints.clone().next(10).await.unwrap().keys, [Path::from("raw/after")], "a clone goes on");
        drop(hinter);
        assert_eq!(hints.next(10).await, None);
    }
}
