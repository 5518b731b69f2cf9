//! Cleaning the lanes: which segments no loader looks at any more, and the table proves to be ingested.
//!
//! A segment is cleaned if it is so far below the committed position of its lane that no look-back reaches it, the
//! table has old enough rows from it, and its lane has a newer segment, after which a receiver continues. A segment
//! without rows, which only has redeliveries, stays; it is small.

use std::collections::HashSet;
use std::time::Duration;

use object_store::path::Path;
use tokio_util::sync::CancellationToken;

use super::lane::{self, Found, LaneId};
use crate::clock::{Clock, Timestamp};
use crate::error::{Context, ErrorKind, Result};
use crate::id::Name;
use crate::load::clean::{Archive, Candidate, CleanMetrics, Cleaned, Cleaner, Sites, rows_of};
use crate::pipeline::Pipeline;
use crate::pipeline::clean::LOOK_BACK;
use crate::storage::{Storage, StorageKey};
use crate::table::{DataFile, LakeTable, Within};
use crate::telemetry::Telemetry;

/// What cleaning works with.
#[derive(Clone, Debug)]
pub struct CleanOptions {
    /// The store below `LAKEGRAM_DATA`.
    pub storage: Storage,
    /// The pipeline.
    pub pipeline: Pipeline,
    /// Time.
    pub clock: Clock,
    /// Metrics.
    pub telemetry: Telemetry,
}

/// A pass over the lanes.
struct Pass<'a> {
    storage: &'a Storage,
    table: LakeTable,
    files: Vec<DataFile>,
    cleaner: Cleaner,
    /// What was ingested before this is old enough.
    limit: Timestamp,
    /// How far the store's clock may be ahead of ours.
    settle: Duration,
}

/// Deletes or moves the segments that were ingested long enough ago, as `bronze.clean_source` says; one pass, until
/// `stop`. A dry run changes nothing.
///
/// # Errors
/// Configuration when segments cannot be moved to the configured folder; otherwise when the store fails or the table
/// cannot be read.
pub async fn clean(options: CleanOptions, is_dry: bool, stop: &CancellationToken) -> Result<Cleaned> {
    let CleanOptions { storage, pipeline, clock, telemetry } = options;
    let (settings, mut cleaned) = (&pipeline.bronze, Cleaned::default());
    // Wrong settings are reported even if there is nothing to clean yet.
    let archive = open_archive(&storage, &pipeline, &pipeline.name)?;
    let path = Path::parse(&settings.table).context(ErrorKind::Configuration, "bronze.table")?;
    let table = match settings.clean_source.is_on() {
        true => LakeTable::open_existing(&storage, &path, &clock).await?,
        false => None,
    };
    let Some(table) = table else { return Ok(cleaned) };
    let metrics = CleanMetrics::new(&telemetry);
    let mut pass = Pass {
        files: table.files().await?,
        table,
        cleaner: Cleaner { storage: storage.clone(), archive, is_dry, metrics },
        storage: &storage,
        limit: settings.clean_source.loaded_before(clock.now()),
        settle: settings.settle,
    };
    let mut owner = pipeline.name.clone();
    for (lane, position) in pass.positions() {
        // A lane may be in the folder of a former pipeline.
        if lane.pipeline != owner {
            pass.cleaner.archive = open_archive(&storage, &pipeline, &lane.pipeline)?;
            owner.clone_from(&lane.pipeline);
        }
        pass.clean_lane(&lane, position, &mut cleaned, stop).await?;
    }
    Ok(cleaned)
}

/// Where segments are moved to from the raw folder of `owner`, the pipeline or a former one; `None` if they are not moved.
fn open_archive(storage: &Storage, pipeline: &Pipeline, owner: &Name) -> Result<Option<Archive>> {
    let folder = StorageKey::RawPipeline { pipeline: owner.clone() }.path();
    let tables = [pipeline.bronze.table.as_str(), &pipeline.silver.table, &pipeline.reply.table];
    let others: Vec<&str> = tables.into_iter().chain(["raw", "intents", "_lakegram"]).collect();
    let sites = Sites { data: storage, source: folder.as_ref(), folder: &folder, others: &others };
    pipeline.bronze.clean_source.to.as_deref().map(|to| Archive::open(sites, to)).transpose()
}

impl Pass<'_> {
    /// The position of each lane.
    fn positions(&self) -> Vec<(LaneId, Timestamp)> {
        lane::positions(&self.table)
    }

    /// Walks a lane from its oldest segment, page by page.
    async fn clean_lane(
        &self,
        lane: &LaneId,
        position: Timestamp,
        cleaned: &mut Cleaned,
        stop: &CancellationToken,
    ) -> Result<()> {
        let limit = self.limit.min(position.minus(LOOK_BACK));
        let (mut after, mut held): (_, Option<Found>) = (None, None);
        while !stop.is_cancelled() {
            let page = lane::list(self.storage, lane, after.as_ref()).await?;
            let is_past = page.found.last().is_some_and(|found| found.key.micros >= limit);
            // Each is held back until a newer one has been seen.
            let older = page.found.into_iter().filter_map(|found| held.replace(found));
            let older: Vec<Found> = older.filter(|found| found.key.micros < limit).collect();
            let candidates = self.proven(older, cleaned).await?;
            self.cleaner.clean(candidates, cleaned, stop).await?;
            after = page.next;
            if after.is_none() || is_past {
                break;
            }
        }
        Ok(())
    }

    /// Those segments, in order, of which the table has old enough rows.
    async fn proven(&self, segments: Vec<Found>, cleaned: &mut Cleaned) -> Result<Vec<Candidate>> {
        let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return Ok(Vec::new()) };
        let (from, to) = (first.key.micros.as_micros(), last.key.micros.as_micros());
        let within = Within { column: "_received_at", from, to };
        let asked: HashSet<&str> = segments.iter().map(|found| found.path.as_ref()).collect();
        let key = |file: &str| asked.get(file).copied();
        let ingested = rows_of(&self.table, &self.files, within, key).await?;
        let mut candidates = Vec::new();
        for found in &segments {
            // The loader of lanes never shortens a record.
            let ingested_at = ingested.get(found.path.as_ref()).map(|rows| rows.ingested_at);
            let Some(ingested_at) = ingested_at.filter(|moment| *moment < self.limit) else { continue };
            if found.modified > ingested_at.plus(self.settle) {
                cleaned.changed += 1;
                continue;
            }
            candidates.push(Candidate {
                path: found.path.clone(),
                size_bytes: found.size_bytes,
                modified: found.modified,
                untouched_since: None,
            });
        }
        Ok(candidates)
    }
}
