//! Taking over tables that do not match what a pipeline asks for: first shows what would happen, then does it.
//!
//! Every step may be repeated: an interrupted run is finished by the next one. What was answered before stays answered:
//! by default nothing is asked or sent a second time.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use futures::TryStreamExt;

use super::{Found, Inspection, index};
use crate::clock::Timestamp;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::{BotId, Name, trace_id};
use crate::table::{Append, CommitOutcome, Fence, Identity, LakeTable, TableRole};

/// Rows marked as answered in one commit.
const ROWS_AT_ONCE: usize = 50_000;
/// The `route` of rows that were handled before their table was created.
pub const HISTORY_ROUTE: &str = "history";

/// An update of a bot.
type UpdateKey = (i64, i64);

/// A message that was answered before its silver table was created.
#[derive(Clone, Copy, Debug)]
struct Mark {
    key: UpdateKey,
    chat_id: i64,
    /// The parts of its reply that have outcomes.
    parts: i64,
    /// Microseconds since 1970, from bronze.
    received: i64,
}

/// What adopting a pipeline's tables would do.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Plan {
    /// The pipeline.
    pub pipeline: String,
    /// What happens to each table, upstream first; empty if all of them match.
    pub tables: Vec<TablePlan>,
    /// Other names of the pipeline whose raw folders and intents become its own.
    pub former_pipelines: Vec<String>,
    /// Messages that were answered, according to the replies table, but have no silver row: they are marked as
    /// answered.
    pub marked_answered: u64,
    /// Only bronze is adopted now: once it is loaded from raw, the replies show which of its messages were answered.
    pub loads_first: bool,
    /// Messages received before now are not asked, because it is unknown which of them were answered.
    pub questions_are_history: bool,
    /// Answers written before now are not sent, because it is unknown which of them were sent.
    pub answers_are_history: bool,
    /// Messages in bronze that the next run would ask the model about or route.
    pub would_be_asked: u64,
    /// Answers in silver that the next run would send.
    pub would_be_sent: u64,
}

/// What adopting does to one table.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TablePlan {
    /// `bronze`, `silver` or `reply`.
    pub role: &'static str,
    /// Its folder.
    pub path: String,
    /// Why it does not match.
    pub problem: String,
    /// `created` or `taken over`.
    pub action: &'static str,
}

impl Inspection<'_> {
    /// What adopting would do; `redo` asks and sends again where the outcome is unknown.
    ///
    /// # Errors
    /// When the store fails. Configuration when a table has another role: nothing makes it match.
    pub async fn plan(&self, redo: bool) -> Result<Plan> {
        let mut tables = Vec::new();
        for problem in self.problems() {
            let Found { table, identity, .. } = &self.found[index(problem.role)];
            if let Some(kind) = problem.trouble {
                return Err(Error::new(kind, problem.what.clone()));
            }
            let is_other = |identity: &Identity| identity.role != problem.role || identity.source.is_some();
            if identity.as_ref().is_some_and(is_other) {
                return Err(Error::configuration(format!("{}; use another table in the pipeline file", problem.what)));
            }
            tables.push(TablePlan {
                role: problem.role.as_str(),
                path: self.path(problem.role).to_string(),
                problem: problem.what.clone(),
                action: if table.is_some() { "taken over" } else { "created" },
            });
        }
        let loads_first = self.loads_first();
        if loads_first {
            tables.retain(|table: &TablePlan| table.role == TableRole::Bronze.as_str());
        }
        let marks = self.answered_before().await?;
        let is_lost = |role: TableRole| self.problems().iter().any(|problem| problem.role == role) && self.is_new(role);
        let questions_are_history = !redo && is_lost(TableRole::Silver) && self.is_new(TableRole::Reply);
        let answers_are_history = !redo && is_lost(TableRole::Reply) && !self.is_new(TableRole::Silver);
        Ok(Plan {
            pipeline: self.wanted.pipeline.to_string(),
            tables,
            former_pipelines: self.former_pipelines().iter().map(Name::to_string).collect(),
            marked_answered: marks.len() as u64,
            loads_first,
            would_be_asked: if questions_are_history { 0 } else { self.unasked(&marks).await? },
            would_be_sent: if answers_are_history { 0 } else { self.unsent().await? },
            questions_are_history,
            answers_are_history,
        })
    }

    /// Executes the plan, and records which tables the pipeline has from now on.
    ///
    /// # Errors
    /// When the store fails, or a stage of the pipeline is running; the same call may be repeated.
    pub async fn adopt(mut self, plan: &Plan) -> Result<()> {
        let now = self.clock.now();
        let marks = self.answered_before().await?;
        let former_pipelines = self.former_pipelines();
        for role in TableRole::ALL.into_iter().filter(|role| !plan.loads_first || *role == TableRole::Bronze) {
            let is_history = match role {
                TableRole::Bronze => false,
                TableRole::Silver => plan.questions_are_history,
                TableRole::Reply => plan.answers_are_history,
            };
            let earlier = self.found[index(role)].identity.as_ref().and_then(|identity| identity.history_before);
            let identity = Identity {
                former_pipelines: former_pipelines.clone(),
                history_before: if is_history { Some(now) } else { earlier },
                ..self.identity(role)
            };
            self.take_over(role, &identity).await?;
            if role == TableRole::Silver {
                self.mark_answered(&marks, now).await?;
            }
        }
        match self.as_record() {
            Some(record) => record.replace(self.storage).await,
            None => Ok(()),
        }
    }

    async fn take_over(&mut self, role: TableRole, identity: &Identity) -> Result<()> {
        let spec = &self.wanted.specs[index(role)];
        let mut table = match self.found[index(role)].table.take() {
            Some(table) => table,
            None => LakeTable::create(self.storage, spec, Some(identity), self.clock).await?,
        };
        table.identify(identity, &[]).await?;
        self.found[index(role)] = Found { identity: table.identity()?, table: Some(table), trouble: None };
        Ok(())
    }

    /// Whether bronze and silver must both be created while replies show what was answered, for messages that are in
    /// bronze.
    fn loads_first(&self) -> bool {
        let [bronze, silver, replies] = TableRole::ALL.map(|role| self.is_new(role));
        bronze && silver && !replies && self.problems().iter().any(|problem| problem.role == TableRole::Bronze)
    }

    /// Whether no stage has ever appended to a table.
    fn is_new(&self, role: TableRole) -> bool {
        self.found[index(role)].table.as_ref().is_none_or(|table| table.fence(role) == 0)
    }

    /// The pipeline names in the tables, except the pipeline's own.
    fn former_pipelines(&self) -> Vec<Name> {
        let mut names = Vec::new();
        for Found { table, identity, .. } in &self.found {
            match (identity, table) {
                (Some(identity), _) => {
                    names.extend(identity.former_pipelines.clone());
                    names.push(identity.pipeline.clone());
                }
                (None, Some(table)) => names.extend(table.legacy_pipelines()),
                (None, None) => {}
            }
        }
        names.retain(|name| *name != self.wanted.pipeline);
        names.sort();
        names.dedup();
        names
    }

    /// Messages that were answered, according to the replies table, but have no silver row.
    async fn answered_before(&self) -> Result<Vec<Mark>> {
        let (Some(bronze), Some(replies)) =
            (&self.found[index(TableRole::Bronze)].table, &self.found[index(TableRole::Reply)].table)
        else {
            return Ok(Vec::new());
        };
        let mut parts: HashMap<UpdateKey, i64> = HashMap::new();
        let files = replies.files().await?;
        let mut batches = replies.read_files(&files, Some(&["bot_id", "update_id", "part"]));
        while let Some(batch) = batches.try_next().await? {
            let [bots, updates, part] = [0, 1, 2].map(|column| batch.column(column).as_primitive::<Int64Type>());
            for row in 0..batch.num_rows() {
                let highest = parts.entry((bots.value(row), updates.value(row))).or_default();
                *highest = (*highest).max(part.value(row));
            }
        }
        let silver = self.keys(TableRole::Silver).await?;
        parts.retain(|key, _| silver.binary_search(key).is_err());
        let (files, mut marks) = (bronze.files().await?, Vec::new());
        let mut batches = bronze.read_files(&files, Some(&["bot_id", "update_id", "chat_id", "_received_at"]));
        while let Some(batch) = batches.try_next().await? {
            let [bots, updates, chats] = [0, 1, 2].map(|column| batch.column(column).as_primitive::<Int64Type>());
            let received = batch.column(3).as_primitive::<TimestampMicrosecondType>();
            for row in (0..batch.num_rows()).filter(|row| updates.is_valid(*row)) {
                let key = (bots.value(row), updates.value(row));
                let mark = |parts| Mark { key, parts, chat_id: chats.value(row), received: received.value(row) };
                marks.extend(parts.get(&key).copied().map(mark));
            }
        }
        marks.sort_unstable_by_key(|mark| (mark.key, mark.received));
        Ok(marks)
    }

    /// Writes a silver row for updates that were answered before, so that nobody asks them again.
    async fn mark_answered(&mut self, marks: &[Mark], now: Timestamp) -> Result<()> {
        let Some(silver) = &mut self.found[index(TableRole::Silver)].table else { return Ok(()) };
        for marks in marks.chunks(ROWS_AT_ONCE) {
            let fence = Fence { role: TableRole::Silver, seen: silver.fence(TableRole::Silver) };
            let append = Append { rows: Some(history_rows(marks, now)?), fence, progress: Vec::new() };
            match silver.append(append).await? {
                CommitOutcome::Committed { .. } | CommitOutcome::AlreadyCommitted { .. } => {}
                CommitOutcome::Fenced { .. } | CommitOutcome::Stale => {
                    return Err(Error::configuration("a stage of the pipeline is running; stop it, then adopt again"));
                }
            }
        }
        Ok(())
    }

    /// Messages of the bot in bronze that have no silver row and will not get one by marking.
    async fn unasked(&self, marks: &[Mark]) -> Result<u64> {
        let silver = self.keys(TableRole::Silver).await?;
        let is_ours = |bot: i64| self.wanted.bot_id.is_none_or(|wanted| wanted == BotId(bot));
        let asked = self.keys(TableRole::Bronze).await?.into_iter().filter(|key| {
            let is_marked = marks.binary_search_by_key(key, |mark| mark.key).is_ok();
            is_ours(key.0) && !is_marked && silver.binary_search(key).is_err()
        });
        Ok(asked.count() as u64)
    }

    /// Answers in silver that have no outcome.
    async fn unsent(&self) -> Result<u64> {
        let Some(silver) = &self.found[index(TableRole::Silver)].table else { return Ok(0) };
        let outcomes = self.keys(TableRole::Reply).await?;
        let (files, mut unsent) = (silver.files().await?, 0);
        let mut batches = silver.read_files(&files, Some(&["bot_id", "update_id", "reply_parts"]));
        while let Some(batch) = batches.try_next().await? {
            let [bots, updates, parts] = [0, 1, 2].map(|column| batch.column(column).as_primitive::<Int64Type>());
            let waits = |row: &usize| {
                parts.value(*row) > 0 && outcomes.binary_search(&(bots.value(*row), updates.value(*row))).is_err()
            };
            unsent += (0..batch.num_rows()).filter(waits).count() as u64;
        }
        Ok(unsent)
    }

    /// The updates that a table has rows of, sorted.
    async fn keys(&self, role: TableRole) -> Result<Vec<UpdateKey>> {
        let Some(table) = &self.found[index(role)].table else { return Ok(Vec::new()) };
        let (files, mut keys) = (table.files().await?, Vec::new());
        let mut batches = table.read_files(&files, Some(&["bot_id", "update_id"]));
        while let Some(batch) = batches.try_next().await? {
            let [bots, updates] = [0, 1].map(|column| batch.column(column).as_primitive::<Int64Type>());
            let both = bots.iter().zip(updates).filter_map(|(bot, update)| Some((bot?, update?)));
            keys.extend(both);
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }
}

/// Silver rows of messages that were answered before the table was created.
fn history_rows(marks: &[Mark], now: Timestamp) -> Result<RecordBatch> {
    let integers = |of: fn(&Mark) -> i64| Arc::new(Int64Array::from_iter_values(marks.iter().map(of))) as ArrayRef;
    let moments = |of: &dyn Fn(&Mark) -> i64| {
        let values = TimestampMicrosecondArray::from_iter_values(marks.iter().map(of));
        Arc::new(values.with_timezone("UTC")) as ArrayRef
    };
    let texts =
        |of: &dyn Fn(&Mark) -> String| Arc::new(StringArray::from_iter_values(marks.iter().map(of))) as ArrayRef;
    let columns = [
        ("bot_id", integers(|mark| mark.key.0)),
        ("update_id", integers(|mark| mark.key.1)),
        ("chat_id", integers(|mark| mark.chat_id)),
        ("attempt", integers(|_| 1)),
        ("status", texts(&|_| "answered".to_owned())),
        ("route", texts(&|_| HISTORY_ROUTE.to_owned())),
        ("error", texts(&|_| "answered before this table was created; the text is unknown".to_owned())),
        ("reply_parts", integers(|mark| mark.parts)),
        ("model_calls", integers(|_| 0)),
        ("received_at", moments(&|mark| mark.received)),
        ("processed_at", moments(&|_| now.as_micros())),
        ("trace_id", texts(&|mark| trace_id(BotId(mark.key.0), mark.key.1))),
    ];
    let columns = columns.into_iter().map(|(name, values)| (name, values, true));
    RecordBatch::try_from_iter_with_nullable(columns).context(ErrorKind::Fatal, "rows of history do not make a batch")
}
