//! `lakegram clean`: removes loaded files from their source, or shows which would be removed.

use bytesize::ByteSize;
use tokio_util::sync::CancellationToken;

use super::{Pipelines, Verdict, output};
use crate::app::{App, DRAIN, SourceCleaning, SourceCleanings};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::load::clean::Cleaned;
use crate::pipeline::clean::CleanAction;
use crate::shutdown::in_time;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) pipelines: Pipelines,
    /// Show what would be removed, and change nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  lakegram clean files --dry-run       how many loaded files would go, and the first of them
  lakegram clean files                 deletes or moves them, as clean_source of the pipeline says
  lakegram clean files --dry-run --set source.clean_source.action=delete

Only what the table proves to be loaded goes, longer than `after` ago and unchanged since.
serve and run do the same by themselves.";

pub(super) async fn clean(app: App, options: Options, stop: CancellationToken) -> Result<Verdict> {
    let kept = app.kept_sources();
    let cleaned = in_time(app.clean(options.dry_run, &stop), &app.clock, &stop, DRAIN).await?;
    let SourceCleanings { done: cleanings, trouble } = cleaned;
    if cleanings.is_empty() {
        return Err(trouble.unwrap_or_else(|| nothing_to_do(&kept)));
    }
    if options.json {
        let text = serde_json::to_string_pretty(&cleanings).context(ErrorKind::Corrupt, "cannot write it as JSON")?;
        output::print(&text)?;
    } else {
        output::print(&shown(&cleanings, options.dry_run))?;
        for (pipeline, setting) in kept {
            output::print(&format!("{pipeline}: every file is kept; {setting} is not set"))?;
        }
    }
    if let Some(error) = trouble {
        return Err(error);
    }
    let has_failed = cleanings.iter().any(|cleaning| cleaning.cleaned.failed > 0);
    Ok(if has_failed { Verdict::Waiting } else { Verdict::Done })
}

fn nothing_to_do(kept: &[(&str, &str)]) -> Error {
    match kept.first() {
        Some((pipeline, setting)) => {
            let (section, key) = setting.split_once('.').unwrap_or(("", setting));
            Error::configuration(format!(
                "{setting} of pipeline `{pipeline}` is not set, so every file is kept; add {key} = {{ action = \
                 \"delete\", after = \"30d\" }} to [{section}]"
            ))
        }
        None => Error::configuration("none of these pipelines has a source that can be cleaned"),
    }
}

/// One line for each pipeline that has news.
pub(super) fn lines(cleanings: &[SourceCleaning]) -> String {
    let with_news = cleanings.iter().filter(|cleaning| cleaning.cleaned.has_news());
    let lines = with_news.map(|SourceCleaning { pipeline, action, after, cleaned }| {
        let done = if *action == CleanAction::Move { "moved" } else { "deleted" };
        let size = ByteSize::b(cleaned.bytes);
        let mut line = format!(
            "{pipeline}: {} files ({size}) {done} from the source, loaded more than {after} ago",
            cleaned.files
        );
        let stays = [
            (cleaned.changed, "may have changed"),
            (cleaned.taken, "have their destination taken"),
            (cleaned.shortened, "are in the table only in part"),
            (cleaned.failed, "failed"),
        ];
        for (count, why) in stays.iter().filter(|(count, _)| *count > 0) {
            line.push_str(&format!("; kept {count} that {why}"));
        }
        line.push('\n');
        line.push_str(&kept_names(cleaned));
        line
    });
    lines.collect()
}

/// The files of which the table has only a part, and what to do about them.
fn kept_names(cleaned: &Cleaned) -> String {
    let mut text = String::new();
    for name in &cleaned.shortened_names {
        text.push_str(&format!(
            "kept {name}: it has a record longer than source.max_record, so the table lacks bytes\n"
        ));
    }
    let more = cleaned.shortened.saturating_sub(cleaned.shortened_names.len() as u64);
    if more > 0 {
        text.push_str(&format!("and {more} more such files\n"));
    }
    text
}

fn shown(cleanings: &[SourceCleaning], is_dry: bool) -> String {
    let rows = cleanings.iter().map(|SourceCleaning { pipeline, action, after, cleaned }| {
        let action = if *action == CleanAction::Move { "move" } else { "delete" };
        vec![
            pipeline.clone(),
            format!("{action} after {after}"),
            cleaned.files.to_string(),
            ByteSize::b(cleaned.bytes).to_string(),
            cleaned.changed.to_string(),
            cleaned.taken.to_string(),
            cleaned.shortened.to_string(),
            cleaned.failed.to_string(),
        ]
    });
    let done = if is_dry { "files to clean" } else { "files cleaned" };
    let header = [
        "pipeline",
        "clean_source",
        done,
        "size",
        "kept: may have changed",
        "kept: destination taken",
        "kept: loaded in part",
        "failed",
    ];
    let mut text = format!("{}\n", output::table(&header, rows));
    for SourceCleaning { cleaned, .. } in cleanings {
        cleaned.names.iter().for_each(|name| text.push_str(&format!("{name}\n")));
        let more = cleaned.files.saturating_sub(cleaned.names.len() as u64);
        if more > 0 {
            text.push_str(&format!("and {more} more\n"));
        }
        text.push_str(&kept_names(cleaned));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_tells_what_went_and_what_stayed_and_is_silent_about_nothing() {
        let cleaning = |cleaned| SourceCleaning {
            pipeline: "files".to_owned(),
            action: CleanAction::Delete,
            after: "30days".to_owned(),
            cleaned,
        };
        assert_eq!(lines(&[cleaning(Cleaned::default()), cleaning(Cleaned { changed: 1, ..Cleaned::default() })]), "");
        let some = Cleaned { files: 2, bytes: 10, changed: 1, ..Cleaned::default() };
        let text = lines(&[cleaning(some)]);
        assert_eq!(
            text,
            "files: 2 files (10 B) deleted from the source, loaded more than 30days ago; kept 1 that may have changed\n"
        );
        let error = nothing_to_do(&[("files", "source.clean_source")]).to_string();
        assert!(error.contains("to [source]") && error.contains("action = \"delete\""), "{error}");
    }
}
