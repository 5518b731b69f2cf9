//! Polling with getUpdates instead of a webhook: updates are landed before Telegram is told to forget them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::pace::Pace;
use super::{App, DRAIN, Role};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::hint::key_hints;
use crate::receive::LaneWriter;
use crate::retry::Backoff;
use crate::shutdown::TaskGroup;
use crate::telegram::update::UPDATE_KINDS;
use crate::telegram::{BotClient, SendFault};

/// How long Telegram holds a call that has nothing to return.
const LONG_POLL: Duration = Duration::from_secs(50);
/// Before retrying what a person has to fix.
const REFUSED_WAIT: Duration = Duration::from_secs(30);

impl App {
    /// Like [`App::serve`] with all roles, but polling for updates; `console` shows metrics and health.
    ///
    /// # Errors
    /// A configuration error before anything is started, and what Telegram says about the token; afterwards only that
    /// the disk failed.
    pub async fn poll(self, console: TcpListener, stop: CancellationToken) -> Result<()> {
        let roles: BTreeSet<Role> = Role::all();
        self.check_settings(&roles)?;
        self.check_store().await?;
        let mut tasks = TaskGroup::new(stop.clone());
        self.keep_root(true, &mut tasks);
        let (mut lanes, mut pace) = (Vec::new(), Pace::default());
        for pipeline in &self.pipelines {
            let (hinter, hints) = key_hints();
            let writer = self.start_lane(pipeline, hinter, &mut tasks)?;
            pace.follow(self.keep_stages(pipeline, &roles, hints, &mut tasks));
            lanes.push(writer.readiness());
            let puller = Puller { bot: self.bot_client(pipeline)?, writer, clock: self.clock.clone() };
            tasks.spawn("poll", puller.run(stop.clone()));
        }
        self.keep_console(console, Arc::new(move || lanes.iter().try_for_each(|ready| ready())), &mut tasks)?;
        self.loaders.iter().for_each(|loader| self.keep_loader(loader, &mut tasks));
        self.keep_upkeep(&pace, &mut tasks);
        self.keep_sweep(&mut tasks);
        tasks.wait(&self.clock, DRAIN).await
    }
}

struct Puller {
    bot: BotClient,
    writer: LaneWriter,
    clock: Clock,
}

impl Puller {
    async fn run(self, stop: CancellationToken) -> Result<()> {
        let kinds: Vec<String> = UPDATE_KINDS.iter().map(|&kind| kind.to_owned()).collect();
        let (mut offset, mut has_pulled) = (None, false);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        tracing::info!("polling for updates; write to your bot");
        loop {
            let pulled = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                pulled = self.bot.get_updates(offset, LONG_POLL, &kinds) => pulled,
            };
            let wait = match pulled {
                Ok(updates) => {
                    backoff.reset();
                    has_pulled = true;
                    self.land(&updates, &mut offset).await
                }
                // It has worked before, so somebody is changing something: a token, or another poller.
                Err(fault @ (SendFault::BadToken | SendFault::Refused { code: 409, .. })) if has_pulled => {
                    tracing::error!(?fault, retry_in = ?REFUSED_WAIT, "Telegram refuses to return updates; retrying");
                    Some(REFUSED_WAIT)
                }
                Err(SendFault::BadToken) => {
                    return Err(Error::configuration("Telegram does not know the bot token; ask @BotFather for it"));
                }
                Err(SendFault::Refused { code: 409, description, .. }) => {
                    return Err(Error::configuration(format!(
                        "{description}; a webhook or another poller is using this bot: run `lakegram webhook delete`, or stop the other one"
                    )));
                }
                Err(SendFault::RetryAfter { wait, .. }) => Some(wait),
                Err(fault) => {
                    tracing::warn!(?fault, "Telegram cannot be reached; retrying");
                    Some(backoff.next_delay())
                }
            };
            if let Some(wait) = wait {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = self.clock.sleep(wait) => {}
                }
            }
        }
    }

    /// Lands polled updates in order. The offset, which makes Telegram forget, only moves past what is durable.
    async fn land(&self, updates: &[Box<serde_json::value::RawValue>], offset: &mut Option<i64>) -> Option<Duration> {
        #[derive(serde::Deserialize)]
        struct Id {
            update_id: i64,
        }
        for update in updates {
            let landed = self.writer.land_pulled(update.get().as_bytes().to_vec().into()).await;
            if let Err(fault) = landed {
                tracing::error!(%fault, "could not land an update; Telegram keeps it");
                return Some(Duration::from_secs(2));
            }
            if let Ok(Id { update_id }) = serde_json::from_str(update.get()) {
                *offset = Some(update_id.saturating_add(1));
            }
        }
        None
    }
}
