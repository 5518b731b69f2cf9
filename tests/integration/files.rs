//! Foreign files into a table by the real binary: killed at random, two at a time, without its checkpoints.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::{Dice, TestApp};

const PIPELINE: &str = r#"version = 1
name = "files"
[source]
path = "landing"
settle = "0s"
list_every = "50ms"
[bronze]
table = "bronze/files"
max_files = 5
"#;
const KILLS: usize = 20;
const FILES: usize = 200;
const RECORDS: usize = 50;

/// A world whose only pipeline is a loader.
async fn world(pipeline: &str) -> TestApp {
    let app = TestApp::new().await;
    fs::create_dir_all(app.folder().join("pipelines")).unwrap();
    fs::create_dir_all(app.data().join("landing")).unwrap();
    fs::write(app.folder().join("pipelines/files.toml"), pipeline).unwrap();
    app
}

/// Puts a file as a careful producer does: whole, or under another name until it is.
fn land(data: &Path, number: usize) {
    let records: String = (0..RECORDS).map(|row| format!("{{\"file\":{number},\"row\":{row}}}\n")).collect();
    let staging = data.join(format!("landing/{number}.json.tmp"));
    fs::write(&staging, records).unwrap();
    fs::rename(staging, data.join(format!("landing/{number}.json"))).unwrap();
}

async fn counted(app: &TestApp) -> String {
    let statement = "select count(*) as rows, count(distinct file * 1000 + row) as records from bronze";
    app.stdout(&["query", statement, "--format", "csv"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_loaders_that_are_killed_at_random_bring_every_record_once() {
    let app = world(PIPELINE).await;
    let mut dice = Dice(0xf11e);
    let mut both = [app.start(&["serve"]).await, app.start(&["serve"]).await].map(Some);
    for kill in 0..KILLS {
        for number in FILES * kill / KILLS..FILES * (kill + 1) / KILLS {
            land(&app.data(), number);
        }
        // The moment of the kill is what is random here, not a wait for something to have happened.
        tokio::time::sleep(Duration::from_millis(dice.below(150))).await;
        let one = &mut both[kill % 2];
        one.take().unwrap().kill();
        if dice.below(3) == 0 {
            let _none = fs::remove_dir_all(app.folder().join("checkpoints"));
        }
        *one = Some(app.start(&["serve"]).await);
    }
    for running in both.into_iter().flatten() {
        running.terminate().await;
    }
    app.stdout(&["run"]).await;
    let expected = FILES * RECORDS;
    assert_eq!(counted(&app).await.trim(), format!("rows,records\n{expected},{expected}"));
    let audit = app.audit().await;
    assert_eq!(audit["checks"][0]["checked"], expected, "{audit:#}");
    println!("kills {KILLS}, files {FILES}, records {expected}, each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_names_a_file_whose_records_are_not_its_rows() {
    let app = world(PIPELINE).await;
    for number in 0..3 {
        land(&app.data(), number);
    }
    app.stdout(&["run"]).await;
    app.audit().await;
    // Without what it was loaded as, nobody knows that it has changed: its rows are simply not its records.
    fs::remove_dir_all(app.folder().join("checkpoints")).unwrap();
    fs::write(app.data().join("landing/1.json"), "{\"file\":1,\"row\":0}\n").unwrap();
    let output = app.run(&["audit"]).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("1 records, 50 rows") && said.contains("landing/1.json"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_and_status_say_what_a_loader_needs_and_how_far_it_is() {
    let app = world(&PIPELINE.replace("settle", "glob = \"*.json\"\nsettle")).await;
    let check = async |verdict: i32, said: &[&str]| {
        let output = app.run(&["check"]).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(verdict), "{text}");
        said.iter().for_each(|said| assert!(text.contains(said), "{said} in {text}"));
    };
    check(0, &["there are no files yet", "new files are noticed as they arrive", "does not exist yet"]).await;
    (0..2).for_each(|number| land(&app.data(), number));
    let files = async || app.wait_for_status(|_| true).await["files"].clone();
    assert_eq!((&files().await["waiting_files"], &files().await["loaded_files"]), (&2.into(), &0.into()));
    app.stdout(&["run"]).await;
    land(&app.data(), 2);
    fs::write(app.data().join("landing/1.json"), "{}").unwrap();
    let status = app.wait_for_status(|_| true).await;
    let count = |name: &str| status["files"][name].as_u64().unwrap();
    let counts = ["listed_files", "loaded_files", "waiting_files", "waiting_bytes", "growing_files", "changed_files"];
    let bytes = fs::metadata(app.data().join("landing/2.json")).unwrap().len();
    assert_eq!(counts.map(count), [3, 2, 1, bytes, 0, 1]);
    assert_eq!(crate::support::rows(&status, 0), 2 * RECORDS as i64);
    assert!(status["tables"][0]["written_micros"].as_i64().unwrap() > 0, "{status:#}");
    let shown = app.stdout(&["status"]).await;
    assert!(shown.contains("2 loaded, 3 listed, 1 (") && shown.contains("last written at"), "{shown}");
    check(0, &["would be loaded", "matches; it has 2 record columns"]).await;
    let pipeline = app.folder().join("pipelines/files.toml");
    fs::write(&pipeline, PIPELINE.replace("settle", "glob = \"*.csv\"\nsettle") + "schema_hints = \"row string\"\n")
        .unwrap();
    check(1, &["none of 3 files", "the hint says `row string`, but the column is `row bigint`"]).await;
    fs::write(&pipeline, PIPELINE.replace("\"landing\"", "\"nowhere\"") + "schema_hints = \"row strng\"\n").unwrap();
    check(1, &["does not exist", "schema hints"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loaded_files_are_cleaned_when_it_is_asked_for_and_never_loaded_again() {
    let app = world(PIPELINE).await;
    let left = || fs::read_dir(app.data().join("landing")).unwrap().count();
    for number in 0..30 {
        land(&app.data(), number);
    }
    app.stdout(&["run"]).await;
    let refused = app.run(&["clean"]).await;
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("source.clean_source of pipeline `files` is not set"), "{said}");
    let set = ["--set", "source.clean_source.action=delete", "--set", "source.clean_source.after=0s"];
    let dry = app.stdout(&[&["clean", "files", "--dry-run"][..], &set].concat()).await;
    assert!(dry.contains("landing/0.json") && dry.contains("and 10 more"), "{dry}");
    assert_eq!(left(), 30);
    land(&app.data(), 30);
    let said = app.stdout(&[&["run"][..], &set].concat()).await;
    assert!(said.contains("files: 31 files") && said.contains("deleted from the source"), "{said}");
    assert_eq!(left(), 0);
    let audit: serde_json::Value =
        serde_json::from_str(&app.stdout(&[&["audit", "--json"][..], &set].concat()).await).unwrap();
    let records = &audit[0]["checks"][0];
    assert_eq!((&records["cleaned"], &records["unproven"]), (&31.into(), &0.into()), "{audit:#}");

    // Back again, and served with a place to go to: nothing is loaded twice, and everything goes there.
    (0..31).for_each(|number| land(&app.data(), number));
    let moving = "settle = \"0s\"\nclean_source = { action = \"move\", after = \"0s\", to = \"archive\" }";
    fs::write(app.folder().join("pipelines/files.toml"), PIPELINE.replace("settle = \"0s\"", moving)).unwrap();
    land(&app.data(), 31);
    app.stdout(&["run", "--set", "source.clean_source.after=1h"]).await;
    assert!(app.data().join("landing/31.json").exists(), "it is loaded, and younger than an hour");
    let serving = app.start(&["serve"]).await;
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    while app.data().join("landing/31.json").exists() {
        assert!(std::time::Instant::now() < deadline, "it was never moved");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    serving.terminate().await;
    assert!(app.data().join("archive/31.json").exists());
    assert_eq!(left(), 31, "what came back is not what was loaded, by its time: it stays");
    let expected = 32 * RECORDS;
    assert_eq!(counted(&app).await.trim(), format!("rows,records\n{expected},{expected}"));
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_telegram_messages_load_with_inferred_columns_and_can_be_asked() {
    let app = world(&PIPELINE.replace("settle", "glob = \"telegram_*.json\"\nsettle")).await;
    let message = r#"{"update_id":%,"message_id":1,"conversation_type":"channel","channel_id":-100,"channel_title":"News",
        "author_signature":"A","text":"hello","date":1760000000}"#;
    let array = |ids: &[i64]| {
        let messages: Vec<String> = ids.iter().map(|id| message.replace('%', &id.to_string())).collect();
        format!("[{}]", messages.join(","))
    };
    fs::write(app.data().join("landing/telegram_1.json"), array(&[1, 2])).unwrap();
    fs::write(app.data().join("landing/telegram_2.json"), array(&[3])).unwrap();
    fs::write(app.data().join("landing/other.json"), "{}").unwrap();
    let summary = app.stdout(&["run"]).await;
    assert!(summary.contains("files") && summary.contains('3'), "{summary}");
    let statement =
        "select update_id, channel_title, _source_file from bronze where _ingested_at is not null order by 1";
    let rows = app.stdout(&["query", statement, "--format", "csv"]).await;
    assert_eq!(rows.lines().nth(3), Some("3,News,landing/telegram_2.json"), "{rows}");
    let schema = app.stdout(&["schema"]).await;
    assert!(schema.contains("inferred from 2 files") && schema.contains("channel_id bigint"), "{schema}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_updates_make_the_bronze_table_of_a_bot() {
    let settings = "[bronze]\nschema = \"telegram_messages.json\"\nbot_id = 7\nevolution = \"add_columns\"";
    let app = world(&PIPELINE.replace("[bronze]", settings)).await;
    let update = |id: i64| format!("{{\"update_id\":{id},\"message\":{{\"text\":\"m{id}\",\"mood\":{id}}}}}");
    fs::write(app.data().join("landing/1.json"), format!("{}\n{}\nodd\n", update(1), update(2))).unwrap();
    fs::write(app.data().join("landing/2.json"), format!("[{}]", update(3))).unwrap();
    app.stdout(&["run"]).await;
    let statement = "select bot_id, update_id, text, msg_mood, _source_file, _source_row, _corrupt_record from bronze
                     where payload is not null or _corrupt_record is not null order by _source_file, _source_row";
    let rows = app.stdout(&["query", statement, "--format", "csv"]).await;
    let expected =
        "7,1,m1,1,landing/1.json,1,\n7,2,m2,2,landing/1.json,2,\n7,,,,landing/1.json,3,odd\n7,3,m3,3,landing/2.json,1,";
    assert_eq!(rows.trim().split_once('\n').unwrap().1, expected);
    app.audit().await;
    let schema = app.stdout(&["schema"]).await;
    assert!(schema.contains("as bronze.schema has them") && schema.contains("msg_mood bigint"), "{schema}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_kept_as_variants_can_be_asked_beside() {
    let app = world(&PIPELINE.replace("[bronze]", "[bronze]\npayload = true\npayload_type = \"variant\"")).await;
    for number in 1..3 {
        land(&app.data(), number);
    }
    app.stdout(&["run"]).await;
    app.stdout(&["maintain"]).await;
    assert_eq!(counted(&app).await.trim(), format!("rows,records\n{},{}", 2 * RECORDS, 2 * RECORDS));
    let whole = app.stdout(&["query", "select count(payload) as whole from bronze", "--format", "csv"]).await;
    assert_eq!(whole.trim(), format!("whole\n{}", 2 * RECORDS));
    app.audit().await;
}

/// What a command says, after checking its exit code.
async fn says(app: &TestApp, arguments: &[&str], code: i32) -> String {
    let output = app.run(arguments).await;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_loader_and_a_moved_source_are_refused_until_they_adopt_the_table() {
    let app = world(PIPELINE).await;
    let landing = app.data().join("landing");
    let app = app.set(&format!("source.path={}", landing.display()));
    (0..3).for_each(|number| land(&app.data(), number));
    says(&app, &["run"], 0).await;
    land(&app.data(), 3);
    let app = app.set("name=renamed");
    let refused = "table bronze/files belongs to loader `files`, but this is `renamed`; correct the pipeline file, or run \
                   `lakegram adopt renamed`";
    for (command, code) in [("run", 2), ("audit", 1), ("check", 1)] {
        let said = says(&app, &[command], code).await;
        assert!(said.contains(refused), "{command}: {said}");
    }
    let shown = says(&app, &["adopt"], 1).await;
    assert!(shown.contains("rows of 3 files; left for the next run: 1 files"), "{shown}");
    assert!(shown.contains("nothing was changed"), "{shown}");
    says(&app, &["adopt", "--yes"], 0).await;
    assert!(says(&app, &["adopt"], 0).await.contains("nothing to adopt"));

    let moved = app.data().join("moved");
    fs::rename(&landing, &moved).unwrap();
    let app = app.set(&format!("source.path={}", moved.display()));
    let said = says(&app, &["run"], 2).await;
    assert!(
        said.contains("table bronze/files is fed from source file:///") && said.contains("adopt renamed"),
        "{said}"
    );
    let plan = app.run(&["adopt", "--json", "--yes"]).await;
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(plan["loaders"][0]["would_be_loaded"], 1, "{plan:#}");
    for _ in 0..2 {
        says(&app, &["run"], 0).await;
        let expected = 4 * RECORDS;
        assert_eq!(counted(&app).await.trim(), format!("rows,records\n{expected},{expected}"));
    }
    app.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_loaders_on_one_table_the_one_that_it_does_not_belong_to_loads_nothing() {
    let app = world(PIPELINE).await;
    fs::create_dir_all(app.data().join("elsewhere")).unwrap();
    fs::write(app.data().join("elsewhere/stray.json"), "{\"file\":7,\"row\":7}").unwrap();
    land(&app.data(), 0);
    says(&app, &["run"], 0).await;
    let running = app.start(&["serve"]).await;
    let other = ["--set", "name=other", "--set", "source.path=elsewhere"];
    land(&app.data(), 1);
    let said = says(&app, &[&["run"][..], &other].concat(), 2).await;
    assert!(said.contains("belongs to loader `files`, but this is `other`"), "{said}");
    land(&app.data(), 2);
    app.wait_for_status(|status| crate::support::rows(status, 0) == 3 * RECORDS as i64).await;
    running.terminate().await;
    says(&app, &["run"], 0).await;
    let expected = 3 * RECORDS;
    assert_eq!(counted(&app).await.trim(), format!("rows,records\n{expected},{expected}"));
    app.audit().await;
}
