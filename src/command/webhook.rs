//! `lakegram webhook set HOST`, `info` and `delete`.

use super::{Pipelines, Verdict, output};
use crate::app::App;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Pipeline;
use crate::telegram::SendFault;
use crate::telegram::client::{BotClient, WebhookRequest};
use crate::telegram::update::UPDATE_KINDS;
use crate::telegram::webhook_url::webhook_url;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Tell Telegram to deliver to this host; path, secret and kinds of updates come from the pipeline
    Set {
        /// Public host or URL, like bot.example.com, with or without the path.
        host: String,
        #[command(flatten)]
        pipelines: Pipelines,
    },
    /// Show what Telegram knows about the webhook, and its last delivery error
    Info {
        #[command(flatten)]
        pipelines: Pipelines,
    },
    /// Remove the webhook; Telegram keeps undelivered updates for a day
    Delete {
        #[command(flatten)]
        pipelines: Pipelines,
    },
}

impl Options {
    pub(super) fn pipelines(&self) -> &Pipelines {
        match &self.action {
            Action::Set { pipelines, .. } | Action::Info { pipelines } | Action::Delete { pipelines } => pipelines,
        }
    }
}

pub(super) async fn webhook(app: App, options: Options) -> Result<Verdict> {
    for pipeline in &app.pipelines {
        let bot = app.bot_client(pipeline)?;
        let shown = match &options.action {
            Action::Set { host, .. } => set(&app, pipeline, &bot, host).await?,
            Action::Info { .. } => info(pipeline, &bot).await?,
            Action::Delete { .. } => {
                bot.delete_webhook().await.map_err(into_error)?;
                format!("{}: webhook deleted", pipeline.name)
            }
        };
        output::print(&shown)?;
    }
    Ok(Verdict::Done)
}

async fn set(app: &App, pipeline: &Pipeline, bot: &BotClient, host: &str) -> Result<String> {
    // During a rotation the new one stands first.
    let secrets = app.webhook_secrets(pipeline)?.current();
    let secret = secrets.split(',').next().unwrap_or_default().trim().to_owned();
    let request = WebhookRequest {
        url: webhook_url(host, &pipeline.receive.paths, app.uses_public_bot_api())?,
        secret_token: secret,
        allowed_updates: UPDATE_KINDS.iter().map(|&kind| kind.to_owned()).collect(),
        max_connections: 100,
    };
    bot.set_webhook(&request).await.map_err(into_error)?;
    Ok(format!("{}: Telegram delivers to {}", pipeline.name, request.url))
}

async fn info(pipeline: &Pipeline, bot: &BotClient) -> Result<String> {
    let info = bot.get_webhook_info().await.map_err(into_error)?;
    let url = if info.url.is_empty() { "none".to_owned() } else { info.url };
    let error = info.last_error_message.unwrap_or_else(|| "none".to_owned());
    Ok(output::table(
        &["pipeline", "webhook", "waiting", "last error"],
        [vec![pipeline.name.to_string(), url, info.pending_update_count.to_string(), error]],
    ))
}

/// A Bot API fault as a command error.
pub(super) fn into_error(fault: SendFault) -> Error {
    match fault {
        SendFault::BadToken => Error::configuration("Telegram does not know the bot token; ask @BotFather for it"),
        SendFault::Refused { code, description, .. } => {
            Error::new(ErrorKind::Refused, format!("Telegram refused: {code} {description}"))
        }
        SendFault::RetryAfter { wait, .. } => {
            Error::unavailable(format!("Telegram asks to wait {} s; try again after that", wait.as_secs()))
        }
        SendFault::NotSent { message } | SendFault::Unknown { message } => {
            Error::unavailable(format!("Telegram cannot be reached: {message}; check the network and TELEGRAM_API_URL"))
        }
    }
}
