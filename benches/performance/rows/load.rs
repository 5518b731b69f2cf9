//! Bulk load: a folder of Telegram updates into a Delta table, beside what loads JSON elsewhere.

use std::path::Path;
use std::process::Command;

use crate::support::generate::{github_events, telegram_updates};
use crate::support::loader::{Cost, from_nothing};
use crate::support::report::{Findings, Row};
use crate::support::{Bench, Result};

/// The same columns as `load.py` gives the others, the whole record and the loader's own.
const UPDATE_COLUMNS: &str = "update_id bigint,
  message struct<message_id: bigint, date: bigint, text: string, caption: string,
    chat: struct<id: bigint, type: string, title: string>,
    `from`: struct<id: bigint, username: string, first_name: string, last_name: string, language_code: string>,
    reply_to_message: struct<message_id: bigint>>,
  callback_query struct<id: string, data: string,
    `from`: struct<id: bigint, username: string, first_name: string, last_name: string, language_code: string>>";
const EVENT_COLUMNS: &str = "id string, type string, actor struct<id: bigint, login: string, url: string>,
  repo struct<id: bigint, name: string, url: string>, org struct<id: bigint, login: string>, public boolean,
  created_at string";
/// Peak memory at default settings, whatever the input.
const MEMORY_MEGABYTES: f64 = 512.0;

/// A way to load records whose columns are known.
struct Given {
    name: &'static str,
    settings: fn() -> String,
}

/// What is loaded.
struct Input {
    name: &'static str,
    /// What `load.py` calls it.
    shape: &'static str,
    given: &'static [Given],
    /// Settings of the load that infers its columns. Where a field of the records has the name of the column for whole
    /// records, only its columns are kept, as the others do.
    inferred: &'static str,
    generate: fn(&Path, usize) -> Result<usize>,
}

const INPUTS: [Input; 2] = [
    Input {
        name: "updates",
        shape: "telegram",
        given: &[
            Given { name: "the full bronze table", settings: || "schema = \"telegram_messages.json\"\n".to_owned() },
            Given { name: "columns given", settings: || hinted(UPDATE_COLUMNS) },
        ],
        inferred: "payload = true\n",
        generate: telegram_updates,
    },
    Input {
        name: "GitHub events",
        shape: "events",
        given: &[Given { name: "columns given", settings: || hinted(EVENT_COLUMNS) }],
        inferred: "",
        generate: github_events,
    },
];

/// A way to load that people use, and how much faster ours must be.
struct Peer {
    way: &'static str,
    name: &'static str,
    /// Whether it is given the columns and keeps the record, or infers them and does not.
    keeps_record: bool,
    least: f64,
}

const PEERS: [Peer; 5] = [
    Peer {
        way: "duckdb_transform",
        name: "DuckDB, json_transform and payload, to one Parquet file",
        keeps_record: true,
        least: 2.0,
    },
    Peer { way: "spark", name: "Spark with Delta, from_json and payload", keeps_record: true, least: 2.0 },
    Peer { way: "duckdb_plain", name: "DuckDB, read_json to one Parquet file", keeps_record: false, least: 1.0 },
    Peer { way: "polars", name: "Polars, scan_ndjson to write_delta", keeps_record: false, least: 1.0 },
    Peer { way: "pyarrow", name: "pyarrow and deltalake", keeps_record: false, least: 1.0 },
];

pub(crate) async fn run(bench: &Bench) -> Result<Findings> {
    let (mut findings, mut peak) = (Findings::default(), 0.0_f64);
    for input in INPUTS {
        peak = peak.max(load(bench, &input, &mut findings)?);
    }
    findings.rows.push(Row {
        work: "bulk load, memory".to_owned(),
        ours: format!("{peak:.0} MB at most"),
        beside: "default settings".to_owned(),
        bar: format!("under {MEMORY_MEGABYTES:.0} MB"),
        measured: format!("{peak:.0} MB"),
        reached: Some(peak < MEMORY_MEGABYTES),
    });
    Ok(findings)
}

/// Loads one input in every way; returns the most memory that ours has used.
fn load(bench: &Bench, input: &Input, findings: &mut Findings) -> Result<f64> {
    let folder = bench.folder()?;
    let landing = folder.path().join("data/landing");
    let bytes = bench.scaled(2_000_000_000, 200_000_000);
    let rows = (input.generate)(&landing, bytes)?;
    let given = input.given.iter().map(|given| Ok((given.name, from_nothing(folder.path(), &(given.settings)())?)));
    let given = given.collect::<Result<Vec<_>>>()?;
    let inferred = [("inferred", from_nothing(folder.path(), input.inferred)?)];
    #[allow(clippy::cast_precision_loss)]
    let megabytes = bytes as f64 / 1e6;
    for peer in PEERS {
        // A peer that does not take the input, for memory or otherwise, takes no figure from the others.
        let theirs = match peer_cost(bench, &peer, input, &landing, &folder.path().join("theirs")) {
            Ok(theirs) => theirs,
            Err(error) => {
                findings.note(format!("{}, {}: {error}", input.name, peer.name));
                continue;
            }
        };
        for (columns, ours) in if peer.keeps_record { given.as_slice() } else { inferred.as_slice() } {
            let ratio = theirs.seconds / ours.seconds;
            findings.rows.push(Row {
                work: format!("bulk load of {:.1} GB of {}, {columns}", megabytes / 1e3, input.name),
                ours: cost_text(*ours, megabytes),
                beside: format!("{}: {}", peer.name, cost_text(theirs, megabytes)),
                bar: if peer.least > 1.0 {
                    format!("at least {} times as fast", peer.least)
                } else {
                    "faster".to_owned()
                },
                measured: format!("{ratio:.2} times"),
                reached: Some(ratio >= peer.least),
            });
        }
    }
    findings.note(format!(
        "{rows} {}; ours is fsynced and committed to a Delta table, with the whole record where the columns are given",
        input.name
    ));
    Ok(given.iter().chain(&inferred).map(|(_, cost)| cost.peak_megabytes).fold(0.0, f64::max))
}

fn hinted(columns: &str) -> String {
    format!("types = \"hints\"\nevolution = \"ignore\"\npayload = true\nschema_hints = \"\"\"{columns}\"\"\"\n")
}

fn cost_text(cost: Cost, megabytes: f64) -> String {
    format!(
        "{:.1} s, {:.0} MB/s, {:.1} s of CPU, {:.0} MB",
        cost.seconds,
        megabytes / cost.seconds,
        cost.cpu_seconds,
        cost.peak_megabytes
    )
}

fn peer_cost(bench: &Bench, peer: &Peer, input: &Input, landing: &Path, target: &Path) -> Result<Cost> {
    let mut command = Command::new(&bench.python);
    command.arg(bench.peer("load.py")).args([peer.way, input.shape]).arg(landing).arg(target);
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "ended with {}: {}",
            output.status,
            said.lines().last().unwrap_or_default().chars().take(200).collect::<String>()
        )
        .into());
    }
    // Spark tells on the same stream where it has its packages from.
    let said = String::from_utf8_lossy(&output.stdout);
    let cost = said.lines().last().ok_or("it printed no figures")?;
    Ok(serde_json::from_str(cost)?)
}
