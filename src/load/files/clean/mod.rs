//! Cleaning the source: which of its files the table proves to be loaded, long enough ago and unchanged.
//!
//! A file is cleaned when the table has old enough rows from it and nothing suggests that it has changed since: its
//! stamp is the one it was loaded with or, if that is unknown, it is entirely older than those rows. A file without
//! rows in the table stays, even an empty one, and so does one of which a record was too large to be kept whole.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use object_store::path::Path;
use tokio_util::sync::CancellationToken;

use super::discover::{Found, Source, Walk};
use super::memo;
use super::options::FilesOptions;
use super::owner;
use super::part::INGESTED_AT;
use super::seen::{PathHash, Seen, Stamp, hash_of};
use crate::clock::Timestamp;
use crate::error::{Context, ErrorKind, Result};
use crate::load::clean::{Archive, Candidate, CleanMetrics, Cleaned, Cleaner, Rows, Sites, rows_of};
use crate::table::{LakeTable, Within};

/// Source files looked up in the table at a time.
const ROUND: usize = if cfg!(test) { 4 } else { 200_000 };
/// The granularity of last-modified times in stores, and of change times in file systems.
const MODIFIED_GRAIN: Duration = Duration::from_secs(1);
const TOUCHED_GRAIN: Duration = Duration::from_millis(100);

/// A pass over a source.
struct Pass {
    source: Source,
    table: LakeTable,
    cleaner: Cleaner,
    memo: std::path::PathBuf,
    /// Rows ingested before this are old enough.
    limit: Timestamp,
    /// A file that changed this shortly before its rows were made may have changed after.
    margin: Duration,
    /// Whether files were loaded more than once, so that only the newest rows tell when.
    has_overwrites: bool,
}

/// What is known about a file.
#[derive(Clone, Copy, Debug)]
struct Proof {
    /// `None` if it has none.
    rows: Option<Rows>,
    /// The stamp it was loaded with.
    stamp: Stamp,
}

type Asked = HashMap<PathHash, Proof>;

/// Deletes or moves the source files that were loaded long enough ago, as the settings say; one pass, until `stop`. A
/// dry run changes nothing.
///
/// # Errors
/// Configuration when files cannot be moved to the configured folder; otherwise when the store fails or the table
/// cannot be read.
pub async fn clean(options: FilesOptions, is_dry: bool, stop: &CancellationToken) -> Result<Cleaned> {
    let mut cleaned = Cleaned::default();
    let (now, clock) = (options.clock.now(), options.clock.clone());
    let Some(pass) = Pass::open(options, now, is_dry).await? else { return Ok(cleaned) };
    let mut walk = pass.source.walk();
    while !stop.is_cancelled() {
        let files = pass.next_round(&mut walk, clock.now()).await?;
        if files.is_empty() {
            break;
        }
        let asked = pass.ask(&files).await?;
        let candidates = files.into_iter().filter_map(|file| pass.judge(file, &asked, &mut cleaned)).collect();
        pass.cleaner.clean(candidates, &mut cleaned, stop).await?;
    }
    Ok(cleaned)
}

impl Pass {
    /// `None` if nothing is to be cleaned, or nothing was ever loaded.
    async fn open(options: FilesOptions, now: Timestamp, is_dry: bool) -> Result<Option<Self>> {
        let FilesOptions { data, pipeline, checkpoints, clock, telemetry, .. } = options;
        let mut settings = pipeline.source;
        let wanted = settings.clean_source.clone();
        if !wanted.is_on() {
            return Ok(None);
        }
        // A file too old to be loaded now may have been loaded when it was not.
        (settings.max_file_age, settings.modified_after, settings.modified_before) = (None, None, None);
        let source = Source::new(&data, &settings)?;
        let table = pipeline.bronze.table.as_str();
        let sites = Sites { data: &data, source: &settings.path, folder: &source.folder, others: &[table] };
        let archive = wanted.to.as_deref().map(|to| Archive::open(sites, to)).transpose()?;
        let table = Path::parse(table).context(ErrorKind::Configuration, "bronze.table")?;
        let Some(table) = LakeTable::open_existing(&data, &table, &clock).await? else { return Ok(None) };
        owner::check(&table, &owner::identity(&pipeline.name, &source))?;
        let metrics = CleanMetrics::new(&telemetry);
        let is_local = source.storage.local_root().is_some();
        Ok(Some(Self {
            cleaner: Cleaner { storage: source.storage.clone(), archive, is_dry, metrics },
            memo: memo::path_of(&checkpoints, pipeline.name.as_str()),
            limit: wanted.loaded_before(now),
            margin: MODIFIED_GRAIN.max(if is_local { settings.settle } else { Duration::ZERO }),
            has_overwrites: settings.allow_overwrites,
            source,
            table,
        }))
    }

    /// The next files that are old enough to have been loaded long enough ago.
    async fn next_round(&self, walk: &mut Walk, now: Timestamp) -> Result<Vec<Found>> {
        let (nothing, mut round) = (Seen::default(), Vec::new());
        while round.len() < ROUND {
            let files = walk.next_batch(&self.source, &nothing, now, (ROUND, u64::MAX)).await?;
            if files.is_empty() {
                break;
            }
            round.extend(files.into_iter().filter(|file| file.modified < self.limit && file.size_bytes > 0));
        }
        Ok(round)
    }

    /// What the table, and its loader's memo, say about these files.
    async fn ask(&self, files: &[Found]) -> Result<Asked> {
        let nothing = Proof { rows: None, stamp: Stamp::UNKNOWN };
        let mut asked: Asked = files.iter().map(|file| (hash_of(file.path.as_ref()), nothing)).collect();
        let oldest = files.iter().map(|file| file.modified).min().unwrap_or_default();
        let newest = if self.has_overwrites { i64::MAX } else { self.limit.as_micros() };
        let within = Within { column: INGESTED_AT, from: oldest.as_micros(), to: newest };
        let key = |file: &str| Some(hash_of(file)).filter(|hash| asked.contains_key(hash));
        let found = rows_of(&self.table, &self.table.files().await?, within, key).await?;
        for (hash, rows) in found {
            if let Some(proof) = asked.get_mut(&hash) {
                proof.rows = Some(rows);
            }
        }
        self.read_stamps(&mut asked);
        Ok(asked)
    }

    /// The stamps that files were loaded with. Unknown if the memo belongs to another table or source.
    fn read_stamps(&self, asked: &mut Asked) {
        let mut stamps = Vec::new();
        let read = || {
            memo::read_each(&self.memo, |hash, stamp| {
                if asked.contains_key(&hash) {
                    stamps.push((hash, stamp));
                }
            })
        };
        let Some(origin) = tokio::task::block_in_place(read) else { return };
        if origin.table_id != self.table.table_id() || origin.source != self.source.name {
            return;
        }
        for (hash, stamp) in stamps {
            if let Some(proof) = asked.get_mut(&hash) {
                proof.stamp = stamp;
            }
        }
    }

    /// Whether a file is to be cleaned; counts it if it may have changed since it was loaded, or is not in the table as
    /// a whole.
    fn judge(&self, file: Found, asked: &Asked, cleaned: &mut Cleaned) -> Option<Candidate> {
        let Proof { rows, stamp } = *asked.get(&hash_of(file.path.as_ref()))?;
        let is_known = stamp != Stamp::UNKNOWN;
        let mut has_changed = is_known && stamp != Stamp::of(file.size_bytes, file.modified);
        let rows = rows.filter(|rows| rows.ingested_at < self.limit);
        if let Some(Rows { ingested_at, .. }) = rows {
            let margin = if is_known { Duration::ZERO } else { self.margin };
            has_changed |= file.modified >= ingested_at.minus(margin);
        }
        if has_changed {
            tracing::debug!(path = %file.path, "the file may have changed since it was loaded; keeping it");
            cleaned.changed += 1;
            return None;
        }
        let Rows { ingested_at, are_shortened } = rows?;
        if are_shortened {
            cleaned.keep_shortened(&file.path);
            return None;
        }
        let untouched_since = (!is_known).then_some(ingested_at.minus(TOUCHED_GRAIN));
        let Found { path, size_bytes, modified, .. } = file;
        Some(Candidate { path, size_bytes, modified, untouched_since })
    }
}
