//! `lakegram schema`.

use super::{Pipelines, Verdict, output};
use crate::app::App;
use crate::error::{Error, Result};
use crate::load::files::logged_schemas;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) pipelines: Pipelines,
}

pub(super) fn schema(app: &App) -> Result<Verdict> {
    if app.loaders.is_empty() {
        let text = "none of these pipelines loads foreign files; the columns of a bot's tables are in schemas/";
        return Err(Error::configuration(text));
    }
    let mut text = String::new();
    for loader in &app.loaders {
        let versions = logged_schemas(&app.settings.checkpoints, loader.name.as_str())?;
        if versions.is_empty() {
            text.push_str(&format!("{}: no columns yet; `lakegram run {}` infers them\n", loader.name, loader.name));
        }
        for version in versions {
            let columns = version.ddl.replace('\n', " ");
            text.push_str(&format!(
                "{} version {}, {}, {}:\n  {columns}\n",
                loader.name, version.number, version.created_at, version.reason
            ));
        }
    }
    output::print(text.trim_end())
}
