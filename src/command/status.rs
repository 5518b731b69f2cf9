//! `lakegram status`.

use std::time::Duration;

use bytesize::ByteSize;
use serde_json::{Value, json};

use super::{Pipelines, Verdict, output};
use crate::app::{App, LoaderSurvey, PipelineSurvey, Survey, TableSurvey, keys_ahead};
use crate::clock::Timestamp;
use crate::error::{Context, ErrorKind, Result};
use crate::load::files::FilesSurvey;

/// How long the console of a running service is waited for.
const CONSOLE_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) pipelines: Pipelines,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn status(app: App, options: Options) -> Result<Verdict> {
    let stages = running_stages(&app).await;
    if options.json {
        let context = "cannot write the status as JSON";
        let mut surveys = serde_json::to_value(app.survey().await?).context(ErrorKind::Corrupt, context)?;
        add_stages(&mut surveys, &stages);
        return output::print(&serde_json::to_string_pretty(&surveys).context(ErrorKind::Corrupt, context)?);
    }
    // Before the tables: one that cannot be read may be why a stage is unwell.
    for stage in stages.iter().filter(|stage| stage["state"] == "unwell") {
        output::print(&shown_stage(stage))?;
    }
    let surveys = app.survey().await?;
    for survey in &surveys {
        output::print(&match survey {
            Survey::Bot(survey) => shown(survey, app.clock.now()),
            Survey::Loader(survey) => shown_loader(survey, app.clock.now()),
            Survey::Unread { unread_raw } => unread_raw.iter().map(|unread| format!("{unread}\n")).collect(),
        })?;
    }
    Ok(Verdict::Done)
}

/// Adds the stages of each pipeline to its survey and, at the end, those that serve all pipelines, if there are any.
fn add_stages(surveys: &mut Value, stages: &[Value]) {
    let Some(surveys) = surveys.as_array_mut() else { return };
    let of = |pipeline: &Value| -> Vec<Value> {
        stages.iter().filter(|stage| stage["pipeline"] == *pipeline).cloned().collect()
    };
    for survey in surveys.iter_mut().filter(|survey| survey["pipeline"].is_string()) {
        survey["stages"] = Value::Array(of(&survey["pipeline"]));
    }
    let of_all = of(&json!(""));
    if !of_all.is_empty() {
        surveys.push(json!({ "pipeline": "", "stages": of_all }));
    }
}

/// The stages of the service on this machine, as its console reports them; none if no service answers.
async fn running_stages(app: &App) -> Vec<Value> {
    let asked = async {
        let client = reqwest::Client::builder().no_proxy().timeout(CONSOLE_PATIENCE).build().ok()?;
        let answer = client.get(format!("http://{}/health", app.settings.console)).send().await.ok()?;
        answer.json::<Value>().await.ok()
    };
    match asked.await {
        Some(mut report) => report["stages"].as_array_mut().map(std::mem::take).unwrap_or_default(),
        None => Vec::new(),
    }
}

fn shown_stage(stage: &Value) -> String {
    let text = |key: &str| stage[key].as_str().unwrap_or_default();
    format!(
        "{} {} is unwell since {}, next try {}: {}",
        text("pipeline"),
        text("stage"),
        text("since"),
        text("next_try"),
        text("reason")
    )
    .trim_start()
    .to_owned()
}

fn shown_tables(tables: &[TableSurvey]) -> String {
    let rows = tables.iter().map(|table| {
        let version = table.version.map_or("does not exist yet".to_owned(), |version| version.to_string());
        let behind = match (table.version, table.reader_watermark) {
            (Some(version), Some(watermark)) => (version - watermark).max(0).to_string(),
            _ => String::new(),
        };
        let statuses = table.by_status.iter().map(|(status, rows)| format!("{rows} {status}"));
        vec![
            table.path.clone(),
            version,
            table.rows.to_string(),
            table.files.to_string(),
            ByteSize::b(u64::try_from(table.bytes).unwrap_or(0)).to_string(),
            behind,
            statuses.collect::<Vec<_>>().join(", "),
        ]
    });
    let header = ["table", "version", "rows", "files", "size", "versions its reader is behind", "status"];
    output::table(&header, rows)
}

fn shown_loader(survey: &LoaderSurvey, now: Timestamp) -> String {
    let LoaderSurvey { pipeline, tables, files } = survey;
    let mut text = format!("{pipeline}\n{}\n", shown_tables(tables));
    if let Some(written) = tables.iter().filter_map(|table| table.written_micros).max() {
        let written = Timestamp::from_micros(written);
        text.push_str(&format!("last written at {written}, {} ago\n", age(written, now)));
    }
    let FilesSurvey { listed_files, loaded_files, waiting_files, waiting_bytes, growing_files, changed_files } = files;
    let waiting_bytes = ByteSize::b(*waiting_bytes);
    text.push_str(&format!(
        "files: {loaded_files} loaded, {listed_files} listed, {waiting_files} ({waiting_bytes}) waiting to be loaded, \
         {growing_files} may still be growing, {changed_files} changed since they were loaded\n"
    ));
    text
}

/// How long ago, or how far ahead of the clock, a key is.
fn distance(key: Timestamp, now: Timestamp) -> String {
    match keys_ahead(key, now) {
        Some(ahead) => format!("{} ahead of the clock; a clock was or is wrong", humantime::format_duration(ahead)),
        None => format!("{} ago", age(key, now)),
    }
}

fn age(moment: Timestamp, now: Timestamp) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(now.since(moment).as_secs()))
}

fn shown(survey: &PipelineSurvey, now: Timestamp) -> String {
    let mut text = format!("{}\n{}\n", survey.pipeline, shown_tables(&survey.tables));
    text.push_str(&format!("bronze rows waiting for silver: {}\n", survey.waiting_for_silver));
    for (lane, micros) in &survey.positions {
        let position = Timestamp::from_micros(*micros);
        text.push_str(&format!("lane {lane}: ingested up to {position}, {}\n", distance(position, now)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_shown_with_their_pipeline_and_those_of_all_pipelines_in_the_end() {
        let stage = |pipeline: &str, stage: &str| json!({ "pipeline": pipeline, "stage": stage, "state": "unwell" });
        let stages = [stage("", "root"), stage("telegram", "silver"), stage("", "clock")];
        let mut surveys = json!([{ "pipeline": "telegram" }, { "pipeline": "files" }, { "unread_raw": [] }]);
        add_stages(&mut surveys, &stages);
        let expected = json!([
            { "pipeline": "telegram", "stages": [stage("telegram", "silver")] },
            { "pipeline": "files", "stages": [] },
            { "unread_raw": [] },
            { "pipeline": "", "stages": [stage("", "root"), stage("", "clock")] },
        ]);
        assert_eq!(surveys, expected);
        let mut surveys = json!([{ "pipeline": "telegram" }]);
        add_stages(&mut surveys, &[]);
        assert_eq!(surveys, json!([{ "pipeline": "telegram", "stages": [] }]), "no service runs");
    }
}
