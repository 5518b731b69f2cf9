//! What a loader needs and how far it is, as far as a listing and the table can tell.

use std::sync::Arc;

use object_store::path::Path;
use serde::Serialize;

use super::FilesStage;
use super::columns::Rules;
use super::discover::Source;
use super::options::FilesOptions;
use super::owner;
use super::part::{RESERVED, without_ours};
use super::seen::Seen;
use super::watch::{self, Watched};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::pipeline::files::FilesPipeline;
use crate::table::LakeTable;

/// Files listed between two clock checks.
const FILES_AT_ONCE: usize = 1_000;

/// The state of a loader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FilesSurvey {
    /// Files listed, wanted or not.
    pub listed_files: u64,
    /// Files that are loaded, whether they still exist or not.
    pub loaded_files: u64,
    /// Files that the next run will load, including those that cannot be read.
    pub waiting_files: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Files that may still be growing and are loaded later.
    pub growing_files: u64,
    /// Files that have changed since they were loaded and are not loaded again.
    pub changed_files: u64,
}

/// Surveys a loader: one listing, and what the table says is loaded.
///
/// # Errors
/// When the store fails or the table is not understood.
pub async fn survey(options: FilesOptions) -> Result<FilesSurvey> {
    survey_stage(FilesStage::open(options).await?).await
}

/// The same for a table that may belong to another loader.
pub(super) async fn survey_any(options: FilesOptions) -> Result<FilesSurvey> {
    survey_stage(FilesStage::open_any(options).await?).await
}

async fn survey_stage(mut stage: FilesStage) -> Result<FilesSurvey> {
    let now = stage.clock.now();
    if !stage.pipeline.source.include_existing && stage.ledger.as_ref().is_none_or(|ledger| ledger.from().is_none()) {
        // Its first start is still to come, and will leave out the existing files.
        Arc::make_mut(&mut stage.source).only_after(now);
    }
    let nothing = Seen::default();
    let seen = stage.ledger.as_ref().map_or(&nothing, |ledger| &ledger.seen);
    let mut found = FilesSurvey { loaded_files: seen.len() as u64, ..FilesSurvey::default() };
    let mut walk = stage.source.walk();
    loop {
        let files = walk.next_batch(&stage.source, seen, now, (FILES_AT_ONCE, u64::MAX)).await?;
        if files.is_empty() {
            break;
        }
        found.waiting_files += files.len() as u64;
        found.waiting_bytes += files.iter().map(|file| file.size_bytes).sum::<u64>();
    }
    (found.listed_files, found.growing_files, found.changed_files) =
        (walk.tally.listed, walk.tally.fresh, walk.tally.changed);
    Ok(found)
}

/// Checks each thing a loader needs; returns the verdicts, with a fix where there is one.
pub async fn check(options: &FilesOptions) -> Vec<(&'static str, Result<String>)> {
    let rules = Rules::new(&options.pipeline.bronze);
    let mut verdicts = vec![("source", check_source(options).await)];
    if let Some(watched) = watched(options) {
        verdicts.push(("watch", watch::check(watched).await));
    }
    verdicts.push(match rules {
        Ok(rules) => ("table", check_table(options, &rules).await),
        Err(error) => ("schema hints", Err(error)),
    });
    verdicts
}

async fn check_source(options: &FilesOptions) -> Result<String> {
    let settings = &options.pipeline.source;
    let source = Source::new(&options.data, settings)?;
    if let Some(folder) = source.local_folder()
        && !folder.is_dir()
    {
        let folder = folder.display();
        return Err(Error::configuration(format!(
            "source.path: folder {folder} does not exist; create it or fix the path"
        )));
    }
    let mut walk = source.walk();
    let first = walk.next_batch(&source, &Seen::default(), options.clock.now(), (1, u64::MAX)).await?;
    match (first.first(), walk.tally.listed, &settings.glob) {
        (Some(file), ..) => Ok(format!("can be listed; {} would be loaded", file.path)),
        (None, 0, _) => Ok("can be listed; there are no files yet".to_owned()),
        (None, listed, Some(glob)) if walk.tally.fresh == 0 => Err(Error::configuration(format!(
            "none of {listed} files would be loaded; does source.glob = {glob:?} match paths below the folder? Hidden, \
             unfinished and old ones are left out too"
        ))),
        (None, listed, _) => {
            Ok(format!("can be listed; all {listed} files are hidden, unfinished, too old or still growing"))
        }
    }
}

fn watched(options: &FilesOptions) -> Option<Watched> {
    let source = Source::new(&options.data, &options.pipeline.source).ok()?;
    let root = source.local_folder().filter(|root| options.pipeline.source.watch && root.is_dir())?;
    Some(Watched { root, filter: source.filter, own: Vec::new() })
}

async fn check_table(options: &FilesOptions, rules: &Rules) -> Result<String> {
    let FilesOptions { data, pipeline, clock, .. } = options;
    let path = Path::parse(&pipeline.bronze.table).context(ErrorKind::Configuration, "bronze.table")?;
    let Some(table) = LakeTable::open_existing(data, &path, clock).await? else {
        rules.first_columns(None)?;
        return Ok(format!("{path} does not exist yet; the first files create it"));
    };
    owner::check(&table, &owner::identity(&pipeline.name, &Source::new(data, &pipeline.source)?))?;
    is_loaders(pipeline, &table)?;
    let columns = without_ours(&table.schema(), pipeline.bronze.payload);
    if let Some(mismatch) = rules.unlike(&columns)? {
        return Err(Error::configuration(format!(
            "bronze.schema_hints: {mismatch} in table {path}, and types never change; remove the hint, or load into another table"
        )));
    }
    Ok(format!(
        "{path} is at version {} and matches; it has {} record columns",
        table.version(),
        columns.fields().len()
    ))
}

/// Whether a table was created by a loader.
fn is_loaders(pipeline: &FilesPipeline, table: &LakeTable) -> Result<()> {
    let schema = table.schema();
    match RESERVED.into_iter().find(|name| schema.column_with_name(name).is_none()) {
        None => Ok(()),
        Some(name) => Err(Error::configuration(format!(
            "table {} has no column {name}, so no loader created it; use another table in bronze.table",
            pipeline.bronze.table
        ))),
    }
}
