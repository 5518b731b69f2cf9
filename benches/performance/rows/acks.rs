//! Durable acknowledgements: how many a second, and how soon, beside FastAPI and a server that stores nothing.

use std::process::Command;
use std::time::Duration;

use crate::support::disk::bare_durable_puts;
use crate::support::figures::{Rounds, Samples, megabytes, thousands};
use crate::support::load::{Load, LoadReport, Until, UpdateIds, send};
use crate::support::report::{Findings, Row};
use crate::support::service::{SECRET, Service, free_address, lakegram};
use crate::support::{Bench, Result};

/// Who is asked for acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Lakegram,
    Storeless,
    FastApi,
}

/// What the rounds of one server came to.
#[derive(Debug, Default)]
struct Tally {
    acks_a_second: Rounds,
    latencies: Samples,
    failures: u64,
    cpu_micros_an_ack: Rounds,
    peak_megabytes: f64,
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Lakegram => "Lakegram, every ack fsynced",
            Self::Storeless => "axum that stores nothing",
            Self::FastApi => "FastAPI on uvicorn (2 workers), a file a message, no fsync",
        }
    }

    fn start(self, bench: &Bench, folder: &std::path::Path) -> Result<Service> {
        if self == Self::Lakegram {
            return Service::start(lakegram(folder, &["serve", "--roles", "receive"]));
        }
        let address = free_address()?;
        let mut command = match self {
            Self::FastApi => {
                let mut command = Command::new(&bench.python);
                command.args(["-m", "uvicorn", "fastapi_app:app", "--app-dir"]).arg(bench.peer(""));
                command.args(["--host", "127.0.0.1", "--port", &address.port().to_string(), "--workers", "2"]);
                command.args(["--no-access-log", "--log-level", "warning", "--loop", "uvloop", "--http", "httptools"]);
                command
            }
            _ => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["--serve-storeless", &address.to_string()]);
                command
            }
        };
        std::fs::create_dir_all(folder.join("data"))?;
        command.env("PEER_DATA", folder.join("data")).env("PEER_SECRET", SECRET);
        Service::start_peer(command, address)
    }

    /// One round on an empty folder.
    async fn round(self, bench: &Bench, connections: usize, tally: &mut Tally) -> Result<()> {
        let folder = bench.folder()?;
        let service = self.start(bench, folder.path())?;
        let span = bench.scaled(Duration::from_secs(5), Duration::from_secs(2));
        let until = Until::Elapsed { warm_up: Duration::from_secs(1), span };
        let load = Load { address: service.address, connections, until };
        let LoadReport { acked, acks_a_second, failures, latencies } = send(&load, &UpdateIds::new()).await?;
        let used = service.usage()?;
        tally.acks_a_second.push(acks_a_second);
        tally.latencies.append(latencies);
        tally.failures += failures;
        #[allow(clippy::cast_precision_loss)]
        tally.cpu_micros_an_ack.push(used.cpu_seconds * 1e6 / acked.max(1) as f64);
        tally.peak_megabytes = tally.peak_megabytes.max(megabytes(used.peak_resident_bytes));
        Ok(())
    }
}

/// Rounds of several servers in turn, so that the weather of the machine meets all of them.
async fn compare<const N: usize>(
    bench: &Bench,
    connections: usize,
    servers: [Server; N],
    findings: &mut Findings,
) -> Result<[Tally; N]> {
    let mut tallies = std::array::from_fn(|_| Tally::default());
    for _ in 0..bench.scaled(3, 1) {
        for (server, tally) in servers.into_iter().zip(&mut tallies) {
            server.round(bench, connections, tally).await?;
        }
    }
    for (server, tally) in servers.into_iter().zip(&tallies) {
        findings.note(format!(
            "{connections} connections, {}: {} acks a second, {}, {:.0} µs of CPU an ack, {:.0} MB at most, {} failures",
            server.name(),
            tally.acks_a_second,
            tally.latencies.text(),
            tally.cpu_micros_an_ack.median(),
            tally.peak_megabytes,
            tally.failures,
        ));
    }
    Ok(tallies)
}

pub(crate) async fn run(bench: &Bench) -> Result<Findings> {
    let mut findings = Findings::default();
    let servers = [Server::Lakegram, Server::Storeless, Server::FastApi];
    let [ours, storeless, fastapi] = compare(bench, 100, servers, &mut findings).await?;
    findings.rows.push(ratio_row("100 connections", &ours, ("FastAPI, no fsync", &fastapi), 10.0));
    findings.rows.push(ratio_row("100 connections", &ours, ("storeless axum", &storeless), 0.4));
    let servers = [Server::Lakegram, Server::Storeless];
    let [ours, storeless] = compare(bench, 1_000, servers, &mut findings).await?;
    let mut row = ratio_row("1,000 connections", &ours, ("storeless axum", &storeless), 0.5);
    row.bar += ", no error";
    row.measured += &format!(", {} errors", ours.failures);
    row.reached = row.reached.map(|reached| reached && ours.failures == 0);
    findings.rows.push(row);
    findings.rows.push(one_connection(bench, &mut findings.notes).await?);
    Ok(findings)
}

fn ratio_row(load: &str, ours: &Tally, (name, peer): (&str, &Tally), bar: f64) -> Row {
    let ratio = ours.acks_a_second.median() / peer.acks_a_second.median();
    Row {
        work: format!("durable acks, {load}"),
        ours: format!("{}/s", ours.acks_a_second),
        beside: format!("{name}: {}/s", peer.acks_a_second),
        bar: format!("at least {bar} times"),
        measured: format!("{} times", thousands(ratio)),
        reached: Some(ratio >= bar),
    }
}

async fn one_connection(bench: &Bench, notes: &mut Vec<String>) -> Result<Row> {
    let (mut ours, mut puts) = (Tally::default(), Samples::default());
    for _ in 0..bench.scaled(3, 1) {
        let folder = bench.folder()?;
        puts.append(bare_durable_puts(folder.path(), bench.scaled(1_000, 300), 400)?);
        Server::Lakegram.round(bench, 1, &mut ours).await?;
    }
    let ratio = ours.latencies.median_ms() / puts.median_ms();
    notes.push(format!("1 connection: {} acks a second; {}", ours.acks_a_second, ours.latencies.text()));
    Ok(Row {
        work: "durable ack, one connection".to_owned(),
        ours: ours.latencies.text(),
        beside: format!("bare durable put: {}", puts.text()),
        bar: "median under 3 bare puts".to_owned(),
        measured: format!("{ratio:.2} puts"),
        reached: Some(ratio < 3.0),
    })
}
