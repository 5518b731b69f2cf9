//! Whether a pipeline's tables are its own and belong together: checked before any stage opens one of them.
//!
//! Paths and names are written by people, who mistype them, rename pipelines and remove folders. A table's properties
//! say what it belongs to, and a record beside the tables says which tables a pipeline has. If the two do not match
//! what was asked for, the stage is refused: nothing is asked or sent until a person has decided what is meant
//! ([`adopt`]).

pub mod adopt;
mod record;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use object_store::path::Path;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BotId, Name};
use crate::panic;
use crate::storage::Storage;
use crate::table::{Identity, LakeTable, OwnTable, TableRole, TableSpec};

pub use self::record::Record;

/// What a pipeline's tables must be.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The pipeline.
    pub pipeline: Name,
    /// The bot; `None` if the command knows no token: then it is not checked.
    pub bot_id: Option<BotId>,
    /// Bronze, silver and replies.
    pub specs: [TableSpec; 3],
}

/// A table as it was found.
#[derive(Debug, Default)]
struct Found {
    table: Option<LakeTable>,
    identity: Option<Identity>,
    /// Why it could not be checked.
    trouble: Option<Error>,
}

/// Why a table cannot be used as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whose table it is.
    pub role: TableRole,
    /// What is there, and what was asked for.
    pub what: String,
    /// Set if the table could not be checked: adopting does not help then.
    pub trouble: Option<ErrorKind>,
    pipeline: Name,
}

/// A pipeline's tables as they were found, and what does not match.
#[derive(Debug)]
pub struct Inspection<'a> {
    storage: &'a Storage,
    clock: &'a Clock,
    wanted: Wanted,
    found: [Found; 3],
    record: Option<Record>,
    problems: Vec<Problem>,
}

impl OwnTables {
    /// Whether every stage may open its table, and nothing is left to record.
    pub fn are_whole(&self) -> bool {
        self.is_recorded && self.tables.iter().all(std::result::Result::is_ok)
    }
}

/// The tables of a pipeline, each for the stage that appends to it, or why it may not.
#[derive(Clone, Debug)]
pub struct OwnTables {
    tables: [std::result::Result<OwnTable, Problem>; 3],
    /// False when the record of the tables could not be written.
    is_recorded: bool,
}

impl Wanted {
    /// For looking at tables without changing anything: their columns do not matter.
    pub fn paths(pipeline: &Name, bot_id: Option<BotId>, paths: [Path; 3]) -> Self {
        let schema = Arc::new(Schema::empty());
        let spec = |path| TableSpec { path, schema: SchemaRef::clone(&schema), stats_columns: Vec::new(), id: None };
        Self { pipeline: pipeline.clone(), bot_id, specs: paths.map(spec) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, pipeline, .. } = self;
        if self.trouble.is_some() {
            return formatter.write_str(what);
        }
        write!(
            formatter,
            "{what}; correct the pipeline file, or run `lakegram adopt {pipeline}` to see what adopting does"
        )
    }
}

impl OwnTables {
    /// The table of a stage.
    ///
    /// # Errors
    /// A configuration error that says what does not match, and how to fix it.
    pub fn of(&self, role: TableRole) -> Result<OwnTable> {
        let kind = |problem: &Problem| problem.trouble.unwrap_or(ErrorKind::Configuration);
        self.tables[index(role)].clone().map_err(|problem| Error::new(kind(&problem), problem.to_string()))
    }
}

fn index(role: TableRole) -> usize {
    TableRole::ALL.iter().position(|other| *other == role).unwrap_or_default()
}

/// Checks a pipeline's tables. Changes nothing.
///
/// # Errors
/// When the record cannot be read. What keeps a table from being checked is a problem of that table.
pub async fn inspect<'a>(storage: &'a Storage, clock: &'a Clock, wanted: Wanted) -> Result<Inspection<'a>> {
    // What keeps one table from being read does not concern the stages of the others.
    let find = async |spec: &TableSpec| {
        let look = async {
            let table = LakeTable::open_existing(storage, &spec.path, clock).await?;
            let identity = table.as_ref().map(LakeTable::identity).transpose()?.flatten();
            Ok(Found { table, identity, trouble: None })
        };
        let found = panic::catch(look).await.unwrap_or_else(|panic| Err(panic.into()));
        Ok(found.unwrap_or_else(|error| Found { trouble: Some(error), ..Found::default() }))
    };
    let [bronze, silver, replies] = &wanted.specs;
    let record = Record::read(storage, &wanted.pipeline);
    let (bronze, silver, replies, record) = tokio::try_join!(find(bronze), find(silver), find(replies), record)?;
    let found = [bronze, silver, replies];
    let mut inspection = Inspection { storage, clock, wanted, found, record, problems: Vec::new() };
    for role in TableRole::ALL {
        let found = match &inspection.found[index(role)].trouble {
            Some(error) => Some((error.to_string(), Some(error.kind()))),
            None => match panic::catch(inspection.problem(role)).await.unwrap_or_else(|panic| Err(panic.into())) {
                Ok(what) => what.map(|what| (what, None)),
                Err(error) => Some((error.to_string(), Some(error.kind()))),
            },
        };
        if let Some((what, trouble)) = found {
            let pipeline = inspection.wanted.pipeline.clone();
            inspection.problems.push(Problem { role, what, trouble, pipeline });
        }
    }
    Ok(inspection)
}

impl Inspection<'_> {
    /// What does not match, upstream first.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Creates what is missing and may be created, marks tables of release 0.1, and says which stage may open its
    /// table.
    ///
    /// # Errors
    /// Fatal when the disk failed while the record was written. What keeps a table from being created is an error of
    /// the stages that need it.
    pub async fn settle(mut self) -> Result<OwnTables> {
        for role in TableRole::ALL {
            if self.obstacle(role).is_some() {
                continue;
            }
            let made = panic::catch(self.make_own(role)).await.unwrap_or_else(|panic| Err(panic.into()));
            if let Err(error) = made {
                let (what, pipeline) = (error.to_string(), self.wanted.pipeline.clone());
                self.problems.push(Problem { role, what, trouble: Some(error.kind()), pipeline });
                self.problems.sort_by_key(|problem| problem.role);
            }
        }
        let is_recorded = self.record().await?;
        let own = |role| match (self.obstacle(role), &self.found[index(role)]) {
            (None, Found { table: Some(table), identity: Some(identity), .. }) => Ok(OwnTable {
                id: Some(table.table_id().to_owned()),
                former_pipelines: identity.former_pipelines.clone(),
                history_before: identity.history_before,
            }),
            (Some(problem), _) => Err(problem.clone()),
            (None, _) => Err(Problem {
                role,
                what: format!("cannot create table {}", self.path(role)),
                trouble: None,
                pipeline: self.wanted.pipeline.clone(),
            }),
        };
        Ok(OwnTables { tables: TableRole::ALL.map(own), is_recorded })
    }

    /// Records the tables once all of them are there; returns whether they are recorded. Without a record the stages
    /// work all the same, and the next look writes it.
    async fn record(&self) -> Result<bool> {
        if !self.problems.is_empty() || self.record.is_some() {
            return Ok(true);
        }
        let Some(record) = self.as_record() else { return Ok(true) };
        match record.create(self.storage).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::Fatal => Err(error),
            Err(error) => {
                tracing::warn!(%error, "could not record which tables the pipeline has; the next start tries again");
                Ok(false)
            }
        }
    }

    /// What keeps a stage from its table. A stage needs every table up to its own. Silver also waits for a replies
    /// table that is not the pipeline's: what it answered meanwhile could not be told from what was sent before. For
    /// the same reason it waits for one that cannot be read or created, until a record says that there was one.
    fn obstacle(&self, role: TableRole) -> Option<&Problem> {
        let is_between =
            |problem: &Problem| role == TableRole::Silver && (problem.trouble.is_none() || self.record.is_none());
        self.problems.iter().find(|problem| problem.role <= role || is_between(problem))
    }

    async fn make_own(&mut self, role: TableRole) -> Result<()> {
        let identity = self.identity(role);
        let spec = &self.wanted.specs[index(role)];
        let found = &mut self.found[index(role)];
        let table = match found.table.take() {
            Some(mut table) => {
                if found.identity.is_none() {
                    tracing::info!(table = %spec.path, "taking over a table of release 0.1");
                    table.identify_if_unnamed(&identity).await?;
                }
                table
            }
            None => LakeTable::create(self.storage, spec, Some(&identity), self.clock).await?,
        };
        let identity = table.identity()?;
        // Another pipeline may have been faster.
        let mismatch = identity.as_ref().and_then(|identity| self.mismatch(role, identity));
        self.found[index(role)] = Found { identity, table: Some(table), trouble: None };
        let (path, fail) = (self.path(role), |what| Err(Error::configuration(what)));
        mismatch.map_or(Ok(()), |what| fail(format!("table {path} {what}")))
    }

    /// What a table says about itself, if nothing is taken over.
    fn identity(&self, role: TableRole) -> Identity {
        Identity::new(&self.wanted.pipeline, role, self.wanted.bot_id, self.upstream_id(role).map(str::to_owned))
    }

    /// Which tables the pipeline has now; a missing one stays as recorded.
    fn as_record(&self) -> Option<Record> {
        let recorded = |role| self.record.as_ref().map(|record| record.ids()[index(role)]);
        let id = |role| self.id(role).or_else(|| recorded(role)).map(str::to_owned);
        Some(Record {
            pipeline: self.wanted.pipeline.clone(),
            bot: self.wanted.bot_id?,
            bronze: id(TableRole::Bronze)?,
            silver: id(TableRole::Silver)?,
            replies: id(TableRole::Reply)?,
        })
    }

    fn path(&self, role: TableRole) -> &Path {
        &self.wanted.specs[index(role)].path
    }

    fn id(&self, role: TableRole) -> Option<&str> {
        self.found[index(role)].table.as_ref().map(LakeTable::table_id)
    }

    fn upstream_id(&self, role: TableRole) -> Option<&str> {
        upstream(role).and_then(|upstream| self.id(upstream))
    }

    async fn problem(&self, role: TableRole) -> Result<Option<String>> {
        let Found { table, identity, .. } = &self.found[index(role)];
        let Some(table) = table else { return self.missing(role).await };
        let path = self.path(role);
        if let Some(identity) = identity {
            if let Some(what) = self.mismatch(role, identity) {
                return Ok(Some(format!("table {path} {what}")));
            }
        } else if let Some(what) = self.unmarked(role, table).await? {
            return Ok(Some(format!("table {path} {what}")));
        }
        let recorded = self.record.as_ref().map(|record| record.ids()[index(role)]);
        Ok(recorded.filter(|id| *id != table.table_id()).map(|id| {
            format!(
                "table {path} (id {}) is not the one that pipeline `{}` had (id {id})",
                table.table_id(),
                self.wanted.pipeline
            )
        }))
    }

    /// Why a table that says what it belongs to is not the expected one.
    fn mismatch(&self, role: TableRole, identity: &Identity) -> Option<String> {
        let Wanted { pipeline, bot_id, .. } = &self.wanted;
        if identity.role != role {
            return Some(format!(
                "is the {} table of pipeline `{}`, not a {role} table",
                identity.role, identity.pipeline
            ));
        }
        if identity.source.is_some() {
            return Some(format!("belongs to loader `{}`, not to a bot's pipeline", identity.pipeline));
        }
        if identity.pipeline != *pipeline {
            return Some(format!("belongs to pipeline `{}`, but this is `{pipeline}`", identity.pipeline));
        }
        if let (Some(asked), Some(its)) = (bot_id, identity.bot_id)
            && *asked != its
        {
            return Some(format!("belongs to bot {its}, but the token is of bot {asked}"));
        }
        let upstream = upstream(role)?;
        let its = identity.upstream.as_deref().unwrap_or("unknown");
        match self.id(upstream) {
            Some(id) if id == its => None,
            Some(id) => {
                Some(format!("was fed from another {upstream} table (id {its}) than {} (id {id})", self.path(upstream)))
            }
            None => Some(format!("was fed from a {upstream} table (id {its}) that is not at {}", self.path(upstream))),
        }
    }

    /// Why a table that says nothing about itself cannot be taken for one of release 0.1 of this pipeline.
    async fn unmarked(&self, role: TableRole, table: &LakeTable) -> Result<Option<String>> {
        let pipeline = &self.wanted.pipeline;
        let names = table.legacy_pipelines();
        if let Some(other) = names.iter().find(|name| *name != pipeline) {
            return Ok(Some(format!("was created for pipeline `{other}`, but this is `{pipeline}`")));
        }
        let is_filled = !table.files().await?.is_empty();
        if is_filled && table.fence(role) == 0 {
            let what = if names.is_empty() { "does not say who created it" } else { "belongs to another stage" };
            return Ok(Some(format!("has rows, and {what}")));
        }
        Ok(None)
    }

    /// Why a missing table may not be created.
    async fn missing(&self, role: TableRole) -> Result<Option<String>> {
        let (path, pipeline) = (self.path(role), &self.wanted.pipeline);
        if let Some(record) = &self.record {
            let id = record.ids()[index(role)];
            return Ok(Some(format!("table {path} does not exist, but pipeline `{pipeline}` had one (id {id})")));
        }
        let is_there = |later: &TableRole| self.id(*later).is_some() || self.found[index(*later)].trouble.is_some();
        let later = TableRole::ALL.into_iter().find(|later| *later > role && is_there(later));
        if let Some(later) = later {
            let what = format!("table {path} does not exist, while its {later} table {} does", self.path(later));
            return Ok(Some(what));
        }
        if role == TableRole::Reply
            && let Some(silver) = &self.found[index(TableRole::Silver)].table
            && has_answers(silver).await?
        {
            let answered = self.path(TableRole::Silver);
            return Ok(Some(format!(
                "table {path} does not exist, while {answered} has answers: all of them would be sent again"
            )));
        }
        Ok(None)
    }
}

fn upstream(role: TableRole) -> Option<TableRole> {
    match role {
        TableRole::Bronze => None,
        TableRole::Silver => Some(TableRole::Bronze),
        TableRole::Reply => Some(TableRole::Silver),
    }
}

/// Whether a silver table has an answer that is to be sent. Reads until it finds one.
async fn has_answers(silver: &LakeTable) -> Result<bool> {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use futures::TryStreamExt;

    let files = silver.files().await?;
    let mut batches = silver.read_files(&files, Some(&["reply_parts"]));
    while let Some(batch) = batches.try_next().await? {
        let parts = batch.column(0).as_primitive_opt::<Int64Type>();
        if parts.is_some_and(|parts| parts.iter().flatten().any(|parts| parts > 0)) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests;
