//! The scheduled batch: everything available now, through to the replies.

use std::future::Future;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::serve::DRAIN;
use super::{App, SourceCleaning, UnreadRaw};
use crate::error::{Error, ErrorKind, Result};
use crate::health::StageId;
use crate::load::files::{FilesStage, FilesSummary};
use crate::load::lanes::{BronzeOptions, BronzeStage, BronzeSummary};
use crate::panic;
use crate::pipeline::Pipeline;
use crate::stage::reply::{ReplyOptions, ReplyStage, ReplySummary};
use crate::stage::silver::{SilverOptions, SilverStage, SilverSummary};
use crate::table::TableRole;

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
#[derive(Debug, Default)]
pub struct BatchSummary {
    /// For each pipeline of a bot.
    pub pipelines: Vec<PipelineSummary>,
    /// For each loader of foreign files, by its name.
    pub loaders: Vec<(String, FilesSummary)>,
    /// For each source that is to be cleaned.
    pub cleanings: Vec<SourceCleaning>,
    /// Raw folders that no pipeline reads.
    pub unread: Vec<UnreadRaw>,
    /// What failed, with the stage it happened in.
    pub troubles: Vec<Error>,
}

impl BatchSummary {
    /// Rows still waiting for an outside system, files that could not be read, and stages that failed or were stopped.
    pub fn waiting(&self) -> u64 {
        let rows = self.pipelines.iter().map(|summary| summary.silver.waiting + summary.reply.waiting);
        let files = self
            .loaders
            .iter()
            .map(|(_, summary)| summary.unread.len() as u64 + summary.fresh + u64::from(summary.is_cut_short));
        rows.sum::<u64>() + files.sum::<u64>() + self.troubles.len() as u64
    }
}

/// How long a batch may continue.
#[derive(Clone, Debug)]
struct Deadline {
    /// Nothing new is started.
    stop: CancellationToken,
    /// What was started is left as it is.
    late: CancellationToken,
}

impl App {
    /// Moves everything there is through all stages, until `stop` (the deadline or Ctrl-C) plus a moment to finish what
    /// was started. A failing stage does not keep the others from working.
    ///
    /// # Errors
    /// Fatal when the disk failed; what was done stays done.
    pub async fn run(&self, progress: impl Fn(&str), stop: &CancellationToken) -> Result<BatchSummary> {
        let deadline = Deadline { stop: stop.clone(), late: CancellationToken::new() };
        let (clock, waiting) = (self.clock.clone(), deadline.clone());
        let timer = async {
            waiting.stop.cancelled().await;
            clock.sleep(DRAIN).await;
            waiting.late.cancel();
            std::future::pending().await
        };
        tokio::select! {
            summary = Box::pin(self.run_all(progress, &deadline)) => summary,
            summary = timer => summary,
        }
    }

    async fn run_all(&self, progress: impl Fn(&str), deadline: &Deadline) -> Result<BatchSummary> {
        let (mut summary, stop) = (BatchSummary::default(), &deadline.stop);
        summary.attempt("", "root", deadline, self.storage.identify(&self.clock)).await?;
        for loader in &self.loaders {
            progress(&format!("{}: loading files into bronze", loader.name));
            let load = async { FilesStage::open(self.files_options(loader)?).await?.work_until_idle(stop).await };
            let done = summary.attempt(loader.name.as_str(), "files", deadline, load).await?;
            summary.loaders.push((loader.name.to_string(), done));
        }
        for pipeline in &self.pipelines {
            let done = Box::pin(self.run_pipeline(pipeline, &progress, deadline, &mut summary)).await?;
            summary.pipelines.push(done);
        }
        summary.unread = summary.attempt("", "raw", deadline, self.unread_raw()).await?;
        if !stop.is_cancelled() && self.cleans() {
            progress("cleaning sources");
            let clean = async { self.clean(false, stop).await.map(Some) };
            if let Some(cleanings) = summary.attempt("", "clean", deadline, clean).await? {
                summary.cleanings = cleanings.done;
                let id = StageId { pipeline: String::new(), stage: "clean" };
                summary.troubles.extend(cleanings.trouble.map(|error| error.during(&id)));
            }
        }
        Ok(summary)
    }

    async fn run_pipeline(
        &self,
        pipeline: &Pipeline,
        progress: &impl Fn(&str),
        deadline: &Deadline,
        summary: &mut BatchSummary,
    ) -> Result<PipelineSummary> {
        let (name, stop) = (pipeline.name.as_str(), &deadline.stop);
        progress(&format!("{name}: loading raw JSON into bronze"));
        let load = async {
            let options = self.bronze_options(pipeline, watch::Sender::new(-1))?;
            let own = self.own_table(pipeline, TableRole::Bronze).await?;
            BronzeStage::open(BronzeOptions { own, ..options }).await?.work_until_idle(stop).await
        };
        let bronze = summary.attempt(name, "bronze", deadline, load).await?;
        progress(&format!("{name}: asking the model"));
        let ask = async {
            let options = self.silver_options(pipeline, watch::Sender::new(-1))?;
            let own = self.own_table(pipeline, TableRole::Silver).await?;
            SilverStage::open(SilverOptions { own, ..options }).await?.work_until_idle(stop).await
        };
        let silver = summary.attempt(name, "silver", deadline, ask).await?;
        progress(&format!("{name}: replying"));
        let send = async {
            let own = self.own_table(pipeline, TableRole::Reply).await?;
            let options = ReplyOptions { own, ..self.reply_options(pipeline)? };
            ReplyStage::open(options).await?.work_until_idle(stop).await
        };
        let reply = summary.attempt(name, "reply", deadline, send).await?;
        Ok(PipelineSummary { pipeline: name.to_owned(), bronze, silver, reply })
    }
}

impl BatchSummary {
    /// What a stage did; nothing, plus a trouble, if it failed or did not end in time.
    async fn attempt<T: Default>(
        &mut self,
        pipeline: &str,
        stage: &'static str,
        deadline: &Deadline,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        // Boxed: these futures are large, and they are nested here.
        let work = Box::pin(work);
        let caught = deadline.late.run_until_cancelled(panic::catch(work)).await;
        let late = || Ok(Err(Error::unavailable("not finished in time; the next run continues from there")));
        let done = caught.unwrap_or_else(late).unwrap_or_else(|panic| Err(panic.into()));
        let id = StageId { pipeline: pipeline.to_owned(), stage };
        match done.map_err(|error| error.during(&id)) {
            Err(error) if error.kind() == ErrorKind::Fatal => Err(error),
            Err(error) => {
                self.troubles.push(error);
                Ok(T::default())
            }
            Ok(done) => Ok(done),
        }
    }
}
