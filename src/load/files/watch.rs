//! File system hints: a local source is watched, and events wake the walk.
//!
//! A hint only saves time. The listing is the truth: it happens anyway, later, if a hint is lost or watching fails.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::discover::Filter;
use crate::clock::Clock;
use crate::error::{Context, Error, ErrorKind, Result};

/// Events within this time after the first hint are covered by the same walk.
const DEBOUNCE: Duration = Duration::from_millis(75);
/// Slow walks are further apart, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What is watched.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    /// The folder of the source.
    pub(super) root: PathBuf,
    pub(super) filter: Filter,
    /// Folders that the loader itself writes to.
    pub(super) own: Vec<PathBuf>,
}

/// A watch on a folder, or a fallback without one.
#[derive(Debug)]
pub(super) struct Watch {
    watched: Option<Watched>,
    watcher: Option<RecommendedWatcher>,
    news: Arc<News>,
}

/// Reported by the watching thread.
#[derive(Debug, Default)]
struct News {
    hint: Notify,
    /// The folder itself is gone, and the watch with it.
    is_lost: AtomicBool,
    has_warned: AtomicBool,
}

impl Watch {
    /// A watch that has not begun; on nothing if there is nothing to watch.
    pub(super) fn new(watched: Option<Watched>) -> Self {
        Self { watched, watcher: None, news: Arc::default() }
    }

    /// Begins watching if possible and not yet done. Call it before a walk, so that no event falls in between.
    pub(super) async fn begin(&mut self) {
        if self.news.is_lost.swap(false, Ordering::AcqRel) {
            self.watcher = None;
        }
        let (None, Some(watched)) = (&self.watcher, self.watched.clone()) else { return };
        let news = Arc::clone(&self.news);
        // The folders below are walked for it.
        match tokio::task::spawn_blocking(move || watch(&watched, news)).await {
            Ok(Ok(watcher)) => self.watcher = Some(watcher),
            // A folder that does not exist yet is tried again.
            Ok(Err(notify::Error { kind: notify::ErrorKind::PathNotFound, .. })) => {}
            Ok(Err(error)) => {
                self.news.warn(&error);
                self.watched = None;
            }
            Err(_) => self.watched = None,
        }
    }

    /// Returns when there may be new files, after a short delay for more of them (longer if walks take longer, so that
    /// endless events leave time for other work).
    pub(super) async fn hinted(&self, clock: &Clock, walked: Duration) {
        self.news.hint.notified().await;
        clock.sleep(walked.clamp(DEBOUNCE, LONGEST_PAUSE)).await;
        // The walk that begins now finds what came meanwhile.
        let _taken = self.news.hint.notified().now_or_never();
    }
}

/// Whether a folder can be watched.
///
/// # Errors
/// Configuration, with the fix, when it cannot be watched.
pub(super) async fn check(watched: Watched) -> Result<String> {
    let watcher = tokio::task::spawn_blocking(move || watch(&watched, Arc::default())).await;
    match watcher.context(ErrorKind::Unavailable, "watch the source")? {
        Ok(_watcher) => Ok("new files are noticed as they arrive".to_owned()),
        Err(error) => {
            Err(Error::configuration(format!("cannot watch the source; {}", fix_for(&error))).caused_by(error))
        }
    }
}

/// How long to wait before the next walk; less if files that may still be growing will settle earlier.
pub(super) fn next_walk_in(list_every: Duration, settles_in: Option<Duration>, walked: Duration) -> Duration {
    let pause = walked.clamp(DEBOUNCE, LONGEST_PAUSE);
    settles_in.map_or(list_every, |settles_in| settles_in.max(pause).min(list_every))
}

fn watch(watched: &Watched, news: Arc<News>) -> notify::Result<RecommendedWatcher> {
    let real = |folder: &Path| folder.canonicalize().or_else(|_| std::path::absolute(folder));
    // Some systems report canonical paths.
    let root = watched.root.canonicalize().map_err(notify::Error::io_watch)?;
    let own = watched.own.iter().filter_map(|folder| real(folder).ok()).collect();
    let listener = Watched { root: root.clone(), own, filter: watched.filter.clone() };
    let mut watcher = notify::recommended_watcher(move |event| listener.hear(event, &news))?;
    watcher.watch(&root, RecursiveMode::Recursive)?;
    Ok(watcher)
}

impl Watched {
    fn hear(&self, event: notify::Result<Event>, news: &News) {
        match event {
            Ok(event) => {
                let is_gone = event.kind.is_remove() || matches!(event.kind, EventKind::Modify(ModifyKind::Name(_)));
                let is_lost = is_gone && event.paths.contains(&self.root);
                if is_lost {
                    news.is_lost.store(true, Ordering::Release);
                }
                if is_lost || self.wakes(&event) {
                    news.hint.notify_one();
                }
            }
            Err(error) => {
                news.warn(&error);
                news.hint.notify_one();
            }
        }
    }

    /// Whether there may be a file to load. A growing file is not one yet, and reading a file is not an event.
    fn wakes(&self, event: &Event) -> bool {
        match event.kind {
            _ if event.need_rescan() => true,
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) => false,
            EventKind::Any
            | EventKind::Create(_)
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                event.paths.iter().any(|path| self.may_be_wanted(path))
            }
            _ => false,
        }
    }

    fn may_be_wanted(&self, path: &Path) -> bool {
        let Some(below) = path.strip_prefix(&self.root).ok().and_then(Path::to_str) else { return false };
        let is_own = self.own.iter().any(|own| path.starts_with(own));
        // A folder may arrive with files in it.
        !is_own && !Filter::leaves_alone(below) && (self.filter.is_named(below) || path.is_dir())
    }
}

impl News {
    fn warn(&self, error: &notify::Error) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "cannot watch the source; listing it every source.list_every instead: {}", fix_for(error));
        }
    }
}

/// What to do about a watch that cannot be created.
fn fix_for(error: &notify::Error) -> &'static str {
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => "raise fs.inotify.max_user_watches with sysctl (each folder needs one)",
        notify::ErrorKind::Io(error) if error.raw_os_error() == Some(EMFILE) => {
            "raise fs.inotify.max_user_instances with sysctl, or the open file limit"
        }
        notify::ErrorKind::PathNotFound => "create the folder",
        _ => "if the file system cannot be watched, set source.watch = false",
    }
}

/// Too many open files, or too many inotify instances.
const EMFILE: i32 = 24;

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, Flag, RemoveKind};

    use super::*;

    fn watched(folder: &Path, more: &str) -> Watched {
        let settings = toml::from_str(&format!("path = \"in\"\n{more}")).unwrap();
        Watched {
            root: folder.to_owned(),
            filter: Filter::new(&settings, true).unwrap(),
            own: vec![folder.join("own")],
        }
    }

    #[test]
    fn only_what_may_be_a_file_to_load_wakes() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("day")).unwrap();
        let (any, globbed) = (watched(folder.path(), ""), watched(folder.path(), "glob = \"**/*.json\""));
        let event = |kind: EventKind, below: &str| Event::new(kind).add_path(folder.path().join(below));
        let created = EventKind::Create(CreateKind::Any);
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let moved = |mode| EventKind::Modify(ModifyKind::Name(mode));
        for kind in [created, written, moved(RenameMode::To), EventKind::Any] {
            assert!(any.wakes(&event(kind, "a.json")) && globbed.wakes(&event(kind, "x/a.json")), "{kind:?}");
            for below in [".a.json", "a.json.tmp", "_delta_log/0.json", "own/part.json", "../a.json"] {
                assert!(!any.wakes(&event(kind, below)), "{below}");
            }
            assert!(globbed.wakes(&event(kind, "day")) && !globbed.wakes(&event(kind, "a.txt")));
        }
        let read = EventKind::Access(AccessKind::Open(AccessMode::Any));
        let grown = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        for kind in [read, grown, moved(RenameMode::From), EventKind::Remove(RemoveKind::File)] {
            assert!(!any.wakes(&event(kind, "a.json")), "{kind:?}");
        }
        assert!(any.wakes(&Event::new(EventKind::Other).set_flag(Flag::Rescan)), "the queue was full");
    }

    #[test]
    fn a_watch_that_fails_says_what_to_do() {
        let fix = |kind| fix_for(&notify::Error::new(kind));
        assert!(fix(notify::ErrorKind::MaxFilesWatch).contains("max_user_watches"));
        assert!(fix(notify::ErrorKind::Io(std::io::Error::from_raw_os_error(EMFILE))).contains("max_user_instances"));
        assert!(fix(notify::ErrorKind::Generic("x".to_owned())).contains("source.watch = false"));
    }

    #[test]
    fn the_next_walk_waits_for_files_to_settle_and_leaves_time_for_others() {
        let seconds = Duration::from_secs;
        assert_eq!(next_walk_in(seconds(5), None, seconds(9)), seconds(5));
        assert_eq!(next_walk_in(seconds(5), Some(seconds(2)), seconds(0)), seconds(2));
        assert_eq!(next_walk_in(seconds(5), Some(seconds(0)), seconds(9)), LONGEST_PAUSE);
        assert_eq!(next_walk_in(seconds(5), Some(seconds(9)), seconds(0)), seconds(5));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn hints_in_a_row_are_one_and_a_folder_that_goes_is_watched_again_when_it_is_back() {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::system());
        let root = folder.path().join("in");
        let mut watch = Watch::new(Some(watched(&root, "")));
        let within = Duration::from_secs(60);
        watch.begin().await;
        assert!(watch.watcher.is_none() && watch.watched.is_some(), "it is not there yet");
        for round in 0..2 {
            std::fs::create_dir(&root).unwrap();
            watch.begin().await;
            assert!(watch.watcher.is_some(), "round {round}");
            for file in 0..10 {
                std::fs::write(root.join(format!("{file}.json")), "{}").unwrap();
            }
            clock.timeout(within, watch.hinted(&clock, Duration::ZERO)).await.unwrap();
            std::fs::remove_dir_all(&root).unwrap();
            clock
                .timeout(within, async {
                    while !watch.news.is_lost.load(Ordering::Acquire) {
                        watch.hinted(&clock, Duration::ZERO).await
                    }
                })
                .await
                .unwrap();
        }
    }
}
