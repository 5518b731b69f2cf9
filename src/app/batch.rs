//! The scheduled batch: everything available now, through to the replies.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::serve::DRAIN;
use super::{App, SourceCleaning};
use crate::error::{Error, ErrorKind, Result};
use crate::load::files::{FilesStage, FilesSummary};
use crate::load::lanes::{BronzeStage, BronzeSummary};
use crate::pipeline::Pipeline;
use crate::stage::reply::{ReplyStage, ReplySummary};
use crate::stage::silver::{SilverStage, SilverSummary};

/// What a batch did for one pipeline.
#[derive(Clone, Debug)]
pub struct PipelineSummary {
    /// Its name.
    pub pipeline: String,
    /// The loader.
    pub bronze: BronzeSummary,
    /// The model.
    pub silver: SilverSummary,
    /// The replies.
    pub reply: ReplySummary,
}

/// What a batch did.
#[derive(Clone, Debug, Default)]
pub struct BatchSummary {
    /// For each pipeline of a bot.
    pub pipelines: Vec<PipelineSummary>,
    /// For each loader of foreign files, by its name.
    pub loaders: Vec<(String, FilesSummary)>,
    /// For each source that is to be cleaned.
    pub cleanings: Vec<SourceCleaning>,
}

impl BatchSummary {
    /// Rows that still wait for an outside system, files that could not be read, and loaders that were stopped.
    pub fn waiting(&self) -> u64 {
        let rows = self.pipelines.iter().map(|summary| summary.silver.waiting + summary.reply.waiting);
        let files = self
            .loaders
            .iter()
            .map(|(_, summary)| summary.unread.len() as u64 + summary.fresh + u64::from(summary.is_cut_short));
        rows.sum::<u64>() + files.sum::<u64>()
    }
}

impl App {
    /// Takes everything that is there through all stages, until `stop` (the deadline or Ctrl-C) and a moment to end what
    /// had begun.
    ///
    /// # Errors
    /// The first error of a stage, or that one did not end in time; what was done stays done.
    pub async fn run(&self, progress: impl Fn(&str), stop: &CancellationToken) -> Result<BatchSummary> {
        let mut summary = BatchSummary::default();
        self.in_time(self.storage.identify(&self.clock), stop).await?;
        for loader in &self.loaders {
            progress(&format!("{}: loading files into bronze", loader.name));
            let loading = async { FilesStage::open(self.files_options(loader)?).await?.work_until_idle(stop).await };
            let done = self.in_time(loading, stop).await.map_err(|error| error.during(&loader.name))?;
            summary.loaders.push((loader.name.to_string(), done));
        }
        for pipeline in &self.pipelines {
            let done = self.in_time(self.run_pipeline(pipeline, &progress, stop), stop).await;
            summary.pipelines.push(done.map_err(|error| error.during(&pipeline.name))?);
        }
        if !stop.is_cancelled() && self.cleans() {
            progress("cleaning sources");
            summary.cleanings = self.in_time(self.clean(false, stop), stop).await?;
        }
        Ok(summary)
    }

    /// Gives work a moment after `stop` to end what had begun: a store that is away is tried again and again, which a
    /// stage does not leave off for `stop`.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T>>, stop: &CancellationToken) -> Result<T> {
        let late = async {
            stop.cancelled().await;
            self.clock.sleep(DRAIN).await;
            Error::unavailable("not ended in time; what had begun is found again by the next run")
        };
        tokio::select! {
            done = work => done,
            late = late => Err(late),
        }
    }

    async fn run_pipeline(
        &self,
        pipeline: &Pipeline,
        progress: &impl Fn(&str),
        stop: &CancellationToken,
    ) -> Result<PipelineSummary> {
        progress(&format!("{}: loading raw JSON into bronze", pipeline.name));
        let mut bronze = BronzeStage::open(self.bronze_options(pipeline, watch::Sender::new(-1))?).await?;
        let bronze = match bronze.work_until_idle(stop).await {
            // What a person has to look at before it is loaded must not keep what is loaded from its answers.
            Err(error) if error.kind() == ErrorKind::Configuration => Err(error),
            loaded => Ok(loaded?),
        };
        progress(&format!("{}: asking the model", pipeline.name));
        let mut silver = SilverStage::open(self.silver_options(pipeline, watch::Sender::new(-1))?).await?;
        let silver = silver.work_until_idle(stop).await?;
        progress(&format!("{}: replying", pipeline.name));
        let mut reply = ReplyStage::open(self.reply_options(pipeline)?).await?;
        let reply = reply.work_until_idle(stop).await?;
        Ok(PipelineSummary { pipeline: pipeline.name.to_string(), bronze: bronze?, silver, reply })
    }
}
