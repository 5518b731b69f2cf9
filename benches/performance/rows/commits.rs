//! The commit of one row, at the beginning of a table's life and 100,000 versions later, beside delta-rs.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deltalake::DeltaTable;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::writer::{DeltaWriter, RecordBatchWriter};
use lakegram::schema::MESSAGES;
use lakegram::storage::Storage;
use lakegram::table::TableRole;

use crate::support::figures::Samples;
use crate::support::history::{History, Message, storage_without_fsync};
use crate::support::report::{Findings, Row};
use crate::support::store::{Tally, TimedStore};
use crate::support::{Bench, Result};

const TABLE: &str = "bronze/telegram_messages";
/// Commits before the first that is timed: the first version that counts is about 10.
const FIRST_VERSIONS: i64 = 10;

/// A table that is appended to, with what goes to its store.
struct Subject {
    history: History,
    tally: Tally,
    samples: Samples,
    next_update_id: i64,
}

impl Subject {
    async fn open(storage: Storage) -> Result<Self> {
        let tally = Tally::default();
        let storage = storage.decorated(|inner| Arc::new(TimedStore::new(inner, &tally)));
        let history = History::open(&storage, TABLE, MESSAGES, TableRole::Bronze).await?;
        Ok(Self { history, tally, samples: Samples::default(), next_update_id: 1 })
    }

    /// Commits up to a version, untimed.
    async fn reach(&mut self, version: i64) -> Result<()> {
        while self.history.table.version() < version {
            self.commit().await?;
        }
        self.tally.clear();
        Ok(())
    }

    async fn commit(&mut self) -> Result<Duration> {
        let rows = message(self.next_update_id).row(&self.history.table.schema())?;
        self.next_update_id += 1;
        let began = Instant::now();
        self.history.append(rows, Vec::new()).await?;
        Ok(began.elapsed())
    }

    async fn time(&mut self, commits: u32) -> Result<()> {
        for _ in 0..commits {
            let took = self.commit().await?;
            self.samples.push(took);
        }
        Ok(())
    }
}

pub(crate) async fn run(bench: &Bench) -> Result<Findings> {
    let (high, peer_version) = bench.scaled((100_000, 1_000), (2_000, 200));
    let (rounds, commits) = bench.scaled((10_u32, 100_u32), (4, 50));
    let folder = bench.folder()?;
    let old_root = folder.path().join("old");
    let mut old = Subject::open(storage_without_fsync(&old_root)?).await?;
    old.reach(high).await?;
    // In turn, so that the weather of the machine meets both.
    let mut young = Samples::default();
    for round in 0..rounds {
        let mut fresh = Subject::open(storage_without_fsync(&folder.path().join(format!("young-{round}")))?).await?;
        fresh.reach(FIRST_VERSIONS).await?;
        fresh.time(commits).await?;
        young.append(fresh.samples);
        old.time(commits).await?;
    }
    let (calls, lists) = (old.tally.text(rounds * commits), old.tally.count("list"));
    let mut durable = Subject::open(Storage::open(&old_root.to_string_lossy())?).await?;
    durable.next_update_id = old.next_update_id;
    durable.time(commits).await?;
    let peer = delta_rs(&folder.path().join("peer"), peer_version, bench.scaled(100, 10)).await?;
    let mut findings = Findings::default();
    findings.note(format!("version {high}, a commit: {calls}"));
    findings.note(format!("the same with every put fsynced, at version {high}: {}", durable.samples.text()));
    findings.note(format!("delta-rs, RecordBatchWriter, default properties, version {peer_version}: {}", peer.text()));
    findings.rows = rows(&Measured { high, young, old: old.samples, lists, durable: durable.samples, peer });
    Ok(findings)
}

struct Measured {
    high: i64,
    young: Samples,
    old: Samples,
    lists: u32,
    durable: Samples,
    peer: Samples,
}

fn rows(measured: &Measured) -> Vec<Row> {
    let Measured { high, young, old, lists, durable, peer } = measured;
    let growth = old.median_ms() / young.median_ms();
    let faster = peer.median_ms() / old.median_ms();
    let fsynced = format!("{} ({:.2} ms fsynced)", old.text(), durable.median_ms());
    let work = format!("commit of one row, version {high}");
    vec![
        Row {
            work: work.clone(),
            ours: fsynced.clone(),
            beside: format!("at version {FIRST_VERSIONS}: {}", young.text()),
            bar: "at most 1.2 times, no LIST".to_owned(),
            measured: format!("{growth:.2} times, {lists} LISTs"),
            reached: Some(growth <= 1.2 && *lists == 0),
        },
        Row {
            work,
            ours: fsynced,
            beside: format!("delta-rs, not fsynced either: {}", peer.text()),
            bar: "at least 50 times faster".to_owned(),
            measured: format!("{faster:.0} times"),
            reached: Some(faster >= 50.0),
        },
    ]
}

/// The default commit of delta-rs for the same rows, from `version` on.
async fn delta_rs(folder: &Path, version: i64, commits: u32) -> Result<Samples> {
    std::fs::create_dir_all(folder)?;
    let url = url::Url::from_directory_path(folder).map_err(|()| "no URL for the peer's folder")?;
    let schema = lakegram::schema::built_in(MESSAGES).ok_or("no such schema")?;
    let columns: StructType = schema.as_ref().try_into_kernel()?;
    let created = DeltaTable::try_from_url(url).await?.create().with_columns(columns.fields().cloned()).await;
    let mut table = created?;
    let mut writer = RecordBatchWriter::for_table(&table)?;
    let mut samples = Samples::default();
    for number in 1..=version + i64::from(commits) {
        let rows = message(number).row(&schema)?;
        let began = Instant::now();
        writer.write(rows).await?;
        writer.flush_and_commit(&mut table).await?;
        if number > version {
            samples.push(began.elapsed());
        }
    }
    Ok(samples)
}

fn message(update_id: i64) -> Message {
    let received_micros = 1_760_000_000_000_000 + update_id;
    Message {
        update_id,
        chat_id: update_id % 1_000,
        received_micros,
        source_file: format!("raw/telegram/4839574812/bench-lane/2025-10-09/08/{received_micros:020}.json"),
        version_before: 0,
        status: "",
    }
}
