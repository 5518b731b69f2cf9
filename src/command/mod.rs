//! The command line: verbs, their options, and exit codes.

mod adopt;
mod audit;
mod check;
mod clean;
#[cfg(feature = "demo")]
mod demo;
#[cfg(feature = "sql")]
mod formulas;
mod maintain;
mod output;
mod poll;
mod progress;
mod query;
mod run;
mod schema;
mod serve;
mod status;
mod webhook;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::error::{Context, ErrorKind, Result};
use crate::settings::{Environment, Settings};
use crate::telemetry::{self, LogFormat};

/// Turns a Telegram bot into a lakehouse: every message in a Delta table, every user answered, exactly once.
#[derive(Debug, Parser)]
#[command(name = "lakegram", version, max_term_width = 110, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Format of log lines.
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
    /// Set a key of the pipeline file for this run; may be repeated.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

const EXAMPLES: &str = "\
Examples:
  lakegram demo                        see it all on this machine, without an account
  lakegram poll                        your own bot from a laptop (TELEGRAM_BOT_TOKEN and LLM_API_KEY in .env)
  lakegram serve                       the service behind a webhook
  lakegram run --deadline 10m          everything that waits, then exit
  lakegram query \"select text from bronze order by sent_at desc limit 10\"

Exit codes: 0 done, 1 a check or audit found something, 2 wrong usage or configuration, 3 an outside system failed.";

/// Threads for blocking work, mostly puts on a local disk. More would not make a disk faster, and each costs memory: a
/// stack and its share of the allocator's arenas.
const BLOCKING_THREADS: usize = 16;

/// How long blocking work may take to end once everything else has.
const HUNG_CALLS: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the whole pipeline on loopback without an account: chat page, Telegram stand-in, model stand-in
    #[cfg(feature = "demo")]
    Demo(demo::Options),
    /// Run the service: webhooks in, rows and replies out
    Serve(serve::Options),
    /// Process everything available now, through to the replies, then exit with a summary: for cron
    Run(run::Options),
    /// Like serve, but poll for updates instead of receiving webhooks: for a laptop without a public address
    Poll(poll::Options),
    /// Set, show or delete the bot's webhook
    Webhook(webhook::Options),
    /// Check configuration, stores, sources, tables, bot and model, and say how to fix what is wrong
    Check(check::Options),
    /// Show positions, lag, backlog, unknown replies, failures, table sizes, and loaded and waiting files
    Status(status::Options),
    /// Check every promise against the data, row by row, and list the rows that break one
    Audit(audit::Options),
    /// Run SQL over the tables bronze, silver and replies
    Query(query::Options),
    /// Show the columns of foreign files, version by version, and what added them
    Schema(schema::Options),
    /// Compact, checkpoint, clean up logs and vacuum; serve does this by itself
    Maintain(maintain::Options),
    /// Delete or move loaded source files as clean_source says; supports a dry run
    Clean(clean::Options),
    /// Take over tables, folders or a bot under another name, after showing what will be asked and sent
    Adopt(adopt::Options),
    /// Print a completion script for a shell
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Pipelines of a command.
#[derive(Clone, Debug, clap::Args)]
struct Pipelines {
    /// Pipelines by name; by default all that are not examples.
    #[arg(value_name = "PIPELINE")]
    names: Vec<String>,
}

/// How a command ended, when nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Exit code 0.
    Done,
    /// Exit code 1.
    Found,
    /// Exit code 2: a person has to change something; the message says what.
    Misconfigured,
    /// Exit code 3: something still waits for an outside system.
    Waiting,
}

/// Runs the command line and returns the exit code of the process.
pub fn main() -> ExitCode {
    output::complain_of_panics();
    let cli = Cli::parse();
    let outcome = Environment::of_process(Path::new(".")).and_then(|environment| start(cli, environment));
    match outcome {
        Ok(Verdict::Done) => ExitCode::SUCCESS,
        Ok(Verdict::Found) => ExitCode::from(1),
        Ok(Verdict::Misconfigured) => ExitCode::from(2),
        Ok(Verdict::Waiting) => ExitCode::from(3),
        Err(error) => {
            output::complain(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn start(cli: Cli, environment: Environment) -> Result<Verdict> {
    let quiet = "warn,lakegram=info";
    telemetry::start_logging(cli.log_format, Some(environment.get("RUST_LOG")?.as_deref().unwrap_or(quiet)))?;
    // The soft limit exists for programs that use select(2); we may use all that the hard limit allows.
    if let Err(error) = rlimit::increase_nofile_limit(rlimit::INFINITY) {
        tracing::debug!(%error, "could not raise the open file limit");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .context(ErrorKind::Unavailable, "cannot start the runtime")?;
    let outcome = runtime.block_on(dispatch(cli, environment));
    // A call into a hanging file system cannot be cancelled; it must not hold up the process.
    runtime.shutdown_timeout(HUNG_CALLS);
    outcome
}

async fn dispatch(cli: Cli, environment: Environment) -> Result<Verdict> {
    let stop = CancellationToken::new();
    reload_on_hangup(environment.clone());
    let open = |pipelines: &Pipelines| App::open(Settings::of(environment.clone())?, &pipelines.names, &cli.overrides);
    let read = |names: &[String]| App::open_to_read(Settings::of(environment.clone())?, names, &cli.overrides);
    match cli.verb {
        #[cfg(feature = "demo")]
        Verb::Demo(options) => demo::demo(options, environment, &cli.overrides, stop_on_signal(stop)).await,
        Verb::Serve(options) => serve::serve(open(&options.pipelines)?, options, stop_on_signal(stop)).await,
        Verb::Run(options) => run::run(open(&options.pipelines)?, options, stop_on_signal(stop)).await,
        Verb::Poll(options) => poll::poll(open(&options.pipelines)?, stop_on_signal(stop)).await,
        Verb::Webhook(options) => webhook::webhook(read(&options.pipelines().names)?, options).await,
        Verb::Check(options) => check::check(read(&options.pipelines.names)?).await,
        Verb::Status(options) => status::status(read(&options.pipelines.names)?, options).await,
        Verb::Audit(options) => audit::audit(read(&options.pipelines.names)?, options).await,
        Verb::Query(options) => query::query(read(&[])?, options).await,
        Verb::Schema(options) => schema::schema(&read(&options.pipelines.names)?),
        Verb::Maintain(options) => maintain::maintain(open(&options.pipelines)?, options, stop_on_signal(stop)).await,
        Verb::Clean(options) if options.dry_run => {
            clean::clean(read(&options.pipelines.names)?, options, stop_on_signal(stop)).await
        }
        Verb::Clean(options) => clean::clean(open(&options.pipelines)?, options, stop_on_signal(stop)).await,
        Verb::Adopt(options) => adopt::adopt(open(&options.pipelines)?, options).await,
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "lakegram", &mut script);
            output::print_as_it_is(&String::from_utf8_lossy(&script))
        }
    }
}

/// Cancels `stop` on Ctrl-C or SIGTERM; a second one ends the process immediately.
fn stop_on_signal(stop: CancellationToken) -> CancellationToken {
    let token = stop.clone();
    tokio::spawn(async move {
        if wait_for_signal().await.is_ok() {
            tracing::info!("stopping; send the signal again to stop immediately");
            token.cancel();
            if wait_for_signal().await.is_ok() {
                std::process::exit(130);
            }
        }
    });
    stop
}

/// Reads `.env` again at every SIGHUP, which ends no command. Secret files need no signal.
fn reload_on_hangup(environment: Environment) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match environment.reload() {
                Ok(()) => tracing::info!("read .env again; secrets in it count from now on, other settings at a start"),
                Err(error) => tracing::error!(%error, "what .env held before stays"),
            }
        }
    });
}

async fn wait_for_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = tokio::signal::ctrl_c() => outcome,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
