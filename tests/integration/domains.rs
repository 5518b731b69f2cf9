//! Failure domains: the trouble of one stage stays its own, and the receiver answers 200 whatever else is wrong.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lakegram::receive::SECRET_HEADER;
use lakegram::standin::model::ModelTrouble;
use lakegram::standin::telegram::Behavior;
use serde_json::{Value, json};

use crate::support::child::{Reaped, on_free_ports};
use crate::support::{PATIENCE, Running, SECRET, TestApp};

const LOADER: &str = r#"version = 1
name = "foreign"
[source]
path = "landing"
settle = "0s"
list_every = "100ms"
[bronze]
table = "bronze/foreign"
evolution = "fail"
"#;

/// A world with the shipped pipeline and a loader of foreign files beside it.
async fn with_loader() -> TestApp {
    let app = TestApp::new().await;
    fs::create_dir_all(app.folder().join("pipelines")).unwrap();
    fs::create_dir_all(app.data().join("landing")).unwrap();
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/telegram.toml");
    fs::copy(shipped, app.folder().join("pipelines/telegram.toml")).unwrap();
    let prompts = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/prompts");
    if let Ok(listing) = fs::read_dir(prompts) {
        fs::create_dir_all(app.folder().join("pipelines/prompts")).unwrap();
        for entry in listing.flatten() {
            fs::copy(entry.path(), app.folder().join("pipelines/prompts").join(entry.file_name())).unwrap();
        }
    }
    fs::write(app.folder().join("pipelines/foreign.toml"), LOADER).unwrap();
    app
}

async fn get(url: &str) -> (u16, String) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The state of a stage as the console's `/health` tells it.
async fn stage(running: &Running, name: &str) -> Value {
    let report: Value = serde_json::from_str(&get(&format!("{}/health", running.console)).await.1).unwrap();
    let stages = report["stages"].as_array().unwrap();
    stages.iter().find(|stage| stage["stage"] == name).cloned().unwrap_or(Value::Null)
}

async fn until_stage(running: &Running, name: &str, state: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = stage(running, name).await;
        if found["state"] == state {
            return found;
        }
        assert!(Instant::now() < deadline, "{name} never became {state}: {found}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Posts an update of a chat of its own, and returns the status.
async fn post(app: &TestApp, running: &Running, update_id: i64) -> u16 {
    app.telegram.add_chat(update_id);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let update = json!({"update_id": update_id, "message": {"message_id": update_id, "date": 1_760_000_000,
        "chat": {"id": update_id, "type": "private"}, "from": {"id": update_id, "is_bot": false, "first_name": "A"},
        "text": "is anybody there?"}});
    let request = client.post(format!("{}/telegram-webhook", running.url)).header(SECRET_HEADER, SECRET);
    request.json(&update).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_feature_we_do_not_know_makes_its_stage_unwell_and_nothing_else() {
    let app = TestApp::new().await;
    app.stdout(&["run"]).await;
    let log = app.data().join("silver/telegram_responses/_delta_log");
    let next = (0..).find(|version| !log.join(format!("{version:020}.json")).exists()).unwrap();
    let commit = log.join(format!("{next:020}.json"));
    let protocol = json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7,
        "readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors", "appendOnly"]}});
    fs::write(&commit, format!("{protocol}\n")).unwrap();

    let running = app.serve().await;
    for update_id in 1..=10 {
        assert_eq!(post(&app, &running, update_id).await, 200);
    }
    let unwell = until_stage(&running, "silver", "unwell").await;
    assert!(unwell["reason"].as_str().unwrap().contains("deletionVectors"), "{unwell}");
    let deadline = Instant::now() + PATIENCE;
    while !get(&format!("{}/metrics", running.console)).await.1.contains("lakegram_bronze_rows_total 10") {
        assert!(Instant::now() < deadline, "bronze does not go on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(get(&format!("{}/readyz", running.url)).await, (200, "ok\n".to_owned()));
    let verbose = get(&format!("{}/readyz?verbose", running.console)).await;
    assert!(verbose.0 == 200 && verbose.1.contains("telegram/silver: unwell since"), "{verbose:?}");
    assert!(verbose.1.contains("telegram/bronze: ok\n"), "{verbose:?}");
    let (status, public) = get(&format!("{}/health", running.url)).await;
    assert!(status == 200 && public.contains("\"degraded\"") && !public.contains("deletionVectors"), "{public}");
    let metrics = get(&format!("{}/metrics", running.console)).await.1;
    assert!(metrics.contains("lakegram_stage_unwell{pipeline=\"telegram\",stage=\"silver\"} 1"), "{metrics}");

    let console = running.console.trim_start_matches("http://").to_owned();
    let shown = app.run_with(&["status"], &[("LAKEGRAM_CONSOLE", console)]).await;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("telegram silver is unwell since") && shown.contains("deletionVectors"), "{shown}");

    fs::remove_file(&commit).unwrap();
    app.wait_for_sent(10).await;
    until_stage(&running, "silver", "ok").await;
    assert_eq!(running.terminate().await, Some(0));
    app.audit().await;
    app.count_by_sql(10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_file_that_stops_its_loader_stops_nothing_else() {
    let app = with_loader().await;
    fs::write(app.data().join("landing/1.json"), "{\"a\": 1}\n").unwrap();
    let running = app.start(&["serve"]).await;
    until_stage(&running, "files", "ok").await;
    let table = app.data().join("bronze/foreign/_delta_log");
    let deadline = Instant::now() + PATIENCE;
    while !table.join(format!("{:020}.json", 1)).exists() {
        assert!(Instant::now() < deadline, "the first file was never loaded");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fs::write(app.data().join("landing/2.json"), "{\"a\": 1, \"b\": 2}\n").unwrap();
    let unwell = until_stage(&running, "files", "unwell").await;
    assert!(unwell["reason"].as_str().unwrap().contains("new fields: b"), "{unwell}");
    for update_id in 1..=5 {
        assert_eq!(post(&app, &running, update_id).await, 200);
    }
    app.wait_for_sent(5).await;
    fs::remove_file(app.data().join("landing/2.json")).unwrap();
    until_stage(&running, "files", "ok").await;
    assert_eq!(running.terminate().await, Some(0));
    // The batch answers the bot as well, and says what stopped the loader.
    fs::write(app.data().join("landing/3.json"), "{\"b\": 2}\n").unwrap();
    let output = app.run(&["run"]).await;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(log.contains("lakegram: foreign/files: "), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_among_the_files_is_named_and_left_alone() {
    let app = with_loader().await;
    fs::write(app.data().join("landing/1.json"), "{\"a\": 1}\n").unwrap();
    let pipe = app.data().join("landing/2.json");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for arguments in [&["run", "--deadline", "20s"][..], &["audit"], &["clean", "--dry-run"], &["check"]] {
        let mut command = app.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let ended = tokio::task::spawn_blocking(move || command.spawn().unwrap().wait_with_output().unwrap());
        let output = tokio::time::timeout(PATIENCE, ended).await.expect("it ends").unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        if arguments[0] == "run" {
            assert_eq!(output.status.code(), Some(0), "{log}");
            assert!(log.contains("landing/2.json is not a regular file; ignoring it"), "{log}");
        }
    }
    let running = app.start(&["serve"]).await;
    until_stage(&running, "files", "ok").await;
    fs::write(app.data().join("landing/3.json"), "{\"a\": 3}\n").unwrap();
    let deadline = Instant::now() + PATIENCE;
    let counted = loop {
        let counted = app.stdout(&["query", "select count(*) as n from foreign.bronze", "--format", "csv"]).await;
        if counted.trim().ends_with('2') || Instant::now() > deadline {
            break counted;
        }
    };
    assert_eq!(counted.trim(), "n\n2");
    assert_eq!(running.terminate().await, Some(0));
}

/// Serves with standard error where it cannot be written, and answers all the same.
async fn serves_without_a_log(stderr: Stdio) {
    let app = TestApp::new().await;
    let mut command = app.command(&["serve"]);
    let ports = on_free_ports(command.env("RUST_LOG", "debug"));
    app.telegram.add_chat(7);
    let mut child = Reaped(command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://127.0.0.1:{}", ports[0]);
    child.wait_for_answer(&client, &format!("{url}/readyz")).await;
    for update_id in 1..=3 {
        let update = json!({"update_id": update_id, "message": {"message_id": 1, "date": 1_760_000_000,
            "chat": {"id": 7, "type": "private"}, "text": "hello"}});
        let request = client.post(format!("{url}/telegram-webhook")).header(SECRET_HEADER, SECRET);
        assert_eq!(request.json(&update).send().await.unwrap().status(), 200);
    }
    app.wait_for_sent(3).await;
    assert_eq!(child.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_disk_and_a_reader_that_has_gone_stop_nothing() {
    serves_without_a_log(Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap())).await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    serves_without_a_log(Stdio::from(writer)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_change_count_without_a_restart() {
    let app = TestApp::new().await;
    let (token, secret) = (app.folder().join("token"), app.folder().join("secret"));
    let bot = app.telegram.token().split(':').next().unwrap().to_owned();
    fs::write(&token, format!("{bot}:a-token-that-was-revoked")).unwrap();
    fs::write(&secret, "the-secret-before").unwrap();
    fs::write(app.folder().join(".env"), "LLM_API_KEY=the-key-before\n").unwrap();
    app.model.require_key("the-key-after");
    let app = app
        .variable("TELEGRAM_BOT_TOKEN", "")
        .variable("TELEGRAM_BOT_TOKEN_FILE", token.to_str().unwrap())
        .variable("TELEGRAM_WEBHOOK_SECRET", "")
        .variable("TELEGRAM_WEBHOOK_SECRET_FILE", secret.to_str().unwrap());
    let running = app.start(&["serve"]).await;
    assert_eq!(post(&app, &running, 1).await, 401, "the secret is another one");

    fs::write(&token, app.telegram.token()).unwrap();
    fs::write(app.folder().join(".env"), "LLM_API_KEY=the-key-after\n").unwrap();
    running.signal("HUP");
    fs::write(&secret, format!("{SECRET}, the-secret-before")).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while post(&app, &running, 2).await != 200 {
        assert!(Instant::now() < deadline, "the new secret never counts");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    app.wait_for_sent(1).await;
    assert_eq!(running.terminate().await, Some(0), "SIGHUP has not ended it");
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_does_not_hold_the_process() {
    for method in ["sendMessage", ""] {
        let app = TestApp::new().await;
        if method.is_empty() {
            app.model.trouble((0..10).map(|_| ModelTrouble::Hang));
        } else {
            app.telegram.script(method, vec![Behavior::Delay(Duration::from_secs(600)); 10]);
        }
        let running = app.start(&["serve"]).await;
        for update_id in 1..=3 {
            assert_eq!(post(&app, &running, update_id).await, 200);
        }
        let begun = || match method.is_empty() {
            true => app.model.request_count() > 0,
            false => app.telegram.read(|ledger| ledger.calls_of(method).next().is_some()),
        };
        let deadline = Instant::now() + PATIENCE;
        while !begun() {
            assert!(Instant::now() < deadline, "nothing was asked");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let told = Instant::now();
        assert_eq!(running.terminate().await, Some(0));
        let took = told.elapsed();
        assert!(took < Duration::from_secs(14), "{method}: it took {took:?}");
    }
}
