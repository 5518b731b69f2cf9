//! The progress of the loaders: a bar on a terminal, otherwise an occasional log line.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use tokio_util::task::AbortOnDropHandle;

use crate::app::App;
use crate::load::files::FilesProgress;

/// How often the bar moves, and how often a line is logged.
const BAR_EVERY: Duration = Duration::from_millis(250);
const LOG_EVERY: Duration = Duration::from_secs(30);

const SPINNER: &str = "{spinner} {elapsed} {prefix}{msg}";
const BAR: &str = "{elapsed} {bar:30} {prefix}{msg}";

/// Shows what is being done and how far it is, until dropped.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    _telling: AbortOnDropHandle<()>,
}

impl Progress {
    pub(super) fn begin(app: &App) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_style(style(SPINNER));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        // A second listing is only worth it if somebody is waiting.
        app.loading.counts_ahead.store(bar.is_some(), Ordering::Relaxed);
        let telling = tokio::spawn(tell(app.clone(), bar.clone()));
        Self { bar, _telling: AbortOnDropHandle::new(telling) }
    }

    /// Shows what is being done now.
    pub(super) fn doing(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => tracing::info!("{text}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

async fn tell(app: App, bar: Option<ProgressBar>) {
    let (mut began, mut last) = (None, Counts::default());
    let every = if bar.is_some() { BAR_EVERY } else { LOG_EVERY };
    loop {
        app.clock.sleep(every).await;
        let counts = Counts::of(&app.loading);
        if counts == last || counts.found == 0 {
            continue;
        }
        let now = app.clock.monotonic();
        let text = counts.line(now.saturating_sub(*began.get_or_insert(now.saturating_sub(every))));
        match &bar {
            Some(bar) => {
                if let Some((_, bytes)) = counts.all {
                    bar.set_style(style(BAR));
                    bar.set_length(bytes.max(counts.bytes));
                    bar.set_position(counts.bytes);
                }
                bar.set_prefix(format!("{text} "));
            }
            None => tracing::info!("{text}"),
        }
        last = counts;
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// The progress at one point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    files: u64,
    bytes: u64,
    rows: u64,
    /// Files found so far, including the loaded ones.
    found: u64,
    /// Files and bytes that this run will have loaded in the end, once that is known.
    all: Option<(u64, u64)>,
}

impl Counts {
    fn of(progress: &FilesProgress) -> Self {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // The listing includes files loaded earlier, which are only recognized as the loader reaches them.
        let left = |listed, known| get(listed).saturating_sub(get(known));
        let all = || {
            (left(&progress.listed_files, &progress.known_files), left(&progress.listed_bytes, &progress.known_bytes))
        };
        Self {
            files: get(&progress.files),
            bytes: get(&progress.bytes),
            rows: get(&progress.rows),
            found: get(&progress.found_files),
            all: progress.is_counted.load(Ordering::Relaxed).then(all),
        }
    }

    /// For people, after so much time.
    fn line(&self, after: Duration) -> String {
        let millis = after.as_millis().max(1);
        let rate = u64::try_from(u128::from(self.bytes) * 1_000 / millis).unwrap_or(u64::MAX);
        let (files, bytes, rows) = (HumanCount(self.files), HumanBytes(self.bytes), HumanCount(self.rows));
        let Some((all_files, all_bytes)) = self.all else {
            return format!(
                "{files} of {} files found so far, {bytes}, {rows} rows, {}/s",
                HumanCount(self.found),
                HumanBytes(rate)
            );
        };
        let left = all_bytes.saturating_sub(self.bytes).checked_div(rate);
        let left = left.map(|seconds| format!(", {} left", HumanDuration(Duration::from_secs(seconds))));
        format!(
            "{files} of {} files, {bytes} of {}, {rows} rows, {}/s{}",
            HumanCount(all_files),
            HumanBytes(all_bytes),
            HumanBytes(rate),
            left.unwrap_or_default()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_told_once_it_is_known_what_is_left() {
        let progress = FilesProgress::default();
        for (counter, value) in [
            (&progress.files, 1_000),
            (&progress.bytes, 1 << 20),
            (&progress.rows, 5_000),
            (&progress.found_files, 2_000),
            (&progress.listed_files, 5_000),
            (&progress.listed_bytes, 6 << 20),
            (&progress.known_files, 1_000),
            (&progress.known_bytes, 1 << 20),
        ] {
            counter.store(value, Ordering::Relaxed);
        }
        let line = || Counts::of(&progress).line(Duration::from_secs(1));
        assert_eq!(line(), "1,000 of 2,000 files found so far, 1.00 MiB, 5,000 rows, 1.00 MiB/s");
        progress.is_counted.store(true, Ordering::Relaxed);
        assert_eq!(line(), "1,000 of 4,000 files, 1.00 MiB of 5.00 MiB, 5,000 rows, 1.00 MiB/s, 4 seconds left");
        progress.bytes.store(0, Ordering::Relaxed);
        assert!(line().ends_with("0 B/s"), "{}", line());
    }
}
