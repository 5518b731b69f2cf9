//! The moment at which a source that leaves its existing files out begins.
//!
//! It is compared with the times of files, so it has to be of the clock that dates them. By a clock that is ahead, a file
//! that arrives right afterwards would seem to have been there before, and would never be loaded.

use std::os::unix::fs::MetadataExt;
use std::path::Path as FilePath;
use std::time::Duration;

use super::discover::Source;
use crate::clock::{Clock, Timestamp};
use crate::error::Result;
use crate::storage::{Storage, origin};

/// How far the time of a file may be behind the clock that dates it: a disk uses the time of the last tick, and a cloud
/// store whole seconds.
const COARSENESS: Duration = Duration::from_secs(1);

/// The current time as the source dates its files, or an earlier one.
///
/// # Errors
/// When the data root's store has to be asked and fails.
pub(super) async fn starts_at(source: &Source, data: &Storage, clock: &Clock) -> Result<Timestamp> {
    if is_in_store_of(source, data) {
        // A file that we write there is dated as the files of the source are.
        return data.time().await;
    }
    let ours = clock.now().minus(COARSENESS);
    match source.local_folder() {
        // Files on this machine are dated by its clock.
        Some(_) => Ok(ours),
        // We write nothing to another cloud store, which may even refuse it, so its clock is unknown. The earlier of the
        // two that are known rather loads a file that was there than loses one that was not.
        None => Ok(ours.min(data.time().await?.minus(COARSENESS))),
    }
}

/// Whether files of the source are dated by the clock that dates what is written to the data root.
fn is_in_store_of(source: &Source, data: &Storage) -> bool {
    match (source.local_folder(), data.local_root()) {
        (Some(folder), Some(root)) => folder.starts_with(root) || are_on_one_disk(&folder, root),
        (None, None) => origin(source.storage.url()) == origin(data.url()),
        _ => false,
    }
}

fn are_on_one_disk(one: &FilePath, other: &FilePath) -> bool {
    let device = |folder: &FilePath| folder.metadata().map(|metadata| metadata.dev()).ok();
    device(one).is_some_and(|one| device(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::files::SourceSettings;

    const HOUR: Duration = Duration::from_secs(3_600);
    const HOUR_MICROS: i64 = 3_600_000_000;

    fn source(data: &Storage, path: &str) -> Source {
        let settings: SourceSettings = toml::from_str(&format!("path = \"{path}\"")).unwrap();
        Source::new(data, &settings).unwrap()
    }

    /// How long before a moment that is read from the real clock a source begins, if ours is off by so much.
    async fn starts_before(source: &Source, data: &Storage, step_micros: i64) -> (Duration, Duration) {
        let clock = Clock::system();
        let real = clock.now();
        clock.step(step_micros);
        let start = starts_at(source, data, &clock).await.unwrap();
        (real.since(start), start.since(real))
    }

    #[tokio::test]
    async fn a_source_in_the_store_of_the_data_root_begins_by_the_time_of_that_store() {
        let folder = tempfile::tempdir().unwrap();
        let data = Storage::open(folder.path().join("data").to_str().unwrap()).unwrap();
        let memory = Storage::memory();
        let beside = folder.path().join("in");
        let sources = [
            (source(&data, "in"), &data),
            (source(&data, beside.to_str().unwrap()), &data),
            (source(&memory, "in"), &memory),
            (source(&memory, "memory:///in"), &memory),
        ];
        for (source, data) in sources {
            for step in [-HOUR_MICROS, HOUR_MICROS] {
                let (before, after) = starts_before(&source, data, step).await;
                assert!(before.max(after) < HOUR / 2, "{}: {before:?} {after:?}", source.name);
            }
        }
    }

    #[tokio::test]
    async fn a_source_on_this_machine_begins_by_its_clock_if_the_data_root_is_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let data = Storage::memory();
        let source = source(&data, folder.path().to_str().unwrap());
        let (before, _) = starts_before(&source, &data, 0).await;
        assert!(before > Duration::ZERO, "times of files are coarse");
        let (before, _) = starts_before(&source, &data, -HOUR_MICROS).await;
        assert!(before > HOUR / 2, "{before:?}");
        let (_, after) = starts_before(&source, &data, HOUR_MICROS).await;
        assert!(after > HOUR / 2, "{after:?}");
    }

    #[tokio::test]
    async fn a_source_in_another_store_begins_by_the_earlier_clock() {
        let folder = tempfile::tempdir().unwrap();
        let data = Storage::open(folder.path().to_str().unwrap()).unwrap();
        let source = source(&data, "memory:///in");
        let (before, _) = starts_before(&source, &data, -HOUR_MICROS).await;
        assert!(before > HOUR / 2, "ours: {before:?}");
        let (before, after) = starts_before(&source, &data, HOUR_MICROS).await;
        assert!(before.max(after) < HOUR / 2, "the store's: {before:?} {after:?}");
    }

    #[test]
    fn disks_are_told_apart_by_their_device() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        [&one, &other].into_iter().for_each(|folder| std::fs::create_dir(folder).unwrap());
        assert!(are_on_one_disk(&one, &other));
        assert!(!are_on_one_disk(&one, &folder.path().join("missing")));
        assert!(!are_on_one_disk(&folder.path().join("missing"), &one));
        #[cfg(target_os = "linux")]
        assert!(!are_on_one_disk(&one, FilePath::new("/proc")));
    }
}
