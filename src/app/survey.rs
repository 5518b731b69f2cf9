//! What the tables say about a pipeline: versions, progress, lag, backlog, unknown replies and failures.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use serde::Serialize;
use serde_json::Value;

use super::{App, TableRef, UnreadRaw, loader_table};
use crate::error::{Context, ErrorKind, Result};
use crate::load::files::{self, FilesSurvey};
use crate::pipeline::Pipeline;
use crate::pipeline::files::FilesPipeline;
use crate::table::{LakeTable, TxnId};

/// The state of a pipeline.
#[derive(Clone, Debug, Serialize)]
pub struct PipelineSurvey {
    /// Its name.
    pub pipeline: String,
    /// Its tables.
    pub tables: Vec<TableSurvey>,
    /// Microseconds since 1970 up to which each lane is ingested, by `<bot_id>/<lane>`.
    pub positions: BTreeMap<String, i64>,
    /// Bronze rows that silver has not answered yet.
    pub waiting_for_silver: i64,
}

/// The state of a loader of foreign files.
#[derive(Clone, Debug, Serialize)]
pub struct LoaderSurvey {
    /// Its name.
    pub pipeline: String,
    /// Its table.
    pub tables: Vec<TableSurvey>,
    /// Its progress.
    pub files: FilesSurvey,
}

/// The state of a pipeline of either kind.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Survey {
    /// One of a bot.
    Bot(PipelineSurvey),
    /// One that loads foreign files.
    Loader(LoaderSurvey),
    /// What no pipeline reads; left out where there is none.
    Unread {
        /// Folders of received messages.
        unread_raw: Vec<UnreadRaw>,
    },
}

/// The state of a table.
#[derive(Clone, Debug, Serialize)]
pub struct TableSurvey {
    /// `bronze`, `silver` or `replies`.
    pub table: &'static str,
    /// Its folder.
    pub path: String,
    /// Its version; `None` if it does not exist yet.
    pub version: Option<i64>,
    /// Data files.
    pub files: usize,
    /// Their bytes.
    pub bytes: i64,
    /// When the newest of them was written, microseconds since 1970.
    pub written_micros: Option<i64>,
    /// Rows.
    pub rows: i64,
    /// Up to which version its reader has handled everything.
    pub reader_watermark: Option<i64>,
    /// Rows by `status`, for the tables that have one.
    pub by_status: BTreeMap<String, i64>,
}

impl App {
    /// Surveys every pipeline.
    ///
    /// # Errors
    /// When the store fails or a table is not understood.
    pub async fn survey(&self) -> Result<Vec<Survey>> {
        let mut surveys = Vec::new();
        for pipeline in &self.pipelines {
            surveys.push(Survey::Bot(self.survey_pipeline(pipeline).await?));
        }
        for loader in &self.loaders {
            let survey = self.survey_loader(loader).await.map_err(|error| error.during(&loader.name))?;
            surveys.push(Survey::Loader(survey));
        }
        let unread_raw = self.unread_raw().await?;
        if !unread_raw.is_empty() {
            surveys.push(Survey::Unread { unread_raw });
        }
        Ok(surveys)
    }

    /// Checks each thing a loader needs; returns the verdicts, with a fix where there is one.
    pub async fn check_loader(&self, loader: &FilesPipeline) -> Vec<(&'static str, Result<String>)> {
        match self.files_options(loader) {
            Ok(options) => files::check(&options).await,
            Err(error) => vec![("settings", Err(error))],
        }
    }

    async fn survey_loader(&self, loader: &FilesPipeline) -> Result<LoaderSurvey> {
        let table = loader_table(loader);
        let opened = LakeTable::open_existing(&self.storage, &table.path, &self.clock).await?;
        Ok(LoaderSurvey {
            pipeline: loader.name.to_string(),
            tables: vec![survey_table(&table, opened.as_ref()).await?],
            files: files::survey(self.files_options(loader)?).await?,
        })
    }

    /// The version of a table and its newest rows as JSON, newest first; `None` if it does not exist yet.
    ///
    /// # Errors
    /// When the store fails or the table is not understood.
    pub async fn newest_rows(&self, table: &TableRef, limit: usize) -> Result<Option<(i64, Vec<Value>)>> {
        let Some(opened) = LakeTable::open_existing(&self.storage, &table.path, &self.clock).await? else {
            return Ok(None);
        };
        let mut files = opened.files().await?;
        files.sort_by_key(|file| std::cmp::Reverse(file.modification_millis));
        let mut rows = Vec::new();
        for file in files {
            if rows.len() >= limit {
                break;
            }
            let batch = opened.read_file(&file, None).await?;
            let first = batch.num_rows().saturating_sub(limit);
            let mut newest = json_rows(&batch.slice(first, batch.num_rows() - first))?;
            newest.reverse();
            rows.append(&mut newest);
        }
        rows.truncate(limit);
        Ok(Some((opened.version(), rows)))
    }

    async fn survey_pipeline(&self, pipeline: &Pipeline) -> Result<PipelineSurvey> {
        let refs = self.tables(pipeline);
        let (mut opened, mut tables) = (Vec::new(), Vec::new());
        for table in &refs {
            opened.push(LakeTable::open_existing(&self.storage, &table.path, &self.clock).await?);
        }
        for (index, table) in refs.iter().enumerate() {
            let mut survey = survey_table(table, opened[index].as_ref()).await?;
            let readers = opened.get(index + 1).and_then(Option::as_ref);
            survey.reader_watermark = opened[index].as_ref().and_then(|this| table.reader_watermark(this, readers));
            tables.push(survey);
        }
        let progress = opened[0].as_ref().map(LakeTable::progress).unwrap_or_default();
        let positions = progress.into_iter().filter_map(|(id, micros)| match id {
            TxnId::Position { pipeline: of, bot_id, lane } if of == pipeline.name => {
                Some((format!("{bot_id}/{lane}"), micros))
            }
            _ => None,
        });
        Ok(PipelineSurvey {
            pipeline: pipeline.name.to_string(),
            positions: positions.collect(),
            waiting_for_silver: (tables[0].rows - tables[1].rows).max(0),
            tables,
        })
    }
}

fn json_rows(batch: &RecordBatch) -> Result<Vec<Value>> {
    let context = "cannot write rows as JSON";
    let mut writer = arrow::json::ArrayWriter::new(Vec::new());
    writer.write(batch).and_then(|()| writer.finish()).context(ErrorKind::Corrupt, context)?;
    serde_json::from_slice(&writer.into_inner()).context(ErrorKind::Corrupt, context)
}

async fn survey_table(table: &TableRef, opened: Option<&LakeTable>) -> Result<TableSurvey> {
    let mut survey = TableSurvey {
        table: table.name,
        path: table.path.to_string(),
        version: opened.map(LakeTable::version),
        files: 0,
        bytes: 0,
        written_micros: None,
        rows: 0,
        reader_watermark: None,
        by_status: BTreeMap::new(),
    };
    let Some(opened) = opened else { return Ok(survey) };
    let has_status = opened.schema().column_with_name("status").is_some();
    for file in opened.files().await? {
        survey.files += 1;
        survey.bytes += file.size_bytes;
        survey.written_micros = survey.written_micros.max(Some(file.modification_millis.saturating_mul(1_000)));
        survey.rows += file.num_records.unwrap_or(0);
        if has_status {
            count_statuses(opened, &file, &mut survey.by_status).await?;
        }
    }
    Ok(survey)
}

async fn count_statuses(
    table: &LakeTable,
    file: &crate::table::DataFile,
    by_status: &mut BTreeMap<String, i64>,
) -> Result<()> {
    let batch = table.read_file(file, Some(&["status"])).await?;
    let Some(column) = batch.column(0).as_string_opt::<i32>() else { return Ok(()) };
    for row in 0..column.len() {
        let status = if column.is_null(row) { "null" } else { column.value(row) };
        *by_status.entry(status.to_owned()).or_default() += 1;
    }
    Ok(())
}
