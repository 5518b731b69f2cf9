//! Names, tables and bots that change: what does not fit is refused before anything is asked or sent, and adopting
//! says first what it does.
#![allow(clippy::disallowed_methods)]

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use lakegram::standin::telegram::{Behavior, Options};
use serde_json::Value;

use crate::support::{Running, TestApp, rows};

const BRONZE: &str = "bronze/telegram_messages";
const SILVER: &str = "silver/telegram_responses";
const REPLIES: &str = "silver/telegram_replies";
/// Messages that are answered before a name or a table changes.
const ANSWERED: usize = 3;

/// A world in which some messages were answered and one more has only landed.
async fn world() -> TestApp {
    let app = TestApp::new().await;
    let running = app.serve().await;
    for number in 0..ANSWERED {
        app.telegram.user_sends(7, &format!("question {number}"));
        app.wait_for_sent(number + 1).await;
    }
    app.wait_for_status(|status| rows(status, 2) == 3).await;
    assert_eq!(running.terminate().await, Some(0));
    land_one(&app, &[]).await;
    app
}

/// Lands a message with nobody to load it.
async fn land_one(app: &TestApp, variables: &[(&str, String)]) {
    let receiver = app.try_start_with(&["serve", "--roles", "receive"], variables).await.unwrap();
    app.set_webhook(&receiver).await;
    let segments = count_files(&app.data().join("raw"));
    app.telegram.user_sends(7, "the one that waits");
    wait_for(|| count_files(&app.data().join("raw")) > segments).await;
    receiver.terminate().await;
}

fn count_files(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let count = |path: &Path| match path.is_dir() {
        true => count_files(path),
        false => usize::from(path.extension().is_some_and(|extension| extension == "json")),
    };
    entries.map(|entry| count(&entry.unwrap().path())).sum()
}

async fn wait_for(condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "it never came");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn remove(app: &TestApp, table: &str) {
    std::fs::remove_dir_all(app.data().join(table)).unwrap();
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Questions that the model was asked, but for those of `check`.
fn questions(app: &TestApp) -> usize {
    let is_asked = |content: &str| content != "Say ok.";
    app.model
        .requests()
        .iter()
        .filter(|request| request.messages.last().is_some_and(|last| is_asked(&last.content)))
        .count()
}

/// A run that is refused, in one line that says `what`, and neither asks nor sends anything.
async fn refused(app: &TestApp, what: &str) {
    let (sent, asked) = (app.telegram.sent().len(), questions(app));
    let output = app.run(&["run"]).await;
    let told = text(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains(what) && told.contains("lakegram adopt"), "{told}");
    assert_eq!((app.telegram.sent().len(), questions(app)), (sent, asked), "{told}");
    let audit = app.run(&["audit"]).await;
    assert_eq!(audit.status.code(), Some(1), "the audit names it too: {}", text(&audit));
    let check = app.run(&["check"]).await;
    assert!(text(&check).contains("adopt"), "{}", text(&check));
}

/// Shows what adopting does, does it, and returns the plan.
async fn adopt(app: &TestApp) -> Value {
    let shown = app.run(&["adopt", "--json"]).await;
    assert_eq!(shown.status.code(), Some(1), "{}", text(&shown));
    let plan: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let again = app.run(&["adopt"]).await;
    assert!(text(&again).contains("nothing was changed"), "{}", text(&again));
    let done = app.run(&["adopt", "--yes"]).await;
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    plan["plans"][0].clone()
}

/// Runs to the end; every table belongs together then, and each message has been answered once.
async fn goes_on(app: &TestApp, sent: usize) {
    let output = app.run(&["run"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    app.audit().await;
    let texts: Vec<String> = app.telegram.sent().into_iter().map(|message| message.text).collect();
    assert_eq!(texts.len(), sent, "{texts:?}");
    let again = app.run(&["run"]).await;
    assert_eq!((again.status.code(), app.telegram.sent().len()), (Some(0), sent), "{}", text(&again));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_pipeline_is_refused_until_it_adopts_tables_raw_folder_and_intents() {
    let app = world().await.set("name=support");
    refused(&app, "belongs to pipeline `telegram`, but this is `support`").await;
    let plan = adopt(&app).await;
    assert_eq!(plan["former_pipelines"], serde_json::json!(["telegram"]));
    goes_on(&app, ANSWERED + 1).await;
    land_one(&app, &[]).await;
    goes_on(&app, ANSWERED + 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_service_under_another_name_answers_nothing_twice() {
    let app = TestApp::new().await;
    let first = app.serve().await;
    app.telegram.user_sends(7, "one");
    app.wait_for_sent(1).await;
    let app = app.set("name=support");
    let second: Running = app.start(&["serve"]).await;
    app.set_webhook(&first).await;
    for number in 0..10 {
        app.telegram.user_sends(100 + number, "more");
    }
    app.wait_for_sent(11).await;
    assert_eq!((second.terminate().await, first.terminate().await), (Some(0), Some(0)));
    assert_eq!(app.telegram.sent().len(), 11);
    refused(&app, "belongs to pipeline `telegram`, but this is `support`").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_bot_is_refused_and_passes_over_nothing() {
    let app = world().await.variable("TELEGRAM_BOT_TOKEN", "4242:another-bot");
    refused(&app, "but the token is of bot 4242").await;
    let token = app.telegram.token().to_owned();
    let app = app.variable("TELEGRAM_BOT_TOKEN", &token);
    goes_on(&app, ANSWERED + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_bot_that_adopts_answers_for_itself_alone() {
    let app = world().await;
    app.run(&["run"]).await;
    assert_eq!(app.telegram.sent().len(), ANSWERED + 1);
    let app = app.variable("TELEGRAM_BOT_TOKEN", "4242:another-bot");
    let plan = adopt(&app).await;
    assert_eq!((&plan["would_be_asked"], &plan["would_be_sent"]), (&0.into(), &0.into()));
    goes_on(&app, ANSWERED + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_table_is_the_same_table_and_a_mistyped_one_is_refused() {
    let app = world().await.set("bronze.table=bronze/moved");
    refused(&app, "table bronze/moved does not exist").await;
    std::fs::rename(app.data().join(BRONZE), app.data().join("bronze/moved")).unwrap();
    goes_on(&app, ANSWERED + 1).await;
    let app = app.set("reply.table=silver/replies2");
    refused(&app, "table silver/replies2 does not exist").await;
    let app = app.set("reply.table=silver/telegram_replies").set("silver.table=silver/responses2");
    refused(&app, "table silver/responses2 does not exist").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bronze_that_was_removed_is_loaded_again_and_nothing_is_asked_twice() {
    let app = world().await;
    remove(&app, BRONZE);
    refused(&app, "table bronze/telegram_messages does not exist").await;
    adopt(&app).await;
    goes_on(&app, ANSWERED + 1).await;
    assert_eq!(questions(&app), ANSWERED + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn silver_that_was_removed_learns_from_the_replies_what_was_answered() {
    let app = world().await;
    remove(&app, SILVER);
    refused(&app, "table silver/telegram_responses does not exist").await;
    let plan = adopt(&app).await;
    assert_eq!(plan["marked_answered"], ANSWERED);
    goes_on(&app, ANSWERED + 1).await;
    assert_eq!(questions(&app), ANSWERED + 1);
}

/// Serves until Telegram has taken the answer that waits without confirming it, and dies then.
async fn dies_while_sending(app: &TestApp) {
    app.telegram.script("sendMessage", vec![Behavior::AcceptThenHang]);
    let running = app.serve().await;
    app.wait_for_sent(ANSWERED + 1).await;
    running.kill();
    app.telegram.forget_script();
}

async fn silver_is_removed_and_adopted(app: &TestApp) {
    remove(app, SILVER);
    refused(app, "table silver/telegram_responses does not exist").await;
    adopt(app).await;
}

/// Either way the intent is about another table than the one that the replies know of, or one whose versions begin anew
/// below theirs. Both at once: an intent of a process that died is waited for over a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_death_while_sending_before_or_after_silver_was_removed_sends_nothing_twice() {
    let removed_first = async {
        let app = world().await.set("reply.intent_ttl=1s");
        silver_is_removed_and_adopted(&app).await;
        dies_while_sending(&app).await;
        app
    };
    let removed_afterwards = async {
        let app = world().await.set("reply.intent_ttl=1s");
        dies_while_sending(&app).await;
        silver_is_removed_and_adopted(&app).await;
        app
    };
    let apps = tokio::join!(removed_first, removed_afterwards);
    for app in [&apps.0, &apps.1] {
        assert_eq!(app.telegram.sent().len(), ANSWERED + 1);
    }
    tokio::join!(goes_on(&apps.0, ANSWERED + 1), goes_on(&apps.1, ANSWERED + 1));
    for app in [&apps.0, &apps.1] {
        let audit = app.audit().await;
        assert_eq!(audit["unknown"]["count"], 1, "{audit:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_were_removed_are_not_sent_again_unless_asked_for() {
    let app = world().await;
    remove(&app, REPLIES);
    refused(&app, "table silver/telegram_replies does not exist").await;
    let redo = app.run(&["adopt", "--redo", "--json"]).await;
    let redo: Value = serde_json::from_slice(&redo.stdout).unwrap();
    assert_eq!(redo["plans"][0]["would_be_sent"], ANSWERED);
    let plan = adopt(&app).await;
    assert_eq!((&plan["answers_are_history"], &plan["would_be_sent"]), (&true.into(), &0.into()));
    goes_on(&app, ANSWERED + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_table_removed_what_was_received_is_history() {
    let app = world().await;
    [BRONZE, SILVER, REPLIES].iter().for_each(|table| remove(&app, table));
    refused(&app, "table bronze/telegram_messages does not exist").await;
    let plan = adopt(&app).await;
    assert_eq!(plan["questions_are_history"], true);
    goes_on(&app, ANSWERED).await;
    land_one(&app, &[]).await;
    goes_on(&app, ANSWERED + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_bronze_and_silver_removed_bronze_is_loaded_first() {
    let app = world().await;
    [BRONZE, SILVER].iter().for_each(|table| remove(&app, table));
    refused(&app, "table bronze/telegram_messages does not exist").await;
    let plan = adopt(&app).await;
    assert_eq!(plan["loads_first"], true);
    refused(&app, "table silver/telegram_responses does not exist").await;
    let plan = adopt(&app).await;
    assert_eq!(plan["marked_answered"], ANSWERED);
    goes_on(&app, ANSWERED + 1).await;
}

/// Three messages answered, one answered and not sent, one that has only landed: written by release 0.1.
#[tokio::test(flavor = "multi_thread")]
async fn tables_of_release_0_1_are_carried_on_without_a_loss_or_a_second_answer() {
    let options = Options { accept_unknown_chats: true, ..Options::default() };
    let app = TestApp::with_telegram(options).await;
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/release-0.1"), &app.data());
    assert!(app.telegram.token().starts_with("4242424242:"), "the bot of the fixture");
    goes_on(&app, 2).await;
    let texts: Vec<String> = app.telegram.sent().into_iter().map(|message| message.text).collect();
    assert!(texts[0].contains("answered, not sent") && texts[1].contains("only landed"), "{texts:?}");
    assert_eq!(questions(&app), 1);
    app.count_by_sql(5).await;
    // A process of that release that still runs is fenced: its own counter was raised too.
    let log = app.data().join(SILVER).join("_delta_log");
    let commits: String =
        (5..).map_while(|v| std::fs::read_to_string(log.join(format!("{v:020}.json"))).ok()).collect();
    for id in ["lakegram/telegram/silver\",\"version\":5", "lakegram/silver\",\"version\":1"] {
        assert!(commits.contains(id), "{commits}");
    }
}

/// The replier may come to a silver table that silver has not opened since.
#[tokio::test(flavor = "multi_thread")]
async fn the_replier_alone_carries_a_silver_table_of_release_0_1_on() {
    let options = Options { accept_unknown_chats: true, ..Options::default() };
    let app = TestApp::with_telegram(options).await;
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/release-0.1"), &app.data());
    let replier = app.start(&["serve", "--roles", "reply"]).await;
    app.wait_for_sent(1).await;
    assert_eq!(replier.terminate().await, Some(0));
    goes_on(&app, 2).await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        match path.is_dir() {
            true => copy(&path, &to),
            false => drop(std::fs::copy(&path, &to).unwrap()),
        }
    }
}
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_removed_under_the_service_makes_its_stage_unwell_and_landing_goes_on() {
    let app = TestApp::new().await;
    let running = app.serve().await;
    app.telegram.user_sends(7, "one");
    app.wait_for_sent(1).await;
    app.wait_for_status(|status| rows(status, 2) == 1).await;
    remove(&app, SILVER);
    app.telegram.user_sends(7, "two");
    let health = format!("{}/health", running.console);
    let client = reqwest::Client::new();
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    loop {
        let told = client.get(&health).send().await.unwrap().text().await.unwrap();
        if told.contains("lakegram adopt") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{told}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ready = client.get(format!("{}/readyz", running.url)).send().await.unwrap();
    assert_eq!(ready.status(), 200);
    assert_eq!(running.terminate().await, Some(0));
    adopt(&app).await;
    goes_on(&app, 2).await;
}
