//! `lakegram status`.

use std::time::Duration;

use bytesize::ByteSize;

use super::{Pipelines, Verdict, output};
use crate::app::{App, PipelineSurvey};
use crate::clock::Timestamp;
use crate::error::{Context, ErrorKind, Result};

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
        output::print(&shown(survey, app.clock.now()))?;
    }
    Ok(Verdict::Done)
}

fn shown(survey: &PipelineSurvey, now: Timestamp) -> String {
    let rows = survey.tables.iter().map(|table| {
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
    let mut text = format!("{}\n{}\n", survey.pipeline, output::table(&header, rows));
    text.push_str(&format!("bronze rows that wait for silver: {}\n", survey.waiting_for_silver));
    for (lane, micros) in &survey.positions {
        let position = Timestamp::from_micros(*micros);
        let age = Duration::from_secs(now.since(position).as_secs());
        text.push_str(&format!(
            "lane {lane}: ingested for good to {position}, {} ago\n",
            humantime::format_duration(age)
        ));
    }
    text
}
