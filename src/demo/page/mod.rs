//! The chat page of the demo: write to the bot, and watch each message travel through the tables and back.

mod feed;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Json, Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::feed::Feed;
use crate::standin::telegram::TelegramStandIn;
use crate::telegram::text::MESSAGE_LIMIT_UTF16;
use crate::telemetry::Telemetry;

/// The private chat that the page writes to.
pub const PAGE_CHAT_ID: i64 = 1_001;

/// How many updates may wait for delivery before the page accepts no more.
const PENDING_LIMIT: usize = 1_000;

/// Only what this server serves itself; no inline scripts, no framing.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                              img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// The names of this machine for itself: the page is served on loopback alone.
const OWN_NAMES: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// Reads the newest rows of the tables:
/// `{"bronze": {"version": 12, "rows": [{…}]}, "silver": {…}, "replies": {…}}`, newest first, timestamps as text or
/// microseconds.
pub type Rows = Arc<dyn Fn() -> BoxFuture<'static, Value> + Send + Sync>;

/// What the page says about the demo.
#[derive(Clone, Debug, Serialize)]
pub struct PageInfo {
    /// Where the tables are.
    pub data: String,
    /// Who answers, in a few words.
    pub model: String,
    /// The version of this program.
    pub version: String,
    /// Commands to copy.
    pub queries: Vec<String>,
}

impl PageInfo {
    /// For data at `data` and answers from `model`, with a query for each table.
    pub fn new(data: &str, model: &str) -> Self {
        let is_plain = data.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:".contains(c));
        let quoted = if is_plain { data.to_owned() } else { format!("'{}'", data.replace('\'', r"'\''")) };
        let queries = [
            "select update_id, username, text from bronze order by update_id desc limit 5",
            "select status, count(*) as messages, avg(latency_ms) as ms from silver group by status",
            "select update_id, status, sent_at from replies order by sent_at desc limit 5",
        ];
        let queries = queries.map(|query| format!("LAKEGRAM_DATA={quoted} lakegram query \"{query}\"")).into();
        let version = format!("lakegram {}", env!("CARGO_PKG_VERSION"));
        Self { data: data.to_owned(), model: model.to_owned(), version, queries }
    }
}

/// What a chat page is made of.
#[derive(Clone)]
pub struct PageOptions {
    /// Whose hops are shown.
    pub telemetry: Telemetry,
    /// The Telegram that the page's user writes to.
    pub stand_in: Arc<TelegramStandIn>,
    /// Reads the tables.
    pub rows: Rows,
    /// What the page says about the demo.
    pub info: PageInfo,
    /// Where it is served.
    pub port: u16,
    /// Ends the streams of open pages, which would otherwise delay a drain.
    pub stop: CancellationToken,
}

impl fmt::Debug for PageOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PageOptions").field("info", &self.info).finish_non_exhaustive()
    }
}

/// The chat page.
#[derive(Debug)]
pub struct ChatPage;

struct Page {
    options: PageOptions,
    feed: Arc<Feed>,
    /// Ends with the last clone of the router.
    _follower: AbortOnDropHandle<()>,
}

impl ChatPage {
    /// The routes of the page. From now on it collects events, even while no browser is open.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(options: PageOptions) -> Router {
        let feed = Arc::new(Feed::new());
        let (telemetry, stand_in) = (options.telemetry.clone(), Arc::clone(&options.stand_in));
        let follower = Arc::clone(&feed).follow(&telemetry, &stand_in, options.stop.clone());
        let port = options.port;
        let page = Page { options, feed, _follower: AbortOnDropHandle::new(tokio::spawn(follower)) };
        Router::new()
            .route("/", get(|| asset("text/html; charset=utf-8", include_str!("assets/index.html"))))
            .route("/style.css", get(|| asset("text/css; charset=utf-8", include_str!("assets/style.css"))))
            .route("/app.js", get(|| asset("text/javascript; charset=utf-8", include_str!("assets/app.js"))))
            .route("/api/messages", post(send_message))
            .route("/api/presses", post(press_button))
            .route("/api/events", get(watch_events))
            .route("/api/tables", get(read_tables))
            .route("/api/info", get(read_info))
            .layer(from_fn_with_state(port, only_for_itself))
            .layer(map_response(harden))
            .with_state(Arc::new(page))
    }
}

async fn asset(content_type: &'static str, content: &'static str) -> Response {
    ([(CONTENT_TYPE, content_type)], content).into_response()
}

/// Refuses what a page of another site asks for, which may lead a name of its own to this machine.
async fn only_for_itself(State(port): State<u16>, request: Request, next: Next) -> Response {
    match is_of_itself(request.headers(), port) {
        true => next.run(request).await,
        false => {
            let advice = format!("This page is served at http://localhost:{port} alone.");
            (StatusCode::FORBIDDEN, advice).into_response()
        }
    }
}

fn is_of_itself(headers: &HeaderMap, port: u16) -> bool {
    let header = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let is_own = |host: &str| OWN_NAMES.iter().any(|name| host.eq_ignore_ascii_case(&format!("{name}:{port}")));
    let is_own_origin = |origin: &str| origin.strip_prefix("http://").is_some_and(is_own);
    header(HOST).is_some_and(is_own) && header(ORIGIN).is_none_or(is_own_origin)
}

async fn harden(mut response: Response) -> Response {
    let headers: [(HeaderName, &'static str); 3] = [
        (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // The page belongs to the binary that serves it.
        (CACHE_CONTROL, "no-store"),
    ];
    response.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}

#[derive(Deserialize)]
struct Message {
    text: String,
}

/// Request bodies must be JSON, which a form on another site cannot send.
async fn send_message(State(page): State<Arc<Page>>, Json(message): Json<Message>) -> Response {
    let text = message.text.trim();
    if text.is_empty() {
        return (StatusCode::BAD_REQUEST, "Write something first.").into_response();
    }
    if text.encode_utf16().count() > MESSAGE_LIMIT_UTF16 {
        return (StatusCode::BAD_REQUEST, "Telegram takes at most 4096 characters a message.").into_response();
    }
    page.accept(|stand_in| stand_in.user_sends(PAGE_CHAT_ID, text))
}

#[derive(Deserialize)]
struct Press {
    message_id: i64,
    data: String,
}

async fn press_button(State(page): State<Arc<Page>>, Json(press): Json<Press>) -> Response {
    page.accept(|stand_in| stand_in.press_button(PAGE_CHAT_ID, press.message_id, &press.data))
}

impl Page {
    /// Does what the user wants, unless too much is waiting already.
    fn accept(&self, act: impl FnOnce(&TelegramStandIn) -> i64) -> Response {
        if self.options.stand_in.pending_updates() >= PENDING_LIMIT {
            return (StatusCode::SERVICE_UNAVAILABLE, "Too many messages wait for delivery; wait a little.")
                .into_response();
        }
        let update_id = act(&self.options.stand_in);
        (StatusCode::ACCEPTED, Json(json!({ "update_id": update_id }))).into_response()
    }
}

#[derive(Deserialize)]
struct After {
    after: Option<String>,
}

async fn watch_events(State(page): State<Arc<Page>>, Query(query): Query<After>, headers: HeaderMap) -> Response {
    // The browser's own header is newer than what was in the address when the page first connected.
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned).or(query.after);
    let events = page.feed.watch(last.as_deref(), page.options.stop.clone());
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

async fn read_tables(State(page): State<Arc<Page>>) -> Json<Value> {
    Json((page.options.rows)().await)
}

async fn read_info(State(page): State<Arc<Page>>) -> Json<PageInfo> {
    Json(page.options.info.clone())
}
