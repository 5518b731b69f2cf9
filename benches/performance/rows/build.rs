//! What the program weighs: its file, its dependencies, and the time to build it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::support::figures::{megabytes, thousands};
use crate::support::report::{Findings, Row};
use crate::support::{Bench, Result};

const BINARY: &str = env!("CARGO_BIN_EXE_lakegram");
/// `cargo clean && time cargo build --release`, with every crate downloaded. Measured by hand, because it is longer
/// than all rows together: put the figure here with the machine it was measured on.
const FROM_NOTHING: &str = "17 min 47 s on 2 cores";

pub(crate) async fn run(bench: &Bench) -> Result<Findings> {
    let mut findings = Findings::default();
    let stripped = bench.folder()?;
    let file = stripped.path().join("lakegram");
    run_quietly(Command::new("strip").arg("-o").arg(&file).arg(BINARY))?;
    let (size, bare) = (std::fs::metadata(BINARY)?.len(), std::fs::metadata(&file)?.len());
    findings.rows.push(shown("size of the binary", format!("{:.0} MB", megabytes(size)), {
        format!("{:.0} MB stripped", megabytes(bare))
    }));
    let (all, lean) = (crates(&[])?, crates(&["--no-default-features"])?);
    #[allow(clippy::cast_precision_loss)]
    let counts = (thousands(all as f64), thousands(lean as f64));
    findings.rows.push(shown("crates in the binary", counts.0, format!("without `sql` and `cloud`: {}", counts.1)));
    findings.rows.push(shown("build from nothing", FROM_NOTHING.to_owned(), String::new()));
    Ok(findings)
}

fn shown(work: &str, ours: String, beside: String) -> Row {
    Row { work: work.to_owned(), measured: ours.clone(), ours, beside, bar: "shown".to_owned(), reached: None }
}

/// How many crates a build links, ours aside.
fn crates(features: &[&str]) -> Result<usize> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["tree", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}"]);
    command.args(features).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    let tree = run_quietly(&mut command)?;
    let names: BTreeSet<&str> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    Ok(names.len().saturating_sub(1))
}

fn run_quietly(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}
