//! Cleaning, on folders of files and in memory.

use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::json;

use super::super::tests::World;
use super::super::{FilesAudit, audit};
use super::*;
use crate::storage::Storage;
use crate::table::maintain::{MaintainOptions, maintain};

const DAY: Duration = Duration::from_secs(86_400);
const DELETE: &str = "clean_source = { action = \"delete\" }|";
const MOVE: &str = "clean_source = { action = \"move\", to = \"archive\" }|";

fn later(world: &World, days: i64) {
    world.clock.step(days * 86_400_000_000);
}

async fn cleaned(world: &World, settings: &str) -> Cleaned {
    clean(world.options(settings), false, &CancellationToken::new()).await.unwrap()
}

async fn audited(world: &World, settings: &str) -> FilesAudit {
    audit(world.options(settings), &|_| ()).await.unwrap()
}

/// The files below a folder of the data, each with its content.
fn files(world: &World, folder: &str) -> Vec<(String, String)> {
    fn walk(root: &FilePath, folder: &FilePath, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => walk(root, &entry, found),
                false => {
                    let name = entry.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                    found.push((name, String::from_utf8_lossy(&fs::read(&entry).unwrap()).into_owned()));
                }
            }
        }
    }
    let (root, mut found) = (world.folder.path().join("data").join(folder), Vec::new());
    walk(&root, &root, &mut found);
    found.sort();
    found
}

fn names(world: &World, folder: &str) -> Vec<String> {
    files(world, folder).into_iter().map(|(name, _)| name).collect()
}

fn archived(world: &World, name: &str) -> PathBuf {
    let path = world.folder.path().join("data/archive").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    path
}

/// Six files, more than a round, one of them in a folder.
async fn loaded() -> World {
    let world = World::new();
    for number in 0..5 {
        world.put(&format!("{number}.json"), format!("{{\"id\":{number}}}"));
    }
    world.put("deep/er/5.json", "{\"id\":5}");
    // The rows are made well after the files, as far as a file system can tell.
    world.clock.step(10_000_000);
    assert_eq!(world.load("").await.unwrap().files, 6);
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_loaded_long_enough_ago_is_deleted_and_nothing_else() {
    let world = loaded().await;
    assert!(cleaned(&world, DELETE).await.is_nothing(), "not older than thirty days");
    later(&world, 29);
    world.put("young.json", "{\"id\":6}");
    world.put("empty.json", "");
    world.put("blank.json", "\n\n");
    world.load("").await.unwrap();
    later(&world, 2);
    world.put("new.json", "{\"id\":7}");
    world.put("_hidden.json", "{}");
    let before = files(&world, "");
    let dry = clean(world.options(DELETE), true, &CancellationToken::new()).await.unwrap();
    assert_eq!((dry.files, dry.bytes, dry.names.len()), (6, 48, 6));
    assert_eq!(files(&world, ""), before, "a dry run changes nothing");
    assert!(cleaned(&world, "").await.is_nothing(), "and nothing is cleaned unless it is asked for");
    let stopped = CancellationToken::new();
    stopped.cancel();
    assert!(clean(world.options(DELETE), false, &stopped).await.unwrap().is_nothing());
    let done = cleaned(&world, DELETE).await;
    assert_eq!((done.files, done.changed, done.failed), (6, 0, 0));
    assert_eq!(done, dry, "it does what the dry run said");
    assert_eq!(names(&world, "in"), ["_hidden.json", "blank.json", "empty.json", "new.json", "young.json"]);
    assert!(cleaned(&world, DELETE).await.is_nothing());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_just_loaded_is_old_enough_if_no_age_is_asked_for_though_the_clock_of_the_store_is_behind() {
    for (after, files) in [("1ms", 0), ("0s", 6)] {
        let world = loaded().await;
        // Files have the time of the disk, which is before that of their rows.
        let behind = world.clock.showing(world.clock.now().minus(Duration::from_secs(5)));
        let settings = format!("clean_source = {{ action = \"delete\", after = \"{after}\" }}|");
        let options = || FilesOptions { clock: behind.clone(), ..world.options(&settings) };
        world.put("1.json", "{\"id\":9}\n");
        let stop = CancellationToken::new();
        let done = clean(options(), false, &stop).await.unwrap();
        assert_eq!((done.files, done.changed), (files.min(5), 1), "what has changed stays nevertheless");
        fs::remove_file(world.input().join("1.json")).unwrap();
        let found = audit(options(), &|_| ()).await.unwrap();
        assert_eq!((found.cleaned, found.gone), if files == 0 { (0, 1) } else { (6, 0) });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cleaned_is_never_loaded_again() {
    let world = loaded().await;
    later(&world, 31);
    assert_eq!(cleaned(&world, DELETE).await.files, 6);
    for number in 0..5 {
        world.put(&format!("{number}.json"), format!("{{\"id\":{number}}}"));
    }
    assert_eq!(world.load("").await.unwrap().files, 0);
    world.forget();
    assert_eq!(world.load("").await.unwrap().files, 0, "the table alone says so");
    assert_eq!(world.rows().await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_and_lost_checkpoints_change_nothing() {
    let world = loaded().await;
    world.put("6.json", "{\"id\":6}");
    world.load("").await.unwrap();
    let options = MaintainOptions { compact_at_files: 2, checkpoint_every: 1, ..MaintainOptions::default() };
    let stop = CancellationToken::new();
    let done = maintain(&world.data(), &Path::from("bronze/t"), &options, &world.clock, &stop).await.unwrap();
    assert_eq!(done.unwrap().1.files_compacted, 2);
    later(&world, 31);
    world.forget();
    assert_eq!(cleaned(&world, DELETE).await.files, 7);
    assert!(names(&world, "in").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_has_changed_since_it_was_loaded_stays() {
    let world = loaded().await;
    world.put("0.json", "{\"id\":0}\n{\"id\":8}");
    let done_at = fs::metadata(world.input().join("1.json")).unwrap().modified().unwrap();
    world.put("1.json", "{\"id\":9}\n");
    let file = fs::File::options().write(true).open(world.input().join("1.json")).unwrap();
    file.set_modified(done_at).unwrap();
    later(&world, 31);
    let done = cleaned(&world, DELETE).await;
    assert_eq!((done.files, done.changed), (4, 2), "told by time, and by size where the time was set back");
    assert_eq!(names(&world, "in"), ["0.json", "1.json"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_knows_as_what_a_file_was_loaded_it_must_be_well_older_than_its_rows() {
    let world = loaded().await;
    world.forget();
    let ingested_at = world.values("_ingested_at").await[0].as_str().unwrap().to_owned();
    let ingested_at: SystemTime = chrono::DateTime::parse_from_rfc3339(&ingested_at).unwrap().into();
    for (name, modified) in [
        ("0.json", ingested_at + Duration::from_secs(60)),
        ("1.json", ingested_at - Duration::from_millis(500)),
        ("2.json", ingested_at - Duration::from_millis(1_500)),
    ] {
        let file = fs::File::options().write(true).open(world.input().join(name)).unwrap();
        file.set_modified(modified).unwrap();
    }
    later(&world, 31);
    let done = cleaned(&world, DELETE).await;
    assert_eq!((done.files, done.changed), (4, 2));
    assert_eq!(names(&world, "in"), ["0.json", "1.json"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_put_in_the_place_of_another_stays_though_it_looks_older() {
    let world = World::new();
    let put_old = |name: &str, text: &str| {
        world.put(name, text);
        let file = fs::File::options().write(true).open(world.input().join(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + 1_000 * DAY).unwrap();
    };
    put_old("a.json", "{\"id\":1}");
    world.load("").await.unwrap();
    // Nobody knows any more as what it was loaded.
    world.forget();
    put_old("other.tmp", "{\"id\":2}");
    fs::rename(world.input().join("other.tmp"), world.input().join("a.json")).unwrap();
    later(&world, 31);
    let done = cleaned(&world, DELETE).await;
    assert_eq!((done.files, done.changed), (0, 1));
    assert_eq!(files(&world, "in"), [("a.json".to_owned(), "{\"id\":2}".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_loaded_again_counts_from_the_last_time() {
    let world = loaded().await;
    later(&world, 20);
    world.put("0.json", "{\"id\":10}");
    let touched = SystemTime::UNIX_EPOCH + 1_000 * DAY;
    fs::File::options().write(true).open(world.input().join("0.json")).unwrap().set_modified(touched).unwrap();
    assert_eq!(world.load("allow_overwrites = true|").await.unwrap().files, 1);
    later(&world, 11);
    let settings = format!("allow_overwrites = true\n{DELETE}");
    assert_eq!(cleaned(&world, &settings).await.files, 5);
    later(&world, 20);
    assert_eq!(cleaned(&world, &settings).await.files, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_not_ours_to_clean() {
    let world = World::new();
    let elsewhere = world.folder.path().join("elsewhere.json");
    fs::write(&elsewhere, "{\"id\":1}").unwrap();
    std::os::unix::fs::symlink(&elsewhere, world.input().join("a.json")).unwrap();
    world.clock.step(10_000_000);
    assert_eq!(world.load("").await.unwrap().files, 1);
    later(&world, 31);
    for settings in [DELETE, MOVE] {
        assert_eq!(cleaned(&world, settings).await, Cleaned { changed: 1, ..Cleaned::default() });
    }
    assert!(elsewhere.exists() && world.input().join("a.json").is_symlink());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_keeps_the_path_and_the_audit_finds_the_records_where_they_are() {
    let world = loaded().await;
    let before = files(&world, "in");
    later(&world, 31);
    assert_eq!(cleaned(&world, MOVE).await.files, 6);
    assert_eq!((files(&world, "archive"), names(&world, "in")), (before, vec![]));
    let found = audited(&world, MOVE).await;
    assert_eq!((found.files, found.cleaned, found.gone, found.broken.len()), (6, 0, 0, 0));
    fs::write(archived(&world, "0.json"), "{\"id\":0}\n{\"id\":8}").unwrap();
    fs::remove_file(archived(&world, "1.json")).unwrap();
    let found = audited(&world, MOVE).await;
    assert_eq!((found.files, found.cleaned, found.broken.len()), (4, 1, 1), "{found:?}");
    fs::hard_link(archived(&world, "2.json"), world.input().join("2.json")).unwrap();
    fs::write(archived(&world, "stranger.json"), "{\"id\":9}").unwrap();
    let found = audited(&world, MOVE).await;
    assert_eq!((found.files, found.strangers), (4, 1), "one in both places counts once, one without rows is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_died_half_way_is_continued_and_never_over_another_file() {
    for forgets in [false, true] {
        let world = loaded().await;
        fs::hard_link(world.input().join("0.json"), archived(&world, "0.json")).unwrap();
        fs::copy(world.input().join("deep/er/5.json"), archived(&world, "deep/er/5.json")).unwrap();
        fs::write(archived(&world, "1.json"), "of another").unwrap();
        later(&world, 31);
        if forgets {
            world.forget();
        }
        let dry = clean(world.options(MOVE), true, &CancellationToken::new()).await.unwrap();
        let done = cleaned(&world, MOVE).await;
        assert_eq!((done.files, done.taken, done.changed, done.failed), (5, 1, 0, 0));
        assert_eq!(done, dry);
        assert_eq!(names(&world, "in"), ["1.json"]);
        assert_eq!(fs::read_to_string(archived(&world, "1.json")).unwrap(), "of another");
        assert_eq!(names(&world, "archive").len(), 6);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_name_that_a_move_gives_a_file_is_no_change_of_it() {
    let world = World::new();
    world.put("a.json", "{\"id\":1}");
    let file = fs::File::options().write(true).open(world.input().join("a.json")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + 1_000 * DAY).unwrap();
    world.load("").await.unwrap();
    world.forget();
    fs::hard_link(world.input().join("a.json"), archived(&world, "a.json")).unwrap();
    later(&world, 31);
    assert_eq!(cleaned(&world, DELETE).await.changed, 1, "somebody has touched it");
    assert_eq!(cleaned(&world, MOVE).await.files, 1, "and that was us");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_moved_now_is_counted_and_moved_by_the_next_pass() {
    let world = loaded().await;
    later(&world, 31);
    let blocker = world.folder.path().join("data/archive");
    fs::write(&blocker, "no folder").unwrap();
    assert_eq!(cleaned(&world, MOVE).await, Cleaned { failed: 6, ..Cleaned::default() });
    assert_eq!(names(&world, "in").len(), 6);
    fs::remove_file(blocker).unwrap();
    assert_eq!(cleaned(&world, MOVE).await.files, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_clean_at_once_do_no_harm() {
    for settings in [DELETE, MOVE] {
        let world = loaded().await;
        later(&world, 31);
        let (one, other) = tokio::join!(cleaned(&world, settings), cleaned(&world, settings));
        assert_eq!((one.failed + other.failed, one.taken + other.taken, one.changed + other.changed), (0, 0, 0));
        assert!(one.files + other.files >= 6, "{one:?} {other:?}");
        assert!(names(&world, "in").is_empty());
        assert_eq!(names(&world, "archive").len(), if settings == MOVE { 6 } else { 0 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_store_and_a_folder_elsewhere_are_cleaned_too() {
    for settings in [DELETE, MOVE] {
        let world = World::new();
        let data = Storage::memory();
        data.put_new(&Path::from("in/x/a.json"), Bytes::from_static(b"{\"id\":1}")).await.unwrap();
        world.clock.step(10_000_000);
        let options = |settings: &str| FilesOptions { data: data.clone(), ..world.options(settings) };
        let mut stage = super::super::FilesStage::open(options("")).await.unwrap();
        let stop = CancellationToken::new();
        assert_eq!(stage.work_until_idle(&stop).await.unwrap().files, 1);
        world.forget();
        later(&world, 31);
        assert_eq!(clean(options(settings), false, &stop).await.unwrap().files, 1);
        assert_eq!(data.head(&Path::from("in/x/a.json")).await.unwrap(), None);
        let moved = data.get(&Path::from("archive/x/a.json")).await.unwrap();
        assert_eq!(moved.is_some(), settings == MOVE);
    }
    let world = World::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let (from, to) = (elsewhere.path().join("some/in"), elsewhere.path().join("done"));
    fs::create_dir_all(from.join("x")).unwrap();
    fs::write(from.join("x/a.json"), "{\"id\":1}").unwrap();
    let mut options = world.options("");
    options.pipeline.source.path = from.to_str().unwrap().to_owned();
    options.pipeline.source.clean_source =
        toml::from_str(&format!("action = \"move\"\nto = \"file://{}\"", to.display())).unwrap();
    let stop = CancellationToken::new();
    let mut stage = super::super::FilesStage::open(options.clone()).await.unwrap();
    assert_eq!(stage.work_until_idle(&stop).await.unwrap().files, 1);
    later(&world, 31);
    assert_eq!(clean(options.clone(), false, &stop).await.unwrap().files, 1);
    assert_eq!(fs::read_to_string(to.join("x/a.json")).unwrap(), "{\"id\":1}");
    assert!(!from.join("x/a.json").exists());
    assert_eq!(audit(options, &|_| ()).await.unwrap().files, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_not_apart_or_in_another_store_is_refused() {
    let world = loaded().await;
    let refused = async |path: &str, to: &str| {
        let mut options = world.options(MOVE);
        options.pipeline.source.path = path.to_owned();
        options.pipeline.source.clean_source.to = Some(to.to_owned());
        clean(options, true, &CancellationToken::new()).await.unwrap_err().to_string()
    };
    let data = world.folder.path().join("data");
    std::os::unix::fs::symlink(world.input(), data.join("link")).unwrap();
    assert!(refused("in", "link/done").await.contains("separate folders"), "a link leads into the source");
    let (source, table) = (data.join("in"), data.join("bronze/t/x"));
    let (source, table) = (source.to_str().unwrap(), table.to_str().unwrap());
    assert!(refused(source, table).await.contains("overlaps with \"bronze/t\""));
    assert!(refused(source, "memory://elsewhere/x").await.contains("same bucket or on the same machine"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_counts_what_was_cleaned_and_still_finds_what_is_wrong() {
    let world = loaded().await;
    later(&world, 31);
    world.put("6.json", "{\"id\":6}\n{\"id\":7}");
    world.put("7.json", "{\"id\":8}");
    world.load("").await.unwrap();
    cleaned(&world, DELETE).await;
    fs::remove_file(world.input().join("7.json")).unwrap();
    let found = audited(&world, DELETE).await;
    assert_eq!((found.rows, found.files, found.cleaned, found.gone), (9, 1, 6, 1), "what was young cannot be cleaned");
    world.forget();
    world.put("6.json", "{\"id\":6}");
    assert_eq!(audited(&world, DELETE).await.broken.len(), 1);
    let unasked = audited(&world, "").await;
    assert_eq!((unasked.cleaned, unasked.gone), (0, 7));
    assert_eq!(world.rows().await[0]["id"], json!(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_a_record_that_was_shortened_is_kept_and_named() {
    let world = World::new();
    world.put("long.json", format!("{{\"id\":1}}\n{{\"x\":\"{}\"}}\n{{\"id\":2}}\n", "y".repeat(2_000)));
    world.put("whole.json", "{\"id\":3}\nno json\n");
    world.clock.step(10_000_000);
    assert_eq!(world.load("max_record = \"1KiB\"|").await.unwrap().rows, 5);
    later(&world, 31);
    for settings in [DELETE, MOVE] {
        let dry = clean(world.options(settings), true, &CancellationToken::new()).await.unwrap();
        assert_eq!((dry.shortened, dry.shortened_names.as_slice()), (1, &["in/long.json".to_owned()][..]));
        let done = cleaned(&world, settings).await;
        assert_eq!((done.files, done.shortened), (u64::from(settings == DELETE), 1), "{settings}");
        assert!(done.has_news());
        assert_eq!(names(&world, "in"), ["long.json"]);
    }
    let found = audited(&world, "max_record = \"1KiB\"|").await;
    assert_eq!((found.files, found.shortened, found.broken.len()), (1, 1, 0));
    assert_eq!(found.shortened_names, ["in/long.json row 2 (2008 bytes)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_like_that_of_an_unfinished_upload_is_cleaned_as_well() {
    for (settings, archived) in [(DELETE, vec![]), (MOVE, vec!["a#1"])] {
        let world = World::new();
        world.put("a#1", "{\"id\":1}");
        world.clock.step(10_000_000);
        world.load("").await.unwrap();
        later(&world, 31);
        let done = cleaned(&world, settings).await;
        assert_eq!((done.files, done.failed), (1, 0), "{settings}");
        assert_eq!(
            (names(&world, "in"), names(&world, "archive")),
            (vec![], archived.into_iter().map(str::to_owned).collect())
        );
    }
}
