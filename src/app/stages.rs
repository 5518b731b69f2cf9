//! The stages of the service, each with its keeper, and what they are given.

use std::collections::BTreeSet;

use tokio::sync::watch;

use super::pace::Pace;
use super::{App, Role};
use crate::error::Result;
use crate::hint::KeyHints;
use crate::load::files::FilesStage;
use crate::load::lanes::{BronzeOptions, BronzeStage};
use crate::pipeline::Pipeline;
use crate::pipeline::files::FilesPipeline;
use crate::shutdown::TaskGroup;
use crate::stage::reply::{ReplyOptions, ReplyStage};
use crate::stage::silver::{SilverOptions, SilverStage};
use crate::table::{OwnTable, TableRole};

/// Where the stages of a pipeline report the versions they have committed. It outlives each of them.
#[derive(Debug)]
struct Versions {
    bronze: watch::Sender<i64>,
    silver: watch::Sender<i64>,
}

impl App {
    /// Checks everything the roles need that is not in a store, so that missing settings are reported before anything
    /// is started.
    ///
    /// # Errors
    /// A configuration error that names the setting.
    pub(super) fn check_settings(&self, roles: &BTreeSet<Role>) -> Result<()> {
        for pipeline in &self.pipelines {
            if roles.contains(&Role::Receive) {
                self.bot_id(pipeline)?;
                self.webhook_secrets(pipeline)?;
            }
            if roles.contains(&Role::Bronze) {
                self.bronze_options(pipeline, watch::Sender::new(-1))?;
            }
            if roles.contains(&Role::Silver) {
                self.silver_options(pipeline, watch::Sender::new(-1))?;
            }
            if roles.contains(&Role::Reply) {
                self.reply_options(pipeline)?;
            }
        }
        for loader in self.loaders.iter().filter(|_| roles.contains(&Role::Bronze)) {
            FilesStage::check_settings(&self.files_options(loader)?).map_err(|error| error.during(&loader.name))?;
        }
        Ok(())
    }

    /// Starts a keeper for each stage of a pipeline, each sending hints to the next. Returns where they report the
    /// versions they have committed.
    pub(super) fn keep_stages(
        &self,
        pipeline: &Pipeline,
        roles: &BTreeSet<Role>,
        hints: KeyHints,
        tasks: &mut TaskGroup,
    ) -> [watch::Receiver<i64>; 2] {
        let versions = Versions { bronze: watch::Sender::new(-1), silver: watch::Sender::new(-1) };
        if roles.contains(&Role::Bronze) {
            self.keep_bronze(pipeline, hints, &versions, tasks);
        }
        if roles.contains(&Role::Silver) {
            self.keep_silver(pipeline, &versions, tasks);
        }
        if roles.contains(&Role::Reply) {
            self.keep_reply(pipeline, &versions, tasks);
        }
        [versions.bronze.subscribe(), versions.silver.subscribe()]
    }

    fn keep_bronze(&self, pipeline: &Pipeline, hints: KeyHints, versions: &Versions, tasks: &mut TaskGroup) {
        let keeper = self.keeper(pipeline.name.as_str(), "bronze", tasks.stop());
        let (app, pipeline, committed) = (self.clone(), pipeline.clone(), versions.bronze.clone());
        let open = move || {
            let (app, pipeline) = (app.clone(), pipeline.clone());
            let options = app.bronze_options(&pipeline, committed.clone());
            async move {
                let own = app.own_table(&pipeline, TableRole::Bronze).await?;
                BronzeStage::open(BronzeOptions { own, ..options? }).await
            }
        };
        keeper.spawn(tasks, open, move |stage, stop| stage.run(hints.clone(), stop));
    }

    fn keep_silver(&self, pipeline: &Pipeline, versions: &Versions, tasks: &mut TaskGroup) {
        let keeper = self.keeper(pipeline.name.as_str(), "silver", tasks.stop());
        let (app, pipeline, committed) = (self.clone(), pipeline.clone(), versions.silver.clone());
        let open = move || {
            let (app, pipeline) = (app.clone(), pipeline.clone());
            let options = app.silver_options(&pipeline, committed.clone());
            async move {
                let own = app.own_table(&pipeline, TableRole::Silver).await?;
                SilverStage::open(SilverOptions { own, ..options? }).await
            }
        };
        let upstream = versions.bronze.subscribe();
        keeper.spawn(tasks, open, move |stage, stop| stage.run(upstream.clone(), stop));
    }

    fn keep_reply(&self, pipeline: &Pipeline, versions: &Versions, tasks: &mut TaskGroup) {
        let keeper = self.keeper(pipeline.name.as_str(), "reply", tasks.stop());
        let (app, pipeline) = (self.clone(), pipeline.clone());
        let open = move || {
            let (app, pipeline) = (app.clone(), pipeline.clone());
            let options = app.reply_options(&pipeline);
            async move {
                let own = app.own_table(&pipeline, TableRole::Reply).await?;
                ReplyStage::open(ReplyOptions { own, ..options? }).await
            }
        };
        let upstream = versions.silver.subscribe();
        keeper.spawn(tasks, open, move |stage, stop| stage.run(upstream.clone(), stop));
    }

    /// Starts the keeper of a loader of foreign files.
    pub(super) fn keep_loader(&self, loader: &FilesPipeline, tasks: &mut TaskGroup) {
        let keeper = self.keeper(loader.name.as_str(), "files", tasks.stop());
        let (app, loader) = (self.clone(), loader.clone());
        let open = move || {
            let options = app.files_options(&loader);
            async { FilesStage::open(options?).await }
        };
        keeper.spawn(tasks, open, FilesStage::run);
    }

    /// Starts the keepers that maintain the tables and clean the sources of all pipelines.
    pub(super) fn keep_upkeep(&self, pace: &Pace, tasks: &mut TaskGroup) {
        let (app, pace) = (self.clone(), pace.clone());
        let run = move |(), stop| app.clone().maintain_apart(pace.clone(), stop);
        self.keeper("", "maintain", tasks.stop()).spawn(tasks, || async { Ok(()) }, run);
        if self.cleans() {
            let app = self.clone();
            let run = move |(), stop| app.clone().clean_apart(stop);
            self.keeper("", "clean", tasks.stop()).spawn(tasks, || async { Ok(()) }, run);
        }
    }

    /// Starts the keeper of what watches the data root, for a process that writes lanes or does not.
    pub(super) fn keep_root(&self, writes_lanes: bool, tasks: &mut TaskGroup) {
        let app = self.clone();
        let run = move |(), stop| app.clone().watch_root(writes_lanes, stop);
        self.keeper("", "root", tasks.stop()).spawn(tasks, || async { Ok(()) }, run);
    }

    /// Starts the keeper that removes the leftovers of interrupted puts.
    pub(super) fn keep_sweep(&self, tasks: &mut TaskGroup) {
        let app = self.clone();
        let run = move |(), stop| app.clone().sweep(stop);
        self.keeper("", "sweep", tasks.stop()).spawn(tasks, || async { Ok(()) }, run);
    }

    pub(super) fn bronze_options(&self, pipeline: &Pipeline, committed: watch::Sender<i64>) -> Result<BronzeOptions> {
        Ok(BronzeOptions {
            storage: self.storage.clone(),
            pipeline: pipeline.name.clone(),
            settings: pipeline.bronze.clone(),
            schema: crate::schema::load(&self.settings.schemas, &pipeline.bronze.schema)?,
            own: OwnTable::default(),
            clock: self.clock.clone(),
            telemetry: self.telemetry.clone(),
            committed,
        })
    }

    pub(super) fn silver_options(&self, pipeline: &Pipeline, committed: watch::Sender<i64>) -> Result<SilverOptions> {
        let acknowledger = self.bot_client(pipeline)?;
        Ok(SilverOptions {
            storage: self.storage.clone(),
            pipeline: pipeline.clone(),
            bot_id: Some(self.bot_id(pipeline)?),
            schema: crate::schema::load(&self.settings.schemas, crate::schema::RESPONSES)?,
            own: OwnTable::default(),
            model: self.model_client(pipeline)?,
            acknowledger: Some(acknowledger),
            clock: self.clock.clone(),
            telemetry: self.telemetry.clone(),
            committed,
        })
    }

    pub(super) fn reply_options(&self, pipeline: &Pipeline) -> Result<ReplyOptions> {
        Ok(ReplyOptions {
            storage: self.storage.clone(),
            pipeline: pipeline.name.clone(),
            settings: pipeline.reply.clone(),
            silver_table: pipeline.silver.table.to_string(),
            bot_id: self.bot_id(pipeline)?,
            bot: self.bot_client(pipeline)?,
            schema: crate::schema::load(&self.settings.schemas, crate::schema::REPLIES)?,
            own: OwnTable::default(),
            clock: self.clock.clone(),
            telemetry: self.telemetry.clone(),
        })
    }
}
