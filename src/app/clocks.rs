//! Clocks that are off: ours against the store's, and lanes whose keys are ahead of it.

use std::time::Duration;

use super::App;
use super::troubles::Troubles;
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
    /// What is wrong with this machine's clock, if the store's time is `theirs`.
    pub(crate) fn clock_trouble(&self, theirs: Timestamp) -> Option<String> {
        let now = self.clock.now();
        (now.since(theirs).max(theirs.since(now)) > TOLERANCE)
            .then(|| format!("this machine's clock says {now} and the store's says {theirs}; set the clock (NTP)"))
    }

    /// What is wrong with the keys of this machine's lane of a pipeline, if the store's time is `theirs`. Without the
    /// bot's token nobody writes the lane.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn lane_trouble(&self, pipeline: &Pipeline, theirs: Timestamp) -> Result<Option<String>> {
        let Ok(bot_id) = self.bot_id(pipeline) else { return Ok(None) };
        let lane = self.lane(pipeline);
        let newest = newest_key_of(&self.storage, &pipeline.name, bot_id, &lane).await?;
        Ok(keys_ahead(newest, theirs).map(|ahead| {
            let ahead = humantime::format_duration(ahead);
            format!(
                "the keys of lane `{lane}` are {ahead} ahead of the store's clock, because a clock was; messages are landed \
                 and answered once all the same, but their _received_at is off until receive.lane is given a new name"
            )
        }))
    }

    /// Compares clocks and, if this process writes lanes, their keys; logs what is off, and shows it as an unwell
    /// `clock`.
    ///
    /// # Errors
    /// When the store fails; the lanes that could be read were compared.
    pub(super) async fn look_at_clocks(&self, writes_lanes: bool, next: Duration) -> Result<()> {
        let (theirs, mut troubles) = (self.storage.time().await?, Troubles::default());
        self.note_clock("", self.clock_trouble(theirs), next);
        for pipeline in self.pipelines.iter().filter(|_| writes_lanes) {
            let trouble = self.lane_trouble(pipeline, theirs).await.map_err(|error| error.during(&pipeline.name));
            if let Some(trouble) = troubles.pass(trouble)? {
                self.note_clock(pipeline.name.as_str(), trouble, next);
            }
        }
        troubles.outcome()
    }

    fn note_clock(&self, pipeline: &str, trouble: Option<String>, next: Duration) {
        let (id, now) = (StageId { pipeline: pipeline.to_owned(), stage: CLOCK }, self.clock.now());
        let Some(reason) = trouble else {
            if self.health.recover(&id) {
                tracing::info!(pipeline, "the clocks agree again");
            }
            return;
        };
        let unwell = Unwell { reason: reason.clone(), since: now, next_try: now.plus(next) };
        if !matches!(self.health.unwell(&id, unwell), Some(StageState::Unwell(_))) {
            tracing::warn!(pipeline, "{reason}");
        }
    }
}

/// How far a key is ahead of a time, where that is more than clocks are off.
pub(crate) fn keys_ahead(key: Timestamp, now: Timestamp) -> Option<Duration> {
    let ahead = key.since(now);
    (ahead > TOLERANCE).then(|| Duration::from_secs(ahead.as_secs()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::BotId;
    use crate::storage::StorageKey;
    use crate::storage::tests::troubled::{Switch, Trouble};

    const WITH_TOKEN: [(&str, &str); 2] = [("HOSTNAME", "edge"), ("TELEGRAM_BOT_TOKEN", "42:token")];

    /// A segment whose key is a day ahead of every clock.
    async fn land_ahead(app: &App) {
        let pipeline = app.pipelines[0].name.clone();
        let micros = app.clock.now().plus(Duration::from_secs(86_400));
        let key = StorageKey::Segment { pipeline, bot_id: BotId(42), lane: app.lane(&app.pipelines[0]), micros };
        app.storage.put_new(&key.path(), Bytes::from_static(b"{}\n")).await.unwrap();
    }

    fn unwell(app: &App) -> Vec<String> {
        app.health.stages().into_iter().filter(|stage| stage.is_unwell()).map(|stage| stage.id.pipeline).collect()
    }

    #[tokio::test]
    async fn keys_are_compared_by_whoever_writes_the_lane() {
        let app = App::in_memory(&WITH_TOKEN);
        land_ahead(&app).await;
        app.look_at_clocks(false, Duration::ZERO).await.unwrap();
        assert_eq!(unwell(&app), Vec::<String>::new(), "another process writes it");
        app.look_at_clocks(true, Duration::ZERO).await.unwrap();
        assert_eq!(unwell(&app), ["telegram"]);
    }

    #[tokio::test]
    async fn without_a_token_there_is_no_lane_and_clocks_are_compared_all_the_same() {
        let app = App::in_memory(&[("HOSTNAME", "edge")]);
        land_ahead(&app).await;
        app.clock.step(2 * 3_600_000_000);
        app.look_at_clocks(true, Duration::ZERO).await.unwrap();
        assert_eq!(unwell(&app), [""]);
    }

    #[tokio::test]
    async fn a_lane_that_cannot_be_read_leaves_the_comparison_of_the_clocks_alone() {
        let (mut app, switch) = (App::in_memory(&WITH_TOKEN), Switch::default());
        app.storage = app.storage.decorated(|inner| switch.wrap(inner));
        app.clock.step(2 * 3_600_000_000);
        switch.begin(Trouble::Server, &["raw/"]);
        let error = app.look_at_clocks(true, Duration::ZERO).await.unwrap_err().to_string();
        assert!(error.starts_with("telegram: "), "{error}");
        assert_eq!(unwell(&app), [""]);
    }
}
