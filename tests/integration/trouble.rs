//! Bad input and other trouble: one line that says what, where and how to fix it; the right exit code; nothing lost.

use lakegram::standin::telegram::Behavior;
use serde_json::json;

use crate::support::{TestApp, rows};

async fn complaint(app: &TestApp, arguments: &[&str], code: i32) -> String {
    let output = app.run(arguments).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    let complaints: Vec<&str> = text.lines().filter(|line| line.starts_with("lakegram: ")).collect();
    assert_eq!(complaints.len(), 1, "{text}");
    complaints[0].to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_wrong_variable_is_named_with_the_fix() {
    for (name, value, expected) in [
        ("TELEGRAM_BOT_TOKEN", "", "TELEGRAM_BOT_TOKEN is not set; ask @BotFather"),
        ("TELEGRAM_BOT_TOKEN", "nonsense", "does not start with a number"),
        ("TELEGRAM_WEBHOOK_SECRET", "", "TELEGRAM_WEBHOOK_SECRET is not set"),
        ("LAKEGRAM_LISTEN", "nowhere", "LAKEGRAM_LISTEN is not an address; write it like"),
        ("LLM_BASE_URL", "nowhere", "LLM_BASE_URL is not a URL; write it like"),
        ("LAKEGRAM_DATA", "ftp://host/x", "LAKEGRAM_DATA"),
    ] {
        let app = TestApp::new().await.variable(name, value);
        let line = complaint(&app, &["serve"], 2).await;
        assert!(line.contains(expected), "{name}={value}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_of_the_pipeline_file_is_named_with_its_line() {
    let app = TestApp::new().await;
    let folder = app.folder().join("pipelines");
    std::fs::create_dir(&folder).unwrap();
    let shipped = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/telegram.toml")).unwrap();
    std::fs::write(folder.join("telegram.toml"), shipped.replace("reject_with", "reject_wiht")).unwrap();
    let line = complaint(&app, &["serve"], 2).await;
    assert!(line.contains("telegram.toml: line 12: unknown field `reject_wiht`"), "{line}");
    assert!(line.ends_with("did you mean `reject_with`?"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_another_schema_is_refused_by_name() {
    let app = TestApp::new().await;
    let folder = app.folder().join("schemas");
    std::fs::create_dir(&folder).unwrap();
    app.stdout(&["run"]).await;
    let shipped =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/telegram_messages.json")).unwrap();
    let changed =
        shipped.replace(r#""name": "message_id", "type": "long""#, r#""name": "message_id", "type": "string""#);
    assert_ne!(changed, shipped);
    std::fs::write(folder.join("telegram_messages.json"), changed).unwrap();
    let line = complaint(&app, &["run"], 2).await;
    assert!(line.contains("telegram/bronze: ") && line.contains("message_id"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_receivers_on_one_lane_are_refused() {
    let app = TestApp::new().await;
    let first = app.serve().await;
    let line = complaint(&app, &["serve"], 2).await;
    assert!(line.contains("test-lane") && line.contains("in use"), "{line}");
    first.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_model_is_away_everything_is_landed_and_answered_later() {
    let app = TestApp::new().await;
    app.model.fail_all(503);
    let running = app.serve().await;
    for chat in 1..=10 {
        app.telegram.user_sends(chat, "is anybody there?");
    }
    assert!(app.telegram.wait_for_acks(crate::support::PATIENCE).await);
    app.wait_for_status(|status| rows(status, 0) == 10).await;
    app.model.recover();
    app.wait_for_sent(10).await;
    let status = app.wait_for_status(|status| rows(status, 2) == 10).await;
    assert_eq!(status["tables"][1]["by_status"], json!({"answered": 10}));
    running.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_telegram_does_with_a_reply_is_what_the_table_says() {
    let app = TestApp::new().await;
    let running = app.serve().await;
    app.telegram.script(
        "sendMessage",
        vec![Behavior::too_many_requests(1), Behavior::fail(403, "Forbidden: bot was blocked by the user")],
    );
    app.telegram.user_sends(1, "refused after a 429");
    app.wait_for_status(|status| rows(status, 2) == 1).await;
    app.telegram.script("sendMessage", vec![Behavior::AcceptThenDropConnection]);
    app.telegram.user_sends(2, "accepted, but the answer is lost");
    app.wait_for_status(|status| rows(status, 2) == 2).await;
    app.telegram.script("sendMessage", vec![Behavior::fail(400, "Bad Request: can't parse entities: oh")]);
    app.telegram.user_sends(3, "resent as plain text");
    let status = app.wait_for_status(|status| rows(status, 2) == 3).await;
    assert_eq!(status["tables"][2]["by_status"], json!({"failed": 1, "sent": 1, "unknown": 1}));
    assert_eq!(app.telegram.sent().len(), 2, "the unknown one arrived once and is not sent again");
    running.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_in_the_middle_of_each_stage_goes_on_where_it_stood() {
    let app = TestApp::new().await.set("reply.intent_ttl=1s");
    // Landed, and nothing else.
    let receiver = app.start(&["serve", "--roles", "receive"]).await;
    app.set_webhook(&receiver).await;
    for chat in 1..=3 {
        app.telegram.user_sends(chat, "hello");
    }
    assert!(app.telegram.wait_for_acks(crate::support::PATIENCE).await);
    receiver.kill();
    // Bronze, and nothing else.
    let bronze = app.start(&["serve", "--roles", "bronze"]).await;
    app.wait_for_status(|status| rows(status, 0) == 3).await;
    bronze.kill();
    // Silver, and nothing else.
    let silver = app.start(&["serve", "--roles", "silver"]).await;
    app.wait_for_status(|status| rows(status, 1) == 3).await;
    silver.kill();
    let asked = app.model.requests().len();
    let all = app.start(&["serve"]).await;
    app.wait_for_sent(3).await;
    let status = app.wait_for_status(|status| rows(status, 2) == 3).await;
    assert_eq!((rows(&status, 0), rows(&status, 1)), (3, 3));
    assert_eq!(app.model.requests().len(), asked, "nothing was asked twice");
    all.terminate().await;
}
