//! The stand-in as a bot sees it: over HTTP.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// A bot's caller.
struct Bot {
    client: reqwest::Client,
    base: String,
}

impl Bot {
    fn of(stand_in: &TelegramStandIn) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { client, base: format!("{}/bot{}", stand_in.api_url(), stand_in.token()) }
    }

    async fn call(&self, method: &str, params: Value) -> (u16, Value) {
        self.try_call(method, params).await.unwrap()
    }

    async fn try_call(&self, method: &str, params: Value) -> reqwest::Result<(u16, Value)> {
        let response = self.client.post(format!("{}/{method}", self.base)).json(&params).send().await?;
        Ok((response.status().as_u16(), response.json().await?))
    }

    async fn refusal(&self, method: &str, params: Value) -> (u16, String) {
        let (status, answer) = self.call(method, params).await;
        assert_eq!(answer["ok"], json!(false), "{answer}");
        assert_eq!(answer["error_code"], json!(status));
        (status, answer["description"].as_str().unwrap().to_owned())
    }
}

/// What a receiver got, and how it is to answer next.
#[derive(Default)]
struct Inbox {
    got: Vec<(Value, Option<String>)>,
    answers: VecDeque<(u16, Option<&'static str>)>,
    in_flight: usize,
    most_in_flight: usize,
}

/// A webhook receiver that answers 200 unless it is told otherwise.
struct Receiver {
    url: String,
    inbox: Arc<Mutex<Inbox>>,
    server: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Receiver {
    async fn start(answers: &[(u16, Option<&'static str>)]) -> Self {
        let inbox = Arc::new(Mutex::new(Inbox { answers: answers.iter().copied().collect(), ..Inbox::default() }));
        let router = axum::Router::new().route("/hook", post(receive)).with_state(Arc::clone(&inbox));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, inbox, server }
    }

    fn texts(&self) -> Vec<String> {
        let inbox = self.inbox.lock().unwrap();
        inbox.got.iter().map(|(update, _)| update["message"]["text"].as_str().unwrap_or("").to_owned()).collect()
    }
}

async fn receive(State(inbox): State<Arc<Mutex<Inbox>>>, headers: HeaderMap, body: String) -> Response {
    let secret = headers.get(SECRET_HEADER).map(|secret| secret.to_str().unwrap().to_owned());
    let (status, retry_after) = {
        let mut inbox = inbox.lock().unwrap();
        inbox.got.push((serde_json::from_str(&body).unwrap(), secret));
        inbox.in_flight += 1;
        inbox.most_in_flight = inbox.most_in_flight.max(inbox.in_flight);
        inbox.answers.pop_front().unwrap_or((200, None))
    };
    tokio::task::yield_now().await;
    inbox.lock().unwrap().in_flight -= 1;
    let mut response = StatusCode::from_u16(status).unwrap().into_response();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert("retry-after", seconds.parse().unwrap());
    }
    response
}

async fn start(change: impl FnOnce(&mut Options)) -> (TelegramStandIn, Bot) {
    let mut options = Options { first_retry_delay: Duration::from_millis(1), ..Options::default() };
    change(&mut options);
    let stand_in = TelegramStandIn::start(options).await.unwrap();
    let bot = Bot::of(&stand_in);
    (stand_in, bot)
}

async fn set_webhook(bot: &Bot, receiver: &Receiver, extra: Value) {
    let mut params = json!({ "url": receiver.url, "secret_token": "S3cret_-" });
    params.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    assert_eq!(bot.call("setWebhook", params).await, (200, json!({ "ok": true, "result": true })));
}

#[tokio::test]
async fn a_wrong_token_a_wrong_path_and_an_unknown_method_are_refused() {
    let (stand_in, bot) = start(|_| {}).await;
    let stranger = Bot { base: format!("{}/bot1:wrong", stand_in.api_url()), client: bot.client.clone() };
    assert_eq!(stranger.refusal("getMe", json!({})).await, (401, "Unauthorized".to_owned()));
    assert_eq!(bot.refusal("fly", json!({})).await.0, 404);
    let nowhere = bot.client.get(stand_in.api_url()).send().await.unwrap();
    assert_eq!(nowhere.status(), 404);
    let (_, me) = bot.call("getMe", json!({})).await;
    assert_eq!(me["result"]["id"], json!(stand_in.bot_id().0));
}

#[tokio::test]
async fn sends_that_telegram_would_refuse_are_refused_in_its_words() {
    let (stand_in, bot) = start(|_| {}).await;
    stand_in.add_chat(5);
    let send = |params: Value| bot.refusal("sendMessage", params);
    let refusal = |code, text: &str| (code, text.to_owned());
    assert_eq!(send(json!({ "text": "x" })).await, refusal(400, "Bad Request: chat_id is empty"));
    assert_eq!(send(json!({ "chat_id": 6, "text": "x" })).await, refusal(400, "Bad Request: chat not found"));
    assert_eq!(send(json!({ "chat_id": 5, "text": " " })).await, refusal(400, "Bad Request: message text is empty"));
    // 2049 characters of two UTF-16 units each.
    let long = "😀".repeat(2_049);
    assert_eq!(send(json!({ "chat_id": 5, "text": long })).await, refusal(400, "Bad Request: message is too long"));
    let reply = json!({ "chat_id": 5, "text": "x", "reply_parameters": { "message_id": 77 } });
    assert_eq!(send(reply).await, refusal(400, "Bad Request: message to be replied not found"));
    let entities = json!({ "chat_id": 5, "text": "x", "entities": "[{" });
    assert_eq!(send(entities).await, refusal(400, "Bad Request: can't parse entities JSON object"));
    stand_in.set_blocked(5, true);
    let blocked = refusal(403, "Forbidden: bot was blocked by the user");
    assert_eq!(send(json!({ "chat_id": 5, "text": "x" })).await, blocked);
    stand_in.migrate_chat(-5, -1005);
    let (_, answer) = bot.call("sendMessage", json!({ "chat_id": -5, "text": "x" })).await;
    assert_eq!(answer["parameters"]["migrate_to_chat_id"], json!(-1005));
    assert_eq!(stand_in.totals().sent, 0);
}

#[tokio::test]
async fn a_message_is_in_the_ledger_with_the_entities_that_lie_within_it() {
    let (stand_in, bot) = start(|options| options.accept_unknown_chats = true).await;
    let bold = json!({ "type": "bold", "offset": 0, "length": 2 });
    let beyond = json!({ "type": "code", "offset": 1, "length": 2 });
    let (status, answer) =
        bot.call("sendMessage", json!({ "chat_id": 5, "text": "😀", "entities": [bold, beyond] })).await;
    assert_eq!(status, 200);
    let sent = stand_in.sent();
    assert_eq!((sent[0].text.as_str(), &sent[0].entities), ("😀", &vec![bold]));
    assert_eq!(answer["result"]["message_id"], json!(sent[0].message_id));
    assert!(sent[0].raw.contains("code"));
}

#[tokio::test]
async fn an_edit_changes_a_message_of_the_bot_and_only_once() {
    let (stand_in, bot) = start(|_| {}).await;
    stand_in.user_sends(5, "hi");
    let (_, answer) = bot.call("sendMessage", json!({ "chat_id": 5, "text": "…" })).await;
    let id = answer["result"]["message_id"].as_i64().unwrap();
    let edit = |message_id: i64, text: &str| json!({ "chat_id": 5, "message_id": message_id, "text": text });
    assert_eq!(bot.call("editMessageText", edit(id, "done")).await.0, 200);
    assert!(bot.refusal("editMessageText", edit(id, "done")).await.1.contains("message is not modified"));
    assert!(bot.refusal("editMessageText", edit(1, "done")).await.1.contains("message can't be edited"));
    assert!(bot.refusal("editMessageText", edit(99, "done")).await.1.contains("message to edit not found"));
    assert_eq!(stand_in.read(|ledger| ledger.current(5, id).unwrap().text.clone()), "done");
}

#[tokio::test]
async fn a_pace_that_is_exceeded_gives_429_with_retry_after() {
    let pace = Pace { burst: 1, ..Pace::default() };
    let (stand_in, bot) = start(|options| options.pace = Some(pace)).await;
    stand_in.add_chat(5);
    let params = json!({ "chat_id": 5, "text": "x" });
    assert_eq!(bot.call("sendMessage", params.clone()).await.0, 200);
    let response = bot.client.post(format!("{}/sendMessage", bot.base)).json(&params).send().await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "1");
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["parameters"], json!({ "retry_after": 1 }));
    assert_eq!(bot.refusal("sendMessage", params).await.1, "Too Many Requests: retry after 1");
    assert_eq!(stand_in.totals().impatient, 1);
}

#[tokio::test]
async fn scripted_behaviors_fail_drop_and_accept_in_turn() {
    let (stand_in, bot) = start(|_| {}).await;
    stand_in.add_chat(5);
    let script = vec![
        Behavior::too_many_requests(3),
        Behavior::migrated_to(-1009),
        Behavior::DropBefore,
        Behavior::AcceptThenDropConnection,
        Behavior::AcceptThenFail { code: 502 },
        Behavior::Delay(Duration::from_millis(1)),
    ];
    stand_in.script("sendMessage", script);
    let send = |text: &str| bot.try_call("sendMessage", json!({ "chat_id": 5, "text": text }));
    let (status, answer) = send("a").await.unwrap();
    assert_eq!((status, &answer["parameters"]["retry_after"]), (429, &json!(3)));
    assert_eq!(send("b").await.unwrap().1["parameters"]["migrate_to_chat_id"], json!(-1009));
    assert!(send("c").await.is_err());
    assert!(send("d").await.is_err());
    assert_eq!(send("e").await.unwrap().0, 502);
    assert_eq!(send("f").await.unwrap().0, 200);
    let texts: Vec<_> = stand_in.sent().into_iter().map(|message| message.text).collect();
    assert_eq!(texts, ["d", "e", "f"]);
    let fates: Vec<_> = stand_in.read(|ledger| ledger.calls().map(|call| call.fate).collect());
    let answered = Fate::Answered;
    assert_eq!(fates, [answered(429), answered(400), Fate::Dropped, Fate::Dropped, answered(502), answered(200)]);
    assert_eq!(stand_in.totals().impatient, 3);
}

#[tokio::test]
async fn a_hanging_call_is_accepted_and_ends_with_the_stand_in() {
    let (stand_in, bot) = start(|_| {}).await;
    stand_in.add_chat(5);
    stand_in.script("sendMessage", vec![Behavior::AcceptThenHang]);
    let call = tokio::spawn(async move { bot.try_call("sendMessage", json!({ "chat_id": 5, "text": "x" })).await });
    let hangs = |ledger: &CallHistory| ledger.calls().any(|call| call.fate == Fate::Hanging);
    assert!(stand_in.wait_for(hangs, LIMIT).await);
    assert_eq!(stand_in.sent().len(), 1);
    drop(stand_in);
    assert!(call.await.unwrap().is_err());
}

#[tokio::test]
async fn updates_of_a_chat_arrive_one_at_a_time_in_order_with_the_secret() {
    let receiver = Receiver::start(&[]).await;
    let (stand_in, bot) = start(|_| {}).await;
    set_webhook(&bot, &receiver, json!({})).await;
    let ids: Vec<_> = (0..20).map(|n| stand_in.user_sends(5, &n.to_string())).collect();
    assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1));
    assert!(stand_in.wait_for_acks(LIMIT).await);
    assert_eq!(receiver.texts(), (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    let inbox = receiver.inbox.lock().unwrap();
    assert_eq!(inbox.most_in_flight, 1);
    assert!(inbox.got.iter().all(|(_, secret)| secret.as_deref() == Some("S3cret_-")));
    assert_eq!(stand_in.read(|ledger| ledger.acked().collect::<Vec<_>>()), ids);
}

#[tokio::test]
async fn connections_are_never_more_than_the_webhook_allows() {
    let receiver = Receiver::start(&[]).await;
    let (stand_in, bot) = start(|_| {}).await;
    (1..=30).for_each(|chat| {
        stand_in.user_sends(chat, "x");
    });
    set_webhook(&bot, &receiver, json!({ "max_connections": 2 })).await;
    assert!(stand_in.wait_for_acks(LIMIT).await);
    assert!(receiver.inbox.lock().unwrap().most_in_flight <= 2);
    assert_eq!(stand_in.totals().acked, 30);
}

#[tokio::test]
async fn what_is_not_acknowledged_comes_again_and_holds_its_chat_but_no_other() {
    let receiver = Receiver::start(&[(500, None), (404, None), (301, None), (503, None)]).await;
    let (stand_in, bot) = start(|options| options.first_retry_delay = Duration::from_millis(20)).await;
    set_webhook(&bot, &receiver, json!({ "max_connections": 1 })).await;
    let first = stand_in.user_sends(5, "a");
    stand_in.user_sends(5, "b");
    assert!(stand_in.wait_for(|ledger| ledger.deliveries_of(first).count() == 2, LIMIT).await);
    let other = stand_in.user_sends(6, "other");
    assert!(stand_in.wait_for_acks(LIMIT).await);
    let texts = receiver.texts();
    let last_a = texts.iter().rposition(|text| text == "a").unwrap();
    assert!(texts.iter().position(|text| text == "b").unwrap() > last_a);
    assert_eq!(texts.iter().filter(|text| *text == "b").count(), 1);
    assert!(stand_in.read(|ledger| ledger.acked().any(|update_id| update_id == other)));
    let (_, info) = bot.call("getWebhookInfo", json!({})).await;
    assert!(info["result"]["last_error_message"].as_str().unwrap().starts_with("Wrong response from the webhook"));
    assert_eq!(info["result"]["pending_update_count"], json!(0));
}

#[tokio::test]
async fn retry_after_of_the_receiver_is_obeyed() {
    let receiver = Receiver::start(&[(503, Some("1"))]).await;
    let (stand_in, bot) = start(|_| {}).await;
    set_webhook(&bot, &receiver, json!({})).await;
    let update_id = stand_in.user_sends(5, "a");
    assert!(stand_in.wait_for_acks(LIMIT).await);
    let times: Vec<_> = stand_in.read(|ledger| ledger.deliveries_of(update_id).map(|one| one.began_at).collect());
    assert_eq!(times.len(), 2);
    assert!(times[1].since(times[0]) >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_lost_ack_and_a_slow_answer_are_delivered_again() {
    let receiver = Receiver::start(&[]).await;
    let (stand_in, bot) = start(|_| {}).await;
    set_webhook(&bot, &receiver, json!({})).await;
    stand_in.lose_acks(1);
    let update_id = stand_in.user_sends(5, "a");
    assert!(stand_in.wait_for_acks(LIMIT).await);
    assert_eq!(receiver.texts(), ["a", "a"]);
    assert_eq!(stand_in.redeliver(update_id).await.unwrap(), 200);
    assert_eq!(stand_in.redeliver_to(&receiver.url, update_id).await.unwrap(), 200);
    let inbox = receiver.inbox.lock().unwrap();
    assert!(inbox.got.iter().all(|got| got == &inbox.got[0]));
    assert_eq!(inbox.got.len(), 4);
}

#[tokio::test]
async fn a_receiver_that_never_answers_is_timed_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (stand_in, bot) = start(|options| options.delivery_timeout = Duration::from_millis(20)).await;
    bot.call("setWebhook", json!({ "url": url })).await;
    stand_in.user_sends(5, "a");
    let timed_out = |ledger: &CallHistory| {
        ledger.deliveries().any(|delivery| delivery.receipt == Receipt::Broken("Read timeout expired".to_owned()))
    };
    assert!(stand_in.wait_for(timed_out, LIMIT).await);
    assert_eq!(stand_in.pending_updates(), 1);
}

#[tokio::test]
async fn a_webhook_must_be_https_or_loopback_with_a_clean_secret() {
    let (_stand_in, bot) = start(|_| {}).await;
    let set = |url: &str, secret: &str| json!({ "url": url, "secret_token": secret });
    let (status, why) = bot.refusal("setWebhook", set("http://example.com/", "x")).await;
    assert_eq!((status, why.contains("HTTPS")), (400, true));
    assert!(bot.refusal("setWebhook", set("https://a.b/", "x y")).await.1.contains("unallowed"));
    assert!(bot.refusal("setWebhook", set("https://a.b/", &"x".repeat(257))).await.1.contains("too long"));
    assert!(bot.refusal("setWebhook", set("nonsense", "x")).await.1.contains("bad webhook"));
}

#[tokio::test]
async fn updates_wait_until_an_offset_confirms_them() {
    let (stand_in, bot) = start(|_| {}).await;
    let ids: Vec<_> = (0..3).map(|n| stand_in.user_sends(n + 1, "x")).collect();
    let poll = async |params: Value| {
        let (_, answer) = bot.call("getUpdates", params).await;
        let updates = answer["result"].as_array().unwrap().clone();
        updates.iter().map(|update| update["update_id"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(poll(json!({})).await, ids);
    assert_eq!(poll(json!({ "limit": 1 })).await, ids[..1]);
    assert_eq!(poll(json!({ "offset": ids[0] + 1 })).await, ids[1..]);
    assert_eq!(stand_in.pending_updates(), 2);
    assert_eq!(poll(json!({ "offset": -1 })).await, ids[2..]);
    assert_eq!(poll(json!({ "offset": ids[2] + 1 })).await, [0_i64; 0]);
    assert_eq!(stand_in.totals().acked, 3);
}

#[tokio::test]
async fn a_long_poll_ends_with_the_update_that_comes_and_gives_way_to_a_newer_one() {
    let (stand_in, bot) = start(|_| {}).await;
    let bot = Arc::new(bot);
    let poll = |timeout: i64| {
        let bot = Arc::clone(&bot);
        tokio::spawn(async move { bot.call("getUpdates", json!({ "timeout": timeout })).await })
    };
    let older = poll(50);
    assert!(stand_in.wait_for(|ledger| ledger.totals().calls == 1, LIMIT).await);
    let newer = poll(50);
    let (status, answer) = older.await.unwrap();
    assert_eq!(status, 409, "{answer}");
    let update_id = stand_in.user_sends(5, "x");
    assert_eq!(newer.await.unwrap().1["result"][0]["update_id"], json!(update_id));
}

#[tokio::test]
async fn get_updates_conflicts_with_a_webhook() {
    let (_stand_in, bot) = start(|_| {}).await;
    bot.call("setWebhook", json!({ "url": "https://a.b/" })).await;
    assert_eq!(bot.refusal("getUpdates", json!({})).await.0, 409);
    bot.call("deleteWebhook", json!({})).await;
    assert_eq!(bot.call("getUpdates", json!({})).await.0, 200);
}

#[tokio::test]
async fn a_button_press_is_answered_once() {
    let (stand_in, bot) = start(|_| {}).await;
    stand_in.user_sends(5, "hi");
    let markup = json!({ "inline_keyboard": [[{ "text": "Go", "callback_data": "GO" }]] });
    let (_, sent) = bot.call("sendMessage", json!({ "chat_id": 5, "text": "?", "reply_markup": markup })).await;
    let press = stand_in.press_button(5, sent["result"]["message_id"].as_i64().unwrap(), "GO");
    let update: Value = serde_json::from_str(&stand_in.update_body(press).unwrap()).unwrap();
    let query = &update["callback_query"];
    assert_eq!((&query["data"], &query["message"]["text"]), (&json!("GO"), &json!("?")));
    let answer = json!({ "callback_query_id": query["id"] });
    assert_eq!(bot.call("answerCallbackQuery", answer.clone()).await.0, 200);
    assert!(bot.refusal("answerCallbackQuery", answer).await.1.contains("query is too old"));
}

#[tokio::test]
async fn what_allowed_updates_leave_out_is_not_delivered() {
    let (stand_in, bot) = start(|_| {}).await;
    bot.call("setWebhook", json!({ "url": "https://a.b/", "allowed_updates": ["message"] })).await;
    bot.call("deleteWebhook", json!({})).await;
    stand_in.press_button(5, 1, "GO");
    assert_eq!(stand_in.pending_updates(), 0);
    stand_in.user_sends(5, "x");
    stand_in.push_update(json!({ "some_future_kind": {} }));
    assert_eq!(stand_in.pending_updates(), 2);
}

#[tokio::test]
async fn a_watcher_sees_a_message_travel() {
    let receiver = Receiver::start(&[]).await;
    let (stand_in, bot) = start(|_| {}).await;
    set_webhook(&bot, &receiver, json!({})).await;
    let mut events = stand_in.watch_events();
    let sent_id = stand_in.user_sends(5, "x");
    let first = events.recv().await.unwrap();
    assert!(matches!(&*first, StandInEvent::UserSent { update_id, .. } if *update_id == sent_id));
    let second = events.recv().await.unwrap();
    assert!(matches!(&*second, StandInEvent::Delivery(delivery) if delivery.receipt.is_ack()));
    bot.call("sendChatAction", json!({ "chat_id": 5, "action": "typing" })).await;
    assert!(matches!(&*events.recv().await.unwrap(), StandInEvent::ChatAction { .. }));
}
