//! The cost promises, measured on the real binary beside what people use instead. `benches/run.sh` starts it.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)]

#[path = "../peers/storeless.rs"]
mod peer_storeless;
mod rows;
mod support;

use std::path::PathBuf;
use std::time::Instant;

use futures::future::BoxFuture;

use crate::support::report::{Findings, markdown, write_down};
use crate::support::{Bench, Result};

type Run = for<'a> fn(&'a Bench) -> BoxFuture<'a, Result<Findings>>;

/// Every kind of work, in the order of the table.
const ROWS: [(&str, Run); 12] = [
    ("acks", |bench| Box::pin(rows::acks::run(bench))),
    ("commits", |bench| Box::pin(rows::commits::run(bench))),
    ("pressure", |bench| Box::pin(rows::pressure::run(bench))),
    ("replies", |bench| Box::pin(rows::replies::run(bench))),
    ("tables", |bench| Box::pin(rows::tables::run(bench))),
    ("start", |bench| Box::pin(rows::start::run(bench))),
    ("memory", |bench| Box::pin(rows::memory::run(bench))),
    ("loss", |bench| Box::pin(rows::loss::run(bench))),
    ("idle", |bench| Box::pin(rows::idle::run(bench))),
    ("load", |bench| Box::pin(rows::load::run(bench))),
    ("files", |bench| Box::pin(rows::files::run(bench))),
    ("build", |bench| Box::pin(rows::build::run(bench))),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let [flag, address] = arguments.as_slice()
        && flag == "--serve-storeless"
    {
        return runtime.block_on(peer_storeless::serve(address.parse()?));
    }
    runtime.block_on(measure(&arguments))
}

async fn measure(arguments: &[String]) -> Result<()> {
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let names = ROWS.map(|(name, _)| name);
    if let Some(unknown) = wanted.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(format!("there is no row `{unknown}`; there are: {}", names.join(", ")).into());
    }
    let python = std::env::var_os("LAKEGRAM_BENCH_PYTHON").ok_or("start it by benches/run.sh")?;
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("performance");
    let bench = Bench::new(folder, python.into(), quick);
    let (began, mut all, mut failed) = (Instant::now(), Vec::new(), Vec::new());
    for (name, run) in ROWS.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name)) {
        eprintln!("==> {name} ({:.0} s so far)", began.elapsed().as_secs_f64());
        match run(&bench).await {
            Ok(findings) => {
                // At once: a later row that fails must not take these along.
                for row in &findings.rows {
                    eprintln!("    {}: {} ({}); bar: {}", row.work, row.measured, row.ours, row.bar);
                }
                all.push((*name, findings));
            }
            Err(error) => {
                eprintln!("    {name} failed: {error}");
                failed.push(*name);
            }
        }
    }
    let figures = markdown(&all, began.elapsed().as_secs_f64() / 60.0)?;
    println!("{figures}");
    if wanted.is_empty() && !quick && failed.is_empty() {
        println!("written to {}", write_down(&figures)?.display());
    }
    let missed = all.iter().flat_map(|(_, findings)| &findings.rows).filter(|row| row.reached == Some(false)).count();
    println!("{missed} bars missed");
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("not measured: {}", failed.join(", ")).into()),
    }
}
