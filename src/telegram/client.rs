//! The Bot API over HTTP, with faults sorted by what is known of the call's fate.

use std::fmt;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::text::Entity;
use crate::error::{Context, Error, ErrorKind, Result};

/// Longer than Telegram takes for any call but getUpdates.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Given to a long poll on top of what it waits for.
const POLL_MARGIN: Duration = Duration::from_secs(15);
/// How much of a text that is no JSON is told.
const MESSAGE_LIMIT: usize = 200;

/// Why a call did not succeed, by what is known of its fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendFault {
    /// No byte of it left this machine (DNS, connect, TLS): it may be tried again.
    NotSent {
        /// What happened.
        message: String,
    },
    /// 429: refused for now; try again after this long.
    RetryAfter {
        /// What Telegram asked for.
        wait: Duration,
        /// Its description.
        message: String,
    },
    /// Refused for good.
    Refused {
        /// Telegram's `error_code`.
        code: i64,
        /// Telegram's `description`.
        description: String,
        /// The chat has become this supergroup.
        migrate_to_chat_id: Option<i64>,
    },
    /// 401 or 404: the token is not one.
    BadToken,
    /// A time-out, a reset or 5xx: it may have arrived.
    Unknown {
        /// What happened.
        message: String,
    },
}

/// One message to send.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OutgoingMessage {
    /// Where to.
    pub chat_id: i64,
    /// Its text, at most 4096 UTF-16 units.
    pub text: String,
    /// Its formatting; none means plain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entities: Vec<Entity>,
    /// The topic it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_thread_id: Option<i64>,
    /// The message it answers (`reply_parameters.message_id`, with `allow_sending_without_reply`).
    #[serde(skip)]
    pub reply_to_message_id: Option<i64>,
}

/// `getWebhookInfo`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct WebhookInfo {
    /// Where updates go; empty when no webhook is set.
    pub url: String,
    /// Updates that wait for delivery.
    pub pending_update_count: i64,
    /// Unix seconds of the last failed delivery.
    pub last_error_date: Option<i64>,
    /// What failed.
    pub last_error_message: Option<String>,
    /// Connections at the same time.
    pub max_connections: Option<i64>,
    /// Kinds of updates that are delivered.
    pub allowed_updates: Option<Vec<String>>,
}

/// `setWebhook`.
#[derive(Clone, Debug, Serialize)]
pub struct WebhookRequest {
    /// HTTPS URL.
    pub url: String,
    /// Sent back with every delivery.
    pub secret_token: String,
    /// Kinds of updates to deliver.
    pub allowed_updates: Vec<String>,
    /// Connections at the same time, 1 to 100.
    pub max_connections: i64,
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

/// A bot's door to the Bot API. Never retries: that is the caller's one layer. Cheap to clone.
#[derive(Clone)]
pub struct BotClient {
    http: reqwest::Client,
    /// `<api_url>/bot<token>`: a secret.
    base: String,
}

/// What a call returns.
pub type CallResult<T> = std::result::Result<T, SendFault>;

/// What every answer of the Bot API looks like (<https://core.telegram.org/bots/api#making-requests>).
#[derive(Deserialize)]
struct Envelope<T> {
    ok: bool,
    result: Option<T>,
    error_code: Option<i64>,
    description: Option<String>,
    parameters: Option<Parameters>,
}

/// <https://core.telegram.org/bots/api#responseparameters>
#[derive(Default, Deserialize)]
struct Parameters {
    retry_after: Option<u64>,
    migrate_to_chat_id: Option<i64>,
}

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

impl SendFault {
    /// Telegram could not read the formatting of a text: plain, it may pass.
    pub fn is_unparsable_entities(&self) -> bool {
        self.says("can't parse entities")
    }

    /// The message that was to be answered is gone: without it, the text may pass.
    pub fn is_missing_reply_target(&self) -> bool {
        self.says("message to be replied not found") || self.says("replied message not found")
    }

    fn is_not_modified(&self) -> bool {
        self.says("message is not modified")
    }

    fn says(&self, text: &str) -> bool {
        matches!(self, Self::Refused { code: 400, description, .. } if description.contains(text))
    }
}

impl BotClient {
    /// A client for `token`; `api_url` is what stands before `/bot`.
    ///
    /// # Errors
    /// A configuration error when the URL cannot be used.
    pub fn new(api_url: &str, token: &str) -> Result<Self> {
        let parsed = url::Url::parse(api_url)
            .map_err(|_| Error::configuration(format!("TELEGRAM_API_URL: `{api_url}` is no URL")))?;
        let on_loopback = matches!(parsed.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"));
        // A repeated send is a second message, so nothing below us may repeat one.
        let builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).retry(reqwest::retry::never());
        let builder = if on_loopback { builder.no_proxy() } else { builder };
        let http = builder.build().context(ErrorKind::Configuration, "the HTTP client of the Bot API")?;
        Ok(Self { http, base: format!("{}/bot{token}", api_url.trim_end_matches('/')) })
    }

    /// Sends a message and returns its id.
    ///
    /// # Errors
    /// The fault, by what is known of the message's fate.
    pub async fn send_message(&self, message: &OutgoingMessage) -> CallResult<i64> {
        let sent: SentMessage = self.call("sendMessage", &parameters(message), CALL_TIMEOUT).await?;
        Ok(sent.message_id)
    }

    /// Replaces the text of a message. "Not modified" is success.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub async fn edit_message_text(&self, message_id: i64, message: &OutgoingMessage) -> CallResult<()> {
        let mut parameters = parameters(message);
        parameters["message_id"] = message_id.into();
        match self.call::<Value>("editMessageText", &parameters, CALL_TIMEOUT).await {
            Err(fault) if fault.is_not_modified() => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    /// Shows "typing…" for five seconds.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub async fn send_typing(&self, chat_id: i64, message_thread_id: Option<i64>) -> CallResult<()> {
        let mut parameters = json!({"chat_id": chat_id, "action": "typing"});
        if let Some(thread) = message_thread_id {
            parameters["message_thread_id"] = thread.into();
        }
        self.call::<Value>("sendChatAction", &parameters, CALL_TIMEOUT).await.map(drop)
    }

    /// Stops the spinner of a pressed button.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub async fn answer_callback_query(&self, callback_query_id: &str) -> CallResult<()> {
        let parameters = json!({"callback_query_id": callback_query_id});
        self.call::<Value>("answerCallbackQuery", &parameters, CALL_TIMEOUT).await.map(drop)
    }

    /// Who the bot is.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub async fn get_me(&self) -> CallResult<BotUser> {
        self.call("getMe", &json!({}), CALL_TIMEOUT).await
    }

    /// Sets the webhook.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub async fn set_webhook(&self, request: &WebhookRequest) -> CallResult<()> {
        self.call::<Value>("setWebhook", request, CALL_TIMEOUT).await.map(drop)
    }

    /// Removes the webhook; what waits for delivery stays.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub async fn delete_webhook(&self) -> CallResult<()> {
        self.call::<Value>("deleteWebhook", &json!({}), CALL_TIMEOUT).await.map(drop)
    }

    /// The state of the webhook.
    ///
    /// # Errors
    /// As [`Self::send_message`].
    pub async fn get_webhook_info(&self) -> CallResult<WebhookInfo> {
        self.call("getWebhookInfo", &json!({}), CALL_TIMEOUT).await
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
        let parameters = json!({"offset": offset, "timeout": wait.as_secs(), "allowed_updates": allowed});
        self.call("getUpdates", &parameters, wait + POLL_MARGIN).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        parameters: &(impl Serialize + Sync),
        timeout: Duration,
    ) -> CallResult<T> {
        let request = self.http.post(format!("{}/{method}", self.base)).timeout(timeout).json(parameters);
        let response = request.send().await.map_err(fault)?;
        let status = response.status();
        let body = response.bytes().await.map_err(fault)?;
        if status.is_server_error() {
            let text: String = String::from_utf8_lossy(&body).chars().take(MESSAGE_LIMIT).collect();
            return Err(SendFault::Unknown { message: format!("Telegram answered {}: {text}", status.as_u16()) });
        }
        let envelope: Envelope<T> = serde_json::from_slice(&body).map_err(|error| SendFault::Unknown {
            message: format!("Telegram answered {} with something else than JSON: {error}", status.as_u16()),
        })?;
        match envelope {
            Envelope { ok: true, result: Some(result), .. } => Ok(result),
            Envelope { ok: true, .. } => {
                Err(SendFault::Unknown { message: "Telegram answered ok without a result".to_owned() })
            }
            refused => Err(refusal(i64::from(status.as_u16()), refused)),
        }
    }
}

fn parameters(message: &OutgoingMessage) -> Value {
    let mut parameters = serde_json::to_value(message).unwrap_or_default();
    if let Some(message_id) = message.reply_to_message_id {
        parameters["reply_parameters"] = json!({"message_id": message_id, "allow_sending_without_reply": true});
    }
    parameters
}

fn refusal<T>(status: i64, envelope: Envelope<T>) -> SendFault {
    let code = envelope.error_code.unwrap_or(status);
    let description = envelope.description.unwrap_or_default();
    let parameters = envelope.parameters.unwrap_or_default();
    match code {
        401 | 404 => SendFault::BadToken,
        429 => {
            let wait = Duration::from_secs(parameters.retry_after.unwrap_or(1));
            SendFault::RetryAfter { wait, message: description }
        }
        500.. => SendFault::Unknown { message: format!("Telegram answered {code}: {description}") },
        _ => SendFault::Refused { code, description, migrate_to_chat_id: parameters.migrate_to_chat_id },
    }
}

/// Only a connection that never came to be is known to have carried nothing.
fn fault(error: reqwest::Error) -> SendFault {
    let error = error.without_url();
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(deeper) = cause {
        message = format!("{message}: {deeper}");
        cause = deeper.source();
    }
    if error.is_connect() { SendFault::NotSent { message } } else { SendFault::Unknown { message } }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::routing::post;

    use super::*;

    const TOKEN: &str = "42:s3cret";

    async fn client_of(status: u16, body: &'static str) -> BotClient {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = move || async move { (StatusCode::from_u16(status).unwrap(), body) };
        let routes = Router::new().route("/bot42:s3cret/{method}", post(answer));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        BotClient::new(&url, TOKEN).unwrap()
    }

    async fn fault_of(status: u16, body: &'static str) -> SendFault {
        client_of(status, body).await.send_message(&OutgoingMessage::default()).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_sent_message_has_its_id() {
        let client = client_of(200, r#"{"ok":true,"result":{"message_id":7,"chat":{"id":1}}}"#).await;
        assert_eq!(client.send_message(&OutgoingMessage::default()).await, Ok(7));
    }

    #[tokio::test]
    async fn each_error_is_the_right_fault() {
        let refused =
            fault_of(400, r#"{"ok":false,"error_code":400,"description":"Bad Request: can't parse entities"}"#).await;
        assert!(refused.is_unparsable_entities() && !refused.is_missing_reply_target());
        let moved = r#"{"ok":false,"error_code":400,"description":"x","parameters":{"migrate_to_chat_id":-100}}"#;
        assert!(matches!(fault_of(400, moved).await, SendFault::Refused { migrate_to_chat_id: Some(-100), .. }));
        let flood = r#"{"ok":false,"error_code":429,"description":"Too Many Requests","parameters":{"retry_after":9}}"#;
        assert!(
            matches!(fault_of(429, flood).await, SendFault::RetryAfter { wait, .. } if wait == Duration::from_secs(9))
        );
        let unauthorized = r#"{"ok":false,"error_code":401,"description":"Unauthorized"}"#;
        assert_eq!(fault_of(401, unauthorized).await, SendFault::BadToken);
        assert!(matches!(fault_of(502, "<html>").await, SendFault::Unknown { .. }));
        assert!(matches!(fault_of(200, "<html>").await, SendFault::Unknown { .. }));
        assert!(matches!(fault_of(200, r#"{"ok":true}"#).await, SendFault::Unknown { .. }));
    }

    #[tokio::test]
    async fn not_modified_is_success() {
        let body = r#"{"ok":false,"error_code":400,"description":"Bad Request: message is not modified: specified …"}"#;
        let client = client_of(400, body).await;
        assert_eq!(client.edit_message_text(1, &OutgoingMessage::default()).await, Ok(()));
    }

    #[tokio::test]
    async fn nothing_left_when_nobody_listens_and_the_token_is_not_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let client = BotClient::new(&url, TOKEN).unwrap();
        let fault = client.send_message(&OutgoingMessage::default()).await.unwrap_err();
        assert!(matches!(fault, SendFault::NotSent { .. }), "{fault:?}");
        assert!(!format!("{fault:?}{client:?}").contains("s3cret"));
    }
}
