//! A plain loader of the real binary: `lakegram run` from start to end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::Result;
use super::process::{Usage, usage};
use super::service::lakegram;

/// What it logs once it knows which files are loaded.
const KNOWS: &str = "knows the files that are loaded";
/// Between two looks at what it uses.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a way to load cost.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Cost {
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_megabytes: f64,
    /// Until it knew which files are loaded; none where there was no table.
    #[serde(default)]
    pub(crate) knew_after_seconds: Option<f64>,
}

/// Loads `data/landing` below the folder into a new table with these settings of `[bronze]`.
pub(crate) fn from_nothing(folder: &Path, bronze: &str) -> Result<Cost> {
    for left in ["data/bronze", "checkpoints"] {
        let _none = fs::remove_dir_all(folder.join(left));
    }
    fs::create_dir_all(folder.join("pipelines"))?;
    let text = format!(
        "version = 1\nname = \"load\"\n[source]\npath = \"landing\"\nsettle = \"0s\"\n[bronze]\ntable = \"bronze/load\"\n{bronze}"
    );
    fs::write(folder.join("pipelines/load.toml"), text)?;
    again(folder)
}

/// Loads what is new since the last time.
pub(crate) fn again(folder: &Path) -> Result<Cost> {
    let mut command = lakegram(folder, &["run", "load", "--deadline", "1h"]);
    command.env("LAKEGRAM_PIPELINES", folder.join("pipelines")).env("LAKEGRAM_CHECKPOINTS", folder.join("checkpoints"));
    let began = Instant::now();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let log = child.stderr.take().ok_or("no log")?;
    let reading = std::thread::spawn(move || {
        let mut knew = None;
        for line in BufReader::new(log).lines().map_while(std::result::Result::ok) {
            if knew.is_none() && line.contains(KNOWS) {
                knew = Some(began.elapsed().as_secs_f64());
            }
        }
        knew
    });
    let used = watch(&mut child)?;
    let seconds = began.elapsed().as_secs_f64();
    let status = child.wait()?;
    let knew_after_seconds = reading.join().map_err(|_| "the reader of its log ended early")?;
    if !status.success() {
        return Err(format!("lakegram run ended with {status}").into());
    }
    #[allow(clippy::cast_precision_loss)]
    let peak_megabytes = used.peak_resident_bytes as f64 / 1e6;
    Ok(Cost { seconds, cpu_seconds: used.cpu_seconds, peak_megabytes, knew_after_seconds })
}

/// What a child has used when it ends. The last look before the end is as near as it gets; the peak only grows.
fn watch(child: &mut Child) -> Result<Usage> {
    let (pid, ended) = (child.id(), Arc::new(AtomicBool::new(false)));
    let looking = std::thread::spawn({
        let ended = Arc::clone(&ended);
        move || {
            let mut used = Usage::default();
            while !ended.load(Ordering::Relaxed) {
                used = usage(pid).ok().filter(|now| now.peak_resident_bytes > 0).unwrap_or(used);
                std::thread::sleep(LOOK_EVERY);
            }
            used
        }
    });
    child.wait()?;
    ended.store(true, Ordering::Relaxed);
    looking.join().map_err(|_| "the look at what it uses ended early".into())
}
