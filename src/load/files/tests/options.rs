//! One test for each row of the table of options in `docs/loader.md`, called after the options in the row's first cell.

use std::time::SystemTime;

use super::*;
use crate::load::clean::Cleaned;

const DOCUMENT: &str = include_str!("../../../../docs/loader.md");

/// The tests that the document asks for: what stands in backticks in the first cell, as the name of a function.
fn documented() -> Vec<String> {
    let table = DOCUMENT.lines().skip_while(|line| !line.starts_with("| Auto Loader |")).skip(2);
    let cells = table.take_while(|line| line.starts_with('|')).filter_map(|line| line.split('|').nth(1));
    cells.map(|cell| cell.split('`').skip(1).step_by(2).map(snake).collect::<Vec<_>>().join("_")).collect()
}

fn snake(option: &str) -> String {
    let (mut name, mut was_small) = (String::new(), false);
    for letter in option.trim_start_matches("cloudFiles.").chars() {
        if was_small && letter.is_ascii_uppercase() {
            name.push('_');
        }
        was_small = letter.is_ascii_lowercase();
        name.push(if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '_' });
    }
    name.split('_').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_")
}

#[test]
fn every_documented_option_has_its_test() {
    let (here, documented) = (include_str!("options.rs"), documented());
    assert!(documented.len() > 25, "the table is not found: {documented:?}");
    let missing: Vec<_> = documented.iter().filter(|name| !here.contains(&format!("fn {name}()"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Loads one file with these settings.
async fn loaded(settings: &str, content: &str) -> World {
    let world = World::new();
    world.put("a.json", content);
    world.load(settings).await.unwrap();
    world
}

impl World {
    fn age(&self, name: &str, age: Duration) {
        let file = std::fs::File::options().write(true).open(self.input().join(name)).unwrap();
        let now = Duration::from_micros(self.clock.now().as_micros().unsigned_abs());
        file.set_modified(SystemTime::UNIX_EPOCH + now - age).unwrap();
    }

    async fn type_of(&self, column: &str) -> String {
        self.table().await.schema().field_with_name(column).unwrap().data_type().to_string()
    }
}

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test(flavor = "multi_thread")]
async fn format() {
    let world = World::new();
    world.put("lines.json", "{\"id\":1}\n{\"id\":2}");
    world.put("array.json", "[{\"id\":3},{\"id\":4}]");
    world.put("lines.json.gz", gzip("{\"id\":5}\n{\"id\":6}"));
    world.put("pretty", zstd::encode_all("{\n\"id\": 7\n}".as_bytes(), 1).unwrap());
    assert_eq!(world.load("").await.unwrap().rows, 7);
    let lines = loaded("format = \"lines\"|schema_hints = \"id bigint\"", "{\n\"id\": 7\n}").await;
    assert_eq!(lines.rows().await.len(), 3, "each line a record, by setting");
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_location() {
    let world = loaded("", "{\"id\":1}").await;
    world.forget();
    world.put("b.json", "{\"id\":2,\"new\":\"x\"}");
    assert_eq!(world.load("").await.unwrap().rescued_rows, 0);
    assert_eq!(world.values("new").await, [Value::Null, json!("x")]);
    let log = logged_schemas(&world.folder.path().join("checkpoints"), "p").unwrap();
    assert!(log[0].ddl.contains("id") && log[0].ddl.contains("new"), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_inference_sample_size_num_bytes_num_files() {
    let world = World::new();
    for file in 0..20 {
        world.put(&format!("{file:02}.json"), format!("{{\"id\":{file},\"f{file}\":1}}"));
    }
    world.load("").await.unwrap();
    assert_eq!(
        logged_schemas(&world.folder.path().join("checkpoints"), "p").unwrap().len(),
        1,
        "all are in the sample"
    );
    assert_eq!(world.values("f19").await.last().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_evolution_mode_add_new_columns() {
    let world = loaded("", "{\"id\":1}").await;
    let mut running = world.stage("").await.unwrap();
    world.put("b.json", "{\"id\":2,\"new\":{\"deep\":[1]}}");
    let stop = CancellationToken::new();
    assert_eq!(running.work_until_idle(&stop).await.unwrap().commits, 1);
    world.put("c.json", "{\"id\":3,\"new\":{\"other\":true}}");
    assert_eq!(running.work_until_idle(&stop).await.unwrap().commits, 1, "and the loader runs on");
    assert_eq!(world.values("new").await, [Value::Null, json!({"deep": [1]}), json!({"other": true})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn add_new_columns_with_type_widening() {
    let world = loaded("", "{\"n\":1}").await;
    world.put("b.json", "{\"n\":1.5}");
    world.load("").await.unwrap();
    assert_eq!(world.type_of("n").await, "Int64");
    assert_eq!(world.values("_rescued_data").await, [Value::Null, json!("{\"n\":1.5}")]);
    assert_eq!(loaded("", "{\"n\":1}\n{\"n\":1.5}").await.type_of("n").await, "Float64", "a sample knows both");
}

#[tokio::test(flavor = "multi_thread")]
async fn rescue_fail_on_new_columns_none() {
    for (mode, rescued) in [("rescue", json!("{\"new\":2}")), ("ignore", Value::Null)] {
        let settings = format!("evolution = \"{mode}\"");
        let world = loaded(&settings, "{\"id\":1}").await;
        world.put("b.json", "{\"id\":2,\"new\":2}");
        world.load(&settings).await.unwrap();
        assert_eq!(world.values("_rescued_data").await[1], rescued, "{mode}");
    }
    let world = loaded("evolution = \"fail\"", "{\"id\":1}").await;
    world.put("b.json", "{\"id\":2,\"new\":2}");
    let error = world.load("evolution = \"fail\"").await.unwrap_err().to_string();
    assert!(error.contains("b.json") && error.contains("new"), "{error}");
    assert_eq!(world.rows().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn schema_hints() {
    let world =
        loaded("schema_hints = \"id string, at timestamp, user.age smallint\"", "{\"id\":1,\"user\":{\"age\":7}}")
            .await;
    assert_eq!(world.values("id").await, ["1"]);
    assert_eq!(world.type_of("at").await, "Timestamp(µs, \"UTC\")");
    let error = World::new().load("schema_hints = \"id strin\"").await.unwrap_err().to_string();
    assert!(error.contains("schema_hints") && error.contains("strin"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn infer_column_types_primitives_as_string() {
    let record = "{\"n\":1,\"d\":0.5,\"b\":true,\"o\":{\"m\":2}}";
    let typed = loaded("", record).await;
    assert_eq!(
        [typed.type_of("n").await, typed.type_of("d").await, typed.type_of("b").await],
        ["Int64", "Float64", "Boolean"]
    );
    assert_eq!(loaded("types = \"text\"", record).await.values("o").await, [json!({"m": "2"})]);
    let hinted = loaded("types = \"hints\"\nschema_hints = \"n int\"", record).await;
    assert!(hinted.table().await.schema().column_with_name("d").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn infer_timestamp() {
    let record = "{\"at\":\"2026-01-01T00:00:00+01:00\"}";
    assert_eq!(loaded("", record).await.type_of("at").await, "Utf8");
    assert_eq!(loaded("timestamps = true", record).await.values("at").await, ["2025-12-31T23:00:00Z"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn prefers_decimal() {
    let world = loaded("schema_hints = \"price decimal(10,2)\"", "{\"price\":12.30}\n{\"price\":0.001}").await;
    assert_eq!(world.type_of("price").await, "Decimal128(10, 2)");
    assert_eq!(world.values("_rescued_data").await, [Value::Null, json!("{\"price\":0.001}")], "what would be rounded");
}

#[tokio::test(flavor = "multi_thread")]
async fn drop_field_if_all_null() {
    let world = loaded("", "{\"id\":1,\"none\":null,\"empty\":[]}").await;
    assert!(world.table().await.schema().column_with_name("none").is_none());
    world.put("b.json", "{\"id\":2,\"none\":7,\"empty\":[1]}");
    world.load("").await.unwrap();
    assert_eq!(world.values("none").await, [Value::Null, json!(7)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rescued_data_column() {
    let settings = "evolution = \"rescue\"\nschema_hints = \"id bigint, user struct<age: bigint>\"\ntypes = \"hints\"";
    let world = loaded(settings, "{\"id\":\"x\",\"new\":[1, 2],\"user\":{\"age\":\"old\"}}").await;
    let rescued: Value = serde_json::from_str(world.values("_rescued_data").await[0].as_str().unwrap()).unwrap();
    assert_eq!(rescued, json!({"id": "x", "new": [1, 2], "/user/age": "old"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_case_sensitive() {
    let world = loaded("", "{\"id\":1}\n{\"Id\":2}").await;
    assert_eq!(world.values("id").await, [json!(1), Value::Null]);
    assert_eq!(world.values("_rescued_data").await, [Value::Null, json!("{\"Id\":2}")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mode_column_name_of_corrupt_record_bad_records_path() {
    let world = World::new();
    world.put("a.json", b"{\"id\":1}\n{\"id\":\n\xff\n{\"id\":2}");
    let summary = world.load("").await.unwrap();
    assert_eq!((summary.rows, summary.corrupt_rows, summary.commits), (4, 2, 1), "beside the good rows");
    assert_eq!(world.values("_corrupt_record").await[1], "{\"id\":");
    assert_eq!(world.values("id").await, [json!(1), Value::Null, Value::Null, json!(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn multi_line() {
    let world = loaded("", "{\n  \"id\": 1\n}\n{\n  \"id\": 2\n}\n").await;
    assert_eq!(world.values("id").await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn encoding_line_sep() {
    let world = World::new();
    world.put("marked.json", "\u{feff}{\"id\":1}\r\n{\"id\":2}\r\n");
    world.put("utf16.json", [0xff, 0xfe, b'{', 0, b'}', 0]);
    let summary = world.load("").await.unwrap();
    assert_eq!((summary.rows, summary.corrupt_rows), (3, 1), "what is no UTF-8 is kept as base64");
}

#[tokio::test(flavor = "multi_thread")]
async fn max_files_per_trigger() {
    let world = World::new();
    (0..5).for_each(|file| world.put(&format!("{file}.json"), "{\"id\":1}"));
    assert_eq!(world.load("max_files = 2").await.unwrap().commits, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn max_bytes_per_trigger() {
    let world = World::new();
    (0..5).for_each(|file| world.put(&format!("{file}.json"), "{\"id\":1}".repeat(10)));
    assert_eq!(world.load("max_bytes = \"150B\"").await.unwrap().commits, 3, "a file is never split");
}

#[tokio::test(flavor = "multi_thread")]
async fn max_file_age() {
    let world = World::new();
    world.put("old.json", "{\"id\":1}");
    world.put("new.json", "{\"id\":2}");
    world.age("old.json", DAY);
    let settings = "max_file_age = \"1h\"|";
    assert_eq!(world.load(settings).await.unwrap().files, 1);
    world.age("new.json", 2 * DAY);
    assert_eq!(world.load(settings).await.unwrap().files, 0);
    assert_eq!(world.load("").await.unwrap().files, 1, "only the old one: what is loaded is never forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn modified_after_modified_before() {
    let world = World::new();
    world.put("old.json", "{\"id\":1}");
    world.put("new.json", "{\"id\":2}");
    world.age("old.json", DAY * 365 * 10);
    let after = world.load("modified_after = \"2020-01-01T00:00:00Z\"|").await.unwrap();
    assert_eq!((after.files, world.values("id").await), (1, vec![json!(2)]));
    assert_eq!(world.load("modified_before = \"2020-01-01T00:00:00Z\"|").await.unwrap().files, 1);
    assert_eq!(world.values("id").await, [2, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn include_existing_files() {
    let world = World::new();
    world.put("old.json", "{\"id\":1}");
    world.age("old.json", DAY);
    // The time that counts is the store's.
    world.clock.step(3_600_000_000);
    let settings = "include_existing = false|schema_hints = \"id bigint\"";
    assert_eq!(world.load(settings).await.unwrap().files, 0);
    world.put("new.json", "{\"id\":2}");
    assert_eq!(world.load(settings).await.unwrap().files, 1);
    world.forget();
    assert_eq!(world.load(settings).await.unwrap().files, 0, "the moment outlives the checkpoints");
    assert_eq!(world.values("id").await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn allow_overwrites() {
    let world = loaded("", "{\"id\":1}").await;
    world.put("a.json", "{\"id\":1}\n{\"id\":2}");
    let summary = world.load("").await.unwrap();
    assert_eq!((summary.files, summary.changed), (0, 1), "told");
    assert_eq!(world.load("allow_overwrites = true|").await.unwrap().rows, 2, "and loaded where that is asked");
    assert_eq!(world.values("id").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn path_glob_filter_file_name_pattern_use_strict_globber_recursive_file_lookup() {
    let world = World::new();
    ["2026/a.json", "2026/deep/b.json", "2025/c.json", "2026/d.txt"]
        .iter()
        .for_each(|name| world.put(name, "{\"id\":1}"));
    assert_eq!(world.load("glob = \"2026/*.json\"|").await.unwrap().files, 1, "`*` stops at a slash");
    assert_eq!(world.load("glob = \"2026/**/*.json\"|").await.unwrap().files, 1, "`**` does not");
    assert_eq!(world.load("").await.unwrap().files, 2, "folders are always looked into");
    assert!(world.load("glob = \"***\"|").await.unwrap_err().to_string().contains("source.glob"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ignore_missing_files_ignore_corrupt_files() {
    let world = World::new();
    world.put("good.json", "{\"id\":1}");
    let mut cut = gzip(&"{\"id\":2}\n".repeat(10_000));
    cut.truncate(cut.len() / 2);
    world.put("cut.json.gz", cut);
    let mut stage = world.stage("").await.unwrap();
    let found = stage.next_files(&mut stage.source.walk()).await.unwrap();
    std::fs::remove_file(world.input().join("good.json")).unwrap();
    stage.load(found, &CancellationToken::new()).await.unwrap();
    assert_eq!(stage.summary.unread.len(), 2, "each with its reason: {:?}", stage.summary.unread);
    world.put("good.json", "{\"id\":1}");
    world.put("cut.json.gz", gzip("{\"id\":2}"));
    assert_eq!(world.load("").await.unwrap().rows, 2, "and tried again");
}

#[tokio::test(flavor = "multi_thread")]
async fn use_incremental_listing_backfill_interval() {
    let world = loaded("", "{\"id\":1}").await;
    world.put("0-sorts-before.json", "{\"id\":2}");
    world.age("0-sorts-before.json", DAY * 400);
    assert_eq!(world.load("").await.unwrap().files, 1, "every listing finds every name");
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata() {
    let world = World::new();
    world.put("deep/a.json", "{\"id\":1,\"_metadata\":7}\n{\"id\":2}");
    world.load("").await.unwrap();
    let row = world.rows().await.remove(1);
    assert_eq!((&row["_source_file"], &row["_source_row"]), (&json!("in/deep/a.json"), &json!(2)));
    assert!(row["_ingested_at"].is_string());
    assert_eq!(world.values("_metadata").await[0], 7, "a field of that name is only a field");
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_files_state() {
    let world = loaded("", "{\"id\":1}\n{\"id\":2}").await;
    world.put("b.json", "{\"id\":3}");
    world.load("").await.unwrap();
    let files: std::collections::BTreeSet<String> =
        world.values("_source_file").await.iter().map(ToString::to_string).collect();
    assert_eq!(files.len(), 2, "the table says which files are loaded, in SQL");
}

#[tokio::test(flavor = "multi_thread")]
async fn trigger_available_now() {
    let world = World::new();
    (0..7).for_each(|file| world.put(&format!("{file}.json"), "{\"id\":1}"));
    let summary = world.load("max_files = 3").await.unwrap();
    assert_eq!((summary.files, summary.commits), (7, 3), "everything that is there, in batches, and then it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn num_files_outstanding_num_bytes_outstanding() {
    let world = loaded("", "{\"id\":1}").await;
    let mut stage = world.stage("").await.unwrap();
    world.put("b.json", "{\"id\":2}");
    stage.work_until_idle(&CancellationToken::new()).await.unwrap();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((count(&stage.progress.found_files), count(&stage.progress.files)), (1, 1));
    assert_eq!((count(&stage.progress.found_bytes), count(&stage.progress.bytes)), (8, 8));
}

#[test]
fn validate_options() {
    let wrong = "version = 1\nname = \"p\"\n[source]\npath = \"in\"\nglobb = \"*\"\n[bronze]\ntable = \"t\"\n";
    let error = toml::from_str::<FilesPipeline>(wrong).unwrap_err().to_string();
    assert!(error.contains("globb"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn allow() {
    let world = World::new();
    world.put("a.json", "{'id':1}\n{\"id\":2, /* two */ \"n\":1}\n{\"id\":03}\n{id:4}\n{\"id\":5}");
    assert_eq!(world.load("schema_hints = \"id bigint\"").await.unwrap().corrupt_rows, 4);
    assert_eq!(world.values("_corrupt_record").await[0], "{'id':1}", "word for word");
    assert_eq!(world.values("id").await[4], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn date_format_timestamp_format_time_zone_locale() {
    let settings = "schema_hints = \"day date, at timestamp\"";
    let world =
        loaded(settings, "{\"day\":\"2026-01-31\",\"at\":\"2026-01-31T10:00:00+02:00\"}\n{\"day\":\"31.01.2026\"}")
            .await;
    assert_eq!(world.values("day").await, [json!("2026-01-31"), Value::Null]);
    assert_eq!(world.values("at").await[0], "2026-01-31T08:00:00Z");
    assert_eq!(world.values("_rescued_data").await[1], "{\"day\":\"31.01.2026\"}", "another format is kept as it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn single_variant_column() {
    let world = loaded("payload = true", "{\"id\":1, \"n\":1.10}").await;
    assert_eq!(world.values("payload").await, ["{\"id\":1, \"n\":1.10}"], "as it came");
}

#[tokio::test(flavor = "multi_thread")]
async fn use_notifications_use_managed_file_events() {
    let world = World::new();
    world.put("a.json", "{\"id\":1}");
    // Nothing is listed again within an hour: it is the watch that brings the second.
    world.run("list_every = \"1h\"|", 1, || world.put("b.json", "{\"id\":2}")).await;
    assert_eq!(world.values("id").await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_columns() {
    let world = World::new();
    world.put("date=2026-01-31/region=eu/a.json", "{\"id\":1}");
    world.put("date=__HIVE_DEFAULT_PARTITION__/b.json", "{\"id\":2,\"region\":\"own\"}");
    world.load("schema_hints = \"date date\"").await.unwrap();
    assert_eq!(world.values("date").await, [json!("2026-01-31"), Value::Null]);
    assert_eq!(world.values("region").await, ["eu", "own"]);
    let none = World::new();
    none.put("date=2026-01-31/a.json", "{\"id\":1}");
    none.load("partition_columns = []|").await.unwrap();
    assert!(none.table().await.schema().column_with_name("date").is_none());
}

impl World {
    async fn clean(&self, settings: &str, is_dry: bool) -> Cleaned {
        clean(self.options(settings), is_dry, &CancellationToken::new()).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clean_source_off_delete_move() {
    let world = loaded("", "{\"id\":1}").await;
    world.put("waiting.json", "{\"id\":2}");
    assert_eq!(world.clean("", false).await.files, 0, "off unless it is set");
    let delete = "clean_source = { action = \"delete\", after = \"0s\" }|";
    assert_eq!(world.clean(delete, true).await.files, 1, "a dry run only tells");
    assert!(world.input().join("a.json").exists());
    assert_eq!(world.clean(delete, false).await.files, 1);
    assert!(!world.input().join("a.json").exists() && world.input().join("waiting.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn clean_source_retention_duration() {
    let world = loaded("", "{\"id\":1}").await;
    assert_eq!(world.clean("clean_source = { action = \"delete\", after = \"1h\" }|", false).await.files, 0);
    assert!(world.input().join("a.json").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn clean_source_move_destination() {
    let world = World::new();
    world.put("deep/a.json", "{\"id\":1}");
    world.load("").await.unwrap();
    let settings = "clean_source = { action = \"move\", after = \"0s\", to = \"archive\" }|";
    assert_eq!(world.clean(settings, false).await.files, 1);
    let there = world.folder.path().join("data/archive/deep/a.json");
    assert_eq!(std::fs::read_to_string(there).unwrap(), "{\"id\":1}");
    assert_eq!(world.load(settings).await.unwrap().files, 0);
}
