//! The scheduled batch: everything available now, through to the replies.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::App;
use super::serve::DRAIN;
use crate::error::{Error, Result};
use crate::pipeline::Pipeline;
use crate::stage::bronze::{BronzeStage, BronzeSummary};
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
    /// For each pipeline.
    pub pipelines: Vec<PipelineSummary>,
}

impl BatchSummary {
    /// Rows that still wait for an outside system.
    pub fn waiting(&self) -> u64 {
        self.pipelines.iter().map(|summary| summary.silver.waiting + summary.reply.waiting).sum()
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
        for pipeline in &self.pipelines {
            // A store that is away is tried again and again, which a stage does not leave off for `stop`.
            let late = async {
                stop.cancelled().await;
                self.clock.sleep(DRAIN).await;
                Error::unavailable("not ended in time; what had begun is found again by the next run")
            };
            let done = tokio::select! {
                done = self.run_pipeline(pipeline, &progress, stop) => done,
                late = late => Err(late),
            };
            summary.pipelines.push(done.map_err(|error| error.during(&pipeline.name))?);
        }
        Ok(summary)
    }

    async fn run_pipeline(
        &self,
        pipeline: &Pipeline,
        progress: &impl Fn(&str),
        stop: &CancellationToken,
    ) -> Result<PipelineSummary> {
        progress(&format!("{}: loading raw JSON into bronze", pipeline.name));
        let mut bronze = BronzeStage::open(self.bronze_options(pipeline, watch::Sender::new(-1))?).await?;
        let bronze = bronze.work_until_idle(stop).await?;
        progress(&format!("{}: asking the model", pipeline.name));
        let mut silver = SilverStage::open(self.silver_options(pipeline, watch::Sender::new(-1))?).await?;
        let silver = silver.work_until_idle(stop).await?;
        progress(&format!("{}: replying", pipeline.name));
        let mut reply = ReplyStage::open(self.reply_options(pipeline)?).await?;
        let reply = reply.work_until_idle(stop).await?;
        Ok(PipelineSummary { pipeline: pipeline.name.to_string(), bronze, silver, reply })
    }
}
