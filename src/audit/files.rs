//! The audit of a loader of foreign files.

use super::report::{Check, Finding, Listed, PipelineAudit};
use super::source::Source;
use super::{Audit, AuditStep, Progress};
use crate::error::Result;
use crate::load::files::{self, FilesOptions};

/// Compares the files of a source with the rows of its table.
pub(super) async fn check(audit: &Audit, options: FilesOptions, tell: &dyn Fn(&AuditStep)) -> Result<PipelineAudit> {
    let loader = options.pipeline.clone();
    let progress = Progress::new(tell, 0);
    let mut source = Source::open(audit, ("bronze", &loader.bronze.table), "_ingested_at").await?;
    let mut files = Check::new("files", "each live file exists and is intact, and the log has no gap");
    progress.begin(&format!("{}: checking the files of the table", loader.name));
    source.check_files(&mut files, || progress.add(0)).await?;
    progress.begin(&format!("{}: comparing files with rows", loader.name));
    let found = files::audit(options, &|_| progress.add(0)).await?;
    let mut records = Check::new("records", "each record of each file is one row, and each row has its record");
    records.checked = found.rows;
    records.waiting = found.waiting;
    for (file, what) in found.broken {
        records.broken(Finding { file: Some(file), ..Finding::new(what) });
    }
    records.cleaned = found.cleaned;
    records.unproven(found.gone, "files are missing from the source, or no longer match its settings");
    records.unproven(
        found.strangers,
        "files in clean_source.to have no rows: they belong to another loader, or the rows are lost",
    );
    records.unproven(found.changed, "files have changed since they were loaded");
    if found.shortened > 0 {
        let names = found.shortened_names.join(", ");
        records.unproven(
            found.shortened,
            format!("records are in the table only with their beginning, being longer than source.max_record: {names}"),
        );
    }
    for (_, why) in found.unread {
        records.unproven(1, format!("a file cannot be read: {why}"));
    }
    records.sort();
    source.troubles().into_iter().for_each(|trouble| files.broken(trouble));
    Ok(PipelineAudit {
        pipeline: loader.name.to_string(),
        since: None,
        tables: vec![source.audited()],
        checks: vec![records, files],
        unknown: Listed::default(),
    })
}
