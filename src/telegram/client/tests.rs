//! Every way a call can end, against servers on loopback: what its fate is taken to be, and that nothing goes twice.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode};
use axum::routing::post;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;

const TOKEN: &str = "42:s3cret";
const SENT: &str = r#"{"ok":true,"result":{"message_id":7,"chat":{"id":1}}}"#;

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

fn client_at(url: &str) -> BotClient {
    BotClient::new(url, TOKEN).unwrap()
}

/// A client of a server that gives every call the same answer.
async fn client_of(status: u16, body: &'static str) -> BotClient {
    client_with_header(status, (HeaderName::from_static("x-nothing"), ""), body).await
}

async fn client_with_header(status: u16, header: (HeaderName, &'static str), body: &'static str) -> BotClient {
    let (listener, url) = listener().await;
    let answer = move || async move { (StatusCode::from_u16(status).unwrap(), [header], body) };
    let routes = Router::new().route("/bot42:s3cret/{method}", post(answer));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    client_at(&url)
}

async fn send(client: &BotClient) -> CallResult<i64> {
    client.send_message(&OutgoingMessage { chat_id: 1, text: "hello".into(), ..OutgoingMessage::default() }).await
}

async fn fault_of(status: u16, body: &'static str) -> SendFault {
    send(&client_of(status, body).await).await.unwrap_err()
}

async fn refusal_of(description: &'static str) -> SendFault {
    let body = format!(r#"{{"ok":false,"error_code":400,"description":"Bad Request: {description}"}}"#);
    fault_of(400, body.leak()).await
}

fn is_unknown(fault: &SendFault) -> bool {
    matches!(fault, SendFault::Unknown { .. })
}

/// A server of raw TCP: reads a request and says the next of `answers`; with none left, or after one that closes the
/// connection, it hangs up, or stays silent. Counts requests.
async fn raw_server(answers: Vec<String>, silent: bool) -> (BotClient, Arc<AtomicUsize>) {
    let (listener, url) = listener().await;
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 65_536];
            while let Ok(1..) = stream.read(&mut buffer).await {
                counted.fetch_add(1, Ordering::SeqCst);
                match answers.next() {
                    Some(answer) => {
                        stream.write_all(answer.as_bytes()).await.unwrap();
                        if answer.contains("connection: close") {
                            break;
                        }
                    }
                    None if silent => std::future::pending().await,
                    None => break,
                }
            }
        }
    });
    (client_at(&url), requests)
}

#[tokio::test]
async fn nothing_left_when_nobody_listens_and_the_token_is_not_told() {
    let (listener, url) = listener().await;
    drop(listener);
    let client = client_at(&url);
    let fault = send(&client).await.unwrap_err();
    assert!(matches!(fault, SendFault::NotSent { .. }), "{fault:?}");
    assert!(!format!("{fault:?}{client:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_hang_up_after_the_request_is_unknown_and_nothing_is_sent_twice() {
    let (client, requests) = raw_server(vec![], false).await;
    let fault = send(&client).await.unwrap_err();
    assert!(is_unknown(&fault), "{fault:?}");
    assert!(!format!("{fault:?}").contains("s3cret"));
    assert_eq!(requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_hang_up_on_a_connection_used_before_is_unknown_and_nothing_is_sent_twice() {
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{SENT}", SENT.len());
    let (client, requests) = raw_server(vec![answer], false).await;
    assert_eq!(send(&client).await, Ok(7));
    let fault = send(&client).await.unwrap_err();
    assert!(is_unknown(&fault), "{fault:?}");
    assert_eq!(requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_judged_by_its_status() {
    let cut_off =
        |status: &str| vec![format!("HTTP/1.1 {status}\r\ncontent-length: 999\r\nconnection: close\r\n\r\n{{\"ok\"")];
    let (client, _) = raw_server(cut_off("200 OK"), false).await;
    assert!(is_unknown(&send(&client).await.unwrap_err()));
    let (client, _) = raw_server(cut_off("403 Forbidden"), false).await;
    assert!(matches!(send(&client).await.unwrap_err(), SendFault::Refused { code: 403, .. }));
}

#[tokio::test]
async fn a_time_out_after_the_connection_came_to_be_is_unknown() {
    let (client, _) = raw_server(vec![], true).await;
    let client = BotClient { call_timeout: Duration::from_millis(50), ..client };
    assert!(is_unknown(&send(&client).await.unwrap_err()));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let header = (axum::http::header::LOCATION, "/bot42:s3cret/elsewhere");
    let client = client_with_header(307, header, "moved to /bot42:s3cret/elsewhere").await;
    let SendFault::Refused { code: 307, description, .. } = send(&client).await.unwrap_err() else { panic!() };
    assert_eq!(description, "answered 307 with `moved to /bot***/elsewhere`");
}

#[tokio::test]
async fn a_secret_that_a_server_repeats_is_hidden_before_the_text_is_cut() {
    const KEY: &str = "4242:AAEechoed-canary-of-the-client-tests";
    crate::redact::know(KEY);
    let echoes = [KEY.to_owned(), KEY.replace(':', "%3A"), KEY.replace('-', "&#45;"), KEY[..20].to_owned()];
    for echo in echoes {
        for before in [0, 150, 175, 190] {
            let page = format!("<html>{} /bot{echo}/sendMessage", "x".repeat(before));
            for status in [502, 400, 200] {
                let shown = format!("{:?}", fault_of(status, page.clone().leak()).await);
                assert!(!shown.contains("AAEech") && !shown.contains("canary"), "{status}: {shown}");
            }
        }
        let shown = format!("{:?}", refusal_of(format!("no such method /bot{echo}/x").leak()).await);
        assert!(shown.contains("no such method /bot") && !shown.contains("AAEech"), "{shown}");
    }
    let long = refusal_of("chat not found ".repeat(100_000).leak()).await;
    let SendFault::Refused { description, .. } = long else { panic!() };
    assert!(description.chars().count() <= CELL_LIMIT && description.ends_with("more characters)"), "{description}");
    let request = WebhookRequest {
        url: "https://bot".to_owned(),
        secret_token: "w3bhook-canary".to_owned(),
        allowed_updates: Vec::new(),
        max_connections: 1,
    };
    assert_eq!(format!("{request:?}"), "WebhookRequest(https://bot)");
}

#[tokio::test]
async fn whatever_is_not_a_refusal_is_unknown() {
    let telegrams_own = r#"{"ok":false,"error_code":500,"description":"Internal Server Error"}"#;
    for (status, body) in [
        (500, telegrams_own),
        (200, telegrams_own),
        (502, "<html>"),
        (504, ""),
        (408, ""),
        (200, "<html>"),
        (200, ""),
        (200, "{}"),
        (200, r#"{"ok":true}"#),
        (200, r#"{"ok":true,"result":true}"#),
        (200, r#"{"ok":true,"result":{"message_id":"7"}}"#),
        (200, r#"{"ok":false}"#),
    ] {
        let fault = fault_of(status, body).await;
        assert!(is_unknown(&fault), "{status} {body}: {fault:?}");
    }
}

#[tokio::test]
async fn a_flood_says_how_long_to_wait() {
    let waits = |fault: SendFault| match fault {
        SendFault::RetryAfter { wait, .. } => wait.as_secs(),
        other => panic!("{other:?}"),
    };
    let flood = r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 9","parameters":{"retry_after":9}}"#;
    assert_eq!(waits(fault_of(429, flood).await), 9);
    assert_eq!(waits(fault_of(429, r#"{"ok":false,"error_code":429,"description":"slow"}"#).await), 1);
    assert_eq!(waits(fault_of(429, "<html>").await), 1);
    let said = r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 3","parameters":null}"#;
    assert_eq!(waits(fault_of(429, said).await), 3);
    let fraction = r#"{"ok":false,"error_code":429,"parameters":{"retry_after":2.5}}"#;
    assert_eq!(waits(fault_of(429, fraction).await), 2);
    let endless = r#"{"ok":false,"error_code":429,"parameters":{"retry_after":18446744073709551615}}"#;
    assert_eq!(waits(fault_of(429, endless).await), 86_400);
    let header = client_with_header(429, (axum::http::header::RETRY_AFTER, "5"), "slow").await;
    assert_eq!(waits(send(&header).await.unwrap_err()), 5);
}

#[tokio::test]
async fn a_token_that_is_none_is_told_from_a_method_that_is_none() {
    let unauthorized = r#"{"ok":false,"error_code":401,"description":"Unauthorized"}"#;
    assert_eq!(fault_of(401, unauthorized).await, SendFault::BadToken);
    assert_eq!(fault_of(404, r#"{"ok":false,"error_code":404,"description":"Not Found"}"#).await, SendFault::BadToken);
    assert_eq!(fault_of(404, "<html>").await, SendFault::BadToken);
    let method = r#"{"ok":false,"error_code":404,"description":"Not Found: method not found"}"#;
    assert!(matches!(fault_of(404, method).await, SendFault::Refused { code: 404, .. }));
}

#[tokio::test]
async fn a_refusal_has_its_code_its_words_and_the_new_chat() {
    let blocked = r#"{"ok":false,"error_code":403,"description":"Forbidden: bot was blocked by the user"}"#;
    let expected = SendFault::Refused {
        code: 403,
        description: "Forbidden: bot was blocked by the user".to_owned(),
        migrate_to_chat_id: None,
    };
    assert_eq!(fault_of(403, blocked).await, expected);
    let moved = r#"{"ok":false,"error_code":400,"description":"x","parameters":{"migrate_to_chat_id":-100}}"#;
    assert!(matches!(fault_of(400, moved).await, SendFault::Refused { migrate_to_chat_id: Some(-100), .. }));
    assert!(matches!(fault_of(413, "too large").await, SendFault::Refused { code: 413, .. }));
}

#[tokio::test]
async fn what_can_be_repaired_is_recognized() {
    let repairs =
        |fault: SendFault| (fault.is_about_entities(), fault.is_missing_reply_target(), fault.is_missing_thread());
    for text in [
        "can't parse entities: unclosed tag",
        "can't parse MessageEntity: no offset",
        "ENTITY_BOUNDS_INVALID",
        "wrong message entity: Wrong HTTP URL",
        "entity URL 'https://e.org/y' is invalid: Wrong HTTP URL",
    ] {
        assert_eq!(repairs(refusal_of(text).await), (true, false, false), "{text}");
    }
    for text in ["message to be replied not found", "reply message not found", "REPLY_MESSAGE_ID_INVALID"] {
        assert_eq!(repairs(refusal_of(text).await), (false, true, false), "{text}");
    }
    assert_eq!(repairs(refusal_of("message thread not found").await), (false, false, true));
    assert_eq!(repairs(refusal_of("chat not found").await), (false, false, false));
}

#[tokio::test]
async fn not_modified_is_success_of_an_edit_only() {
    let body = r#"{"ok":false,"error_code":400,"description":"Bad Request: message is not modified: specified …"}"#;
    let client = client_of(400, body).await;
    assert_eq!(client.edit_message_text(1, &OutgoingMessage::default()).await, Ok(()));
    assert!(send(&client).await.is_err());
}

#[tokio::test]
async fn calls_say_what_telegram_reads() {
    let (sender, mut calls) = mpsc::unbounded_channel();
    let (listener, url) = listener().await;
    let record = |Path(method): Path<String>,
                  State(sender): State<mpsc::UnboundedSender<(String, Value)>>,
                  axum::Json(body): axum::Json<Value>| async move {
        let result =
            if method == "getUpdates" { r#"[{"update_id":1,  "message":{"x":1e999}}]"# } else { r#"{"message_id":7}"# };
        sender.send((method, body)).unwrap();
        format!(r#"{{"ok":true,"result":{result}}}"#)
    };
    let routes = Router::new().route("/prefix/bot42:s3cret/{method}", post(record)).with_state(sender);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let client = client_at(&format!("{url}/prefix/"));
    let entity = Entity { kind: "bold".into(), offset: 0, length: 2, url: None, language: None };
    let message = OutgoingMessage {
        reply_markup: None,
        chat_id: -1,
        text: "hi".into(),
        entities: vec![entity],
        message_thread_id: Some(3),
        direct_messages_topic_id: Some(9),
        reply_to_message_id: Some(4),
    };
    assert_eq!(client.send_message(&message).await, Ok(7));
    let said = json!({"chat_id": -1, "text": "hi", "entities": [{"type": "bold", "offset": 0, "length": 2}],
        "message_thread_id": 3, "direct_messages_topic_id": 9, "reply_parameters": {"message_id": 4, "allow_sending_without_reply": true}});
    assert_eq!(calls.recv().await.unwrap(), ("sendMessage".to_owned(), said));
    let typing = json!({"chat_id": 5, "action": "typing"});
    let in_thread = json!({"chat_id": 5, "action": "typing", "message_thread_id": 3});
    for (topic, said) in
        [(None, &typing), (Some(Topic::DirectMessages(9)), &typing), (Some(Topic::Thread(3)), &in_thread)]
    {
        client.send_typing(5, topic).await.unwrap();
        assert_eq!(calls.recv().await.unwrap(), ("sendChatAction".to_owned(), said.clone()));
    }
    let updates = client.get_updates(Some(9), Duration::from_secs(0), &["message".to_owned()]).await.unwrap();
    assert_eq!(updates[0].get(), r#"{"update_id":1,  "message":{"x":1e999}}"#);
    let said = json!({"offset": 9, "timeout": 0, "allowed_updates": ["message"]});
    assert_eq!(calls.recv().await.unwrap(), ("getUpdates".to_owned(), said));
}

#[test]
fn an_address_or_a_token_that_cannot_be_used_is_refused_at_once() {
    for url in ["", "api.telegram.org", "localhost:8081", "ftp://x", "https://", "https://x/?a=b", "https://x/#a"] {
        assert!(BotClient::new(url, TOKEN).unwrap_err().to_string().contains("TELEGRAM_API_URL"), "{url}");
    }
    for token in ["", "42:a/b", "42:a b", "42:a?b", "42:ä"] {
        let error = BotClient::new("https://api.telegram.org", token).unwrap_err().to_string();
        assert!(token.is_empty() || !error.contains(token), "{error}");
    }
}
