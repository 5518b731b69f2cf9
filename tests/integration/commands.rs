//! Every verb of the command line, with its exit code.

use serde_json::json;

use crate::support::{TestApp, rows};

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_takes_everything_through_and_exits() {
    let app = TestApp::new().await;
    // A receiver alone lands; the batch does the rest, as a scheduled job would.
    let receiver = app.start(&["serve", "--roles", "receive"]).await;
    app.set_webhook(&receiver).await;
    for chat in 1..=5 {
        app.telegram.user_sends(chat, "hello");
    }
    assert!(app.telegram.wait_for_acks(crate::support::PATIENCE).await);
    let summary = app.stdout(&["run"]).await;
    assert!(summary.contains("telegram"), "{summary}");
    assert_eq!(app.telegram.sent().len(), 5);
    let again = app.stdout(&["run"]).await;
    assert!(again.contains('0'), "{again}");
    assert_eq!(app.telegram.sent().len(), 5);
    receiver.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_must_leave_something_exits_with_three() {
    let app = TestApp::new().await;
    let receiver = app.start(&["serve", "--roles", "receive"]).await;
    app.set_webhook(&receiver).await;
    app.telegram.user_sends(1, "hello");
    assert!(app.telegram.wait_for_acks(crate::support::PATIENCE).await);
    app.model.fail_all(503);
    let output = app.run(&["run", "--deadline", "2s"]).await;
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    app.model.recover();
    app.stdout(&["run"]).await;
    assert_eq!(app.telegram.sent().len(), 1);
    receiver.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poll_needs_no_webhook() {
    let app = TestApp::new().await;
    let running = app.start(&["poll"]).await;
    app.telegram.user_sends(4, "from a laptop");
    app.wait_for_sent(1).await;
    app.wait_for_status(|status| rows(status, 2) == 1).await;
    assert_eq!(running.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_passes_on_a_good_set_up_and_names_what_is_not() {
    let app = TestApp::new().await;
    let good = app.run(&["check"]).await;
    assert_eq!(good.status.code(), Some(0), "{}", String::from_utf8_lossy(&good.stdout));
    app.telegram.stop();
    let bad = app.run(&["check"]).await;
    assert_eq!(bad.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&bad.stdout).contains("TELEGRAM_API_URL"));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_served() {
    let app = TestApp::new().await;
    let running = app.serve().await;
    app.telegram.user_sends(4, "count me");
    app.wait_for_sent(1).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for url in [&running.url, &running.console] {
        for path in ["/livez", "/readyz", "/health"] {
            assert_eq!(client.get(format!("{url}{path}")).send().await.unwrap().status(), 200, "{url}{path}");
        }
    }
    let metrics = client.get(format!("{}/metrics", running.console)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("lakegram_receive_updates_total 1"), "{metrics}");
    assert!(!metrics.contains("chat_id"), "an id became a label");
    running.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_keeps_every_row_while_the_service_runs() {
    let app = TestApp::new().await;
    let running = app.serve().await;
    for number in 0..12 {
        app.telegram.user_sends(1 + number, &format!("message {number}"));
        app.wait_for_sent(number as usize + 1).await;
    }
    app.wait_for_status(|status| rows(status, 2) == 12).await;
    let shown = app.stdout(&["maintain"]).await;
    assert!(shown.contains("bronze/telegram_messages"), "{shown}");
    let status = app.wait_for_status(|status| status["tables"][0]["files"].as_i64().unwrap() < 6).await;
    assert_eq!((rows(&status, 0), rows(&status, 1), rows(&status, 2)), (12, 12, 12));
    app.telegram.user_sends(99, "after maintenance");
    app.wait_for_sent(13).await;
    let status = app.wait_for_status(|status| rows(status, 2) == 13).await;
    assert_eq!(status["tables"][2]["by_status"], json!({"sent": 13}));
    running.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn query_prints_tables_csv_and_json_and_refuses_to_write() {
    let app = TestApp::new().await;
    let none = app.run(&["query", "select 1 from bronze"]).await;
    assert_eq!(none.status.code(), Some(2));
    let running = app.serve().await;
    app.telegram.user_sends(4, "ask me");
    app.wait_for_sent(1).await;
    app.wait_for_status(|status| rows(status, 2) == 1).await;
    let sql = "select text, chat_id from bronze";
    assert_eq!(app.stdout(&["query", sql, "--format", "csv"]).await, "text,chat_id\nask me,4\n");
    assert!(app.stdout(&["query", sql]).await.contains("| ask me | 4"));
    let formula = "select '=' || text as said, -chat_id as id from bronze";
    assert_eq!(app.stdout(&["query", formula, "--format", "csv"]).await, "said,id\n'=ask me,-4\n");
    let kept = app.stdout(&["query", formula, "--format", "csv", "--keep-formulas"]).await;
    assert_eq!(kept, "said,id\n=ask me,-4\n");
    let write = app.run(&["query", "drop table bronze"]).await;
    assert_eq!(write.status.code(), Some(2));
    running.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_and_help_are_printed() {
    let app = TestApp::new().await;
    let mut command = app.command(&["completions", "bash"]);
    assert!(command.output().unwrap().stdout.len() > 500);
    let help = app.stdout(&["--help"]).await;
    assert!(help.contains("Examples:") && help.contains("Exit codes:"), "{help}");
}
