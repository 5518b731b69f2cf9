//! Taking over the table of a loader that was renamed or whose source has moved: first shows what would happen, then does
//! it.

use serde::Serialize;

use super::discover::Source;
use super::ledger::{FilesLedger, LedgerOptions};
use super::options::FilesOptions;
use super::{owner, survey};
use crate::error::Result;

/// What adopting the table of a loader would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FilesPlan {
    /// The loader.
    pub pipeline: String,
    /// The folder of the table.
    pub table: String,
    /// Why the table is not the loader's own; `None` if it is, or if there is none: then there is nothing to adopt.
    pub problem: Option<String>,
    /// The source, as the table will name it.
    pub source: String,
    /// Files that the table has rows from.
    pub loaded_files: u64,
    /// Files that the next run would load. A file is recognized by its path.
    pub would_be_loaded: u64,
}

/// What adopting the table of a loader would do. Changes nothing.
///
/// # Errors
/// When the store fails. Configuration when the table is no loader's: nothing makes it match.
pub async fn plan(options: FilesOptions) -> Result<FilesPlan> {
    let ledger_options = LedgerOptions::new(&options, &Source::new(&options.data, &options.pipeline.source)?)?;
    let wanted = &ledger_options.identity;
    let mut plan = FilesPlan {
        pipeline: wanted.pipeline.to_string(),
        table: ledger_options.table.to_string(),
        problem: None,
        source: wanted.source.clone().unwrap_or_default(),
        loaded_files: 0,
        would_be_loaded: 0,
    };
    let Some(table) = FilesLedger::table(&ledger_options).await? else { return Ok(plan) };
    plan.problem = owner::to_adopt(&table, wanted)?;
    if plan.problem.is_some() {
        let found = survey::survey_any(options).await?;
        (plan.loaded_files, plan.would_be_loaded) = (found.loaded_files, found.waiting_files);
    }
    Ok(plan)
}

/// Makes the table the loader's own. May be repeated.
///
/// # Errors
/// As [`plan`].
pub async fn adopt(options: FilesOptions) -> Result<()> {
    let ledger_options = LedgerOptions::new(&options, &Source::new(&options.data, &options.pipeline.source)?)?;
    let wanted = &ledger_options.identity;
    let Some(mut table) = FilesLedger::table(&ledger_options).await? else { return Ok(()) };
    match owner::to_adopt(&table, wanted)? {
        Some(_) => table.identify(wanted, &[]).await,
        None => Ok(()),
    }
}
