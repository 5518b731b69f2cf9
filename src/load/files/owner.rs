//! Whose table it is: a loader appends only to its own, fed from the source it was made for.
//!
//! Two loaders on one table would each miss what the other's source has, and a source under another path would be loaded
//! again. So a table that belongs to somebody else is refused, until a person adopts it.

use super::discover::Source;
use crate::error::{Error, Result};
use crate::id::Name;
use crate::table::{Identity, LakeTable, TableRole, TxnId};

/// Why a table is not a loader's own.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    /// It may be adopted.
    Other(String),
    /// It is not a loader's table.
    Stage(String),
}

/// What the table of a loader says about itself.
pub(super) fn identity(pipeline: &Name, source: &Source) -> Identity {
    Identity { source: Some(source.canonical()), ..Identity::new(pipeline, TableRole::Bronze, None, None) }
}

/// Whether a table may be used by the loader that `wanted` names.
///
/// # Errors
/// A configuration error that says what the table is, what was asked for, and how to fix it.
pub(super) fn check(table: &LakeTable, wanted: &Identity) -> Result<()> {
    to_adopt(table, wanted)?.map_or(Ok(()), |what| {
        Err(Error::configuration(format!(
            "{what}; correct the pipeline file, or run `lakegram adopt {}` to see what adopting does",
            wanted.pipeline
        )))
    })
}

/// Why a table is not the loader's own, although it may become it.
///
/// # Errors
/// Configuration when it is no loader's table: nothing makes it match.
pub(super) fn to_adopt(table: &LakeTable, wanted: &Identity) -> Result<Option<String>> {
    match problem(table, wanted)? {
        None => Ok(None),
        Some(Problem::Other(what)) => Ok(Some(what)),
        Some(Problem::Stage(what)) => Err(Error::configuration(format!("{what}; use another table in bronze.table"))),
    }
}

/// Why a table is not the one that `wanted` names. One that does not say whose it is passes, unless a stage of a bot or a
/// loader of release 0.1 under another name has appended to it.
fn problem(table: &LakeTable, wanted: &Identity) -> Result<Option<Problem>> {
    let (path, pipeline) = (table.path(), &wanted.pipeline);
    let Some(identity) = table.identity()? else { return Ok(unmarked(table, wanted)) };
    let Identity { pipeline: its, role, source, .. } = identity;
    let Some(source) = source else {
        let what = format!("table {path} is the {role} table of pipeline `{its}`, not one of loader `{pipeline}`");
        return Ok(Some(Problem::Stage(what)));
    };
    if its != *pipeline {
        let what = format!("table {path} belongs to loader `{its}`, but this is `{pipeline}`");
        return Ok(Some(Problem::Other(what)));
    }
    let asked = wanted.source.as_deref().unwrap_or_default();
    let moved = || format!("table {path} is fed from source {source}, but source.path is {asked}");
    Ok((source != asked).then(|| Problem::Other(moved())))
}

fn unmarked(table: &LakeTable, wanted: &Identity) -> Option<Problem> {
    let (path, pipeline) = (table.path(), &wanted.pipeline);
    let is_fed = |id: &TxnId| matches!(id, TxnId::Position { .. } | TxnId::LookBack | TxnId::Watermark { .. });
    let has_stage = [TableRole::Silver, TableRole::Reply].into_iter().any(|role| table.fence(role) > 0);
    if has_stage || table.progress().keys().any(is_fed) {
        return Some(Problem::Stage(format!("table {path} is one of a bot's pipeline, not of loader `{pipeline}`")));
    }
    let names = table.legacy_pipelines();
    let other = names.iter().find(|name| *name != pipeline)?;
    Some(Problem::Other(format!("table {path} was created for loader `{other}`, but this is `{pipeline}`")))
}
