//! `lakegram query`: DataFusion over the tables.

use super::Verdict;
#[cfg(feature = "sql")]
use super::{formulas, output};
use crate::app::App;
use crate::error::Result;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The statement, over `bronze`, `silver` and `replies`; `<pipeline>.bronze` if there are several.
    sql: String,
    /// Output format.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Leave CSV cells that a spreadsheet would run as formulas without the quote that keeps it from doing so.
    #[arg(long)]
    keep_formulas: bool,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Table,
    /// With a header.
    Csv,
    /// One JSON object per line.
    Json,
}

#[cfg(not(feature = "sql"))]
pub(super) async fn query(_app: App, _options: Options) -> Result<Verdict> {
    Err(crate::error::Error::configuration("this binary was built without SQL; build it with --features sql"))
}

#[cfg(feature = "sql")]
pub(super) async fn query(app: App, options: Options) -> Result<Verdict> {
    let rows = sql::rows(&app, &options.sql).await?;
    let rows = match options.format {
        Format::Csv if !options.keep_formulas => rows.iter().map(formulas::marked).collect::<Result<Vec<_>>>()?,
        _ => rows,
    };
    output::print_as_it_is(&sql::shown(&rows, options.format)?)
}

#[cfg(feature = "sql")]
mod sql {
    use std::sync::Arc;

    use arrow::array::RecordBatch;
    use deltalake::datafusion::catalog::{MemorySchemaProvider, SchemaProvider};
    use deltalake::datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};

    use super::Format;
    use crate::app::App;
    use crate::error::{Context, Error, ErrorKind, Result};
    use crate::table::LakeTable;
    use crate::table::delta::delta_table;

    /// The rows of a statement over the existing tables.
    pub(super) async fn rows(app: &App, statement: &str) -> Result<Vec<RecordBatch>> {
        let session = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true));
        let mut tables = 0;
        let all = app.all_tables();
        let is_one = all.len() == 1;
        for (pipeline, pipeline_tables) in all {
            let schema = Arc::new(MemorySchemaProvider::new());
            for table in pipeline_tables {
                if LakeTable::open_existing(&app.storage, &table.path, &app.clock).await?.is_none() {
                    continue;
                }
                let delta = delta_table(&app.storage, &table.path).await?;
                delta
                    .update_datafusion_session(&session.state())
                    .context(ErrorKind::Corrupt, format!("cannot read the table {}", table.path))?;
                let provider = delta
                    .table_provider()
                    .await
                    .context(ErrorKind::Corrupt, format!("cannot read the table {}", table.path))?;
                let refused = "cannot register the table";
                schema
                    .register_table(table.name.to_owned(), Arc::clone(&provider))
                    .context(ErrorKind::Fatal, refused)?;
                if is_one {
                    session.register_table(table.name, provider).context(ErrorKind::Fatal, refused)?;
                }
                tables += 1;
            }
            if let Some(catalog) = session.catalog("datafusion") {
                let refused = "cannot name the pipeline's tables";
                catalog.register_schema(pipeline.as_str(), schema).context(ErrorKind::Fatal, refused)?;
            }
        }
        if tables == 0 {
            return Err(Error::configuration(format!(
                "there is no table in {} yet; start `lakegram serve`, `poll` or `demo` first, or set LAKEGRAM_DATA",
                app.storage.place()
            )));
        }
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let wrong = "cannot run the statement";
        let frame = session.sql_with_options(statement, read_only).await.context(ErrorKind::Configuration, wrong)?;
        frame.collect().await.context(ErrorKind::Unavailable, "the statement failed")
    }

    /// Rows as text.
    pub(super) fn shown(rows: &[RecordBatch], format: Format) -> Result<String> {
        let context = "cannot print the rows";
        let mut text = Vec::new();
        match format {
            Format::Table => {
                let table = arrow::util::pretty::pretty_format_batches(rows).context(ErrorKind::Corrupt, context)?;
                return Ok(table.to_string());
            }
            Format::Csv => {
                let mut writer = arrow::csv::Writer::new(&mut text);
                for batch in rows {
                    writer.write(batch).context(ErrorKind::Corrupt, context)?;
                }
            }
            Format::Json => {
                let mut writer = arrow::json::LineDelimitedWriter::new(&mut text);
                for batch in rows {
                    writer.write(batch).context(ErrorKind::Corrupt, context)?;
                }
                writer.finish().context(ErrorKind::Corrupt, context)?;
            }
        }
        String::from_utf8(text).context(ErrorKind::Corrupt, context)
    }
}
