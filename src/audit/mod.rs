//! Checks the promises against the data, row by row, and changes nothing.
//!
//! Safe beside a running service: the tables are read against the direction of the data, replies first and the raw
//! listing last. So whatever arrives meanwhile is only seen upstream, where it counts as waiting.
//!
//! Memory does not grow with the tables: lines and rows are compared by spans of time, updates by shares that fit a
//! budget.

mod answers;
mod chunk;
mod files;
mod keys;
mod missing;
mod naming;
mod parts;
mod raw;
mod redelivery;
mod report;
mod source;
#[cfg(test)]
mod tests;
mod walk;

use std::cell::Cell;
use std::cmp::Reverse;
use std::time::Duration;

use self::keys::Share;
use self::missing::Judge;
use self::parts::Replies;
pub use self::report::{AuditedTable, Check, Finding, Listed, PipelineAudit};
use self::source::Source;
use crate::clock::{Clock, Timestamp};
use crate::error::Result;
use crate::id::{BotId, Name};
use crate::identity::{self, Wanted};
use crate::load::files::FilesOptions;
use crate::pipeline::Pipeline;
use crate::storage::Storage;
use crate::table::TableRole;

/// What is audited.
#[derive(Debug)]
pub struct Audit {
    /// The store below `LAKEGRAM_DATA`.
    pub storage: Storage,
    /// Time.
    pub clock: Clock,
    /// The pipelines of bots.
    pub bots: Vec<AuditedBot>,
    /// The loaders of foreign files.
    pub loaders: Vec<FilesOptions>,
    /// Only what was received since then, if set.
    pub since: Option<Timestamp>,
}

/// The pipeline of a bot.
#[derive(Clone, Debug)]
pub struct AuditedBot {
    /// Its pipeline file.
    pub pipeline: Pipeline,
    /// The bot that replies; `None` if its token is not set, and then every bot counts.
    pub bot_id: Option<BotId>,
}

/// The progress of an audit.
#[derive(Clone, Debug)]
pub struct AuditStep {
    /// What is being done.
    pub doing: String,
    /// Rows read so far.
    pub done: u64,
    /// Rows to read, approximately.
    pub of: u64,
}

/// What an audit is about.
struct Scope<'a> {
    audit: &'a Audit,
    pipeline: &'a Pipeline,
    /// Only what was received since then.
    since: Option<Timestamp>,
    now: Timestamp,
    /// The bot that replies, if known.
    bot_id: Option<i64>,
    /// Answers from before this moment were handled before the replies table was made.
    history_before: Option<Timestamp>,
}

/// Reports progress.
struct Progress<'a> {
    tell: &'a dyn Fn(&AuditStep),
    step: Cell<AuditStep>,
}

/// All checks of a pipeline.
struct Checks {
    raw: Check,
    unique: Check,
    silver: Check,
    replies: Check,
    files: Check,
    progress: Check,
    unknown: Listed,
}

impl Audit {
    /// Audits every pipeline.
    ///
    /// # Errors
    /// When the store fails, or a table requires more than we support. A broken promise is a finding, not an error.
    pub async fn run(self, tell: &dyn Fn(&AuditStep)) -> Result<Vec<PipelineAudit>> {
        let mut audits = Vec::new();
        for AuditedBot { pipeline, bot_id } in &self.bots {
            let (number, now) = (bot_id.map(|BotId(number)| number), self.clock.now());
            let scope = Scope { audit: &self, pipeline, since: self.since, now, bot_id: number, history_before: None };
            let audit = scope.audit(tell).await;
            audits.push(audit.map_err(|error| error.during(format!("audit {}", pipeline.name)))?);
        }
        for loader in &self.loaders {
            let audit = files::check(&self, loader.clone(), tell).await;
            audits.push(audit.map_err(|error| error.during(format!("audit {}", loader.pipeline.name)))?);
        }
        Ok(audits)
    }
}

impl Scope<'_> {
    async fn audit(mut self, tell: &dyn Fn(&AuditStep)) -> Result<PipelineAudit> {
        let Pipeline { bronze, silver, reply, .. } = self.pipeline;
        let mut replies = Source::open(self.audit, ("replies", &reply.table), "sent_at").await?;
        let mut silver = Source::open(self.audit, ("silver", &silver.table), "received_at").await?;
        let mut bronze = Source::open(self.audit, ("bronze", &bronze.table), "_received_at").await?;
        let shares: Vec<Share> = Share::all(&bronze, &silver, &replies).collect();
        let rounds = shares.len() as u64;
        let of = bronze.rows() + rounds * (bronze.rows() + silver.rows() + replies.rows());
        let progress = Progress::new(tell, of);
        let mut checks = Checks::new();
        self.history_before = replies.history_before();
        let paths = [&bronze, &silver, &replies].map(Source::path);
        let wanted = Wanted::paths(&self.pipeline.name, self.bot_id.map(BotId), paths);
        let inspection = identity::inspect(&self.audit.storage, &self.audit.clock, wanted).await?;
        // A table that cannot be looked at is named with its files.
        for problem in inspection.problems().iter().filter(|problem| problem.trouble.is_none()) {
            checks.progress.broken(Finding::new(problem.to_string()));
        }

        progress.begin(&format!("{}: checking the files of the tables", self.pipeline.name));
        for source in [&mut bronze, &mut silver, &mut replies] {
            source.check_files(&mut checks.files, || progress.add(0)).await?;
        }
        bronze.mark_fresh(silver.watermark(TableRole::Silver, &bronze).unwrap_or(-1)).await?;
        silver.mark_fresh(replies.watermark(TableRole::Reply, &silver).unwrap_or(-1)).await?;
        check_watermark(TableRole::Silver, &silver, &bronze, &mut checks.progress);
        check_watermark(TableRole::Reply, &replies, &silver, &mut checks.progress);

        progress.begin(&format!("{}: comparing raw lines with bronze rows", self.pipeline.name));
        let mut sides = raw::Checks { raw: &mut checks.raw, unique: &mut checks.unique };
        raw::check(&self, &mut bronze, &mut sides, &progress).await?;
        progress.begin(&format!("{}: comparing bronze, silver and replies", self.pipeline.name));
        for share in shares {
            let sources = (&mut bronze, &mut silver, &mut replies);
            self.check_share(share, sources, &mut checks, &progress).await?;
        }

        naming::name(&mut bronze, checks.all()).await?;
        checks.all().into_iter().for_each(Check::sort);
        let tables = [&bronze, &silver, &replies].map(Source::audited).to_vec();
        for source in [&mut bronze, &mut silver, &mut replies] {
            source.troubles().into_iter().for_each(|trouble| checks.files.broken(trouble));
        }
        Ok(PipelineAudit {
            pipeline: self.pipeline.name.to_string(),
            since: self.since.map(|since| since.to_string()),
            tables,
            unknown: std::mem::take(&mut checks.unknown),
            checks: checks.into(),
        })
    }

    /// Checks one share of all updates in the three tables.
    async fn check_share(
        &self,
        share: Share,
        (bronze, silver, replies): (&mut Source, &mut Source, &mut Source),
        checks: &mut Checks,
        progress: &Progress<'_>,
    ) -> Result<()> {
        let (rows, corrupt) = keys::bronze(self, bronze, share, progress).await?;
        checks.unique.checked += corrupt;
        answers::check_unique(self, &rows, &mut checks.unique);
        let mut answers = keys::silver(self, silver, share, progress).await?;
        let missing = answers::check_answers(self, (&rows, bronze), &answers, &mut checks.silver);
        drop(rows);
        let what = "a bronze row is lost: silver has passed it without writing a row";
        let judge = Judge { scope: self, of: bronze, columns: &keys::BRONZE, lacks: silver, what };
        judge.judge(missing, &mut checks.silver).await?;

        // If an attempt has two rows, which is reported above, the one with more parts counts.
        answers.sort_unstable_by_key(|answer| (parts::answer_of(answer), answer.received, Reverse(answer.parts)));
        let outcomes = keys::replies(self, replies, share, progress).await?;
        let (check, unknown) = (&mut checks.replies, &mut checks.unknown);
        let mut found = Replies { scope: self, silver, check, unknown, missing: Vec::new() };
        found.check(&answers, &outcomes);
        let missing = found.missing;
        let what = "a part of an answer is lost: the replier has passed it without an outcome";
        let columns = ["bot_id", "update_id", "received_at", "attempt"];
        let judge = Judge { scope: self, of: silver, columns: &columns, lacks: replies, what };
        judge.judge(missing, &mut checks.replies).await
    }

    fn pipeline(&self) -> &Name {
        &self.pipeline.name
    }

    /// How long a redelivery is recognized.
    fn window(&self) -> Duration {
        self.pipeline.bronze.redelivery_window
    }

    /// Whether something received then is in scope.
    fn holds(&self, received: Timestamp) -> bool {
        self.since.is_none_or(|since| received >= since)
    }
}

/// A watermark must not be beyond the head of the table it is about.
fn check_watermark(role: TableRole, of: &Source, upstream: &Source, check: &mut Check) {
    let Some(table) = &upstream.table else {
        let watermarks = of.watermarks(role);
        check.checked += watermarks;
        return check.unproven(watermarks, format!("the {} table does not exist or cannot be read", upstream.name));
    };
    let Some(watermark) = of.watermark(role, upstream) else { return };
    check.checked += 1;
    let head = table.version();
    if watermark > head {
        check.broken(Finding::new(format!(
            "the watermark of {role} is {watermark}, beyond the head of {} at {head}",
            upstream.name
        )));
    }
}

impl<'a> Progress<'a> {
    fn new(tell: &'a dyn Fn(&AuditStep), of: u64) -> Self {
        Self { tell, step: Cell::new(AuditStep { doing: String::new(), done: 0, of }) }
    }

    fn begin(&self, doing: &str) {
        self.change(|step| step.doing = doing.to_owned());
    }

    fn add(&self, rows: usize) {
        self.change(|step| step.done += rows as u64);
    }

    fn change(&self, change: impl FnOnce(&mut AuditStep)) {
        let mut step = self.step.replace(AuditStep { doing: String::new(), done: 0, of: 0 });
        change(&mut step);
        (self.tell)(&step);
        self.step.set(step);
    }
}

impl Checks {
    fn new() -> Self {
        Self {
            raw: Check::new("raw lines", "each is one bronze row, verbatim, or a redelivery of one"),
            unique: Check::new("bronze rows", "no update twice within the redelivery window, no line twice"),
            silver: Check::new("silver rows", "each update has exactly one row of attempt 1, and no attempt has two"),
            replies: Check::new("replies", "each answer's parts have outcomes in order, none is sent twice"),
            files: Check::new("files", "each live file exists and is intact, and the log has no gap"),
            progress: Check::new("progress", "watermarks are not beyond their table; positions hold by `raw lines`"),
            unknown: Listed::default(),
        }
    }

    fn all(&mut self) -> [&mut Check; 4] {
        [&mut self.raw, &mut self.unique, &mut self.silver, &mut self.replies]
    }
}

impl From<Checks> for Vec<Check> {
    fn from(checks: Checks) -> Self {
        let Checks { raw, unique, silver, replies, files, progress, .. } = checks;
        Self::from([raw, unique, silver, replies, files, progress])
    }
}
