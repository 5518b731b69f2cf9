//! The loader as a whole, on folders of files and in memory.

mod options;
mod owner;
mod variant;

use std::io::Write;
use std::path::Path as FilePath;
use std::sync::atomic::Ordering;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use arrow::json::LineDelimitedWriter;
use bytes::Bytes;
use flate2::write::GzEncoder;
use object_store::path::Path;
use serde_json::{Value, json};

use super::*;
use crate::storage::Storage;
use crate::table::LakeTable;
use crate::table::maintain::{MaintainOptions, maintain};
use crate::telemetry::Telemetry;

/// A loader on folders of its own.
pub(super) struct World {
    pub(super) folder: tempfile::TempDir,
    pub(super) clock: Clock,
}

impl World {
    pub(super) fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap(), clock: Clock::system() };
        std::fs::create_dir_all(world.input()).unwrap();
        world
    }

    pub(super) fn input(&self) -> PathBuf {
        self.folder.path().join("data/in")
    }

    pub(super) fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.input().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Whole or under another name, as a careful producer does it.
        let unfinished = path.with_file_name(".unfinished");
        std::fs::write(&unfinished, content).unwrap();
        std::fs::rename(unfinished, path).unwrap();
    }

    pub(super) fn data(&self) -> Storage {
        Storage::open(self.folder.path().join("data").to_str().unwrap()).unwrap()
    }

    /// Settings of the source, and behind a `|` those of the table.
    pub(super) fn options(&self, settings: &str) -> FilesOptions {
        let (source, bronze) = settings.split_once('|').unwrap_or(("", settings));
        let settle = if source.contains("settle") { "" } else { "settle = \"0s\"" };
        let text = format!(
            "version = 1\nname = \"p\"\n[source]\npath = \"in\"\n{settle}\n{source}\n[bronze]\ntable = \"bronze/t\"\n{bronze}"
        );
        FilesOptions {
            data: self.data(),
            schema: text.contains("schema =").then(|| crate::schema::built_in(crate::schema::MESSAGES).unwrap()),
            pipeline: toml::from_str(&text).unwrap(),
            checkpoints: self.folder.path().join("checkpoints"),
            clock: self.clock.clone(),
            telemetry: Telemetry::new(),
            progress: Arc::default(),
        }
    }

    async fn stage(&self, settings: &str) -> Result<FilesStage> {
        FilesStage::open(self.options(settings)).await
    }

    pub(super) async fn load(&self, settings: &str) -> Result<FilesSummary> {
        self.stage(settings).await?.work_until_idle(&CancellationToken::new()).await
    }

    /// Runs a loader until it has loaded so many rows, then calls `then` and waits for one row more.
    async fn run(&self, settings: &str, rows: u64, then: impl FnOnce()) {
        let (stage, stop) = (self.stage(settings).await.unwrap(), CancellationToken::new());
        let progress = Arc::clone(&stage.progress);
        let until = async |rows| {
            while progress.rows.load(Ordering::Relaxed) < rows {
                self.clock.sleep(Duration::from_millis(5)).await;
            }
        };
        let running = tokio::spawn(stage.run(stop.clone()));
        let within = Duration::from_secs(60);
        self.clock.timeout(within, until(rows)).await.unwrap();
        then();
        self.clock.timeout(within, until(rows + 1)).await.unwrap();
        stop.cancel();
        running.await.unwrap().unwrap();
    }

    pub(super) async fn table(&self) -> LakeTable {
        LakeTable::open_existing(&self.data(), &Path::from("bronze/t"), &self.clock).await.unwrap().unwrap()
    }

    /// All rows as JSON, in the order of file and row.
    pub(super) async fn rows(&self) -> Vec<Value> {
        let table = self.table().await;
        let mut rows = Vec::new();
        for file in table.files().await.unwrap() {
            let mut lines = LineDelimitedWriter::new(Vec::new());
            lines.write(&table.read_file(&file, None).await.unwrap()).unwrap();
            lines.finish().unwrap();
            let text = String::from_utf8(lines.into_inner()).unwrap();
            rows.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
        rows.sort_by_key(|row| (row["_source_file"].to_string(), row["_source_row"].as_i64()));
        rows
    }

    pub(super) async fn values(&self, column: &str) -> Vec<Value> {
        self.rows().await.into_iter().map(|mut row| row[column].take()).collect()
    }

    pub(super) fn forget(&self) {
        std::fs::remove_dir_all(self.folder.path().join("checkpoints")).unwrap();
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_of_every_file_is_one_row_once() {
    let world = World::new();
    world.put("a.jsonl", "{\"id\":1}\n{\"id\":2,\"user\":{\"name\":\"x\"}}\n");
    world.put("deep/b.json", "[{\"id\":3},\n {\"id\":4}]");
    world.put("c.json.gz", gzip("{\n \"id\": 5\n}"));
    world.put("d.json.zst", zstd::encode_all("{\"id\":6}".as_bytes(), 1).unwrap());
    world.put("_hidden.json", "{\"id\":7}");
    world.put("half.json.tmp", "{\"id\":8}");
    world.put("empty.json", "");
    let loaded = world.load("").await.unwrap();
    assert_eq!((loaded.files, loaded.rows, loaded.commits, loaded.unread.len()), (5, 6, 1, 0));
    assert_eq!(world.values("id").await, [1, 2, 5, 6, 3, 4]);
    let first = &world.rows().await[0];
    assert_eq!((&first["_source_file"], &first["_source_row"]), (&json!("in/a.jsonl"), &json!(1)));
    assert_eq!(world.load("").await.unwrap().files, 0, "and not again");
    world.put("e.json", "{\"id\":9}");
    assert_eq!(world.load("").await.unwrap().files, 1);
    assert_eq!(world.rows().await.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_alone_says_what_is_loaded() {
    let world = World::new();
    world.put("a.json", "{\"id\":1}");
    world.load("").await.unwrap();
    let memo = world.folder.path().join("checkpoints/p/files.seen");
    let old = std::fs::read(&memo).unwrap();
    world.forget();
    assert_eq!(world.load("").await.unwrap().files, 0, "without checkpoints");
    world.put("b.json", "{\"id\":2}");
    world.load("").await.unwrap();
    std::fs::write(&memo, old).unwrap();
    assert_eq!(world.load("").await.unwrap().files, 0, "with an old copy");
    let other = World::new();
    other.put("z.json", "{\"id\":1}");
    other.load("").await.unwrap();
    std::fs::copy(other.folder.path().join("checkpoints/p/files.seen"), &memo).unwrap();
    world.put("z.json", "{\"id\":3}");
    assert_eq!(world.load("").await.unwrap().files, 1, "with that of another table");
    assert_eq!(world.values("id").await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_fields_become_columns_in_the_commit_that_brings_them() {
    let world = World::new();
    world.put("a.json", "{\"id\":1,\"user\":{\"name\":\"x\"}}");
    world.load("").await.unwrap();
    world.put("b.json", "{\"id\":\"two\",\"text\":\"t\",\"user\":{\"age\":7},\"none\":null}\n{\"id\":3}");
    let loaded = world.load("").await.unwrap();
    assert_eq!((loaded.rows, loaded.rescued_rows, loaded.commits), (2, 1, 1));
    let rows = world.rows().await;
    assert_eq!(rows[1]["text"], "t");
    assert_eq!(rows[1]["user"], json!({"age": 7}));
    assert_eq!(rows[1]["_rescued_data"], "{\"id\":\"two\"}");
    assert!(rows[1].get("none").is_none(), "what was only ever null has no column yet");
    let log = logged_schemas(&world.folder.path().join("checkpoints"), "p").unwrap();
    assert_eq!(log.iter().map(|version| version.number).collect::<Vec<_>>(), [1, 2]);
    assert!(log[1].ddl.contains("text STRING") || log[1].ddl.contains("text string"), "{}", log[1].ddl);
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_keeps_what_came_before_a_column_grew_and_names_with_dots() {
    let world = World::new();
    world.put("a.json", "{\"id\":1,\"user\":{\"name\":\"x\"},\"list\":[{\"p\":1}],\"a.b\":1}");
    world.load("").await.unwrap();
    world.put("b.json", "{\"id\":2,\"user\":{\"age\":7},\"list\":[{\"q\":2}],\"a.b\":2}");
    world.load("").await.unwrap();
    let before = world.rows().await;
    let options = MaintainOptions { compact_at_files: 2, checkpoint_every: 1, ..MaintainOptions::default() };
    let stop = CancellationToken::new();
    let done = maintain(&world.data(), &Path::from("bronze/t"), &options, &world.clock, &stop).await.unwrap();
    assert_eq!(done.unwrap().1.files_compacted, 2);
    assert_eq!(world.rows().await, before);
    assert_eq!((&before[0]["user"], &before[1]["list"]), (&json!({"name": "x"}), &json!([{"q": 2}])));
    assert_eq!((&before[0]["a.b"], &before[1]["a.b"]), (&json!(1), &json!(2)));
    assert_eq!(world.load("").await.unwrap().files, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_modes_rescue_ignore_or_stop() {
    for (mode, rescued) in [("rescue", json!("{\"new\":2}")), ("ignore", Value::Null)] {
        let world = World::new();
        let settings = format!("evolution = \"{mode}\"");
        world.put("a.json", "{\"id\":1}");
        world.load(&settings).await.unwrap();
        world.put("b.json", "{\"id\":2,\"new\":2}");
        world.load(&settings).await.unwrap();
        assert_eq!(world.rows().await[1]["_rescued_data"], rescued, "{mode}");
    }
    let world = World::new();
    world.put("a.json", "{\"id\":1}");
    world.load("evolution = \"fail\"").await.unwrap();
    world.put("b.json", "{\"id\":2,\"new\":2}");
    let error = world.load("evolution = \"fail\"").await.unwrap_err();
    assert!(error.to_string().contains("file in/b.json: new fields: new;"), "{error}");
    assert_eq!(world.rows().await.len(), 1, "and nothing is loaded");
    let hinted = "evolution = \"fail\"\nschema_hints = \"id string, new double\"";
    assert_eq!(world.load(hinted).await.unwrap().rows, 1, "until somebody says what is to be done");
    let row = &world.rows().await[1];
    assert_eq!((&row["id"], &row["new"]), (&json!(2), &json!(2.0)), "what is there keeps its type");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_stops_nothing_and_loses_nothing() {
    let world = World::new();
    world.put("truncated.json", "{\"id\":1}\n{\"id\":");
    world.put("latin1.json", b"{\"id\":1,\"name\":\"\xe9\"}\n{\"id\":2}");
    world.put("deep.json", "[".repeat(200_000));
    world.put("twice.json", "{\"id\":1,\"id\":2}");
    world.put("numbers.json", "{\"id\":9223372036854775808,\"ratio\":1e400}");
    world.put("same.json", "{\"id\":1}");
    world.put("same too.json", "{\"id\":1}");
    world.put("names.json", "{\"a.b\":1,\"a b\":2,\"\u{1f600}\":3,\"ID\":4}");
    world.put("long.json", format!("{{\"id\":1,\"text\":\"{}\"}}\n{{\"id\":2}}", "x".repeat(3 << 20)));
    let mut cut = gzip(&"{\"id\":1}\n".repeat(10_000));
    cut.truncate(cut.len() / 2);
    world.put("cut.json.gz", &cut);
    let loaded = world.load("max_record = \"1MiB\"|schema_hints = \"id bigint, ratio double\"").await.unwrap();
    assert_eq!(loaded.unread.len(), 1, "{:?}", loaded.unread);
    assert!(loaded.unread[0].contains("cut.json.gz"));
    assert_eq!((loaded.files, loaded.rows), (9, 12));
    assert_eq!(loaded.corrupt_rows, 4);
    let rows = world.rows().await;
    let of = |name: &str| rows.iter().find(|row| row["_source_file"] == format!("in/{name}")).unwrap();
    assert_eq!(of("numbers.json")["_rescued_data"], "{\"id\":9223372036854775808,\"ratio\":1e400}");
    assert_eq!(of("twice.json")["_rescued_data"], "{\"id\":2}");
    assert_eq!(
        (&of("names.json")["a.b"], &of("names.json")["a_b"], &of("names.json")["\u{1f600}"]),
        (&json!(1), &json!(2), &json!(3))
    );
    assert_eq!(of("names.json")["_rescued_data"], "{\"ID\":4}");
    assert!(of("long.json")["_corrupt_record"].as_str().unwrap().contains("\"_too_large_bytes\":3145"));
    world.put("cut.json.gz", gzip("{\"id\":1}"));
    assert_eq!(world.load("").await.unwrap().files, 1, "once it is whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_that_breaks_off_takes_no_other_along() {
    let world = World::new();
    let line = format!("{{\"id\":1,\"text\":\"{}\"}}\n", "x".repeat(1_000));
    let mut cut = gzip(&line.repeat(12_000));
    cut.truncate(cut.len() - 4);
    world.put("b-cut.json.gz", &cut);
    world.put("a.json", "{\"id\":7}");
    world.put("c.json", "{\"id\":8}");
    let loaded = world.load("").await.unwrap();
    assert_eq!((loaded.files, loaded.rows, loaded.unread.len()), (2, 2, 1));
    assert_eq!(world.values("id").await, [7, 8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_parts_and_several_batches_bring_every_row_once() {
    let world = World::new();
    let line = |id: usize| format!("{{\"id\":{id},\"text\":\"{}\"}}\n", "x".repeat(400));
    for file in 0..4 {
        world.put(&format!("{file}.json"), (0..50_000).map(|row| line(file * 50_000 + row)).collect::<String>());
    }
    let loaded = world.load("max_files = 3").await.unwrap();
    assert_eq!((loaded.rows, loaded.commits), (200_000, 2));
    let table = world.table().await;
    let mut ids = Vec::new();
    for file in table.files().await.unwrap() {
        let rows = table.read_file(&file, Some(&["id"])).await.unwrap();
        ids.extend(rows.column(0).as_primitive::<Int64Type>().values().iter().copied());
    }
    ids.sort_unstable();
    assert!(ids.iter().copied().eq(0..200_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_loaders_of_one_source_bring_every_record_once() {
    let world = World::new();
    for file in 0..60 {
        world.put(&format!("{file:02}.json"), format!("{{\"id\":{file}}}"));
    }
    let stop = CancellationToken::new();
    let (mut one, mut other) =
        (world.stage("max_files = 7").await.unwrap(), world.stage("max_files = 5").await.unwrap());
    let (one, other) = tokio::join!(one.work_until_idle(&stop), other.work_until_idle(&stop));
    assert_eq!(one.unwrap().rows + other.unwrap().rows, 60);
    let ids: Vec<_> = world.values("id").await.iter().map(|id| id.as_i64().unwrap()).collect();
    assert!(ids.iter().copied().eq(0..60), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loader_that_found_files_before_there_was_a_table_loads_none_that_another_has_loaded() {
    let world = World::new();
    world.put("a.json", "{\"id\":1}");
    let mut late = world.stage("").await.unwrap();
    let found = late.next_files(&mut late.source.walk()).await.unwrap();
    world.load("").await.unwrap();
    late.load(found, &CancellationToken::new()).await.unwrap();
    assert_eq!(world.values("id").await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn strings_only_payload_and_timestamps_are_by_setting() {
    let world = World::new();
    world.put("a.json", "{\"n\":1.10,\"at\":\"2024-01-01T00:00:00Z\",\"o\":{\"b\":true}}");
    world.load("types = \"text\"\npayload = true").await.unwrap();
    let row = &world.rows().await[0];
    assert_eq!((&row["n"], &row["o"]), (&json!("1.10"), &json!({"b": "true"})));
    assert_eq!(row["payload"], "{\"n\":1.10,\"at\":\"2024-01-01T00:00:00Z\",\"o\":{\"b\":true}}");
    let typed = World::new();
    typed.put("a.json", "{\"at\":\"2024-01-01T00:00:00Z\"}");
    typed.load("timestamps = true").await.unwrap();
    let table = typed.table().await;
    let schema = table.schema();
    assert!(matches!(schema.field_with_name("at").unwrap().data_type(), arrow::datatypes::DataType::Timestamp(..)));
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_name_a_value_become_columns() {
    let world = World::new();
    world.put("date=2026-01-02/hour=7/a.json", "{\"id\":1}\n{\"id\":2,\"hour\":9}\nbroken");
    world.put("date=soon/b.json", "{\"id\":3}");
    world.put("plain.json", "{\"id\":4}");
    world.load("schema_hints = \"date date\"").await.unwrap();
    let rows = world.rows().await;
    let columns: Vec<_> =
        world.table().await.schema().fields().iter().take(3).map(|field| field.name().clone()).collect();
    assert_eq!(columns, ["id", "hour", "date"]);
    let of = |row: usize| (rows[row]["date"].clone(), rows[row]["hour"].clone());
    assert_eq!(of(0), (json!("2026-01-02"), json!(7)));
    assert_eq!(of(1), (json!("2026-01-02"), json!(9)), "a field of the record itself wins");
    assert_eq!((of(2), &rows[2]["_corrupt_record"]), ((json!("2026-01-02"), json!(7)), &json!("broken")));
    assert_eq!((of(3), &rows[3]["_rescued_data"]), ((Value::Null, Value::Null), &json!("{\"date\":\"soon\"}")));
    assert_eq!((of(4), &rows[4]["_rescued_data"]), ((Value::Null, Value::Null), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_names_another_value_is_a_new_field_like_any() {
    for (mode, column, rescued) in [
        ("add_columns", json!("eu"), Value::Null),
        ("rescue", Value::Null, json!("{\"region\":\"eu\"}")),
        ("ignore", Value::Null, Value::Null),
    ] {
        let (world, settings) = (World::new(), format!("evolution = \"{mode}\""));
        world.put("a.json", "{\"id\":1}");
        world.load(&settings).await.unwrap();
        world.put("region=eu/b.json", "{\"id\":2}");
        world.load(&settings).await.unwrap();
        let row = &world.rows().await[1];
        assert_eq!(
            (row.get("region").unwrap_or(&Value::Null), row.get("_rescued_data").unwrap_or(&Value::Null)),
            (&column, &rescued),
            "{mode}"
        );
    }
    let world = World::new();
    world.put("a.json", "{\"id\":1}");
    world.load("evolution = \"fail\"").await.unwrap();
    world.put("region=eu/b.json", "{\"id\":2}");
    let error = world.load("evolution = \"fail\"").await.unwrap_err();
    assert!(error.to_string().contains("new fields: region;"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_folders_that_are_asked_for_become_columns_with_the_types_that_are() {
    let path = "month=01/day=5/region=a%2Fb/a.json";
    let loaded = async |settings: &str| {
        let world = World::new();
        world.put(path, "{\"id\":1}");
        world.load(settings).await.unwrap();
        let mut row = world.rows().await.remove(0);
        row.as_object_mut().unwrap().retain(|name, value| !name.starts_with('_') && !value.is_null());
        row
    };
    assert_eq!(loaded("").await, json!({"id": 1, "month": "01", "day": 5, "region": "a/b"}));
    assert_eq!(loaded("partition_columns = []|").await, json!({"id": 1}));
    assert_eq!(loaded("partition_columns = [\"day\"]|").await, json!({"id": 1, "day": 5}));
    assert_eq!(loaded("types = \"text\"").await, json!({"id": "1", "month": "01", "day": "5", "region": "a/b"}));
    let hinted = loaded("types = \"hints\"\nschema_hints = \"month int, day string\"").await;
    assert_eq!(hinted, json!({"month": 1, "day": "5"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_appears_is_loaded_without_waiting_for_the_next_listing() {
    let world = World::new();
    world.put("a.json", "{\"id\":1}");
    world.run("list_every = \"1h\"|", 1, || world.put("new/b.json", "{\"id\":2}")).await;
    assert_eq!(world.values("id").await, [1, 2]);
    let settle = "list_every = \"1h\"\nsettle = \"300ms\"|";
    world.run(settle, 0, || world.put("new/c.json", "{\"id\":3}")).await;
    assert_eq!(world.values("id").await, [1, 2, 3], "once it has settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_watch_the_listing_finds_what_is_new() {
    let world = World::new();
    std::fs::remove_dir(world.input()).unwrap();
    world.run("list_every = \"20ms\"\nwatch = false|", 0, || world.put("a.json", "{\"id\":1}")).await;
    std::fs::remove_dir_all(world.input()).unwrap();
    world.run("list_every = \"20ms\"|", 0, || world.put("b.json", "{\"id\":2}")).await;
    assert_eq!(world.values("id").await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loader_that_is_stopped_goes_on_where_it_was() {
    let world = World::new();
    (0..30).for_each(|file| world.put(&format!("{file}.json"), format!("{{\"id\":{file}}}")));
    let (mut stage, stop) = (world.stage("max_files = 1").await.unwrap(), CancellationToken::new());
    let progress = Arc::clone(&stage.progress);
    let stopping = async {
        while progress.files.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (first, ()) = tokio::join!(stage.work_until_idle(&stop), stopping);
    let first = first.unwrap();
    assert!(first.is_cut_short && first.files < 30, "{first:?}");
    let again = world.load("").await.unwrap();
    assert_eq!((first.files + again.files, again.is_cut_short), (30, false));
    let mut ids: Vec<_> = world.values("id").await.iter().map(|id| id.as_i64().unwrap()).collect();
    ids.sort_unstable();
    assert!(ids.iter().copied().eq(0..30), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_is_counted_ahead_when_somebody_wants_to_know() {
    let world = World::new();
    world.put("a.json", "{\"id\":1}");
    world.load("").await.unwrap();
    world.put("b.json", "{\"id\":22}");
    world.put("c.json.tmp", "{\"id\":3}");
    let mut stage = world.stage("").await.unwrap();
    let progress = Arc::clone(&stage.progress);
    let _ahead = ahead::count(&stage.source, world.clock.now(), &progress);
    stage.work_until_idle(&CancellationToken::new()).await.unwrap();
    let counted = async {
        while !progress.is_counted.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
    };
    world.clock.timeout(Duration::from_secs(60), counted).await.unwrap();
    let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!((get(&progress.listed_files), get(&progress.listed_bytes)), (2, 17));
    assert_eq!((get(&progress.known_files), get(&progress.known_bytes)), (1, 8));
    assert_eq!((get(&progress.found_files), get(&progress.files)), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_elsewhere_and_objects_of_a_store_are_sources_too() {
    let world = World::new();
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("a.json"), "{\"id\":1}").unwrap();
    let mut stage = world.stage("").await.unwrap();
    let mut pipeline = stage.pipeline.clone();
    pipeline.source.path = elsewhere.path().to_str().unwrap().to_owned();
    let options = |data: Storage, pipeline: &FilesPipeline, folder: &FilePath| FilesOptions {
        data,
        pipeline: pipeline.clone(),
        schema: None,
        checkpoints: folder.to_owned(),
        clock: Clock::system(),
        telemetry: Telemetry::new(),
        progress: Arc::default(),
    };
    let stop = CancellationToken::new();
    assert_eq!(stage.work_until_idle(&stop).await.unwrap().files, 0);
    let mut own = FilesStage::open(options(world.data(), &pipeline, elsewhere.path())).await.unwrap();
    assert_eq!(own.work_until_idle(&stop).await.unwrap().rows, 1);

    let memory = Storage::memory();
    memory.put_new(&Path::from("in/a.json"), Bytes::from("{\"id\":1}\n".repeat(5_000))).await.unwrap();
    pipeline.source.path = "in".to_owned();
    let mut remote = FilesStage::open(options(memory, &pipeline, elsewhere.path())).await.unwrap();
    assert_eq!(remote.work_until_idle(&stop).await.unwrap().rows, 5_000);
    assert_eq!(remote.work_until_idle(&stop).await.unwrap().files, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_telegram_messages_as_others_store_them_load_unchanged() {
    let world = World::new();
    let message = |id: i64| {
        json!({
            "update_id": 700 + id, "message_id": id, "conversation_type": "channel", "channel_id": -100_123,
            "channel_title": "News", "author_signature": null, "text": "hello", "date": 1_760_000_000 + id,
        })
    };
    world.put("telegram_1.json", json!([message(1), message(2)]).to_string());
    world.put("telegram_2.json", json!([message(3)]).to_string());
    world.put("notes.txt", "not ours");
    let loaded = world.load("glob = \"telegram_*.json\"|").await.unwrap();
    assert_eq!((loaded.files, loaded.rows, loaded.rescued_rows, loaded.corrupt_rows), (2, 3, 0, 0));
    let rows = world.rows().await;
    assert_eq!((&rows[2]["update_id"], &rows[2]["channel_title"]), (&json!(703), &json!("News")));
    assert!(rows[0]["_ingested_at"].is_string() && rows[0]["_source_file"] == "in/telegram_1.json");
    let table = world.table().await;
    assert!(table.schema().column_with_name("author_signature").is_none(), "only ever null");
    assert!(table.files().await.unwrap().iter().all(|file| file.num_records.is_some()));
    assert_eq!(table.schema().fields().len(), 7 + 5);
    assert!(table.read_file(&table.files().await.unwrap()[0], None).await.unwrap().column(0).null_count() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nests_deeply_and_names_without_end_are_rescued_and_the_table_stays_open() {
    let world = World::new();
    let nested = |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    let deep =
        [nested("[", "]", 49), nested("{\"a\":", "}", 60), nested("[", "]", 126), nested("[{\"a\":", "}]", 100_000)];
    for (number, value) in deep.iter().enumerate() {
        world.put(&format!("{number}.json"), format!("{{\"id\":{number},\"deep\":{value}}}\n"));
        assert_eq!(world.load("").await.unwrap().rescued_rows, 1, "{number}");
    }
    let names: Vec<String> =
        (0..100_000).map(|name| format!("{{\"id\":1,\"of\":[{{\"user{name}\":{name}}}]}}")).collect();
    world.put("names.json", names.join("\n"));
    world.put("fits.json", format!("{{\"fits\":{}}}", nested("[{\"a\":", "}]", 15)));
    assert_eq!(world.load("").await.unwrap().rescued_rows, 100_000);
    let rows = world.rows().await;
    assert_eq!(rows.len(), 100_005);
    for (row, value) in rows.iter().zip(&deep) {
        assert_eq!(row["_rescued_data"], format!("{{\"deep\":{value}}}"));
    }
    let table = world.table().await;
    let names: Vec<String> = table.schema().fields().iter().map(|field| field.name().clone()).collect();
    let names: Vec<&String> = names.iter().filter(|name| !name.starts_with('_')).collect();
    assert_eq!(names, ["id", "fits"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_file_that_is_gone_is_a_finding_of_the_audit() {
    let world = World::new();
    world.put("a.json", "{\"id\":1}\n");
    world.load("").await.unwrap();
    let file = world.table().await.files().await.unwrap().remove(0).path;
    std::fs::remove_file(world.folder.path().join("data/bronze/t").join(file)).unwrap();
    let found = audit(world.options(""), &|_| ()).await.unwrap();
    assert_eq!((found.broken.len(), found.files), (1, 0), "{found:?}");
}
