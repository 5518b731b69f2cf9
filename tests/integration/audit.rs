//! `lakegram audit` on the real binary: silent about what is right, and every planted fault named.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::{PATIENCE, Running, TestApp, readers, rows};

const BRONZE: &str = "bronze/telegram_messages";
const SILVER: &str = "silver/telegram_responses";
const REPLIES: &str = "silver/telegram_replies";

/// A stopped service that has answered six messages, and their updates.
async fn answered() -> (TestApp, Vec<i64>) {
    // So that positions pass what was loaded at once.
    let app = TestApp::new().await.set("bronze.settle=0s");
    let running = app.serve().await;
    let updates: Vec<i64> = (1..7).map(|chat| app.telegram.user_sends(chat, "hello")).collect();
    app.wait_for_status(|status| rows(status, 2) == 6).await;
    running.terminate().await;
    // A listing takes the positions along.
    app.stdout(&["run"]).await;
    (app, updates)
}

async fn spoil(app: &TestApp, action: &str, table: &str, update_id: i64) {
    let (table, update_id) = (app.data().join(table), update_id.to_string());
    readers::python("tests/readers/spoil.py", &[action, table.to_str().unwrap(), &update_id]).await;
}

/// The lines of a failed audit that name a broken row of a check.
async fn found(app: &TestApp, check: &str) -> Vec<String> {
    let output = app.run(&["audit"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines().filter_map(|line| line.strip_prefix(&format!("broken, {check}: "))).map(str::to_owned).collect()
}

fn count(audit: &Value, check: &str, what: &str) -> u64 {
    let checks = audit["checks"].as_array().unwrap();
    checks.iter().find(|found| found["check"] == check).unwrap()[what].as_u64().unwrap()
}

fn files(folder: PathBuf, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(entry, extension));
        } else if entry.extension().is_some_and(|found| found == extension) {
            found.push(entry);
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_right_passes_and_is_counted() {
    let (app, _) = answered().await;
    let audit = app.audit().await;
    for (check, checked) in [("raw lines", 6), ("bronze rows", 6), ("silver rows", 6), ("replies", 6), ("progress", 2)]
    {
        assert_eq!(count(&audit, check, "checked"), checked, "{audit:#}");
        assert_eq!(count(&audit, check, "waiting") + count(&audit, check, "unproven"), 0, "{audit:#}");
    }
    app.count_by_sql(6).await;
    let text = app.stdout(&["audit", "--since", "1h"]).await;
    assert!(text.contains("every promise that can be proven holds") && text.contains("received since"), "{text}");
    let later = app.stdout(&["audit", "--since", "2100-01-01", "--json"]).await;
    assert_eq!(count(&serde_json::from_str::<Value>(&later).unwrap()[0], "raw lines", "checked"), 0);
    assert_eq!(app.run(&["audit", "--since", "yesterday"]).await.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_running_service_nothing_looks_lost() {
    let app = TestApp::new().await;
    let running: Running = app.serve().await;
    for number in 0..150 {
        app.telegram.user_sends(1 + number % 50, &format!("message {number}"));
        if number % 30 == 0 {
            app.audit().await;
        }
    }
    app.audit().await;
    app.wait_for_status(|status| rows(status, 2) == 150).await;
    app.audit().await;
    running.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_landed_and_waits_is_no_fault() {
    let app = TestApp::new().await;
    assert!(app.stdout(&["audit"]).await.contains("there is nothing to check"));
    let receiver = app.start(&["serve", "--roles", "receive"]).await;
    app.set_webhook(&receiver).await;
    for chat in 1..4 {
        app.telegram.user_sends(chat, "hello");
    }
    assert!(app.telegram.wait_for_acks(PATIENCE).await);
    let audit = app.audit().await;
    assert_eq!((count(&audit, "raw lines", "checked"), count(&audit, "raw lines", "waiting")), (3, 3), "{audit:#}");
    receiver.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_bronze_row_is_named() {
    let (app, updates) = answered().await;
    spoil(&app, "delete", BRONZE, updates[2]).await;
    let lost = found(&app, "raw lines").await;
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert!(
        lost[0].contains(&format!("update {}, raw/telegram/", updates[2])) && lost[0].contains(" line "),
        "{lost:?}"
    );
    assert!(found(&app, "silver rows").await[0].contains(&format!("update {}", updates[2])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_silver_row_and_a_second_reply_are_named() {
    let (app, updates) = answered().await;
    spoil(&app, "repeat", SILVER, updates[1]).await;
    let double = found(&app, "silver rows").await;
    assert_eq!(double.len(), 1, "{double:?}");
    assert!(double[0].contains(&format!("update {}, attempt 1, raw/", updates[1])), "{double:?}");
    spoil(&app, "repeat", REPLIES, updates[4]).await;
    let twice = found(&app, "replies").await;
    assert_eq!(twice.len(), 1, "{twice:?}");
    let named = format!("a part was sent twice: bot {}, update {}", app.telegram.bot_id(), updates[4]);
    assert!(twice[0].starts_with(&named) && twice[0].contains("send 2, part 1, raw/"), "{twice:?}");
    let json = app.run(&["audit", "--json"]).await;
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json[0]["checks"][3]["rows"][0]["update_id"], updates[4], "{json:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_file_and_a_line_below_the_position_are_named() {
    let (app, _) = answered().await;
    let segment = files(app.data().join("raw"), "json").remove(0);
    let micros: i64 = segment.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    let earlier = segment.with_file_name(format!("{:020}.json", micros - 1));
    std::fs::write(&earlier, "{\"update_id\": 4711}\n").unwrap();
    let lost = found(&app, "raw lines").await;
    assert!(lost.len() == 1 && lost[0].contains("update 4711, raw/telegram/"), "{lost:?}");
    std::fs::remove_file(earlier).unwrap();

    let torn = files(app.data().join(SILVER), "parquet").remove(0);
    let bytes = std::fs::read(&torn).unwrap();
    std::fs::write(&torn, &bytes[..bytes.len() - 9]).unwrap();
    let found = found(&app, "files").await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("a file is corrupt, it has") && found[0].contains(SILVER), "{found:?}");
}
