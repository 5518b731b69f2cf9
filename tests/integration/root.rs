//! A data folder that is moved away, replaced, unmounted or deleted under the service: nothing is acknowledged into
//! another place, and the service goes on by itself once the right one is back.

use std::fs;
use std::path::Path;

use lakegram::standin::telegram::Receipt;
use serde_json::json;

use crate::full_disk::SmallDisk;
use crate::support::{PATIENCE, TestApp, rows};

fn is_refused(receipt: &Receipt) -> bool {
    matches!(receipt, Receipt::Status(503, _))
}

/// Messages of as many chats while the root is another: each is answered 503 and none 200.
async fn refuse(app: &TestApp, chats: std::ops::RangeInclusive<i64>) {
    let (acked, count) = (app.telegram.totals().acked, chats.clone().count());
    let updates: Vec<i64> = chats.map(|chat| app.telegram.user_sends(chat, "to the wrong place")).collect();
    let refused = app.telegram.wait_for(
        |ledger| updates.iter().all(|update| ledger.deliveries_of(*update).any(|one| is_refused(&one.receipt))),
        PATIENCE,
    );
    assert!(refused.await, "{count} messages were not all answered 503");
    assert_eq!(app.telegram.totals().acked, acked, "a message was acknowledged into another folder");
}

fn segments(folder: &Path) -> usize {
    let Ok(listing) = fs::read_dir(folder) else { return 0 };
    let count = |entry: fs::DirEntry| match entry.path().is_dir() {
        true => segments(&entry.path()),
        false => usize::from(entry.path().extension().is_some_and(|extension| extension == "json")),
    };
    listing.map(|entry| count(entry.unwrap())).sum()
}

/// So many messages have one row in each table and one answer.
async fn is_exact(app: &TestApp, count: i64) {
    assert!(app.telegram.wait_for_acks(PATIENCE).await, "it did not go on when the folder was back");
    let status = app.wait_for_status(|status| rows(status, 2) == count).await;
    assert_eq!((rows(&status, 0), rows(&status, 1)), (count, count), "{status:#}");
    assert_eq!(status["tables"][2]["by_status"], json!({"sent": count}));
    assert_eq!(i64::try_from(app.telegram.sent().len()).unwrap(), count);
    app.count_by_sql(count).await;
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_another_folder_has_the_place_of_the_data_nothing_is_acknowledged_and_later_nothing_is_lost_or_doubled() {
    let app = TestApp::new().await;
    let running = app.serve().await;
    for chat in 1..=5 {
        app.telegram.user_sends(chat, "before");
    }
    app.wait_for_status(|status| rows(status, 2) == 5).await;

    let aside = app.folder().join("aside");
    fs::rename(app.data(), &aside).unwrap();
    fs::create_dir_all(app.data().join("raw")).unwrap();
    refuse(&app, 101..=105).await;
    assert_eq!(segments(&app.data()), 0, "something was written into the other folder");

    fs::remove_dir_all(app.data()).unwrap();
    fs::rename(&aside, app.data()).unwrap();
    is_exact(&app, 10).await;
    assert_eq!(running.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_folder_that_is_deleted_whole_is_made_again_and_what_comes_then_is_landed() {
    let app = TestApp::new().await;
    let receiver = app.start(&["serve", "--roles", "receive"]).await;
    app.set_webhook(&receiver).await;
    app.telegram.user_sends(1, "before");
    assert!(app.telegram.wait_for_acks(PATIENCE).await);
    let id = fs::read(app.data().join("_lakegram/root.json")).unwrap();

    fs::remove_dir_all(app.data()).unwrap();
    app.telegram.user_sends(2, "after");
    assert!(app.telegram.wait_for_acks(PATIENCE).await, "it was not made again");
    assert_eq!(segments(&app.data().join("raw")), 1);
    assert_ne!(fs::read(app.data().join("_lakegram/root.json")).unwrap(), id, "what is empty is another root");
    assert_eq!(receiver.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_only_read_make_no_data_folder() {
    let app = TestApp::new().await;
    for arguments in [&["status"][..], &["audit"], &["check"], &["query", "select 1"]] {
        app.run(arguments).await;
        assert!(!app.data().exists(), "{arguments:?} made the data folder");
    }
    assert!(app.run(&["run"]).await.status.success());
    assert!(app.data().join("_lakegram/root.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the right to mount; tests/run.sh runs it with --ignored unmounted"]
async fn an_unmounted_volume_answers_503_and_goes_on_once_it_is_mounted_again() {
    let app = TestApp::new().await;
    let volume = app.folder().join("volume");
    let Some(disk) = SmallDisk::mount(&volume, "size=64m") else {
        println!(
            "\nSKIPPED: a tmpfs may not be mounted here. What happens to an unmounted volume was not looked at.\n"
        );
        return;
    };
    // The volume is seen through a bind mount, so that it can come back as it was.
    fs::create_dir(app.data()).unwrap();
    let bind = || SmallDisk::bind(&volume, &app.data()).expect("where tmpfs may be mounted, so may this be");
    let bound = bind();
    let running = app.serve().await;
    for chat in 1..=5 {
        app.telegram.user_sends(chat, "before");
    }
    app.wait_for_status(|status| rows(status, 2) == 5).await;

    drop(bound);
    assert!(fs::read_dir(app.data()).unwrap().next().is_none(), "the disk below does not show");
    refuse(&app, 101..=105).await;
    assert_eq!(segments(&app.data()), 0, "something was written to the disk below");

    let bound = bind();
    is_exact(&app, 10).await;
    assert_eq!(running.terminate().await, Some(0));
    drop((bound, disk));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_no_pipeline_reads_are_told_by_every_command_that_looks() {
    let app = TestApp::new().await;
    let receiver = app.start(&["serve", "--roles", "receive", "--set", "name=renamed"]).await;
    app.set_webhook(&receiver).await;
    app.telegram.user_sends(1, "who reads this?");
    assert!(app.telegram.wait_for_acks(PATIENCE).await);
    assert_eq!(receiver.terminate().await, Some(0));
    let expected = format!("raw/renamed/{}: no pipeline reads its 1 segments", app.telegram.bot_id());

    let status: serde_json::Value = serde_json::from_str(&app.stdout(&["status", "--json"]).await).unwrap();
    assert_eq!(status[1]["unread_raw"][0]["segments"], 1, "{status:#}");
    assert!(app.stdout(&["status"]).await.contains(&expected));
    for (arguments, code) in [(&["check"][..], 1), (&["run"], 0), (&["audit"], 1)] {
        let output = app.run(arguments).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // A table of `check` breaks its lines.
        let is_told = text.contains(&expected) || text.contains("no pipeline reads");
        assert!(is_told && output.status.code() == Some(code), "{arguments:?}: {text}");
    }
    // A pipeline file for it, and everything is read.
    let folder = app.folder().join("pipelines");
    fs::create_dir(&folder).unwrap();
    let shipped = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/telegram.toml")).unwrap();
    let shipped = shipped.replace("system = \"prompts/support.md\"", "");
    // The tables there belong to the other name.
    let own = shipped.replace("\"bronze/", "\"renamed/bronze/").replace("\"silver/", "\"renamed/silver/");
    fs::write(folder.join("telegram.toml"), own.replace("name = \"telegram\"", "name = \"renamed\"")).unwrap();
    app.stdout(&["run"]).await;
    let status: serde_json::Value = serde_json::from_str(&app.stdout(&["status", "--json"]).await).unwrap();
    assert_eq!((status.as_array().map(Vec::len), rows(&status[0], 0)), (Some(1), 1), "{status:#}");
    assert_eq!(app.telegram.sent().len(), 1);
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bot_in_two_pipelines_is_refused_in_one_line_that_names_both() {
    let app = TestApp::new().await;
    let folder = app.folder().join("pipelines");
    fs::create_dir(&folder).unwrap();
    let shipped = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/telegram.toml")).unwrap();
    let other = shipped.replace("name = \"telegram\"", "name = \"other\"").replace("/telegram-webhook", "/other");
    let other = other.replace("\"bronze/", "\"other/bronze/").replace("\"silver/", "\"other/silver/");
    fs::write(folder.join("telegram.toml"), &shipped).unwrap();
    fs::write(folder.join("other.toml"), &other).unwrap();
    let output = app.run(&["serve"]).await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    let line = text.lines().find(|line| line.starts_with("lakegram: ")).unwrap_or_default();
    assert!(line.contains("`other` and `telegram` share the bot") && line.contains("bot.token_env"), "{line}");
}
