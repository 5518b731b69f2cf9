//! Finding files: a walk through the listing of the source, and which files to load.

use std::path::PathBuf;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

pub(super) use super::local::Found;
use super::local::{self, Listed, Odd};
use super::seen::{Seen, Stamp};
use crate::clock::{Clock, Timestamp};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::pipeline::files::SourceSettings;
use crate::storage::{Storage, origin};

/// Name endings that uploads and editors give to unfinished files.
const UNFINISHED: [&str; 8] =
    [".tmp", ".temp", ".part", ".partial", ".crdownload", ".inprogress", "._copying_", ".crc"];

/// Odd things of a walk that are named.
const MOST_ODD: usize = 1_000;

/// Where the files are.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) storage: Storage,
    /// The folder, in the storage.
    pub(super) folder: Path,
    /// The name of the source in `_source_file` and in memos.
    pub(super) name: String,
    pub(super) filter: Filter,
}

/// Which of the files are wanted.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    glob: Option<glob::Pattern>,
    modified_after: Timestamp,
    modified_before: Timestamp,
    max_file_age: Option<Duration>,
    settle: Duration,
    allow_overwrites: bool,
}

/// What the filter says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Load,
    Known,
    /// It was loaded, and has changed since.
    Changed,
    /// It may still be growing; a later walk finds it.
    Fresh,
    Unwanted,
}

/// One walk through the listing.
pub(super) struct Walk {
    listing: BoxStream<'static, Listed>,
    pub(super) tally: Tally,
    /// The first things in it that cannot be loaded.
    pub(super) odd: Vec<Odd>,
    is_done: bool,
}

/// What a walk has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) listed: u64,
    /// Loaded before, whether unchanged or not.
    pub(super) known: u64,
    pub(super) known_bytes: u64,
    pub(super) changed: u64,
    pub(super) fresh: u64,
    /// When the first of those will have settled.
    pub(super) settles_in: Option<Duration>,
}

impl Source {
    /// The source of a loader.
    ///
    /// # Errors
    /// Configuration when the glob or the path is invalid.
    pub(super) fn new(data: &Storage, settings: &SourceSettings) -> Result<Self> {
        let is_own = settings.path.contains("://") || settings.path.starts_with('/');
        let during = |error: Error| error.during(format!("source.path `{}`", settings.path));
        let (storage, folder) = match is_own {
            true => {
                let storage = Storage::open_foreign(&settings.path).map_err(during)?;
                (storage.bounded(&Clock::system()), Path::default())
            }
            false => {
                let folder = Path::parse(&settings.path);
                (data.clone(), folder.context(ErrorKind::Configuration, format!("source.path `{}`", settings.path))?)
            }
        };
        let filter = Filter::new(settings, storage.local_root().is_some())?;
        Ok(Self { storage, folder, name: settings.path.clone(), filter })
    }

    /// Where it is, written the same however the settings spell it, and without credentials.
    pub(super) fn canonical(&self) -> String {
        if self.folder.parts().next().is_some() {
            return self.folder.to_string();
        }
        let url = self.storage.url();
        format!("{}{}", origin(url), url.path().trim_end_matches('/'))
    }

    /// Also leaves out files last changed before this time.
    pub(super) fn only_after(&mut self, moment: Timestamp) {
        self.filter.modified_after = self.filter.modified_after.max(moment);
    }

    /// The folder, if it is on this machine.
    pub(super) fn local_folder(&self) -> Option<PathBuf> {
        Some(self.storage.local_root()?.join(self.folder.as_ref()))
    }

    /// Begins a walk.
    pub(super) fn walk(&self) -> Walk {
        let listing = match self.storage.local_root() {
            Some(root) => local::stream(root.to_owned(), &self.folder),
            None => {
                let prefix = (self.folder != Path::default()).then_some(&self.folder);
                self.storage.object_store().list(prefix).map(listed).boxed()
            }
        };
        Walk { listing, tally: Tally::default(), odd: Vec::new(), is_done: false }
    }

    /// The path of a file below the folder.
    pub(super) fn below(&self, path: &Path) -> String {
        let parts: Option<Vec<_>> = path.prefix_match(&self.folder).map(Iterator::collect);
        let parts = parts.unwrap_or_default();
        parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/")
    }
}

fn listed(object: object_store::Result<ObjectMeta>) -> Listed {
    match object {
        Ok(object) => {
            let modified = Timestamp::from_micros(object.last_modified.timestamp_micros());
            Listed::File(Found { path: object.location, size_bytes: object.size, modified, changed: modified })
        }
        Err(error) => Listed::Failed(error),
    }
}

impl Filter {
    pub(super) fn new(settings: &SourceSettings, is_local: bool) -> Result<Self> {
        let pattern = settings.glob.as_deref().map(glob::Pattern::new).transpose();
        let pattern = pattern.context(ErrorKind::Configuration, "source.glob; write it like \"2026-*/**/*.json\"")?;
        Ok(Self {
            glob: pattern,
            modified_after: settings.modified_after.unwrap_or(Timestamp::from_micros(i64::MIN)),
            modified_before: settings.modified_before.unwrap_or(Timestamp::from_micros(i64::MAX)),
            max_file_age: settings.max_file_age,
            // Objects of a cloud store are either complete or absent.
            settle: if is_local { settings.settle } else { Duration::ZERO },
            allow_overwrites: settings.allow_overwrites,
        })
    }

    /// Whether a file is hidden or unfinished, by its path below the source.
    pub(super) fn leaves_alone(below: &str) -> bool {
        let is_hidden = below.split('/').any(|part| part.starts_with(['.', '_']));
        let lower = below.to_ascii_lowercase();
        is_hidden || below.is_empty() || UNFINISHED.iter().any(|end| lower.ends_with(end))
    }

    /// Whether the name of a file matches.
    pub(super) fn is_named(&self, below: &str) -> bool {
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
        self.glob.as_ref().is_none_or(|glob| glob.matches_with(below, options))
    }

    /// How long a file may still be growing, if it does not change again.
    fn settles_in(&self, file: &Found, now: Timestamp) -> Duration {
        self.settle.saturating_sub(now.since(last_change(file, now)))
    }

    fn judge(&self, below: &str, file: &Found, seen: &Seen, now: Timestamp) -> Verdict {
        let is_in_span = file.modified >= self.modified_after && file.modified < self.modified_before;
        let is_old = self.max_file_age.is_some_and(|age| now.since(file.modified) > age);
        if Self::leaves_alone(below) || !is_in_span || is_old || !self.is_named(below) {
            return Verdict::Unwanted;
        }
        let is_fresh = !self.settles_in(file, now).is_zero() && last_change(file, now) <= now;
        match seen.get(&file.path) {
            Some(stamp) if stamp == Stamp::UNKNOWN || stamp == Stamp::of(file.size_bytes, file.modified) => {
                Verdict::Known
            }
            Some(_) if !self.allow_overwrites => Verdict::Changed,
            _ if is_fresh => Verdict::Fresh,
            _ => Verdict::Load,
        }
    }
}

/// When a file last changed, as far as that can be: a time to come was set by somebody.
fn last_change(file: &Found, now: Timestamp) -> Timestamp {
    if file.modified > now { file.changed } else { file.modified }
}

impl Walk {
    /// The next files to load, up to so many files and bytes; none at the end of the walk.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn next_batch(
        &mut self,
        source: &Source,
        seen: &Seen,
        now: Timestamp,
        (max_files, max_bytes): (usize, u64),
    ) -> Result<Vec<Found>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while !self.is_done && batch.len() < max_files.max(1) && bytes < max_bytes.max(1) {
            let file = match self.listing.next().await {
                Some(Listed::File(file)) => file,
                Some(Listed::Odd(odd)) => {
                    if self.odd.len() < MOST_ODD && !Filter::leaves_alone(&odd.below) {
                        self.odd.push(odd);
                    }
                    continue;
                }
                Some(Listed::Failed(error)) => {
                    return Err(error).context(ErrorKind::Unavailable, format!("list {}", source.name));
                }
                None => {
                    self.is_done = true;
                    break;
                }
            };
            self.tally.listed += 1;
            let verdict = source.filter.judge(&source.below(&file.path), &file, seen, now);
            if matches!(verdict, Verdict::Known | Verdict::Changed) {
                self.tally.known += 1;
                self.tally.known_bytes += file.size_bytes;
            }
            match verdict {
                Verdict::Load => {
                    bytes += file.size_bytes;
                    batch.push(file);
                }
                Verdict::Changed => {
                    self.tally.changed += 1;
                    tracing::debug!(path = %file.path, "the file changed since it was loaded; set source.allow_overwrites to load it again");
                }
                Verdict::Fresh => {
                    let settles_in = source.filter.settles_in(&file, now);
                    self.tally.fresh += 1;
                    self.tally.settles_in =
                        Some(self.tally.settles_in.map_or(settles_in, |first| first.min(settles_in)));
                }
                Verdict::Known | Verdict::Unwanted => {}
            }
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::seen::hash_of;
    use super::*;

    fn settings(more: &str) -> SourceSettings {
        toml::from_str(&format!("path = \"in\"\n{more}")).unwrap()
    }

    fn verdict(filter: &Filter, below: &str, seen: &Seen) -> Verdict {
        let now = Timestamp::default().plus(Duration::from_secs(1_000));
        let modified = now.minus(Duration::from_secs(100));
        let file = Found { path: Path::from(below), size_bytes: 1, modified, changed: modified };
        filter.judge(below, &file, seen, now)
    }

    #[cfg(feature = "cloud")]
    #[test]
    fn a_source_is_another_one_in_another_container_and_the_same_however_it_is_written() {
        let source = |path: &str| {
            let settings: SourceSettings = toml::from_str(&format!("path = \"{path}\"")).unwrap();
            Source::new(&Storage::memory(), &settings).unwrap().canonical()
        };
        let container = "abfss://in@account.dfs.core.windows.net";
        assert_eq!(source(&format!("{container}/files/")), format!("{container}/files"));
        assert_eq!(source("abfs://in@account.dfs.core.windows.net/files"), format!("{container}/files"));
        assert_ne!(source("abfss://other@account.dfs.core.windows.net/files"), format!("{container}/files"));
        assert_eq!(source("s3a://KEY:SECRET@bucket/files"), "s3://bucket/files");
    }

    #[test]
    fn hidden_and_unfinished_files_are_left_alone() {
        let filter = Filter::new(&settings(""), true).unwrap();
        for below in [".x.json", "_x.json", "_delta_log/0.json", "a/.git/x", "a.json.tmp", "a.json.PART", "a._COPYING_"]
        {
            assert_eq!(verdict(&filter, below, &Seen::default()), Verdict::Unwanted, "{below}");
        }
        assert_eq!(verdict(&filter, "a/b.json", &Seen::default()), Verdict::Load);
    }

    #[test]
    fn globs_and_ages_choose() {
        let filter = Filter::new(&settings("glob = \"2026-*/*.json\"\nmax_file_age = \"2m\""), true).unwrap();
        assert_eq!(verdict(&filter, "2026-01/a.json", &Seen::default()), Verdict::Load);
        assert_eq!(verdict(&filter, "2026-01/deep/a.json", &Seen::default()), Verdict::Unwanted);
        assert_eq!(verdict(&filter, "2025-01/a.json", &Seen::default()), Verdict::Unwanted);
        let old = Filter::new(&settings("max_file_age = \"30s\""), true).unwrap();
        assert_eq!(verdict(&old, "a.json", &Seen::default()), Verdict::Unwanted);
        let later = Filter::new(&settings("modified_after = \"2026-01-01T00:00:00Z\""), true).unwrap();
        assert_eq!(verdict(&later, "a.json", &Seen::default()), Verdict::Unwanted);
        let growing = Filter::new(&settings("settle = \"5m\""), true).unwrap();
        assert_eq!(verdict(&growing, "a.json", &Seen::default()), Verdict::Fresh);
        let cloud = Filter::new(&settings("settle = \"5m\""), false).unwrap();
        assert_eq!(verdict(&cloud, "a.json", &Seen::default()), Verdict::Load);
        assert!(Filter::new(&settings("glob = \"***\""), true).is_err());
    }

    #[test]
    fn a_file_of_the_future_waits_from_its_last_change() {
        let now = Timestamp::default().plus(Duration::from_secs(1_000));
        let filter = Filter::new(&settings("settle = \"1m\""), true).unwrap();
        for (seconds_ago, expected) in [(10, Verdict::Fresh), (100, Verdict::Load)] {
            let changed = now.minus(Duration::from_secs(seconds_ago));
            let modified = now.plus(Duration::from_secs(3_600));
            let file = Found { path: Path::from("a"), size_bytes: 1, modified, changed };
            assert_eq!(filter.judge("a", &file, &Seen::default(), now), expected);
        }
    }

    #[test]
    fn what_is_loaded_is_known_until_it_changes() {
        let filter = Filter::new(&settings(""), true).unwrap();
        let mut seen = Seen::default();
        seen.insert(hash_of("a.json"), Stamp::UNKNOWN);
        assert_eq!(verdict(&filter, "a.json", &seen), Verdict::Known);
        seen.insert(hash_of("a.json"), Stamp(9));
        assert_eq!(verdict(&filter, "a.json", &seen), Verdict::Changed);
        let again = Filter::new(&settings("allow_overwrites = true"), true).unwrap();
        assert_eq!(verdict(&again, "a.json", &seen), Verdict::Load);
    }
}
