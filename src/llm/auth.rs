//! Bearer tokens: a fixed one, or one that Databricks issues for client credentials and that is refreshed early.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::ModelFault;
use super::exchange::{Reply, exchange};
use super::fault::{error_text, retry_after};
use crate::clock::Clock;
use crate::redact::know_for_now;
use crate::settings::Secret;

/// A token is refreshed this long before it expires, or when half its lifetime is over.
const EARLY: Duration = Duration::from_secs(300);
/// After a failed refresh, a token that is still valid is used this long before the next try.
const RENEW_AGAIN: Duration = Duration::from_secs(30);
/// Time limit for one refresh.
const RENEW_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for getting a token, including waiting for refreshes by others.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(15);
/// The assumed lifetime of a token that does not state one.
const UNTOLD_LIFE: Duration = Duration::from_secs(600);

/// Where bearer tokens come from. Clones share the token.
#[derive(Clone)]
pub(super) enum TokenSource {
    /// None is needed.
    Anonymous,
    /// A setting, which may change.
    Setting(Secret),
    /// Client credentials
    /// (<https://docs.databricks.com/aws/en/dev-tools/auth/oauth-m2m>).
    Client(Arc<ClientCredentials>),
}

pub(super) struct ClientCredentials {
    url: Url,
    id: String,
    secret: Secret,
    /// Locked during a refresh, so that one refresh serves everyone who waits.
    current: Mutex<Option<Token>>,
}

struct Token {
    text: String,
    renew_at: Duration,
    ends_at: Duration,
}

#[derive(Deserialize)]
struct Grant {
    access_token: String,
    expires_in: Option<u64>,
}

impl fmt::Debug for TokenSource {
    /// Without secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Setting(_) => "Setting",
            Self::Client(_) => "Client",
        })
    }
}

impl TokenSource {
    pub(super) fn client(url: Url, id: String, secret: Secret) -> Self {
        Self::Client(Arc::new(ClientCredentials { url, id, secret, current: Mutex::new(None) }))
    }

    /// The token to send now, refreshed if it expires soon.
    pub(super) async fn token(&self, http: &reqwest::Client, clock: &Clock) -> Result<Option<String>, ModelFault> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Setting(token) => Ok(Some(token.current().trim().to_owned())),
            Self::Client(credentials) => credentials.token(http, clock, None).await.map(Some),
        }
    }

    /// A different token from the one that was just refused; `None` if there is only the one.
    pub(super) async fn token_instead_of(
        &self,
        refused: Option<&str>,
        http: &reqwest::Client,
        clock: &Clock,
    ) -> Result<Option<String>, ModelFault> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Setting(token) => {
                let renewed = token.renewed();
                Ok((Some(renewed.trim()) != refused).then(|| renewed.trim().to_owned()))
            }
            Self::Client(credentials) => credentials.token(http, clock, refused).await.map(Some),
        }
    }
}

impl ClientCredentials {
    async fn token(&self, http: &reqwest::Client, clock: &Clock, refused: Option<&str>) -> Result<String, ModelFault> {
        let token = clock.timeout(TOKEN_TIMEOUT, self.current_or_new(http, clock, refused)).await;
        token.unwrap_or_else(|| Err(unavailable("it timed out")))
    }

    async fn current_or_new(
        &self,
        http: &reqwest::Client,
        clock: &Clock,
        refused: Option<&str>,
    ) -> Result<String, ModelFault> {
        let mut current = self.current.lock().await;
        let now = clock.monotonic();
        let mut live = current.as_mut().filter(|token| now < token.ends_at && Some(token.text.as_str()) != refused);
        if let Some(token) = live.as_ref().filter(|token| now < token.renew_at) {
            return Ok(token.text.clone());
        }
        match (self.renew(http, clock).await, live.as_mut()) {
            (Ok(token), _) => Ok(current.insert(token).text.clone()),
            // Refreshing early leaves time for the token server to recover.
            (Err(fault), Some(token)) => {
                tracing::warn!(
                    ?fault,
                    "could not refresh the Databricks token early; using the current one until it expires"
                );
                token.renew_at = now + RENEW_AGAIN;
                Ok(token.text.clone())
            }
            (Err(fault), None) => Err(fault),
        }
    }

    async fn renew(&self, http: &reqwest::Client, clock: &Clock) -> Result<Token, ModelFault> {
        let asked_at = clock.monotonic();
        let request =
            http.post(self.url.clone()).timeout(RENEW_TIMEOUT).basic_auth(&self.id, Some(self.secret.current()));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let request = request.body("grant_type=client_credentials&scope=all-apis");
        let reply = exchange(request).await.map_err(|fault| match fault {
            // Rows have no part in this: a failing token server never counts against one.
            ModelFault::Unavailable { message, .. } | ModelFault::Failing { message, .. } => unavailable(&message),
            fault => fault,
        })?;
        if !reply.status.is_success() {
            return Err(self.refusal(&reply, clock));
        }
        // The body is not quoted: it may be a token.
        let grant: Option<Grant> = serde_json::from_slice(&reply.body).ok();
        let grant = grant.filter(|grant| bearer(&grant.access_token).is_some());
        let grant = grant.ok_or_else(|| unavailable("cannot parse its response"))?;
        know_for_now(&grant.access_token);
        let life = grant.expires_in.map_or(UNTOLD_LIFE, Duration::from_secs);
        let ends_at = asked_at.saturating_add(life);
        Ok(Token { text: grant.access_token, renew_at: ends_at.saturating_sub(EARLY.min(life / 2)), ends_at })
    }

    fn refusal(&self, reply: &Reply, clock: &Clock) -> ModelFault {
        let status = reply.status.as_u16();
        let text = error_text(&reply.body);
        match status {
            408 | 409 | 425 | 429 | 499.. => ModelFault::Unavailable {
                retry_after: retry_after(&reply.headers, clock),
                message: format!("no token from Databricks: it answered {status}: {text}"),
            },
            300..=399 | 404 | 405 => ModelFault::Misconfigured {
                message: format!("no token from Databricks: it answered {status}: {text}; check DATABRICKS_HOST"),
            },
            _ => ModelFault::Misconfigured {
                message: format!(
                    "no token from Databricks: it answered {status}: {text}; \
                     check DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET"
                ),
            },
        }
    }
}

/// The header that carries a token; `None` if it cannot be put into a header.
pub(super) fn bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok().filter(|_| !token.is_empty())?;
    value.set_sensitive(true);
    Some(value)
}

fn unavailable(what: &str) -> ModelFault {
    ModelFault::Unavailable { retry_after: None, message: format!("no token from Databricks: {what}") }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// A source whose token should be refreshed now and expires in an hour.
    fn due(url: &str, clock: &Clock) -> TokenSource {
        let now = clock.monotonic();
        let token = Token { text: "old".to_owned(), renew_at: now, ends_at: now + HOUR };
        let url = Url::parse(url).unwrap();
        let (id, secret) = ("app".to_owned(), Secret::from("app-secret"));
        TokenSource::Client(Arc::new(ClientCredentials { url, id, secret, current: Mutex::new(Some(token)) }))
    }

    fn direct() -> reqwest::Client {
        reqwest::Client::builder().no_proxy().build().unwrap()
    }

    /// The address of a port where nobody listens.
    async fn nobody() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/oidc/v1/token", listener.local_addr().unwrap())
    }

    #[tokio::test]
    async fn a_token_that_lives_is_used_when_it_cannot_be_renewed_early() {
        let clock = Clock::system();
        let source = due(&nobody().await, &clock);
        assert_eq!(source.token(&direct(), &clock).await.unwrap().as_deref(), Some("old"));
        let TokenSource::Client(credentials) = &source else { panic!("not a client") };
        let renew_at = credentials.current.lock().await.as_ref().unwrap().renew_at;
        assert!(renew_at > clock.monotonic() + RENEW_AGAIN / 2, "the next call does not try again at once");
    }

    #[tokio::test]
    async fn a_token_that_was_refused_is_not_used_though_it_lives() {
        let clock = Clock::system();
        let source = due(&nobody().await, &clock);
        let outcome = source.token_instead_of(Some("old"), &direct(), &clock).await;
        assert!(matches!(outcome, Err(ModelFault::Unavailable { .. })), "{outcome:?}");
        assert!(!format!("{source:?}").contains("old"));
    }

    #[tokio::test]
    async fn a_token_is_renewed_before_it_ends() {
        let clock = Clock::system();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/oidc/v1/token", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4_096];
            let length = stream.read(&mut request).await.unwrap();
            let body = r#"{"access_token":"new","expires_in":3600}"#;
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let source = due(&url, &clock);
        assert_eq!(source.token(&direct(), &clock).await.unwrap().as_deref(), Some("new"));
        let TokenSource::Client(credentials) = &source else { panic!("not a client") };
        let current = credentials.current.lock().await;
        let token = current.as_ref().unwrap();
        assert_eq!(token.ends_at - token.renew_at, EARLY);
        let request = server.await.unwrap();
        assert!(request.contains("authorization: Basic YXBwOmFwcC1zZWNyZXQ="), "{request}");
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_none() {
        assert!(bearer("").is_none() && bearer("a\nb").is_none());
        assert!(bearer("a").unwrap().is_sensitive());
    }
}
