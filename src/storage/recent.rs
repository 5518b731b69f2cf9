//! What this process has just put: the next stage reads it immediately, and need not ask the store for it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use object_store::path::Path;

use super::Mark;

/// The maximum number of remembered objects, and of their bytes. More than a second of a busy service; no more than a
/// burst of memory.
const MAX_OBJECTS: usize = 1_024;
const MAX_BYTES: usize = 1_024 * 1_024;
/// Handling a larger object costs so much that reading it back does not matter.
const MAX_OBJECT_BYTES: usize = 64 * 1_024;

/// The newest objects that were created here and are durable. They never change in the store, so their bytes are as
/// good as the store's; they are returned once, because one stage reads what the previous one has put.
#[derive(Debug, Default)]
pub(super) struct Recent {
    objects: Mutex<Objects>,
}

#[derive(Debug, Default)]
struct Objects {
    /// The bytes, with the object's mark if it is known; `None` once they were returned.
    bytes: HashMap<Path, Option<(Bytes, Option<Mark>)>>,
    order: VecDeque<Path>,
    total: usize,
}

impl Recent {
    /// Adds an object that was created and is durable.
    pub(super) fn created(&self, path: &Path, bytes: &Bytes, mark: Option<Mark>) {
        let mut objects = self.lock();
        objects.forget(path);
        let kept = (bytes.len() <= MAX_OBJECT_BYTES).then(|| (bytes.clone(), mark));
        objects.total += kept.as_ref().map_or(0, |(bytes, _)| bytes.len());
        objects.bytes.insert(path.clone(), kept);
        objects.order.push_back(path.clone());
        while objects.total > MAX_BYTES || objects.order.len() > MAX_OBJECTS {
            let Some(oldest) = objects.order.pop_front() else { break };
            objects.forget(&oldest);
        }
    }

    /// Returns the bytes of an object, if they are still here, with its mark.
    pub(super) fn take(&self, path: &Path) -> Option<(Bytes, Option<Mark>)> {
        let mut objects = self.lock();
        let found = objects.bytes.get_mut(path)?.take()?;
        objects.total -= found.0.len();
        Some(found)
    }

    /// Whether an object is known to be durable, because it was created here.
    pub(super) fn is_durable(&self, path: &Path) -> bool {
        self.lock().bytes.contains_key(path)
    }

    /// Forgets an object that is deleted or replaced.
    pub(super) fn forget(&self, path: &Path) {
        self.lock().forget(path);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Objects {
    /// Its place in the order stays until its turn comes.
    fn forget(&mut self, path: &Path) {
        if let Some((bytes, _)) = self.bytes.remove(path).flatten() {
            self.total -= bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_given_out_once_and_stays_known_as_durable() {
        let (recent, path) = (Recent::default(), Path::from("a"));
        let mark = Mark { size_bytes: 3, modified_nanos: None, tag: Some("one".to_owned()) };
        recent.created(&path, &Bytes::from_static(b"one"), Some(mark.clone()));
        assert_eq!(recent.take(&path), Some((Bytes::from_static(b"one"), Some(mark))));
        assert_eq!((recent.take(&path), recent.is_durable(&path)), (None, true));
        recent.forget(&path);
        assert!(!recent.is_durable(&path));
    }

    #[test]
    fn memory_is_bounded_in_objects_and_bytes() {
        let recent = Recent::default();
        for number in 0..3 * MAX_OBJECTS {
            let path = Path::from(number.to_string());
            recent.created(&path, &Bytes::from(vec![0; 10_000]), None);
            if number % 2 == 0 {
                recent.forget(&path);
            }
        }
        recent.created(&Path::from("large"), &Bytes::from(vec![0; MAX_OBJECT_BYTES + 1]), None);
        assert_eq!((recent.take(&Path::from("large")), recent.is_durable(&Path::from("large"))), (None, true));
        let objects = recent.lock();
        assert!(objects.order.len() <= MAX_OBJECTS && objects.bytes.len() <= objects.order.len());
        let kept: usize = objects.bytes.values().flatten().map(|(bytes, _)| bytes.len()).sum();
        assert!(kept == objects.total && kept <= MAX_BYTES, "{kept} bytes");
    }
}
