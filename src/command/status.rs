//! `lakegram status`.

use std::time::Duration;

use bytesize::ByteSize;

use super::{Pipelines, Verdict, output};
use crate::app::{App, LoaderSurvey, PipelineSurvey, Survey, TableSurvey, keys_ahead};
use crate::clock::Timestamp;
use crate::error::{Context, ErrorKind, Result};
use crate::load::files::FilesSurvey;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) pipelines: Pipelines,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn status(app: App, options: Options) -> Result<Verdict> {
    let surveys = app.survey().await?;
    if options.json {
        let text =
            serde_json::to_string_pretty(&surveys).context(ErrorKind::Corrupt, "the status cannot be written")?;
        return output::print(&text);
    }
    for survey in &surveys {
        output::print(&match survey {
            Survey::Bot(survey) => shown(survey, app.clock.now()),
            Survey::Loader(survey) => shown_loader(survey, app.clock.now()),
            Survey::Unread { unread_raw } => unread_raw.iter().map(|unread| format!("{unread}\n")).collect(),
        })?;
    }
    Ok(Verdict::Done)
}

fn shown_tables(tables: &[TableSurvey]) -> String {
    let rows = tables.iter().map(|table| {
        let version = table.version.map_or("not there yet".to_owned(), |version| version.to_string());
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
        "files: {loaded_files} loaded, {listed_files} listed, {waiting_files} ({waiting_bytes}) wait to be loaded, \
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
    text.push_str(&format!("bronze rows that wait for silver: {}\n", survey.waiting_for_silver));
    for (lane, micros) in &survey.positions {
        let position = Timestamp::from_micros(*micros);
        text.push_str(&format!("lane {lane}: ingested for good to {position}, {}\n", distance(position, now)));
    }
    text
}
