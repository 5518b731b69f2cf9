//! The Bot API over HTTP, with faults classified by what is known about the call's outcome.

mod fault;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use url::{Host, Url};

use self::fault::Answer;
pub use self::fault::SendFault;
use super::text::Entity;
use super::update::Topic;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::redact::{CELL_LIMIT, excerpt};
use crate::settings::Secret;

/// Longer than Telegram takes for any call but getUpdates.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Shorter than every other time-out, so that a connection that was never established can be told from a missing
/// response.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an idle connection is kept for the next call.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// Added to the wait of a long poll.
const POLL_MARGIN: Duration = Duration::from_secs(10);

/// One message to send.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OutgoingMessage {
    /// The chat.
    pub chat_id: i64,
    /// Its text, at most 4096 UTF-16 units.
    pub text: String,
    /// Its formatting; empty means plain text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entities: Vec<Entity>,
    /// The topic it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_thread_id: Option<i64>,
    /// The person's topic it belongs to, among the direct messages of a channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_messages_topic_id: Option<i64>,
    /// Its buttons, in the Bot API's format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_markup: Option<Value>,
    /// The message it replies to (`reply_parameters.message_id`, with `allow_sending_without_reply`).
    #[serde(skip)]
    pub reply_to_message_id: Option<i64>,
}

/// `getWebhookInfo`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct WebhookInfo {
    /// Where updates are delivered; empty when no webhook is set.
    pub url: String,
    /// Updates waiting for delivery.
    pub pending_update_count: i64,
    /// Unix seconds of the last failed delivery.
    pub last_error_date: Option<i64>,
    /// The error of that delivery.
    pub last_error_message: Option<String>,
    /// Maximum concurrent connections.
    pub max_connections: Option<i64>,
    /// Kinds of updates that are delivered.
    pub allowed_updates: Option<Vec<String>>,
}

/// `setWebhook`.
#[derive(Clone, Serialize)]
pub struct WebhookRequest {
    /// HTTPS URL.
    pub url: String,
    /// Sent with every delivery.
    pub secret_token: String,
    /// Kinds of updates to deliver.
    pub allowed_updates: Vec<String>,
    /// Maximum concurrent connections, 1 to 100.
    pub max_connections: i64,
}

impl fmt::Debug for WebhookRequest {
    /// Without the secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "WebhookRequest({})", self.url)
    }
}

/// Who the bot is (`getMe`).
#[derive(Clone, Debug, Deserialize)]
pub struct BotUser {
    /// The bot's id.
    pub id: i64,
    /// Its username.
    pub username: Option<String>,
    /// Its name.
    pub first_name: String,
}

/// The client of a bot. Never retries: the caller is the one retry layer. Cheap to clone.
#[derive(Clone)]
pub struct BotClient {
    http: reqwest::Client,
    /// Without a trailing slash.
    api_url: Arc<str>,
    token: Secret,
    /// Time limit of every call but getUpdates.
    call_timeout: Duration,
}

/// The result of a call.
pub type CallResult<T> = std::result::Result<T, SendFault>;

#[derive(Deserialize)]
struct SentMessage {
    message_id: i64,
}

impl fmt::Debug for BotClient {
    /// Without the token.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BotClient")
    }
}

impl BotClient {
    /// A client for `token`, which may change; `api_url` is the part before `/bot`.
    ///
    /// # Errors
    /// A configuration error when the URL or the token cannot be used.
    pub fn new(api_url: &str, token: impl Into<Secret>) -> Result<Self> {
        let (url, token) = (checked_api_url(api_url)?, token.into());
        checked_token(&token.current())?;
        // A repeated send is a second message, so nothing below us may repeat one: no reqwest retry policy, no
        // redirects. What remains is hyper's own second try on a fresh connection, made only when it returns the
        // request because it never began to write it. Closing idle connections early makes the other case rare:
        // Telegram closing one just as we write to it, whose outcome stays unknown.
        let builder = reqwest::Client::builder()
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .pool_idle_timeout(IDLE_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT);
        let builder = if is_loopback(&url) { builder.no_proxy() } else { builder };
        let http = builder.build().context(
            ErrorKind::Configuration,
            "cannot create the HTTP client for the Bot API; are the system's CA certificates installed?",
        )?;
        Ok(Self { http, api_url: api_url.trim_end_matches('/').into(), token, call_timeout: CALL_TIMEOUT })
    }

    /// Sends a message and returns its id.
    ///
    /// # Errors
    /// The fault, by what is known about the message's outcome.
    pub async fn send_message(&self, message: &OutgoingMessage) -> CallResult<i64> {
        let sent: SentMessage = self.call("sendMessage", &parameters(message), self.call_timeout).await?;
        Ok(sent.message_id)
    }

    /// Replaces the text of a message. "Not modified" is success.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub async fn edit_message_text(&self, message_id: i64, message: &OutgoingMessage) -> CallResult<()> {
        let mut parameters = parameters(message);
        parameters["message_id"] = message_id.into();
        match self.call::<IgnoredAny>("editMessageText", &parameters, self.call_timeout).await {
            Err(fault) if fault.is_not_modified() => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Shows "typing…" for five seconds. The method has no parameter for the direct messages of a channel.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub async fn send_typing(&self, chat_id: i64, topic: Option<Topic>) -> CallResult<()> {
        let mut parameters = json!({"chat_id": chat_id, "action": "typing"});
        if let Some(Topic::Thread(thread)) = topic {
            parameters["message_thread_id"] = thread.into();
        }
        self.call::<IgnoredAny>("sendChatAction", &parameters, self.call_timeout).await.map(drop)
    }

    /// Stops the loading indicator of a pressed button.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub async fn answer_callback_query(&self, callback_query_id: &str) -> CallResult<()> {
        let parameters = json!({"callback_query_id": callback_query_id});
        self.call::<IgnoredAny>("answerCallbackQuery", &parameters, self.call_timeout).await.map(drop)
    }

    /// Who the bot is.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub async fn get_me(&self) -> CallResult<BotUser> {
        self.call("getMe", &json!({}), self.call_timeout).await
    }

    /// Sets the webhook.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub async fn set_webhook(&self, request: &WebhookRequest) -> CallResult<()> {
        self.call::<IgnoredAny>("setWebhook", request, self.call_timeout).await.map(drop)
    }

    /// Removes the webhook; undelivered updates are kept.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub async fn delete_webhook(&self) -> CallResult<()> {
        self.call::<IgnoredAny>("deleteWebhook", &json!({}), self.call_timeout).await.map(drop)
    }

    /// The state of the webhook.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub async fn get_webhook_info(&self) -> CallResult<WebhookInfo> {
        self.call("getWebhookInfo", &json!({}), self.call_timeout).await
    }

    /// Updates from `offset` on, waiting up to `wait` for one. Each is the verbatim JSON object.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub async fn get_updates(
        &self,
        offset: Option<i64>,
        wait: Duration,
        allowed: &[String],
    ) -> CallResult<Vec<Box<RawValue>>> {
        let mut parameters = json!({"timeout": wait.as_secs(), "allowed_updates": allowed});
        if let Some(offset) = offset {
            parameters["offset"] = offset.into();
        }
        self.call("getUpdates", &parameters, wait.saturating_add(POLL_MARGIN)).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        parameters: &(impl Serialize + Sync),
        timeout: Duration,
    ) -> CallResult<T> {
        let token = self.token.current();
        let url = format!("{}/bot{token}/{method}", self.api_url);
        let outcome = match self.http.post(url).timeout(timeout).json(parameters).send().await {
            Ok(response) => Answer::read(response).await.judge(),
            Err(error) => Err(SendFault::of(error)),
        };
        // The response may have repeated the path of the request, or the secret that was set.
        outcome.map_err(|fault| fault.map_text(|text| excerpt(text, CELL_LIMIT)))
    }
}

fn parameters(message: &OutgoingMessage) -> Value {
    let mut parameters = serde_json::to_value(message).unwrap_or_default();
    if let Some(message_id) = message.reply_to_message_id {
        parameters["reply_parameters"] = json!({"message_id": message_id, "allow_sending_without_reply": true});
    }
    parameters
}

/// Checks the part before `/bot`. Errors do not repeat it.
fn checked_api_url(api_url: &str) -> Result<Url> {
    let usable = |url: &Url| {
        matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none() && url.fragment().is_none()
    };
    Url::parse(api_url).ok().filter(usable).ok_or_else(|| {
        Error::configuration(
            "TELEGRAM_API_URL cannot be used; write the part before `/bot`, like https://api.telegram.org",
        )
    })
}

/// Checks that `token` can be used in a path as it is. Errors do not repeat it.
///
/// # Errors
/// A configuration error when it cannot.
pub fn checked_token(token: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-');
    if token.is_empty() || !token.chars().all(fits) {
        return Err(Error::configuration(
            "the bot token contains invalid characters; copy all of it from BotFather (123456:ABC…)",
        ));
    }
    Ok(())
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
