//! One conformance suite for both disks, and what a cut leaves of the simulated one.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use super::{CutAt, Dice, Lies, Moment, Operation, SimulatedDisk};
use crate::storage::disk::{Disk, OperatingSystem};

fn put(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> File {
    let file = disk.create(path).unwrap();
    disk.write(&file, path, bytes).unwrap();
    file
}

fn sync_folder(disk: &dyn Disk, path: &Path) {
    disk.sync_folder(&File::open(path).unwrap(), path).unwrap();
}

fn conforms(disk: &dyn Disk, root: &Path) {
    let (one, two, folder) = (root.join("one"), root.join("two"), root.join("folder"));
    let file = put(disk, &one, b"on");
    disk.write(&file, &one, b"e").unwrap();
    assert_eq!(fs::read(&one).unwrap(), b"one", "a write goes on where the last one ended, and is seen");
    assert_eq!(disk.create(&one).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&one).unwrap(), b"one", "a refused create leaves what is there");
    disk.sync_file(&file, &one).unwrap();

    disk.link(&one, &two).unwrap();
    assert_eq!(fs::read(&two).unwrap(), b"one");
    assert_eq!(disk.link(&one, &two).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(disk.link(&root.join("none"), &root.join("three")).unwrap_err().kind(), ErrorKind::NotFound);
    sync_folder(disk, root);

    disk.unlink(&one).unwrap();
    assert_eq!(disk.unlink(&one).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs::read(&two).unwrap(), b"one", "a file stays until its last name goes");

    put(disk, &one, b"newer");
    disk.rename(&one, &two).unwrap();
    assert_eq!(fs::read(&two).unwrap(), b"newer", "a rename takes the place of what is there");
    assert_eq!(disk.rename(&one, &two).unwrap_err().kind(), ErrorKind::NotFound);

    disk.make_folder(&folder).unwrap();
    assert_eq!(disk.make_folder(&folder).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(disk.make_folder(&two).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(disk.make_folder(&root.join("none/folder")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.create(&root.join("none/file")).unwrap_err().kind(), ErrorKind::NotFound);
    put(disk, &folder.join("file"), b"");
    sync_folder(disk, &folder);
    assert!(folder.join("file").exists());
}

#[test]
fn the_operating_system_conforms() {
    let root = tempfile::tempdir().unwrap();
    conforms(&OperatingSystem::default(), root.path());
}

#[test]
fn the_simulated_disk_conforms() {
    let root = tempfile::tempdir().unwrap();
    conforms(&SimulatedDisk::new(root.path(), Lies::default()).unwrap(), root.path());
}

/// What the reboots of many seeds find of a disk that was used like this, each as one text.
fn reboots(work: impl Fn(&dyn Disk, &Path)) -> BTreeSet<String> {
    let root = tempfile::tempdir().unwrap();
    let disk = SimulatedDisk::new(root.path(), Lies::default()).unwrap();
    work(&disk, root.path());
    let found = (0..400).map(|seed| {
        let rebooted = tempfile::tempdir().unwrap();
        disk.write_survivors(rebooted.path(), seed).unwrap();
        listing(rebooted.path(), "")
    });
    found.collect()
}

fn listing(folder: &Path, prefix: &str) -> String {
    let mut lines = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let (path, name) = {
            let entry = entry.unwrap();
            (entry.path(), entry.file_name().into_string().unwrap())
        };
        if path.is_dir() {
            lines.insert(format!("{prefix}{name}/ {}", listing(&path, &format!("{prefix}{name}/"))).trim().to_owned());
        } else {
            let text = String::from_utf8(fs::read(&path).unwrap()).unwrap().replace('\0', "0");
            lines.insert(format!("{prefix}{name}={text}"));
        }
    }
    lines.into_iter().collect::<Vec<_>>().join(" ")
}

fn texts<const N: usize>(expected: [&str; N]) -> BTreeSet<String> {
    expected.map(str::to_owned).into()
}

#[test]
fn what_was_synced_with_its_names_is_there_after_every_cut() {
    let found = reboots(|disk, root| {
        let (folder, staging, file) = (root.join("a"), root.join("a/staging"), root.join("a/file"));
        disk.make_folder(&folder).unwrap();
        sync_folder(disk, root);
        disk.sync_file(&put(disk, &staging, b"whole"), &staging).unwrap();
        disk.link(&staging, &file).unwrap();
        sync_folder(disk, &folder);
    });
    assert_eq!(found, texts(["a/ a/file=whole a/staging=whole"]));
}

#[test]
fn a_file_that_was_not_synced_may_be_empty_cut_off_torn_zero_or_whole_under_a_durable_name() {
    let found = reboots(|disk, root| {
        put(disk, &root.join("file"), b"abc");
        sync_folder(disk, root);
    });
    assert_eq!(found, texts(["file=", "file=a", "file=ab", "file=abc", "file=000"]));
}

#[test]
fn a_name_that_was_not_synced_is_there_or_not() {
    let found = reboots(|disk, root| {
        let file = root.join("file");
        disk.sync_file(&put(disk, &file, b"whole"), &file).unwrap();
    });
    assert_eq!(found, texts(["", "file=whole"]));
}

#[test]
fn a_folder_whose_name_is_lost_takes_along_what_was_synced_in_it() {
    let found = reboots(|disk, root| {
        let (folder, file) = (root.join("a"), root.join("a/file"));
        disk.make_folder(&folder).unwrap();
        disk.sync_file(&put(disk, &file, b"whole"), &file).unwrap();
        sync_folder(disk, &folder);
    });
    assert_eq!(found, texts(["", "a/ a/file=whole"]));
}

#[test]
fn a_removal_that_was_not_synced_may_come_back_and_a_rename_is_whole_or_not_at_all() {
    let found = reboots(|disk, root| {
        for (name, bytes) in [("a", b"1"), ("b", b"2"), ("c", b"3")] {
            disk.sync_file(&put(disk, &root.join(name), bytes), &root.join(name)).unwrap();
        }
        sync_folder(disk, root);
        disk.unlink(&root.join("a")).unwrap();
        disk.rename(&root.join("b"), &root.join("c")).unwrap();
    });
    assert_eq!(found, texts(["a=1 b=2 c=3", "b=2 c=3", "a=1 c=2", "c=2"]));
}

#[test]
fn a_state_of_a_name_never_survives_without_the_one_before() {
    let found = reboots(|disk, root| {
        for bytes in [b"1", b"2"] {
            disk.sync_file(&put(disk, &root.join("a"), bytes), &root.join("a")).unwrap();
            disk.unlink(&root.join("a")).unwrap();
        }
    });
    assert_eq!(found, texts(["", "a=1", "a=2"]));
}

#[test]
fn names_of_one_file_are_one_file_after_the_cut() {
    let root = tempfile::tempdir().unwrap();
    let disk = SimulatedDisk::new(root.path(), Lies::default()).unwrap();
    put(&disk, &root.path().join("a"), &[7; 2_000]);
    disk.link(&root.path().join("a"), &root.path().join("b")).unwrap();
    sync_folder(&disk, root.path());
    for seed in 0..50 {
        let rebooted = tempfile::tempdir().unwrap();
        disk.write_survivors(rebooted.path(), seed).unwrap();
        let read = |name| fs::read(rebooted.path().join(name)).unwrap();
        assert_eq!(read("a"), read("b"));
    }
}

#[test]
fn at_the_cut_the_call_and_all_later_ones_hang_until_nobody_is_left() {
    for (moment, there) in [(Moment::Before, false), (Moment::After, true)] {
        let root = tempfile::tempdir().unwrap();
        let disk = SimulatedDisk::new(root.path(), Lies::default()).unwrap();
        disk.cut_at(CutAt { operation: Some(Operation::MakeFolder), nth: 2, moment });
        disk.make_folder(&root.path().join("first")).unwrap();
        put(&disk, &root.path().join("other"), b"not counted");
        let (second, hanging) = (root.path().join("second"), disk.clone());
        let hung = std::thread::spawn(move || (hanging.make_folder(&second), hanging.make_folder(&second)));
        while !disk.out().is_cancelled() {
            std::thread::yield_now();
        }
        assert!(!hung.is_finished());
        disk.release();
        let (first, later) = hung.join().unwrap();
        assert!(first.is_err() && later.is_err());
        assert_eq!(root.path().join("second").exists(), there);
        assert_eq!(disk.fell(), Some((Operation::MakeFolder, moment)));
    }
}

#[test]
fn what_a_dead_process_has_not_synced_is_there_for_the_next_one_to_sync() {
    let root = tempfile::tempdir().unwrap();
    let disk = SimulatedDisk::new(root.path(), Lies::default()).unwrap();
    put(&disk, &root.path().join("file"), b"");
    disk.pull_the_plug();
    let next = disk.for_the_next_process();
    let found = |seed| {
        let rebooted = tempfile::tempdir().unwrap();
        next.write_survivors(rebooted.path(), seed).unwrap();
        rebooted.path().join("file").exists()
    };
    assert!((0..50).any(|seed| !found(seed)));
    sync_folder(&next, root.path());
    assert!((0..50).all(found));
}

#[test]
fn the_dice_follow_from_the_seed() {
    let throw = |seed| {
        let mut dice = Dice::new(seed);
        [dice.below(1_000), dice.below(1_000), dice.below(1_000)]
    };
    assert_eq!(throw(1), throw(1));
    assert_ne!(throw(1), throw(2));
}
