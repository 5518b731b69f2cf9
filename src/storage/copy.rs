//! Copies within one storage, for objects that move: create-only, and compared by their bytes.

use object_store::path::Path;
use object_store::{CopyMode, CopyOptions, ObjectStore, ObjectStoreExt};

use super::fault::{failed_call, is_persist_failure, not_the_root};
use super::{PutNew, Storage};
use crate::error::Result;

/// Bytes compared at a time.
const COMPARED_BYTES: u64 = 1 << 20;

impl Storage {
    /// Copies an object to a path that must not exist yet, in one attempt. On a local disk the copy is a hard link to
    /// the same file: writers always replace files rather than change them.
    ///
    /// # Errors
    /// When the store fails, or there is no such object; the copy may exist all the same. Fatal: the disk failed to
    /// persist it.
    pub async fn copy_new(&self, from: &Path, to: &Path) -> Result<PutNew> {
        self.check_root()?;
        let create = CopyOptions::new().with_mode(CopyMode::Create);
        let failed = match self.object_store().copy_opts(from, to, create).await {
            Ok(()) => return Ok(PutNew::Created),
            Err(failed) if is_persist_failure(&failed) || not_the_root(&failed).is_some() => {
                return Err(failed_call(failed, "copy to", to));
            }
            Err(failed) => failed,
        };
        match self.is_same(from, to).await? {
            Some(true) => {
                // An earlier try may have died before the name was durable.
                self.persist_folder_of(to).await?;
                Ok(PutNew::Created)
            }
            Some(false) => Ok(PutNew::Taken),
            None => Err(failed_call(failed, "copy to", to)),
        }
    }

    /// Whether two objects have the same bytes; `None` if one of them does not exist.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn is_same(&self, one: &Path, other: &Path) -> Result<Option<bool>> {
        let (Some(left), Some(right)) = (self.head(one).await?, self.head(other).await?) else { return Ok(None) };
        if left.size != right.size {
            return Ok(Some(false));
        }
        let store = self.object_store();
        let mut from = 0;
        while from < left.size {
            let range = from..left.size.min(from + COMPARED_BYTES);
            let read = |path| store.get_range(path, range.clone());
            let (left, right) = futures::join!(read(one), read(other));
            if left.map_err(|error| failed_call(error, "read", one))?
                != right.map_err(|error| failed_call(error, "read", other))?
            {
                return Ok(Some(false));
            }
            from = range.end;
        }
        Ok(Some(true))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::super::tests::simulated::{CutAt, Lies, Moment, SimulatedDisk};
    use super::*;

    const FROM: &str = "in/deep/a.json";
    const TO: &str = "archive/2026/deep/a.json";

    async fn conforms(storage: Storage) {
        let (from, to, other) = (Path::from(FROM), Path::from(TO), Path::from("archive/b.json"));
        assert!(storage.copy_new(&from, &to).await.is_err(), "there is nothing to copy");
        let bytes = Bytes::from(vec![b'x'; 3 << 20]);
        storage.put_new(&from, bytes.clone()).await.unwrap();
        assert_eq!(storage.copy_new(&from, &to).await.unwrap(), PutNew::Created);
        assert_eq!(storage.copy_new(&from, &to).await.unwrap(), PutNew::Created, "an earlier try has made it");
        assert_eq!(storage.get(&to).await.unwrap(), Some(bytes.clone()));
        let mut differs = bytes.to_vec();
        differs[(2 << 20) + 7] = b'y';
        storage.put_new(&other, differs.into()).await.unwrap();
        assert_eq!(storage.copy_new(&from, &other).await.unwrap(), PutNew::Taken, "one byte is another");
        storage.put_overwrite(&other, Bytes::from_static(b"short")).await.unwrap();
        assert_eq!(storage.copy_new(&from, &other).await.unwrap(), PutNew::Taken);
        storage.put_overwrite(&from, Bytes::from_static(b"new")).await.unwrap();
        assert_eq!(storage.get(&to).await.unwrap(), Some(bytes), "what comes later is not in the copy");
        assert_eq!(storage.is_same(&from, &Path::from("nowhere")).await.unwrap(), None);
    }

    #[tokio::test]
    async fn copies_are_create_only_in_memory_and_in_a_folder() {
        conforms(Storage::memory()).await;
        let folder = tempfile::tempdir().unwrap();
        conforms(Storage::open(folder.path().to_str().unwrap()).unwrap()).await;
    }

    #[tokio::test]
    async fn a_move_that_a_power_cut_ends_at_any_call_leaves_the_object_in_one_place_at_least() {
        for nth in 1..=10 {
            for moment in [Moment::Before, Moment::After] {
                let folder = tempfile::tempdir().unwrap();
                let disk = SimulatedDisk::new(folder.path(), Lies::default()).unwrap();
                let root = folder.path().join("data");
                let storage = Storage::open_folder_on(Arc::new(disk.clone()), &root).unwrap();
                storage.put_new(&Path::from(FROM), Bytes::from_static(b"x")).await.unwrap();
                disk.cut_at(CutAt { operation: None, nth, moment });
                let moving = tokio::spawn(async move {
                    storage.copy_new(&Path::from(FROM), &Path::from(TO)).await?;
                    storage.delete(&Path::from(FROM)).await
                });
                tokio::select! {
                    () = disk.out().cancelled() => {}
                    moved = moving => moved.unwrap().unwrap(),
                }
                disk.release();
                for seed in 0..20 {
                    let rebooted = tempfile::tempdir().unwrap();
                    disk.write_survivors(rebooted.path(), seed).unwrap();
                    let holds = |path: &str| std::fs::read(rebooted.path().join("data").join(path)).ok();
                    let found = [holds(FROM), holds(TO)];
                    assert!(found.iter().flatten().all(|bytes| bytes == b"x"), "{found:?}");
                    assert!(found.iter().any(Option::is_some), "cut at call {nth} ({moment:?}), seed {seed}");
                }
            }
        }
    }
}
