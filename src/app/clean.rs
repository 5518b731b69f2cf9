//! Cleaning of sources: once, or every hour while the service runs.

use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::App;
use super::apart::run_apart;
use super::troubles::Troubles;
use crate::error::{Error, ErrorKind, Result};
use crate::load::clean::Cleaned;
use crate::load::{files, lanes};
use crate::pipeline::Pipeline;
use crate::pipeline::clean::{CleanAction, CleanSource};
use crate::pipeline::files::FilesPipeline;

/// How often sources are cleaned.
const CLEAN_EVERY: Duration = Duration::from_secs(3_600);

/// What was, or would be, cleaned from the source of one pipeline.
#[derive(Clone, Debug, Serialize)]
pub struct SourceCleaning {
    /// The pipeline.
    pub pipeline: String,
    /// What happens to its loaded files.
    pub action: CleanAction,
    /// How long ago they must have been loaded.
    pub after: String,
    /// What was done.
    #[serde(flatten)]
    pub cleaned: Cleaned,
}

/// What a pass over all sources came to.
#[derive(Debug)]
pub struct SourceCleanings {
    /// The sources that were cleaned.
    pub done: Vec<SourceCleaning>,
    /// The gravest error, if others failed.
    pub trouble: Option<Error>,
}

impl App {
    /// Whether a source is to be cleaned.
    pub(super) fn cleans(&self) -> bool {
        self.loaders.iter().any(|loader| loader.source.clean_source.is_on())
            || self.pipelines.iter().any(|pipeline| pipeline.bronze.clean_source.is_on())
    }

    /// The pipelines whose loaded files are all kept, and the setting that would change that.
    pub fn kept_sources(&self) -> Vec<(&str, &'static str)> {
        let loaders = self.loaders.iter().filter(|loader| !loader.source.clean_source.is_on());
        let bots = self.pipelines.iter().filter(|pipeline| !pipeline.bronze.clean_source.is_on());
        let loaders = loaders.map(|loader| (loader.name.as_str(), "source.clean_source"));
        loaders.chain(bots.map(|pipeline| (pipeline.name.as_str(), "bronze.clean_source"))).collect()
    }

    /// Cleans the sources of all pipelines that have it configured, until `stop`; a dry run changes nothing. Trouble
    /// with one source keeps none of the others from being cleaned.
    ///
    /// # Errors
    /// When the clocks cannot be compared or disagree, or the disk failed; what was done stays done.
    pub async fn clean(&self, is_dry: bool, stop: &CancellationToken) -> Result<SourceCleanings> {
        let (mut done, mut troubles, mut app) = (Vec::new(), Troubles::default(), self.clone());
        if !is_dry && self.cleans() {
            self.storage.identify(&self.clock).await?;
            app.clock = self.storage.clock(&self.clock).await?;
        }
        for loader in self.loaders.iter().filter(|loader| loader.source.clean_source.is_on()) {
            done.extend(troubles.pass(app.clean_loader(loader, is_dry, stop).await)?);
        }
        for pipeline in self.pipelines.iter().filter(|pipeline| pipeline.bronze.clean_source.is_on()) {
            done.extend(troubles.pass(app.clean_lanes(pipeline, is_dry, stop).await)?);
        }
        Ok(SourceCleanings { done, trouble: troubles.gravest() })
    }

    async fn clean_loader(
        &self,
        loader: &FilesPipeline,
        is_dry: bool,
        stop: &CancellationToken,
    ) -> Result<SourceCleaning> {
        let cleaned = files::clean(self.files_options(loader)?, is_dry, stop).await;
        let cleaned = cleaned.map_err(|error| error.during(format!("clean the source of {}", loader.name)))?;
        Ok(SourceCleaning::new(loader.name.as_str(), &loader.source.clean_source, cleaned))
    }

    async fn clean_lanes(&self, pipeline: &Pipeline, is_dry: bool, stop: &CancellationToken) -> Result<SourceCleaning> {
        let options = lanes::CleanOptions {
            storage: self.storage.clone(),
            pipeline: pipeline.clone(),
            clock: self.clock.clone(),
            telemetry: self.telemetry.clone(),
        };
        let cleaned = lanes::clean(options, is_dry, stop).await;
        let cleaned = cleaned.map_err(|error| error.during(format!("clean the lanes of {}", pipeline.name)))?;
        Ok(SourceCleaning::new(pipeline.name.as_str(), &pipeline.bronze.clean_source, cleaned))
    }

    /// Cleans sources until `stop`, on a separate thread: a first pass may take long, and a message must not wait.
    ///
    /// # Errors
    /// When the disk fails or a setting makes no sense.
    pub(super) async fn clean_apart(self, stop: CancellationToken) -> Result<()> {
        run_apart("clean", move || self.clean_always(stop)).await
    }

    /// Cleans immediately and then every hour. Transient failures are retried the next time.
    async fn clean_always(self, stop: CancellationToken) -> Result<()> {
        while !stop.is_cancelled() {
            let cleaned = self.clean(false, &stop).await.and_then(|cleanings| {
                cleanings.done.iter().for_each(SourceCleaning::log);
                cleanings.trouble.map_or(Ok(()), Err)
            });
            match cleaned {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Fatal | ErrorKind::Configuration) => return Err(error),
                Err(error) => tracing::warn!(%error, "cleaning failed; retrying in an hour"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.clock.sleep(CLEAN_EVERY) => {}
            }
        }
        Ok(())
    }
}

impl SourceCleaning {
    fn new(pipeline: &str, settings: &CleanSource, cleaned: Cleaned) -> Self {
        let after = humantime::format_duration(settings.after).to_string();
        Self { pipeline: pipeline.to_owned(), action: settings.action, after, cleaned }
    }

    fn log(&self) {
        let Cleaned { files, bytes, changed, taken, shortened, failed, .. } = &self.cleaned;
        if self.cleaned.has_news() {
            let (pipeline, action) = (&self.pipeline, self.action);
            tracing::info!(
                pipeline,
                ?action,
                files,
                bytes,
                changed,
                taken,
                shortened,
                shortened_names = %self.cleaned.shortened_names.join(", "),
                failed,
                "cleaned the source of loaded files"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::tests::troubled::{Switch, Trouble};

    const LOADER: &str = r#"
        version = 1
        name = "foreign"
        source = { path = "landing", clean_source = { action = "delete", after = "30d" } }
        bronze = { table = "bronze/foreign" }
    "#;

    #[tokio::test]
    async fn trouble_with_one_source_keeps_no_other_from_being_cleaned() {
        let (mut app, switch, stop) = (App::in_memory(&[]), Switch::default(), CancellationToken::new());
        app.storage = app.storage.decorated(|inner| switch.wrap(inner));
        let loader: FilesPipeline = toml::from_str(LOADER).unwrap();
        app.pipelines[0].bronze.clean_source = loader.source.clean_source.clone();
        app.loaders.push(loader);
        switch.begin(Trouble::Server, &["bronze/foreign"]);
        let cleanings = app.clean(false, &stop).await.unwrap();
        let cleaned = |cleanings: &SourceCleanings| -> Vec<String> {
            cleanings.done.iter().map(|cleaning| cleaning.pipeline.clone()).collect()
        };
        assert_eq!(cleaned(&cleanings), ["telegram"]);
        let trouble = cleanings.trouble.unwrap().to_string();
        assert!(trouble.starts_with("clean the source of foreign: "), "{trouble}");
        switch.end();
        let cleanings = app.clean(false, &stop).await.unwrap();
        assert_eq!(cleaned(&cleanings), ["foreign", "telegram"]);
        assert!(cleanings.trouble.is_none());
        switch.begin(Trouble::Server, &["bronze/foreign"]);
        app.pipelines[0].bronze.clean_source = toml::from_str("action = \"move\"\nto = \"raw\"").unwrap();
        let trouble = app.clean(false, &stop).await.unwrap().trouble.unwrap();
        assert_eq!(trouble.kind(), ErrorKind::Configuration, "it comes later and does not pass by itself: {trouble}");
    }
}
