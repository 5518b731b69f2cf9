//! What other bots' users reported, as exchanges: an update, what the model and the Bot API answer, and what is right.
//!
//! `tests/fixtures/exchanges.json` has the cases with the reports they come from; here is what each must lead to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{SECRET, TestApp, rows};

const SORRY: &str = "Sorry, I cannot answer this message. Please try to put it another way.";
const CUT: &str = "\n\n(The answer was cut off: it reached the length limit.)";

/// What a case must lead to.
struct Expected {
    case: &'static str,
    /// In silver.
    status: &'static str,
    /// Part of its error.
    error: &'static str,
    /// What the user sees of it.
    sent: &'static [&'static str],
    /// Calls of the model, where it matters.
    calls: Option<i64>,
    /// The status of its replies.
    reply: &'static str,
}

const fn answered(case: &'static str, sent: &'static [&'static str]) -> Expected {
    Expected { case, status: "answered", error: "", sent, calls: None, reply: "sent" }
}

const fn failed(case: &'static str, error: &'static str) -> Expected {
    Expected { case, status: "failed", error, sent: &[SORRY], calls: None, reply: "sent" }
}

const fn once(expected: Expected) -> Expected {
    Expected { calls: Some(1), ..expected }
}

/// An answer that Telegram does not take, or that nobody knows of.
const fn lost(case: &'static str, reply: &'static str) -> Expected {
    Expected { case, status: "answered", error: "", sent: &[], calls: None, reply }
}

const EXPECTED: &[Expected] = &[
    failed("20-reasoning-only", "empty answer"),
    answered("21-think-tags", &["Hello!"]),
    answered("22b-mistral-thinking", &["Yes."]),
    once(failed("23-gemini-safety", "SAFETY")),
    once(failed("23c-content-filter", "content_filter")),
    once(failed("24-length-empty", "length")),
    answered("24b-length-text", &["Step 1: mix. Step 2: bake for thirty min", CUT]),
    failed("25-choices-null", "choices"),
    failed("25b-error-200", "This content was flagged"),
    failed("25c-error-in-choice", "provider lost"),
    answered("26-sse-for-json", &["Hello"]),
    failed("27-html-200", "text/html"),
    failed("28-tool-calls", "tool_calls"),
    answered("29-refusal", &["I'm sorry, I can't help with that."]),
    answered("30-databricks-blocks", &["Paris."]),
    answered("31-lone-surrogate", &["Good \u{fffd}", CUT]),
    failed("32-short-body", ""),
    once(failed("34-400-filter", "content_filter")),
    answered("36-error-empty-string", &["Good answer"]),
    answered("60-429-no-parameters", &["hello"]),
    answered("60b-429-html", &["hello"]),
    answered("60c-429-both", &["hello"]),
    lost("62-topic-closed", "failed"),
    lost("63-blocked", "failed"),
    lost("63b-chat-not-found", "failed"),
    lost("63c-no-rights", "failed"),
    answered("64-reply-gone", &["hello"]),
    answered("64b-reply-gone-old", &["hello"]),
    answered("65-entities-refused", &["bold answer"]),
    answered("65b-wrong-entity-url", &["see x (https://e.org/y)"]),
    answered("65c-url-invalid-new", &["see x (https://e.org/y)"]),
    lost("65d-webpage", "failed"),
    lost("66-500", "unknown"),
    lost("66b-closed", "unknown"),
    lost("66c-500-json", "unknown"),
    lost("66d-409", "failed"),
    lost("67-ok-false-200", "failed"),
    answered("67b-null-parameters", &["b answer"]),
    answered("68-dm-topic", &["hello"]),
    answered("69b-reply-thread-no-topic", &["hello"]),
    answered("70-channel-dm", &["hello"]),
];

/// Cases that are held below or elsewhere: what they are about cannot be said in one line.
const ELSEWHERE: &[(&str, &str)] = &[
    ("37-502-html", "an_outage_of_the_model_is_waited_out"),
    ("40-rich-message", "updates_of_each_kind"),
    ("42-bot-to-bot", "updates_of_each_kind"),
    ("43-anonymous-admin", "updates_of_each_kind"),
    ("44-migrate", "updates_of_each_kind"),
    ("45-huge-ids", "updates_of_each_kind"),
    ("46-edited", "updates_of_each_kind"),
    ("47-album", "updates_of_each_kind"),
    ("48-polls-media", "updates_of_each_kind"),
    ("49-business-guest-new", "updates_of_each_kind"),
    ("50-callback", "updates_of_each_kind"),
    ("54-caption-only-sticker", "updates_of_each_kind"),
    ("61-migrate", "what_follows_a_group_that_becomes_a_supergroup"),
    ("94-migrate-history", "what_follows_a_group_that_becomes_a_supergroup"),
    ("90-context-overflow", "a_conversation_that_has_outgrown_the_model_goes_on"),
    ("91-typing-once", "pipeline::typing_is_shown_until_the_answer_is_there"),
    ("92-max-tokens", "the tests of the model's client"),
    // Not decided: each of these may be refused or repaired.
    ("64d-not-found", "any outcome is right"),
    ("53-group-unaddressed", "in_a_group_only_what_is_meant_for_the_bot_is_answered"),
    ("81-webhook-set-url", "a_path_that_is_there_already_is_not_doubled"),
];

fn cases() -> Vec<Value> {
    let file = format!("{}/tests/fixtures/exchanges.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn case(name: &str) -> Value {
    cases().into_iter().find(|case| case["name"] == name).unwrap()
}

/// A call of the Bot API.
#[derive(Clone, Debug)]
struct Call {
    method: String,
    body: Value,
    at: Instant,
    is_ok: bool,
}

/// The model and the Bot API as the cases script them, down to the bytes.
#[derive(Clone)]
struct World {
    address: SocketAddr,
    cases: Arc<Vec<Value>>,
    calls: Arc<Mutex<Vec<Call>>>,
    /// What the model was asked, as the texts of its messages.
    asked: Arc<Mutex<Vec<Vec<String>>>>,
    /// The longest conversation that the model reads, in characters.
    limit: usize,
}

impl World {
    async fn start(cases: Vec<Value>, limit: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let world = Self { address, cases: Arc::new(cases), calls: Arc::default(), asked: Arc::default(), limit };
        let serving = world.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().connection(stream));
            }
        });
        world
    }

    /// An app that answers everything in groups.
    async fn app(&self) -> TestApp {
        self.addressed_app().await.set("silver.groups=all")
    }

    async fn addressed_app(&self) -> TestApp {
        let url = format!("http://{}", self.address);
        let app = TestApp::new().await.variable("TELEGRAM_API_URL", &url);
        app.variable("LLM_BASE_URL", &format!("{url}/v1")).set("silver.model.timeout=5s")
    }

    async fn connection(self, mut stream: TcpStream) {
        let mut read = Vec::new();
        while let Some((path, body)) = request(&mut stream, &mut read).await {
            let answer = match path.ends_with("/chat/completions") {
                true => self.complete(&body),
                false => self.call(path.rsplit('/').next().unwrap_or_default(), body),
            };
            let Some(bytes) = answer else { return };
            let is_cut = bytes.ends_with(b"cut");
            if stream.write_all(&bytes).await.is_err() || is_cut {
                return;
            }
        }
    }

    /// The case that a text names: `case:60b: x`.
    fn named(&self, text: &str) -> Option<&Value> {
        let tag = text.strip_prefix("case:")?.split(':').next()?;
        self.cases.iter().find(|case| {
            let name = case["name"].as_str().unwrap();
            name == tag || name.split('-').next() == Some(tag)
        })
    }

    fn complete(&self, body: &Value) -> Option<Vec<u8>> {
        let texts = |message: &Value| message["content"].as_str().unwrap_or_default().to_owned();
        let said: Vec<String> = body["messages"].as_array().unwrap().iter().map(texts).collect();
        let question = said.last().unwrap().clone();
        let length: usize = said.iter().map(String::len).sum();
        let earlier = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(said);
            asked.iter().filter(|said| said.last() == Some(&question)).count() - 1
        };
        if length > self.limit {
            let message = format!("This model's maximum context length is {} characters", self.limit);
            return Some(http(400, "application/json", &json!({"object": "error", "message": message}).to_string()));
        }
        let text = |text: &str| Some(http(200, "application/json", &completion(text)));
        let Some(case) = self.named(&question) else { return text("hello") };
        let answers = &case["model_answers"];
        let answer = match answers.as_array() {
            Some(list) => list.get(earlier).or(list.last()).unwrap(),
            None => answers,
        };
        if let Some(bytes) = answer["wirebytes"].as_str() {
            return Some(bytes.into());
        }
        let status = answer["status"].as_u64().unwrap_or(200);
        let kind = answer["ctype"].as_str().unwrap_or("application/json");
        if let Some(content) = answer["content"].as_str().or(case["model"].as_str()) {
            return text(content);
        }
        if let Some(raw) = answer["raw"].as_str() {
            return Some(http(status, kind, raw));
        }
        if let Some(events) = answer["stream"].as_array() {
            let events: String = events.iter().map(|event| event.as_str().unwrap()).collect();
            return Some(http(200, "text/event-stream", &events));
        }
        match &answer["body"] {
            Value::Null => text("hello"),
            body => Some(http(status, kind, &body.to_string())),
        }
    }

    fn call(&self, method: &str, body: Value) -> Option<Vec<u8>> {
        if method == "getMe" {
            let me = json!({"id": 42, "is_bot": true, "first_name": "Hunt", "username": "hunt_bot"});
            return Some(http(200, "application/json", &json!({"ok": true, "result": me}).to_string()));
        }
        let chat = body["chat_id"].clone();
        let mut calls = self.calls.lock().unwrap();
        let earlier = calls.iter().filter(|call| call.method == method && call.body["chat_id"] == chat).count();
        let case = self.cases.iter().find(|case| case["update"]["message"]["chat"]["id"] == chat && !chat.is_null());
        let scripted = case.filter(|_| method == "sendMessage").map(|case| &case["bot_api_answers"]);
        let answer = scripted.and_then(|answers| answers.get(earlier)).cloned();
        let lacks_topic = scripted == Some(&json!("dm")) && body["direct_messages_topic_id"] != 777;
        let is_ok = answer.is_none() && !lacks_topic;
        calls.push(Call { method: method.to_owned(), body, at: Instant::now(), is_ok });
        let message_id = calls.len();
        if is_ok {
            let result = json!({"message_id": message_id, "chat": {"id": chat}, "date": 0});
            return Some(http(200, "application/json", &json!({"ok": true, "result": result}).to_string()));
        }
        let answer = answer.unwrap_or(json!({"status": 400, "raw": "{\"ok\":false,\"error_code\":400}"}));
        if answer["close"] == true {
            return None;
        }
        let status = answer["status"].as_u64().unwrap();
        Some(match answer["raw"].as_str() {
            Some(raw) => http(status, "text/html", raw),
            None => http(status, "application/json", &answer["json"].to_string()),
        })
    }

    /// What arrived in a chat, part by part.
    fn sent(&self, chat: &Value) -> Vec<Value> {
        let calls = self.calls.lock().unwrap();
        let sent =
            calls.iter().filter(|call| call.is_ok && call.method == "sendMessage" && call.body["chat_id"] == *chat);
        sent.map(|call| call.body.clone()).collect()
    }

    fn calls_of(&self, method: &str, chat: &Value) -> Vec<Call> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|call| call.method == method && call.body["chat_id"] == *chat).cloned().collect()
    }
}

fn completion(text: &str) -> String {
    json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]})
        .to_string()
}

fn http(status: u64, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

/// The next request: its path and its body. What was read beyond it stays in `read`.
async fn request(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<(String, Value)> {
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            if read.len() >= end + 4 + length {
                let path = String::from_utf8_lossy(&read[..end]).split(' ').nth(1)?.to_owned();
                let body = serde_json::from_slice(&read[end + 4..end + 4 + length]).unwrap_or_default();
                read.drain(..end + 4 + length);
                return Some((path, body));
            }
        }
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
}

async fn post(url: &str, update: &Value) {
    let response = reqwest::Client::new()
        .post(format!("{url}/telegram-webhook"))
        .header("x-telegram-bot-api-secret-token", SECRET)
        .json(update)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
}

/// The rows of a query, by their update.
async fn by_update(app: &TestApp, sql: &str) -> BTreeMap<i64, Vec<Value>> {
    let text = app.stdout(&["query", sql, "--format", "json"]).await;
    let mut rows = BTreeMap::<i64, Vec<Value>>::new();
    for row in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        rows.entry(row["update_id"].as_i64().unwrap()).or_default().push(row);
    }
    rows
}

#[test]
fn every_case_is_held_by_a_test() {
    for case in cases() {
        let name = case["name"].as_str().unwrap();
        let held = EXPECTED.iter().filter(|expected| expected.case == name).count()
            + ELSEWHERE.iter().filter(|(case, _)| *case == name).count();
        assert_eq!(held, 1, "{name}");
    }
}

/// All at once, each in a chat of its own: none may harm its neighbors.
#[tokio::test(flavor = "multi_thread")]
async fn each_exchange_leads_to_what_is_right() {
    let world = World::start(cases(), usize::MAX).await;
    let app = world.app().await;
    let running = app.start(&["serve"]).await;
    for expected in EXPECTED {
        post(&running.url, &case(expected.case)["update"]).await;
    }
    let count = i64::try_from(EXPECTED.len()).unwrap();
    app.wait_for_status(|status| rows(status, 1) == count && rows(status, 2) >= count).await;
    assert_eq!(running.terminate().await, Some(0));
    let silver = by_update(&app, "select update_id, status, error, model_calls from silver").await;
    let replies = by_update(&app, "select update_id, part, status, chat_id from replies order by part").await;
    let mut wrong = Vec::new();
    for Expected { case: name, status, error, sent, calls, reply } in EXPECTED {
        let update = &case(name)["update"];
        let (update_id, chat) = (update["update_id"].as_i64().unwrap(), &update["message"]["chat"]["id"]);
        let (row, replies) = (&silver[&update_id][0], &replies[&update_id]);
        let told = row["error"].as_str().unwrap_or_default();
        let is_told = told.contains(error) && told.is_empty() == (*status == "answered");
        let is_asked = calls.is_none_or(|calls| row["model_calls"] == calls);
        let parts = world.sent(chat).into_iter().map(|message| message["text"].as_str().unwrap().to_owned());
        let shown: String = parts.collect();
        // After a part that did not arrive, none follows.
        let is_sent = replies.iter().all(|row| row["status"] == *reply) && (*reply == "sent" || replies.len() == 1);
        if row["status"] != *status || !is_told || !is_asked || shown != sent.concat() || !is_sent {
            wrong.push(format!("{name}: {row} {shown:?} {replies:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What the Bot API was told on the way.
    let calls = |name: &str, method: &str| world.calls_of(method, &case(name)["update"]["message"]["chat"]["id"]);
    for (name, wait) in [("60-429-no-parameters", 3), ("60c-429-both", 2)] {
        let calls = calls(name, "sendMessage");
        assert!(calls.len() == 2 && calls[1].at - calls[0].at >= Duration::from_secs(wait), "{name}");
    }
    for name in ["64-reply-gone", "64b-reply-gone-old"] {
        let calls = calls(name, "sendMessage");
        let replied = |call: &Call| !call.body["reply_parameters"].is_null();
        assert!(replied(&calls[0]) && !replied(&calls[1]), "{name}");
    }
    for method in ["sendMessage", "sendChatAction"] {
        assert_eq!(calls("68-dm-topic", method)[0].body["message_thread_id"], 116_834, "{method}");
        assert!(calls("69b-reply-thread-no-topic", method)[0].body["message_thread_id"].is_null(), "{method}");
    }
    app.audit().await;
}

/// While nobody gets an answer, it is the model's trouble and no row's.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_model_is_waited_out() {
    let world = World::start(cases(), usize::MAX).await;
    let app = world.app().await;
    let running = app.start(&["serve"]).await;
    let update = &case("37-502-html")["update"];
    post(&running.url, update).await;
    app.wait_for_status(|status| rows(status, 2) == 1).await;
    assert_eq!(world.sent(&update["message"]["chat"]["id"])[0]["text"], "Back again");
    assert_eq!(running.terminate().await, Some(0));
    app.audit().await;
}

/// Whatever kind of update it is, it is a row; and only what asks is answered.
#[tokio::test(flavor = "multi_thread")]
async fn updates_of_each_kind() {
    let world = World::start(Vec::new(), usize::MAX).await;
    let app = world.app().await;
    let running = app.start(&["serve"]).await;
    // How many of the updates of a case are answered.
    let cases = [
        ("40-rich-message", 1),
        ("42-bot-to-bot", 0),
        ("43-anonymous-admin", 1),
        ("44-migrate", 0),
        ("45-huge-ids", 2),
        ("46-edited", 0),
        ("47-album", 1),
        ("48-polls-media", 3),
        ("49-business-guest-new", 0),
        ("50-callback", 0),
        ("54-caption-only-sticker", 0),
    ];
    let mut updates = Vec::new();
    for (name, _) in cases {
        for update in case(name)["updates"].as_array().unwrap() {
            post(&running.url, update).await;
            updates.push(update.clone());
        }
    }
    let count = i64::try_from(updates.len()).unwrap();
    app.wait_for_status(|status| rows(status, 0) == count && rows(status, 1) == count).await;
    app.wait_for_status(|status| rows(status, 2) == 8).await;
    assert_eq!(running.terminate().await, Some(0));
    let silver = by_update(&app, "select update_id, status from silver").await;
    for (name, expected) in cases {
        let updates = case(name)["updates"].as_array().unwrap().clone();
        let status = |update: &Value| silver[&update["update_id"].as_i64().unwrap()][0]["status"].clone();
        let answered = updates.iter().filter(|update| status(update) == "answered").count();
        assert_eq!(answered, expected, "{name}");
    }
    let bronze = by_update(&app, "select update_id, chat_id, user_id, text, media_type, payload from bronze").await;
    for update in &updates {
        let row = &bronze[&update["update_id"].as_i64().unwrap()][0];
        assert_eq!(serde_json::from_str::<Value>(row["payload"].as_str().unwrap()).unwrap(), *update);
        if let Some(message) = update.get("message") {
            assert_eq!((&row["chat_id"], &row["user_id"]), (&message["chat"]["id"], &message["from"]["id"]), "{row}");
        }
    }
    let rich = &bronze[&930_001][0];
    assert_eq!(rich["text"], "Plan\nPlease shorten this list.\n- one");
    assert_eq!(rich["media_type"], "rich_message");
    let released: Vec<Value> = world
        .calls_of("answerCallbackQuery", &Value::Null)
        .into_iter()
        .map(|call| call.body["callback_query_id"].clone())
        .collect();
    assert!(released.contains(&json!("991")) && released.contains(&json!("992")), "{released:?}");
    app.audit().await;
}

/// All parts of an answer go to the new chat, and the conversation goes along.
#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_group_that_becomes_a_supergroup() {
    let world = World::start(cases(), usize::MAX).await;
    let app = world.app().await;
    let running = app.start(&["serve"]).await;
    let migrated = case("61-migrate");
    post(&running.url, &migrated["update"]).await;
    app.wait_for_status(|status| rows(status, 2) >= 1).await;
    let (old, new) = (json!(-4_005), json!(-1_004_005));
    assert!(world.sent(&old).is_empty());
    let sent = world.sent(&new);
    assert!(!sent.is_empty() && sent.iter().all(|message| message["reply_parameters"].is_null()), "{sent:?}");

    let said = |id: i64, chat: i64, text: &str| {
        json!({"update_id": id, "message": {"message_id": id, "date": 1_795_632_269, "text": text,
            "chat": {"id": chat, "type": "supergroup", "title": "G"},
            "from": {"id": 5, "is_bot": false, "first_name": "Ada"}}})
    };
    post(&running.url, &said(1, -6_004, "remember the number 41")).await;
    app.wait_for_status(|status| rows(status, 1) == 2).await;
    let mut moved = said(2, -6_004, "");
    moved["message"].as_object_mut().unwrap().remove("text");
    moved["message"]["migrate_to_chat_id"] = json!(-1_006_004);
    post(&running.url, &moved).await;
    app.wait_for_status(|status| rows(status, 1) == 3).await;
    post(&running.url, &said(3, -1_006_004, "which number?")).await;
    app.wait_for_status(|status| rows(status, 1) == 4).await;
    let asked = world.asked.lock().unwrap().last().unwrap().clone();
    assert!(asked.contains(&"remember the number 41".to_owned()), "{asked:?}");
    assert_eq!(running.terminate().await, Some(0));
    let replies = by_update(&app, "select update_id, part, status, chat_id from replies").await;
    let rows = &replies[&migrated["update"]["update_id"].as_i64().unwrap()];
    assert!(rows.iter().all(|row| row["status"] == "sent" && row["chat_id"] == new), "{rows:?}");
    app.audit().await;
}

/// A model that refuses long conversations: after one refusal the old turns are left out for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_has_outgrown_the_model_goes_on() {
    let world = World::start(Vec::new(), 12_000).await;
    let app = world.app().await;
    let running = app.start(&["serve"]).await;
    let long = "x".repeat(6_500);
    let questions = [&format!("one {long}"), &format!("two {long}"), "hi", "hello?", "are you there?"];
    for (index, text) in questions.iter().enumerate() {
        let id = i64::try_from(index).unwrap() + 1;
        let message = json!({"message_id": id, "date": 1_795_632_269, "text": text,
            "chat": {"id": 77, "type": "private", "first_name": "Ada"}, "from": {"id": 77, "is_bot": false}});
        post(&running.url, &json!({"update_id": id, "message": message})).await;
        app.wait_for_status(|status| rows(status, 1) == id).await;
    }
    assert_eq!(running.terminate().await, Some(0));
    let silver = by_update(&app, "select update_id, status, model_calls from silver").await;
    assert!(silver.values().all(|rows| rows[0]["status"] == "answered"), "{silver:?}");
    let calls: i64 = silver.values().map(|rows| rows[0]["model_calls"].as_i64().unwrap()).sum();
    let asked = i64::try_from(questions.len()).unwrap();
    assert_eq!(calls, asked + 1, "{silver:?}");
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_group_only_what_is_meant_for_the_bot_is_answered() {
    let world = World::start(Vec::new(), usize::MAX).await;
    let app = world.addressed_app().await;
    let running = app.start(&["serve"]).await;
    let mut updates = case("53-group-unaddressed")["updates"].as_array().unwrap().clone();
    let unanswered = updates.len();
    let group = updates[0]["message"]["chat"].clone();
    let bot = app.telegram.bot_id().0;
    for extra in [
        json!({"text": "@Hunt_Bot, lunch at 12?"}),
        json!({"text": "/start@hunt_bot"}),
        json!({"text": "/start"}),
        json!({"text": "and you?", "reply_to_message": {"message_id": 1, "date": 1, "chat": group, "from": {"id": bot}}}),
        json!({"text": "Hunt, and you?", "entities": [{"type": "text_mention", "offset": 0, "length": 4, "user": {"id": bot}}]}),
    ] {
        let mut update = updates[0].clone();
        update["update_id"] = json!(930_080 + updates.len());
        update["message"].as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        updates.push(update);
    }
    for update in &updates {
        post(&running.url, update).await;
    }
    let count = i64::try_from(updates.len()).unwrap();
    app.wait_for_status(|status| rows(status, 1) == count).await;
    assert_eq!(running.terminate().await, Some(0));
    let silver = by_update(&app, "select update_id, status from silver").await;
    for (index, update) in updates.iter().enumerate() {
        let status = &silver[&update["update_id"].as_i64().unwrap()][0]["status"];
        assert_eq!(*status, if index < unanswered { "ignored" } else { "answered" }, "{update}");
    }
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_there_already_is_not_doubled() {
    let world = World::start(Vec::new(), usize::MAX).await;
    let app = world.app().await;
    let said = app.stdout(&["webhook", "set", "https://example.org/telegram-webhook"]).await;
    assert!(said.contains("delivers to https://example.org/telegram-webhook\n"), "{said}");
    let set = world.calls_of("setWebhook", &Value::Null);
    assert_eq!(set[0].body["url"], "https://example.org/telegram-webhook");
    let public = app.variable("TELEGRAM_API_URL", "https://api.telegram.org");
    for (given, reason) in [("localhost", "not on the Internet"), ("http://example.org", "HTTPS alone")] {
        let refused = public.run(&["webhook", "set", given]).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && said.contains(reason), "{said}");
    }
}
