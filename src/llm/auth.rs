//! Bearer tokens: one that stays, or one that Databricks gives for client credentials and that is renewed early.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;

use super::{DatabricksAuth, ModelFault};
use crate::clock::Clock;

/// A token is renewed this long before it ends.
const EARLY: Duration = Duration::from_secs(300);

/// Where bearer tokens come from. Clones share the token.
#[derive(Clone)]
pub(super) enum TokenSource {
    /// None is needed.
    Anonymous,
    /// One that stays.
    Fixed(String),
    /// Client credentials
    /// (<https://docs.databricks.com/aws/en/dev-tools/auth/oauth-m2m>).
    Client(Arc<ClientCredentials>),
}

pub(super) struct ClientCredentials {
    url: String,
    id: String,
    secret: String,
    current: Mutex<Option<Token>>,
}

struct Token {
    text: String,
    renew_at: Duration,
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
            Self::Fixed(_) => "Fixed",
            Self::Client(_) => "Client",
        })
    }
}

impl TokenSource {
    pub(super) fn databricks(host: &str, auth: DatabricksAuth) -> Self {
        match auth {
            DatabricksAuth::Token(token) => Self::Fixed(token),
            DatabricksAuth::Client { id, secret } => {
                let url = format!("{}/oidc/v1/token", host.trim_end_matches('/'));
                Self::Client(Arc::new(ClientCredentials { url, id, secret, current: Mutex::new(None) }))
            }
        }
    }

    /// The token to send now, renewed when it ends soon. One renewal at a time.
    pub(super) async fn token(&self, http: &reqwest::Client, clock: &Clock) -> Result<Option<String>, ModelFault> {
        let credentials = match self {
            Self::Anonymous => return Ok(None),
            Self::Fixed(token) => return Ok(Some(token.clone())),
            Self::Client(credentials) => credentials,
        };
        let mut current = credentials.current.lock().await;
        if let Some(token) = current.as_ref().filter(|token| clock.monotonic() < token.renew_at) {
            return Ok(Some(token.text.clone()));
        }
        let token = credentials.renew(http, clock).await?;
        Ok(Some(current.insert(token).text.clone()))
    }

    /// Forgets the token that was just refused, so that the next call asks for another.
    pub(super) async fn forget(&self) {
        if let Self::Client(credentials) = self {
            *credentials.current.lock().await = None;
        }
    }
}

impl ClientCredentials {
    async fn renew(&self, http: &reqwest::Client, clock: &Clock) -> Result<Token, ModelFault> {
        let unavailable = |error: reqwest::Error| ModelFault::Unavailable {
            retry_after: None,
            message: format!("no token from Databricks: {}", error.without_url()),
        };
        let asked_at = clock.monotonic();
        let request = http.post(&self.url).basic_auth(&self.id, Some(&self.secret));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let response =
            request.body("grant_type=client_credentials&scope=all-apis").send().await.map_err(unavailable)?;
        let status = response.status();
        if status.is_client_error() && status.as_u16() != 429 {
            return Err(ModelFault::Misconfigured {
                message: format!(
                    "Databricks gives no token ({}); check DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET",
                    status.as_u16()
                ),
            });
        }
        let grant: Grant = response.error_for_status().map_err(unavailable)?.json().await.map_err(unavailable)?;
        let life = Duration::from_secs(grant.expires_in.unwrap_or(3_600));
        Ok(Token { text: grant.access_token, renew_at: asked_at + life.saturating_sub(EARLY.min(life / 2)) })
    }
}
