//! The page with a pipeline that only pretends, to look at while working on it:
//! `cargo test --lib preview -- --ignored --nocapture`.

use std::sync::Mutex;
use std::time::Duration;

use tokio::net::TcpListener;

use super::*;
use crate::clock::Clock;
use crate::demo::telegram::Options;
use crate::telemetry::Hop;

type Tables = Arc<Mutex<[Vec<Value>; 3]>>;

const ANSWERS: [&str; 3] = [
    "Hello! I keep every message in a Delta table, exactly once.",
    "Here is a bit of Rust:\n\nfn main() {\n    println!(\"hello, lake\");\n}\n\nRun it with cargo run, or read the book.",
    "Calm water, clear notes.\nBronze below and silver above.\nNothing is forgotten.",
];

fn entities_of(text: &str) -> Value {
    let mut entities = Vec::new();
    let mut mark = |kind: &str, part: &str, extra: (&str, &str)| {
        if let Some(start) = text.find(part) {
            let (offset, length) = (text[..start].encode_utf16().count(), part.encode_utf16().count());
            entities.push(json!({ "type": kind, "offset": offset, "length": length, extra.0: extra.1 }));
        }
    };
    mark("bold", "exactly once", ("x", ""));
    mark("pre", "fn main() {\n    println!(\"hello, lake\");\n}", ("language", "rust"));
    mark("code", "cargo run", ("x", ""));
    mark("text_link", "the book", ("url", "https://doc.rust-lang.org/book/"));
    mark("italic", "clear notes", ("x", ""));
    json!(entities)
}

struct Preview {
    clock: Clock,
    telemetry: Telemetry,
    stand_in: Arc<TelegramStandIn>,
    tables: Tables,
    client: reqwest::Client,
}

impl Preview {
    async fn hop(&self, update_id: i64, step: &'static str, detail: &str, wait: u64) {
        self.clock.sleep(Duration::from_micros(wait)).await;
        let (bot_id, at) = (self.stand_in.bot_id(), self.clock.now());
        self.telemetry.hop(|| Hop { bot_id, update_id, step, at, detail: detail.to_owned() });
    }

    fn row(&self, table: usize, row: Value) {
        let rows = &mut self.tables.lock().unwrap()[table];
        rows.insert(0, row);
        rows.truncate(5);
    }

    async fn call(&self, method: &str, params: Value) {
        let url = format!("{}/bot{}/{method}", self.stand_in.api_url(), self.stand_in.token());
        self.client.post(url).json(&params).send().await.unwrap();
    }

    async fn pretend(&self, update: Value) {
        let update_id = update["update_id"].as_i64().unwrap();
        let text = update["message"]["text"].as_str().or(update["callback_query"]["data"].as_str()).unwrap();
        let now = || self.clock.now().to_string();
        self.hop(update_id, "bronze", "v12", 6_400).await;
        self.row(0, json!({ "update_id": update_id, "text": text, "username": "user_1001", "_received_at": now() }));
        let is_routed = text.starts_with('/');
        let answer = if is_routed { "Hello! Shall we begin?" } else { ANSWERS[text.len() % 3] };
        if !is_routed {
            self.hop(update_id, "asking", "stand-in", 900).await;
            self.call("sendChatAction", json!({ "chat_id": PAGE_CHAT_ID, "action": "typing" })).await;
            self.hop(update_id, "answered", "42 tokens", 640_000).await;
        }
        self.hop(update_id, "silver", "v11", 7_000).await;
        let status = if is_routed { "routed" } else { "answered" };
        let ms = if is_routed { Value::Null } else { json!(641) };
        self.row(
            1,
            json!({
                "update_id": update_id, "status": status, "response": answer, "model": "stand-in", "latency_ms": ms,
            }),
        );
        self.hop(update_id, "sending", "", 2_000).await;
        let mut message = json!({ "chat_id": PAGE_CHAT_ID, "text": answer, "entities": entities_of(answer) });
        if is_routed {
            let keys = json!([{ "text": "Connect", "callback_data": "CONNECT" }, { "text": "Not now", "callback_data": "NO" }]);
            message["reply_markup"] = json!({ "inline_keyboard": [keys] });
        }
        self.call("sendMessage", message).await;
        self.hop(update_id, "replied", "sent", 3_000).await;
        self.row(
            2,
            json!({
                "update_id": update_id, "status": "sent", "part": 1, "telegram_message_id": 2, "sent_at": now(),
            }),
        );
    }
}

async fn receive(State(preview): State<Arc<Preview>>, Json(update): Json<Value>) -> StatusCode {
    tokio::spawn(async move { preview.pretend(update).await });
    StatusCode::OK
}

async fn listen(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
#[ignore = "serves the page for ten minutes, to be looked at"]
async fn preview() {
    let stand_in = Arc::new(TelegramStandIn::start(Options::default()).await.unwrap());
    let (telemetry, tables, clock) = (Telemetry::new(), Tables::default(), Clock::system());
    let shown = Arc::clone(&tables);
    let rows: Rows = Arc::new(move || {
        let [bronze, silver, replies] = shown.lock().unwrap().clone();
        let tables = json!({
            "bronze": { "version": 12, "rows": bronze }, "silver": { "version": 11, "rows": silver },
            "replies": { "version": 11, "rows": replies },
        });
        Box::pin(async move { tables })
    });
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let preview =
        Preview { clock: clock.clone(), telemetry: telemetry.clone(), stand_in: Arc::clone(&stand_in), tables, client };
    let preview = Arc::new(preview);
    let hook = listen(Router::new().route("/", post(receive)).with_state(Arc::clone(&preview))).await;
    preview.call("setWebhook", json!({ "url": format!("{hook}/") })).await;
    let info = PageInfo::new("/home/ada/lakegram-demo", "model stand-in · set LLM_BASE_URL for a real one");
    let stop = CancellationToken::new();
    let page = listen(ChatPage::new(PageOptions { telemetry, stand_in, rows, info, stop })).await;
    println!("{page}");
    clock.sleep(Duration::from_secs(600)).await;
}
