//! The table of verdicts, on the terminal and in `docs/performance.md`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Result;

const BEGIN: &str = "<!-- figures: written by benches/run.sh -->";
const END: &str = "<!-- /figures -->";

/// One bar and what was measured against it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What was done.
    pub(crate) work: String,
    /// Our figure.
    pub(crate) ours: String,
    /// The peer's, or the yardstick's.
    pub(crate) beside: String,
    /// What must be reached.
    pub(crate) bar: String,
    /// Our figure in terms of the bar.
    pub(crate) measured: String,
    /// `None` for what is only shown.
    pub(crate) reached: Option<bool>,
}

/// What a part of the run brings: rows, and lines of explanation below the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Findings {
    pub(crate) rows: Vec<Row>,
    pub(crate) notes: Vec<String>,
}

impl Findings {
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

/// A whole run as Markdown.
pub(crate) fn markdown(findings: &[(&str, Findings)], minutes: f64) -> Result<String> {
    let mut text = format!("{}\n\n", machine(minutes));
    text += "| work | Lakegram | beside it | bar | measured | verdict |\n| --- | --- | --- | --- | --- | --- |\n";
    for row in findings.iter().flat_map(|(_, findings)| &findings.rows) {
        let verdict = match row.reached {
            Some(true) => "reached",
            Some(false) => "**missed**",
            None => "shown",
        };
        let Row { work, ours, beside, bar, measured, .. } = row;
        writeln!(text, "| {work} | {ours} | {beside} | {bar} | {measured} | {verdict} |")?;
    }
    for (name, findings) in findings.iter().filter(|(_, findings)| !findings.notes.is_empty()) {
        write!(text, "\n**{name}**\n\n")?;
        for note in &findings.notes {
            writeln!(text, "- {note}")?;
        }
    }
    Ok(text)
}

/// Puts the figures between their marks in `docs/performance.md`; what a person wrote around them stays.
pub(crate) fn write_down(figures: &str) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance.md");
    let text = fs::read_to_string(&path).unwrap_or_else(|_| format!("# Performance\n\n{BEGIN}\n{END}\n"));
    let (before, rest) = text.split_once(BEGIN).ok_or("docs/performance.md has lost its first mark")?;
    let (_, after) = rest.split_once(END).ok_or("docs/performance.md has lost its second mark")?;
    fs::write(&path, format!("{before}{BEGIN}\n\n{figures}\n{END}{after}"))?;
    Ok(path)
}

fn machine(minutes: f64) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map(|(_, name)| name);
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes: u64 = meminfo.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "{cores} cores ({}), {} GiB, Linux {}, {}, commit {}, {}; the run took {minutes:.0} minutes.",
        model.unwrap_or("unknown").trim(),
        kilobytes / 1_048_576,
        said("uname", &["-r"]),
        said("rustc", &["--version"]),
        said("git", &["rev-parse", "--short", "HEAD"]),
        said("date", &["-u", "+%F"]),
    )
}
