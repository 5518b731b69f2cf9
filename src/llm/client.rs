//! One call of a model, without retries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::Serialize;
use url::{Host, Url};

use super::answer::answer;
use super::auth::{TokenSource, bearer};
use super::exchange::{Reply, exchange};
use super::fault::{Fixes, of_status};
use super::{ChatAnswer, ChatMessage, ChatRequest, DatabricksAuth, ModelEndpoint, ModelFault};
use crate::clock::Clock;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::settings::Secret;

/// Connection time limit; half the time-out if that is shorter, so that "not reached" can be told apart.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter than what servers and load balancers keep: a connection they have just closed looks like a reset.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Asks a model. Never retries: that is the caller's one layer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ModelClient {
    http: reqwest::Client,
    target: Target,
    clock: Clock,
    /// Whether the model knows the limit of an answer as `max_completion_tokens`.
    limits_completion: Arc<AtomicBool>,
}

/// Where a question goes and what is sent with it.
#[derive(Clone)]
struct Target {
    url: Url,
    /// Sent in the body; Databricks has it in the URL.
    model: Option<String>,
    tokens: TokenSource,
    fixes: Fixes,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    messages: &'a [ChatMessage],
    // Servers differ in their default.
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
}

impl std::fmt::Debug for Target {
    /// Without the query, which may contain a key.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}{} ({:?})", self.url.authority(), self.url.path(), self.tokens)
    }
}

impl ModelClient {
    /// A client for one model; `timeout` limits a request to it. Databricks token requests have their own time-out.
    ///
    /// # Errors
    /// A configuration error when the URL, the key or the model's name cannot be used.
    pub fn new(endpoint: ModelEndpoint, model: &str, timeout: Duration, clock: &Clock) -> Result<Self> {
        if model.trim().is_empty() {
            return Err(Error::configuration("no model is named; set LLM_MODEL, or `name` in [silver.model]"));
        }
        let target = match endpoint {
            ModelEndpoint::OpenAi { base_url, api_key } => openai(&base_url, api_key, model)?,
            ModelEndpoint::Databricks { host, auth } => databricks(&host, auth, model)?,
        };
        let builder = reqwest::Client::builder().timeout(timeout).connect_timeout(CONNECT_TIMEOUT.min(timeout / 2));
        let builder = if is_loopback(&target.url) { builder.no_proxy() } else { builder };
        // One retry layer: the caller's. No redirects: they would send the chat somewhere else.
        let builder = builder.retry(reqwest::retry::never()).redirect(reqwest::redirect::Policy::none());
        let http = builder.pool_idle_timeout(IDLE_TIMEOUT).build().context(
            ErrorKind::Configuration,
            "cannot create the HTTP client for the model; are the system's CA certificates installed?",
        )?;
        Ok(Self { http, target, clock: clock.clone(), limits_completion: Arc::default() })
    }

    /// Asks once. The same request is repeated only if a token is refused and there is another one by now, or if the
    /// model wants the limit of its answer under its other name.
    ///
    /// # Errors
    /// The fault, by what the caller should do.
    pub async fn complete(&self, request: &ChatRequest) -> std::result::Result<ChatAnswer, ModelFault> {
        let tokens = &self.target.tokens;
        let mut token = tokens.token(&self.http, &self.clock).await?;
        let knows_limit = self.limits_completion.load(Ordering::Relaxed);
        let mut reply = self.send(request, token.as_deref()).await?;
        if reply.status.as_u16() == 401
            && let Some(other) = tokens.token_instead_of(token.as_deref(), &self.http, &self.clock).await?
        {
            reply = self.send(request, Some(&other)).await?;
            token = Some(other);
        }
        // Of several requests at once each was sent before any of them was refused.
        if request.max_tokens.is_some() && !knows_limit && wants_other_limit(&reply) {
            self.limits_completion.store(true, Ordering::Relaxed);
            reply = self.send(request, token.as_deref()).await?;
        }
        self.judge(&reply)
    }

    async fn send(&self, request: &ChatRequest, token: Option<&str>) -> std::result::Result<Reply, ModelFault> {
        let limits_completion = self.limits_completion.load(Ordering::Relaxed);
        let body = Body {
            model: self.target.model.as_deref(),
            messages: &request.messages,
            stream: false,
            max_tokens: request.max_tokens.filter(|_| !limits_completion),
            max_completion_tokens: request.max_tokens.filter(|_| limits_completion),
        };
        let call = self.http.post(self.target.url.clone()).json(&body);
        let call = call.header("x-request-id", &request.request_id).header("idempotency-key", &request.request_id);
        let call = match token.and_then(bearer) {
            Some(value) => call.header(AUTHORIZATION, value),
            None => call,
        };
        let prefixed = |message: String| format!("the model server {message}");
        exchange(call).await.map_err(|fault| match fault {
            ModelFault::Unavailable { retry_after, message } => {
                ModelFault::Unavailable { retry_after, message: prefixed(message) }
            }
            ModelFault::Failing { retry_after, message } => {
                ModelFault::Failing { retry_after, message: prefixed(message) }
            }
            ModelFault::Rejected { message } => ModelFault::Rejected { message: prefixed(message) },
            fault @ (ModelFault::TooLong { .. } | ModelFault::Misconfigured { .. }) => fault,
        })
    }

    fn judge(&self, reply: &Reply) -> std::result::Result<ChatAnswer, ModelFault> {
        if reply.status.is_success() {
            let kind = reply.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            return answer(&reply.body, kind);
        }
        Err(of_status(reply, &self.target.fixes, &self.clock))
    }
}

/// Whether a response says that the model knows `max_tokens` only as `max_completion_tokens`
/// (<https://platform.openai.com/docs/api-reference/chat/create>).
fn wants_other_limit(reply: &Reply) -> bool {
    reply.status.as_u16() == 400 && String::from_utf8_lossy(&reply.body).contains("max_completion_tokens")
}

fn openai(base_url: &str, api_key: Option<Secret>, model: &str) -> Result<Target> {
    let url = with_path(checked_url(base_url, "LLM_BASE_URL", "https://api.openai.com/v1")?, &["chat", "completions"])?;
    let tokens = match api_key.filter(|key| !key.current().trim().is_empty()) {
        Some(key) => TokenSource::Setting(sendable(key, "LLM_API_KEY")?),
        None => TokenSource::Anonymous,
    };
    let fixes = Fixes {
        key: "check LLM_API_KEY",
        place: format!(
            "check the model's name `{model}` (LLM_MODEL, or `name` in [silver.model]) and LLM_BASE_URL, \
             which ends before /chat/completions"
        ),
    };
    Ok(Target { url, model: Some(model.to_owned()), tokens, fixes })
}

fn databricks(host: &str, auth: DatabricksAuth, model: &str) -> Result<Target> {
    let host = host.trim();
    let host = if host.contains("://") { host.to_owned() } else { format!("https://{host}") };
    let mut host = checked_url(&host, "DATABRICKS_HOST", "https://adb-1234.5.azuredatabricks.net")?;
    // The URL is often copied from a browser, with the page and the `?o=` of the workspace.
    host.set_path("");
    host.set_query(None);
    let url = with_path(host.clone(), &["serving-endpoints", model, "invocations"])?;
    let (tokens, key) = match auth {
        DatabricksAuth::Token(token) => {
            let token = sendable(token, "DATABRICKS_TOKEN")?;
            (TokenSource::Setting(token), "check DATABRICKS_TOKEN and its permission to query the serving endpoint")
        }
        DatabricksAuth::Client { id, secret } => (
            TokenSource::client(with_path(host, &["oidc", "v1", "token"])?, id, secret),
            "check DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, and the service principal's permission to query \
             the serving endpoint",
        ),
    };
    let place = format!(
        "check the serving endpoint's name `{model}` (LLM_MODEL, or `name` in [silver.model]) and DATABRICKS_HOST"
    );
    Ok(Target { url, model: None, tokens, fixes: Fixes { key, place } })
}

/// An http or https URL without a password. The error does not repeat it, because it may contain a key.
fn checked_url(text: &str, variable: &str, example: &str) -> Result<Url> {
    let url = Url::parse(text.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let Some(mut url) = url else {
        return Err(Error::configuration(format!("{variable} is not a URL; write it like {example}")));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::configuration(format!(
            "{variable} contains a user name or a password; put the key into its own variable"
        )));
    }
    url.set_fragment(None);
    Ok(url)
}

fn with_path(mut url: Url, segments: &[&str]) -> Result<Url> {
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    match url.path_segments_mut() {
        Ok(mut path) => path.pop_if_empty().extend(segments),
        Err(()) => return Err(Error::configuration("the model's URL cannot have a path")),
    };
    Ok(url)
}

fn sendable(token: Secret, variable: &str) -> Result<Secret> {
    if bearer(token.current().trim()).is_none() {
        return Err(Error::configuration(format!(
            "{variable} is empty or contains characters that a header cannot carry; copy it again"
        )));
    }
    Ok(token)
}

/// A proxy cannot reach our own loopback.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;
    use serde_json::Value;

    use super::*;

    fn new(endpoint: ModelEndpoint, model: &str) -> Result<ModelClient> {
        ModelClient::new(endpoint, model, Duration::from_secs(1), &Clock::system())
    }

    fn at(base_url: &str, key: Option<&str>) -> Result<ModelClient> {
        new(ModelEndpoint::OpenAi { base_url: base_url.to_owned(), api_key: key.map(Secret::from) }, "m")
    }

    fn databricks_at(host: &str, token: &str, model: &str) -> Result<ModelClient> {
        new(ModelEndpoint::Databricks { host: host.to_owned(), auth: DatabricksAuth::Token(token.into()) }, model)
    }

    #[test]
    fn what_cannot_be_used_is_a_configuration_error_that_repeats_no_secret() {
        let refused = [
            at("", None),
            at("localhost:8080/v1", None),
            at("ftp://hidden-secret/v1", None),
            at("https://hidden-secret:pw@gateway/v1", None),
            at("https://gateway/v1", Some("hidden-secret\nnext")),
            databricks_at("", "t", "m"),
            databricks_at("https://x.net", " ", "m"),
            databricks_at("https://x.net", "hidden-secret\u{7f}", "m"),
            databricks_at("https://x.net", "t", " "),
        ];
        for error in refused {
            let error = error.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(!error.to_string().contains("hidden-secret"), "{error}");
        }
    }

    #[test]
    fn the_url_is_made_of_what_people_write() {
        let url = |client: Result<ModelClient>| client.unwrap().target.url.to_string();
        assert_eq!(url(at("https://a/v1", None)), "https://a/v1/chat/completions");
        assert_eq!(url(at(" https://a/v1// ", None)), "https://a/v1/chat/completions");
        assert_eq!(url(at("https://a", None)), "https://a/chat/completions");
        assert_eq!(url(at("https://a/x?api-version=1#top", None)), "https://a/x/chat/completions?api-version=1");
        let invocations = "https://adb-1.net/serving-endpoints/llama%203/invocations";
        for host in ["adb-1.net", "https://adb-1.net/", " https://adb-1.net/ml/endpoints?o=123 "] {
            assert_eq!(url(databricks_at(host, "t", "llama 3")), invocations);
        }
    }

    #[tokio::test]
    async fn a_limit_under_a_name_that_the_model_refuses_is_sent_under_the_other_from_then_on() {
        let (sender, mut limits) = tokio::sync::mpsc::unbounded_channel();
        let barrier = Arc::new(tokio::sync::Barrier::new(2));
        let answer = async move |axum::Json(body): axum::Json<Value>| {
            sender.send((body["max_tokens"].clone(), body["max_completion_tokens"].clone())).unwrap();
            if body["max_tokens"].is_null() {
                return (StatusCode::OK, r#"{"choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}"#);
            }
            barrier.wait().await;
            let refusal = r#"{"error":{"message":"Unsupported parameter: 'max_tokens' is not supported with this model. Use
                'max_completion_tokens' instead.","code":"unsupported_parameter"}}"#;
            (StatusCode::BAD_REQUEST, refusal)
        };
        let router = axum::Router::new().route("/chat/completions", axum::routing::post(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = at(&format!("http://{}", listener.local_addr().unwrap()), None).unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, router).await });
        let messages = vec![ChatMessage { role: crate::llm::Role::User, content: "hello".to_owned() }];
        let request = ChatRequest { messages, request_id: "r".to_owned(), max_tokens: Some(500) };
        // Both are refused before either knows.
        let (one, other) = tokio::join!(client.complete(&request), client.complete(&request));
        assert_eq!((one.unwrap().text, other.unwrap().text), ("Hi".to_owned(), "Hi".to_owned()));
        assert_eq!(client.clone().complete(&request).await.unwrap().text, "Hi");
        server.abort();
        let mut seen = Vec::new();
        while let Ok(limit) = limits.try_recv() {
            seen.push(limit);
        }
        let old = (Value::from(500), Value::Null);
        let new = (Value::Null, Value::from(500));
        assert_eq!(seen, [old.clone(), old, new.clone(), new.clone(), new]);
    }

    #[test]
    fn a_client_shows_no_secret() {
        let client = at("https://a/v1?key=hidden-secret", Some("hidden-secret")).unwrap();
        assert!(!format!("{client:?}").contains("hidden-secret"), "{client:?}");
    }

    #[test]
    fn loopback_is_known_by_its_names_and_numbers() {
        let is = |url: &str| is_loopback(&Url::parse(url).unwrap());
        assert!(
            ["http://127.0.0.1:1", "http://127.9.9.9", "http://[::1]:1", "http://localhost"].iter().all(|url| is(url))
        );
        assert!(!["http://10.0.0.1", "http://localhost.example.com"].iter().any(|url| is(url)));
    }
}
