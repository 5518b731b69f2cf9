//! A table after 100,000 commits of one message each: what its readers find, and what keeping it so costs.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::net::TcpStream;

use crate::support::figures::thousands;
use crate::support::load::{UpdateIds, exchange, request};
use crate::support::process::thread_seconds;
use crate::support::report::{Findings, Row};
use crate::support::service::{Service, lakegram};
use crate::support::{Bench, Result};

const TABLE: &str = "data/bronze/telegram_messages";
/// Between two looks for a commit.
const LOOK_EVERY: Duration = Duration::from_micros(100);
/// A commit that takes longer than this does not come.
const PATIENCE: Duration = Duration::from_secs(30);
/// The commits end when they are made or this has passed, whichever is first; so many there must be by then.
const LONGEST: Duration = Duration::from_secs(330);
const FEWEST: i64 = 30_000;
/// After the last message the service comes to rest: a minute to its next round, and the round.
const AT_REST: Duration = Duration::from_secs(75);

/// What was done to the table, and for how much.
struct Made {
    commits: i64,
    versions: i64,
    seconds: f64,
    service_seconds: f64,
    maintenance_seconds: f64,
}

/// What `read_table.py` says.
#[derive(Debug, Deserialize)]
struct Reading {
    open_seconds: f64,
    first_open_seconds: f64,
    read_seconds: f64,
    rows: i64,
    version: i64,
    files: i64,
}

pub(crate) async fn run(bench: &Bench) -> Result<Findings> {
    let commits = bench.scaled(100_000, 3_000);
    let folder = bench.folder()?;
    let made = commit_one_by_one(folder.path(), commits).await?;
    let table = folder.path().join(TABLE);
    let ours = read(bench, &table, false)?;
    let copy = folder.path().join("copy");
    copy_table(&table, &copy)?;
    let compacted = read(bench, &copy, true)?;
    if ours.rows != made.commits || compacted.rows != made.commits {
        return Err(format!("{} messages became {} rows, compacted {}", made.commits, ours.rows, compacted.rows).into());
    }
    if made.commits < commits.min(FEWEST) {
        return Err(format!("only {} commits in {:.0} s", made.commits, made.seconds).into());
    }
    Ok(findings(&made, &ours, &compacted))
}

/// Posts messages to the real binary, each when the one before is in the table.
async fn commit_one_by_one(folder: &Path, commits: i64) -> Result<Made> {
    let service = Service::start(lakegram(folder, &["serve", "--roles", "receive,bronze"]))?;
    let log = folder.join(TABLE).join("_delta_log");
    let mut poster = Poster { address: service.address, stream: None, ids: UpdateIds::new() };
    let (began, mut done, mut version) = (Instant::now(), 0, 0);
    while done < commits && began.elapsed() < LONGEST {
        poster.post().await?;
        version = wait_for_commit(&log, version + 1).await?;
        done += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    // The round by the clock takes what the rounds by commits have left; what it costs belongs to these commits.
    tokio::time::sleep(AT_REST).await;
    let made = Made {
        commits: done,
        versions: version,
        seconds,
        service_seconds: service.usage()?.cpu_seconds,
        maintenance_seconds: thread_seconds(service.pid(), "maintain"),
    };
    service.stop()?;
    Ok(made)
}

struct Poster {
    address: SocketAddr,
    stream: Option<TcpStream>,
    ids: UpdateIds,
}

impl Poster {
    async fn post(&mut self) -> Result<()> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => TcpStream::connect(self.address).await?,
        };
        let update_id = self.ids.next();
        let body = request(update_id, update_id % 1_000 + 1, "How late is it in Lisbon when it is noon here?");
        match exchange(stream, &body).await? {
            (200, stream) => self.stream = Some(stream),
            (status, _) => return Err(format!("an update was answered {status}").into()),
        }
        Ok(())
    }
}

/// Waits for the next commit of rows at `version` or later; the versions of maintenance are passed over.
async fn wait_for_commit(log: &Path, mut version: i64) -> Result<i64> {
    let began = Instant::now();
    loop {
        let commit = log.join(format!("{version:020}.json"));
        if commit.exists() {
            // A commit is published whole. One of rows is small; one of maintenance begins with what it is as well.
            if !fs::read_to_string(&commit)?.lines().next().unwrap_or_default().contains(r#""OPTIMIZE""#) {
                return Ok(version);
            }
            version += 1;
        } else if began.elapsed() > PATIENCE {
            return Err(format!("version {version} does not come").into());
        } else {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn read(bench: &Bench, table: &Path, compact: bool) -> Result<Reading> {
    let mut command = std::process::Command::new(&bench.python);
    command.arg(bench.peer("read_table.py")).arg(table).args(compact.then_some("--compact"));
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("read_table.py: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A copy by hard links: a compaction adds files and changes none.
fn copy_table(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target: PathBuf = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_table(&entry.path(), &target)?,
            // This one is written anew in place.
            false if entry.file_name() == "_last_checkpoint" => drop(fs::copy(entry.path(), target)?),
            false => fs::hard_link(entry.path(), target)?,
        }
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss)]
fn findings(made: &Made, ours: &Reading, compacted: &Reading) -> Findings {
    let mut findings = Findings::default();
    let commits = made.commits as f64;
    let share = made.maintenance_seconds / made.seconds * 100.0;
    findings.note(format!(
        "{} commits of one message by `serve --roles receive,bronze` in {:.0} s ({:.0} a second, every put fsynced); the \
         service used {:.1} s of CPU, {:.1} s of it for maintenance, {:.0} µs a commit",
        thousands(commits),
        made.seconds,
        commits / made.seconds,
        made.service_seconds,
        made.maintenance_seconds,
        made.maintenance_seconds / commits * 1e6,
    ));
    findings.note(format!(
        "at version {} ({} when the last message was in): {} files, compacted {}; the first open took {:.3} s, the median \
         of five {:.3} s, compacted {:.3} s",
        ours.version, made.versions, ours.files, compacted.files, ours.first_open_seconds, ours.open_seconds,
        compacted.open_seconds,
    ));
    let open = ours.open_seconds.max(ours.first_open_seconds);
    let ratio = ours.read_seconds / compacted.read_seconds;
    let work = format!("a table of {} commits", thousands(commits));
    let row = |what: &str, ours: String, beside: String, bar: &str, measured: String, reached: bool| Row {
        work: format!("{work}: {what}"),
        ours,
        beside,
        bar: bar.to_owned(),
        measured,
        reached: Some(reached),
    };
    findings.rows = vec![
        row(
            "opened by Python's deltalake",
            format!("{open:.3} s"),
            format!("compacted: {:.3} s", compacted.open_seconds),
            "under 1 s",
            format!("{open:.3} s"),
            open < 1.0,
        ),
        row(
            "read by it",
            format!("{:.3} s", ours.read_seconds),
            format!("compacted: {:.3} s", compacted.read_seconds),
            "within 1.5 times",
            format!("{ratio:.2} times"),
            ratio <= 1.5,
        ),
        row(
            "its maintenance meanwhile",
            format!("{:.1} s of CPU in {:.0} s", made.maintenance_seconds, made.seconds),
            format!("the whole service: {:.1} s", made.service_seconds),
            "under 20 % of one core",
            format!("{share:.1} %"),
            share < 20.0,
        ),
    ];
    findings
}
