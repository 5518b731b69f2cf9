//! Clocks that are off: ours against the store's, and lanes whose keys are ahead of it.

use std::time::Duration;

use super::App;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::health::{StageId, StageState, Unwell};
use crate::pipeline::Pipeline;
use crate::receive::newest_key_of;

/// Clocks that agree to within this are right.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(300);
/// As the name of a stage.
const CLOCK: &str = "clock";

impl App {
    /// What is the matter with this machine's clock, the store's time being `theirs`.
    pub(crate) fn clock_trouble(&self, theirs: Timestamp) -> Option<String> {
        let now = self.clock.now();
        (now.since(theirs).max(theirs.since(now)) > TOLERANCE)
            .then(|| format!("this machine's clock says {now} and the store's says {theirs}; set the clock (NTP)"))
    }

    /// What is the matter with the keys of the lane that this process writes for a pipeline, the store's time being
    /// `theirs`.
    ///
    /// # Errors
    /// When the store fails or the bot's token is missing.
    pub(crate) async fn lane_trouble(&self, pipeline: &Pipeline, theirs: Timestamp) -> Result<Option<String>> {
        let (bot_id, lane) = (self.bot_id(pipeline)?, self.lane(pipeline));
        let newest = newest_key_of(&self.storage, &pipeline.name, bot_id, &lane).await?;
        Ok(keys_ahead(newest, theirs).map(|ahead| {
            let ahead = humantime::format_duration(ahead);
            format!(
                "the keys of lane `{lane}` are {ahead} ahead of the store's clock, because a clock was; messages are landed \
                 and answered once all the same, but their _received_at is off until receive.lane is given a new name"
            )
        }))
    }

    /// Compares clocks and keys, tells what is off in the log, and shows it as an unwell `clock`.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn look_at_clocks(&self, next: Duration) -> Result<()> {
        let theirs = self.storage.time().await?;
        self.note_clock("", self.clock_trouble(theirs), next);
        for pipeline in &self.pipelines {
            let trouble = self.lane_trouble(pipeline, theirs).await?;
            self.note_clock(pipeline.name.as_str(), trouble, next);
        }
        Ok(())
    }

    fn note_clock(&self, pipeline: &str, trouble: Option<String>, next: Duration) {
        let (id, now) = (StageId { pipeline: pipeline.to_owned(), stage: CLOCK }, self.clock.now());
        let known = self.health.stages().into_iter().find(|stage| stage.id == id).map(|stage| stage.state);
        let Some(reason) = trouble else {
            if matches!(known, Some(StageState::Unwell(_))) {
                tracing::info!(pipeline, "the clocks agree again");
                self.health.note(&id, StageState::Ok);
            }
            return;
        };
        let since = match known {
            Some(StageState::Unwell(unwell)) => unwell.since,
            _ => {
                tracing::warn!(pipeline, "{reason}");
                now
            }
        };
        self.health.note(&id, StageState::Unwell(Unwell { reason, since, next_try: now.plus(next) }));
    }
}

/// How far a key is ahead of a time, where that is more than clocks are off.
pub(crate) fn keys_ahead(key: Timestamp, now: Timestamp) -> Option<Duration> {
    let ahead = key.since(now);
    (ahead > TOLERANCE).then(|| Duration::from_secs(ahead.as_secs()))
}
