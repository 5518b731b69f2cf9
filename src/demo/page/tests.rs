//! The page over HTTP, as a browser uses it.

use std::time::Duration;

use tokio::net::TcpListener;

use super::*;
use crate::clock::Clock;
use crate::standin::telegram::Options;
use crate::telemetry::Hop;

const LIMIT: Duration = Duration::from_secs(20);

struct Demo {
    telemetry: Telemetry,
    stand_in: Arc<TelegramStandIn>,
    stop: CancellationToken,
    client: reqwest::Client,
    url: String,
}

impl Demo {
    async fn start() -> Self {
        let stand_in = Arc::new(TelegramStandIn::start(Options::default()).await.unwrap());
        let telemetry = Telemetry::new();
        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rows: Rows = Arc::new(|| Box::pin(async { json!({ "bronze": { "version": 1, "rows": [] } }) }));
        let options = PageOptions {
            telemetry: telemetry.clone(),
            stand_in: Arc::clone(&stand_in),
            rows,
            info: PageInfo::new("/tmp/it's here", "stand-in"),
            port: listener.local_addr().unwrap().port(),
            stop: stop.clone(),
        };
        let router = ChatPage::new(options);
        let url = format!("http://{}", listener.local_addr().unwrap());
        let drain = stop.clone();
        tokio::spawn(
            async move { axum::serve(listener, router).with_graceful_shutdown(drain.cancelled_owned()).await },
        );
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { telemetry, stand_in, stop, client, url }
    }

    async fn write(&self, text: &str) -> reqwest::Response {
        let message = self.client.post(format!("{}/api/messages", self.url)).json(&json!({ "text": text }));
        message.send().await.unwrap()
    }

    async fn written(&self, text: &str) -> i64 {
        let answer: Value = self.write(text).await.json().await.unwrap();
        answer["update_id"].as_i64().unwrap()
    }

    fn hop(&self, update_id: i64, step: &'static str) {
        let at = Clock::system().now();
        self.telemetry.hop(|| Hop { bot_id: self.stand_in.bot_id(), update_id, step, at, detail: "v3".to_owned() });
    }

    async fn events(&self, after: &str) -> Events {
        let request = self.client.get(format!("{}/api/events{after}", self.url));
        Events { response: request.send().await.unwrap(), text: String::new() }
    }
}

/// A stream of server-sent events.
struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    /// The next event, as its id and its data; `None` at the end of the stream.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let data = field("data:").unwrap_or_default();
                let data = serde_json::from_str(data).unwrap_or_else(|_| json!(data));
                let found = (field("id:").unwrap_or_default().to_owned(), data);
                self.text = rest.to_owned();
                return Some(found);
            }
            let chunk = Clock::system().timeout(LIMIT, self.response.chunk()).await.unwrap().unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn skip_to(&mut self, kind: &str) -> (String, Value) {
        loop {
            let event = self.next().await.unwrap();
            if event.1["type"] == json!(kind) {
                return event;
            }
        }
    }
}

#[tokio::test]
async fn what_telegram_would_not_take_is_refused() {
    let demo = Demo::start().await;
    assert_eq!(demo.write("  ").await.status(), 400);
    assert_eq!(demo.write(&"x".repeat(4_097)).await.status(), 400);
    let form = demo.client.post(format!("{}/api/messages", demo.url)).body("text=hello");
    assert_eq!(form.send().await.unwrap().status(), 415);
    assert_eq!(demo.stand_in.pending_updates(), 0);
}

#[tokio::test]
async fn a_message_is_watched_on_its_way() {
    let demo = Demo::start().await;
    let mut events = demo.events("").await;
    let update_id = demo.written("hi").await;
    let (_, user) = events.skip_to("user").await;
    assert_eq!((&user["update_id"], &user["text"]), (&json!(update_id), &json!("hi")));
    demo.hop(update_id, "bronze");
    let (_, hop) = events.skip_to("hop").await;
    assert_eq!((&hop["step"], &hop["detail"]), (&json!("bronze"), &json!("v3")));
    assert!(hop["at"].as_i64() >= user["at"].as_i64());

    let send = format!("{}/bot{}/sendMessage", demo.stand_in.api_url(), demo.stand_in.token());
    let markup = json!({ "inline_keyboard": [[{ "text": "Go", "callback_data": "GO" }]] });
    let message = json!({ "chat_id": PAGE_CHAT_ID, "text": "hello", "reply_markup": markup });
    assert_eq!(demo.client.post(send).json(&message).send().await.unwrap().status(), 200);
    let (_, reply) = events.skip_to("reply").await;
    assert_eq!(reply["buttons"], json!([{ "text": "Go", "data": "GO" }]));
    let press = json!({ "message_id": reply["message_id"], "data": "GO" });
    demo.client.post(format!("{}/api/presses", demo.url)).json(&press).send().await.unwrap();
    let (_, pressed) = events.skip_to("user").await;
    assert_eq!((&pressed["text"], &pressed["pressed"]), (&json!("GO"), &json!(true)));
}

#[tokio::test]
async fn a_page_that_comes_back_gets_what_it_missed_and_nothing_twice() {
    let demo = Demo::start().await;
    let mut events = demo.events("").await;
    demo.written("a").await;
    let (id, _) = events.skip_to("user").await;
    drop(events);
    demo.written("b").await;
    let mut again = demo.events(&format!("?after={id}")).await;
    assert_eq!(again.skip_to("user").await.1["text"], json!("b"));
    let mut anew = demo.events("").await;
    assert_eq!(anew.skip_to("user").await.1["text"], json!("a"));
    let mut foreign = demo.events("?after=another.99").await;
    assert_eq!(foreign.skip_to("user").await.1["text"], json!("a"));
}

#[tokio::test]
async fn a_stop_ends_the_streams() {
    let demo = Demo::start().await;
    let mut events = demo.events("").await;
    events.next().await.unwrap();
    demo.stop.cancel();
    while events.next().await.is_some() {}
}

#[tokio::test]
async fn the_page_and_its_data_are_served_with_a_strict_policy() {
    let demo = Demo::start().await;
    for (path, part) in [("/", "<title>Lakegram"), ("/style.css", "prefers-color-scheme"), ("/app.js", "EventSource")] {
        let response = demo.client.get(format!("{}{path}", demo.url)).send().await.unwrap();
        assert!(response.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
        assert!(response.text().await.unwrap().contains(part));
    }
    let get = async |path: &str| {
        let response = demo.client.get(format!("{}{path}", demo.url)).send().await.unwrap();
        response.json::<Value>().await.unwrap()
    };
    assert_eq!(get("/api/tables").await["bronze"]["version"], json!(1));
    let info = get("/api/info").await;
    assert!(info["queries"][0].as_str().unwrap().starts_with(r"LAKEGRAM_DATA='/tmp/it'\''s here' lakegram query"));
}

#[tokio::test]
async fn only_the_page_itself_is_answered() {
    let demo = Demo::start().await;
    let authority = demo.url.strip_prefix("http://").unwrap();
    let localhost = authority.replace("127.0.0.1", "LocalHost");
    let rebound = authority.replace("127.0.0.1", "evil.example");
    let other_port = format!("127.0.0.1:{}", authority.len());
    for (host, origin, status) in [
        (authority, None, 200),
        (localhost.as_str(), None, 200),
        (authority, Some(demo.url.clone()), 200),
        ("evil.example", None, 403),
        (rebound.as_str(), None, 403),
        (other_port.as_str(), None, 403),
        (authority, Some("http://evil.example".to_owned()), 403),
        (authority, Some(format!("http://{other_port}")), 403),
        (authority, Some(format!("https://{authority}")), 403),
        (authority, Some("null".to_owned()), 403),
    ] {
        for (method, path) in [("GET", "/"), ("GET", "/api/tables"), ("POST", "/api/messages")] {
            let request = demo.client.request(method.parse().unwrap(), format!("{}{path}", demo.url));
            let request = request.header(HOST, host).json(&json!({"text": "hello"}));
            let request = match &origin {
                Some(origin) => request.header(ORIGIN, origin),
                None => request,
            };
            let status = if status == 200 && method == "POST" { 202 } else { status };
            assert_eq!(request.send().await.unwrap().status(), status, "{method} {path} {host} {origin:?}");
        }
    }
    assert_eq!(demo.stand_in.pending_updates(), 3, "nothing that was refused was done");
}
