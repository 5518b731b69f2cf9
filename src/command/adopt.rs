//! `lakegram adopt`: takes over tables, folders or a bot under another name, after showing what that does.

use std::fmt::Write;

use super::{Pipelines, Verdict, output};
use crate::app::App;
use crate::error::{Context, ErrorKind, Result};
use crate::identity::adopt::Plan;
use crate::load::files::{self, FilesPlan};

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) pipelines: Pipelines,
    /// Execute the plan. Stop the service first.
    #[arg(long)]
    yes: bool,
    /// Ask and send again wherever the outcome is unknown; by default that counts as handled.
    #[arg(long)]
    redo: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  lakegram adopt               what does not fit, and what adopting would do; changes nothing, exit code 1
  lakegram adopt --yes         does it
  lakegram adopt --redo        what would be asked and sent if nothing counted as handled

For a pipeline that was renamed, a bot that was replaced, and tables that were removed, recreated or moved. For a loader
that was renamed, and a source that was moved.";

pub(super) async fn adopt(app: App, options: Options) -> Result<Verdict> {
    let mut plans = Vec::new();
    for pipeline in &app.pipelines {
        let inspection = app.inspect(pipeline).await?;
        let plan = inspection.plan(options.redo).await?;
        if options.yes && !plan.tables.is_empty() {
            app.bot_id(pipeline)?;
            inspection.adopt(&plan).await?;
        }
        plans.push(plan);
    }
    let mut loader_plans = Vec::new();
    for loader in &app.loaders {
        let plan = files::plan(app.files_options(loader)?).await?;
        if options.yes && plan.problem.is_some() {
            files::adopt(app.files_options(loader)?).await?;
        }
        loader_plans.push(plan);
    }
    let has_work =
        plans.iter().any(|plan| !plan.tables.is_empty()) || loader_plans.iter().any(|plan| plan.problem.is_some());
    if options.json {
        let value = serde_json::json!({ "adopted": options.yes, "plans": plans, "loaders": loader_plans });
        output::print(&serde_json::to_string_pretty(&value).context(ErrorKind::Fatal, "write the plan as JSON")?)?;
    } else {
        let shown = plans.iter().map(|plan| shown(plan, options.yes));
        let shown = shown.chain(loader_plans.iter().map(|plan| shown_loader(plan, options.yes)));
        output::print(&shown.collect::<String>())?;
    }
    Ok(if has_work && !options.yes { Verdict::Found } else { Verdict::Done })
}

fn shown(plan: &Plan, done: bool) -> String {
    let name = &plan.pipeline;
    if plan.tables.is_empty() {
        return format!("{name}: every table is the pipeline's own; there is nothing to adopt\n");
    }
    let mut text = format!("{name}:\n");
    let mut line = |line: String| writeln!(text, "  {line}").unwrap_or_default();
    for table in &plan.tables {
        line(table.problem.clone());
        line(format!("  -> {} is {}", table.path, table.action));
    }
    for former in &plan.former_pipelines {
        line(format!("raw/{former} and its intents will be read as the pipeline's own"));
    }
    if plan.loads_first {
        line("bronze must be loaded from raw first; after the next run, adopt again for silver and replies".to_owned());
    }
    if plan.marked_answered > 0 {
        let count = plan.marked_answered;
        line(format!("{count} messages have a reply and no silver row: marked as answered, not asked again"));
    }
    if plan.questions_are_history {
        line(
            "it is unknown what was answered: messages received before now will not be asked (--redo asks them)"
                .to_owned(),
        );
    }
    if plan.answers_are_history {
        line("it is unknown what was sent: answers written before now will not be sent (--redo sends them)".to_owned());
    }
    let (asked, sent) = (plan.would_be_asked, plan.would_be_sent);
    line(format!("left for the next run: {asked} messages in bronze to handle, {sent} answers in silver to send"));
    line(end(done).to_owned());
    text
}

fn shown_loader(plan: &FilesPlan, done: bool) -> String {
    let FilesPlan { pipeline, table, problem, source, loaded_files, would_be_loaded } = plan;
    let Some(problem) = problem else {
        return format!("{pipeline}: the table is the loader's own; there is nothing to adopt\n");
    };
    let end = end(done);
    format!(
        "{pipeline}:\n  {problem}\n  -> {table} is taken over, and fed from {source}\n  \
         the table has rows of {loaded_files} files; left for the next run: {would_be_loaded} files\n  \
         a file is recognized by its path: one that was moved to another path is loaded again\n  {end}\n"
    )
}

fn end(done: bool) -> &'static str {
    match done {
        true => "adopted; `lakegram run` or `lakegram serve` continues from here",
        false => "nothing was changed; run it again with --yes to do this",
    }
}
