//! `lakegram audit`: checks the promises against the data.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::{Pipelines, Verdict, output};
use crate::app::App;
use crate::audit::{Audit, AuditStep, AuditedBot, Check, Finding, PipelineAudit};
use crate::clock::Timestamp;
use crate::error::{Context, ErrorKind, Result};
use crate::pipeline::Pipeline;

/// Findings per check that are printed for people; `--json` has more.
const SHOWN: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) pipelines: Pipelines,
    /// Only check what was received since then: a date (2026-11-01), a timestamp, or a span before now (7d).
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<Since>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    At(Timestamp),
    Ago(Duration),
}

fn since(text: &str) -> std::result::Result<Since, String> {
    let micros = |time: chrono::DateTime<chrono::Utc>| Since::At(Timestamp::from_micros(time.timestamp_micros()));
    if let Ok(date) = text.parse::<chrono::NaiveDate>() {
        return Ok(micros(date.and_time(chrono::NaiveTime::MIN).and_utc()));
    }
    if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
        return Ok(micros(time.to_utc()));
    }
    let wrong = "write a date like 2026-11-01, a timestamp like 2026-11-01T06:00:00Z, or a span like 7d";
    humantime::parse_duration(text).map(Since::Ago).map_err(|_| wrong.to_owned())
}

pub(super) async fn audit(app: App, options: Options) -> Result<Verdict> {
    let since = options.since.map(|since| match since {
        Since::At(moment) => moment,
        Since::Ago(span) => app.clock.now().minus(span),
    });
    let audits = shown_while_running(&app, since).await?;
    if options.json {
        let text =
            serde_json::to_string_pretty(&audits).context(ErrorKind::Corrupt, "cannot write the audit as JSON")?;
        output::print(&text)?;
    } else {
        for audit in &audits {
            output::print(&shown(audit))?;
        }
    }
    let broken = audits.iter().any(PipelineAudit::is_broken);
    Ok(if broken { Verdict::Found } else { Verdict::Done })
}

async fn shown_while_running(app: &App, since: Option<Timestamp>) -> Result<Vec<PipelineAudit>> {
    let bar = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{elapsed} {wide_bar} {human_pos}/{human_len} rows {msg}");
        ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    });
    let doing = std::cell::RefCell::new(String::new());
    let tell = |step: &AuditStep| {
        let is_new = *doing.borrow() != step.doing;
        if is_new {
            doing.replace(step.doing.clone());
        }
        match &bar {
            Some(bar) => {
                bar.set_length(step.of);
                bar.set_position(step.done);
                if is_new {
                    bar.set_message(step.doing.clone());
                }
            }
            None if is_new => tracing::info!("{}", step.doing),
            None => {}
        }
    };
    let audits = async {
        let mut audits = audit_of(app, since)?.run(&tell).await?;
        let unread: Vec<String> = app.unread_raw().await?.iter().map(ToString::to_string).collect();
        audits.extend((!unread.is_empty()).then(|| PipelineAudit::of_unread_raw(&unread)));
        Ok(audits)
    }
    .await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    audits
}

fn audit_of(app: &App, since: Option<Timestamp>) -> Result<Audit> {
    let bot = |pipeline: &Pipeline| AuditedBot { pipeline: pipeline.clone(), bot_id: app.bot_id(pipeline).ok() };
    Ok(Audit {
        storage: app.storage.clone(),
        clock: app.clock.clone(),
        bots: app.pipelines.iter().map(bot).collect(),
        loaders: app.loaders.iter().map(|loader| app.files_options(loader)).collect::<Result<_>>()?,
        since,
    })
}

fn shown(audit: &PipelineAudit) -> String {
    let mut text = audit.pipeline.clone();
    for table in &audit.tables {
        match table.version {
            Some(version) => text.push_str(&format!(", {} at version {version}", table.table)),
            None => text.push_str(&format!(", {} not there", table.table)),
        }
    }
    if let Some(since) = &audit.since {
        text.push_str(&format!("; only what was received since {since}"));
    }
    let rows = audit.checks.iter().map(row);
    let header = ["promise", "checked", "waiting", "broken", "cannot be proven"];
    text.push_str(&format!("\n{}\n", output::table(&header, rows)));
    for check in &audit.checks {
        for (why, count) in &check.unproven_because {
            text.push_str(&format!("cannot be proven, {} ({count}): {why}\n", check.check));
        }
        if check.cleaned > 0 {
            let (name, count) = (check.check, check.cleaned);
            let what = if name == "records" { "files" } else { "rows" };
            text.push_str(&format!(
                "cleaned, {name} ({count} {what}): removed from the source by clean_source, the rows remain\n"
            ));
        }
    }
    list(&mut text, "unknown reply", audit.unknown.count, &audit.unknown.rows);
    for check in &audit.checks {
        list(&mut text, &format!("broken, {}", check.check), check.broken, &check.rows);
    }
    text.push_str(match audit.checks.iter().any(|check| check.checked + check.unproven > 0) {
        _ if audit.is_broken() => "a promise is broken\n",
        true => "every promise that can be proven holds\n",
        false => "there is nothing to check\n",
    });
    text
}

fn row(check: &Check) -> Vec<String> {
    let oldest = check.waiting_seconds.map(|seconds| humantime::format_duration(Duration::from_secs(seconds)));
    let oldest = oldest.map(|age| format!(", the oldest {age}")).unwrap_or_default();
    vec![
        format!("{}: {}", check.check, check.promise),
        check.checked.to_string(),
        format!("{}{oldest}", check.waiting),
        check.broken.to_string(),
        check.unproven.to_string(),
    ]
}

fn list(text: &mut String, title: &str, count: u64, rows: &[Finding]) {
    for finding in rows.iter().take(SHOWN) {
        text.push_str(&format!("{title}: {finding}\n"));
    }
    if count > SHOWN as u64 {
        text.push_str(&format!("{title}: {} more; --json names up to a thousand\n", count - SHOWN as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_date_a_timestamp_or_a_span() {
        let at = |micros| Ok(Since::At(Timestamp::from_micros(micros)));
        assert_eq!(since("1970-01-02"), at(86_400_000_000));
        assert_eq!(since("1970-01-01T01:00:00+01:00"), at(0));
        assert_eq!(since("7d"), Ok(Since::Ago(Duration::from_secs(7 * 86_400))));
        assert!(since("yesterday").unwrap_err().contains("2026-11-01"));
    }
}
