//! Bulk load: a folder of Telegram updates into a Delta table, beside what loads JSON elsewhere.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde::Deserialize;

use crate::support::process::usage;
use crate::support::report::{Findings, Row};
use crate::support::service::lakegram;
use crate::support::{Bench, Result};

const FILES: usize = 16;
/// The same columns as the transform of `load.py`, the whole record and the loader's own.
const HINTED: &str = r#"types = "hints"
evolution = "ignore"
payload = true
schema_hints = """update_id bigint,
  message struct<message_id: bigint, date: bigint, text: string, caption: string,
    chat: struct<id: bigint, type: string, title: string>,
    `from`: struct<id: bigint, username: string, first_name: string, last_name: string, language_code: string>,
    reply_to_message: struct<message_id: bigint>>,
  callback_query struct<id: string, data: string,
    `from`: struct<id: bigint, username: string, first_name: string, last_name: string, language_code: string>>"""
"#;
const INFERRED: &str = "payload = true\n";
/// Peak memory at default settings, whatever the input.
const MEMORY_MEGABYTES: f64 = 512.0;

/// What a way to load cost.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Cost {
    seconds: f64,
    cpu_seconds: f64,
    peak_megabytes: f64,
}

pub(crate) async fn run(bench: &Bench) -> Result<Findings> {
    let folder = bench.folder()?;
    let landing = folder.path().join("data/landing");
    let bytes = bench.scaled(2_000_000_000, 200_000_000);
    let rows = generate(&landing, bytes)?;
    let hinted = ours(folder.path(), HINTED)?;
    let inferred = ours(folder.path(), INFERRED)?;
    let mut findings = Findings::default();
    let ways = [
        ("duckdb_transform", "DuckDB, json_transform and payload, to one Parquet file", hinted),
        ("duckdb_plain", "DuckDB, read_json to one Parquet file", inferred),
        ("polars", "Polars, scan_ndjson to write_delta", inferred),
        ("pyarrow", "pyarrow and deltalake", inferred),
    ];
    #[allow(clippy::cast_precision_loss)]
    let megabytes = bytes as f64 / 1e6;
    for (way, name, ours) in ways {
        let keeps_payload = way == "duckdb_transform";
        let (bar, least) = if keeps_payload { ("at least 2 times as fast", 2.0) } else { ("faster", 1.0) };
        // A peer that does not take the input, for memory or otherwise, takes no figure from the others.
        let theirs = match peer(bench, way, &landing, &folder.path().join("theirs")) {
            Ok(theirs) => theirs,
            Err(error) => {
                findings.note(format!("{name}: {error}"));
                continue;
            }
        };
        let ratio = theirs.seconds / ours.seconds;
        findings.rows.push(Row {
            work: format!(
                "bulk load of {:.1} GB of updates, {}",
                megabytes / 1e3,
                if keeps_payload { "columns given" } else { "inferred" }
            ),
            ours: told(ours, megabytes),
            beside: format!("{name}: {}", told(theirs, megabytes)),
            bar: bar.to_owned(),
            measured: format!("{ratio:.2} times"),
            reached: Some(ratio >= least),
        });
    }
    let peak = hinted.peak_megabytes.max(inferred.peak_megabytes);
    findings.rows.push(Row {
        work: "bulk load, memory".to_owned(),
        ours: format!("{peak:.0} MB at most"),
        beside: "default settings".to_owned(),
        bar: format!("under {MEMORY_MEGABYTES:.0} MB"),
        measured: format!("{peak:.0} MB"),
        reached: Some(peak < MEMORY_MEGABYTES),
    });
    findings.note(format!(
        "{rows} updates in {FILES} files; ours is fsynced, committed to a Delta table, with the whole record"
    ));
    Ok(findings)
}

fn told(cost: Cost, megabytes: f64) -> String {
    format!(
        "{:.1} s, {:.0} MB/s, {:.1} s of CPU, {:.0} MB",
        cost.seconds,
        megabytes / cost.seconds,
        cost.cpu_seconds,
        cost.peak_megabytes
    )
}

/// `lakegram run` on the folder, from nothing.
fn ours(folder: &Path, bronze: &str) -> Result<Cost> {
    for left in ["data/bronze", "checkpoints"] {
        let _none = fs::remove_dir_all(folder.join(left));
    }
    fs::create_dir_all(folder.join("pipelines"))?;
    let text = format!(
        "version = 1\nname = \"load\"\n[source]\npath = \"landing\"\nsettle = \"0s\"\n[bronze]\ntable = \"bronze/load\"\n{bronze}"
    );
    fs::write(folder.join("pipelines/load.toml"), text)?;
    let mut command = lakegram(folder, &["run", "load", "--deadline", "1h"]);
    command.env("LAKEGRAM_PIPELINES", folder.join("pipelines")).env("LAKEGRAM_CHECKPOINTS", folder.join("checkpoints"));
    let began = Instant::now();
    let mut child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn()?;
    let mut used = usage(child.id())?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        // The last look before the end is as near as it gets; the peak only grows.
        let now = usage(child.id())?;
        if now.peak_resident_bytes > 0 {
            used = now;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let seconds = began.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("lakegram run ended with {status}").into());
    }
    #[allow(clippy::cast_precision_loss)]
    let peak_megabytes = used.peak_resident_bytes as f64 / 1e6;
    Ok(Cost { seconds, cpu_seconds: used.cpu_seconds, peak_megabytes })
}

fn peer(bench: &Bench, way: &str, landing: &Path, target: &Path) -> Result<Cost> {
    let output = Command::new(&bench.python).arg(bench.peer("load.py")).arg(way).arg(landing).arg(target).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "ended with {}: {}",
            output.status,
            said.lines().last().unwrap_or_default().chars().take(200).collect::<String>()
        )
        .into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Updates of several kinds and scripts, in files of one size; returns how many.
fn generate(landing: &Path, bytes: usize) -> Result<usize> {
    fs::create_dir_all(landing)?;
    let words: Vec<&str> =
        "the quick brown fox how late is it wie geht es dir привет как дела спасибо meeting order".split(' ').collect();
    let (mut number, mut state) = (0_usize, 0x9e37_79b9_7f4a_7c15_u64);
    let mut dice = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap_or(0) % below
    };
    for file in 0..FILES {
        let mut writer = BufWriter::new(File::create(landing.join(format!("updates-{file:02}.jsonl")))?);
        let mut written = 0;
        while written < bytes / FILES {
            let text: Vec<&str> = (0..3 + dice(38)).map(|_| words[dice(words.len())]).collect();
            let user = 100_000_000 + dice(50_000);
            let person = format!(
                r#"{{"id":{user},"is_bot":false,"first_name":"Zoë","username":"user{user}","language_code":"en"}}"#
            );
            let chat = format!(r#"{{"id":{user},"first_name":"Zoë","username":"user{user}","type":"private"}}"#);
            let more = match dice(20) {
                0 => format!(
                    r#","reply_to_message":{{"message_id":{number},"from":{person},"chat":{chat},"date":1760000000,"text":"before"}}"#
                ),
                1 | 2 => format!(
                    r#","photo":[{{"file_id":"AgACAgIAAxkBAAI{number:08}","file_unique_id":"AQAD{number:08}","file_size":{},"width":320,"height":240}}]"#,
                    dice(90_000)
                ),
                3 => r#","entities":[{"offset":0,"length":4,"type":"bold"}]"#.to_owned(),
                _ => String::new(),
            };
            let message = format!(
                r#"{{"message_id":{number},"from":{person},"chat":{chat},"date":{},"text":"{}"{more}}}"#,
                1_760_000_000 + number / 10,
                text.join(" ")
            );
            let line = match dice(20) {
                0 => format!(
                    r#"{{"update_id":{},"callback_query":{{"id":"{number}","from":{person},"message":{message},"chat_instance":"{user}","data":"CONNECT"}}}}"#,
                    700_000_000 + number
                ),
                _ => format!(r#"{{"update_id":{},"message":{message}}}"#, 700_000_000 + number),
            };
            writeln!(writer, "{line}")?;
            written += line.len() + 1;
            number += 1;
        }
        writer.flush()?;
    }
    Ok(number)
}
