//! Fields of messages that have no typed column: what each mode makes of them.

use arrow::json::LineDelimitedWriter;
use serde_json::{Value, json};

use super::*;
use crate::pipeline::Evolution;
use crate::table::maintain::{MaintainOptions, maintain};

/// A world whose loader does this with new fields.
fn world(evolution: Evolution) -> World {
    let mut world = World::new();
    world.settings.evolution = evolution;
    world
}

/// A line with a message that has these fields too.
fn message(id: i64, more: &str) -> String {
    format!("{{\"update_id\":{id},\"message\":{{\"message_id\":1,\"chat\":{{\"id\":5}},\"text\":\"m\",{more}}}}}\n")
}

/// The rows of the table as JSON, by update.
async fn documents(world: &World) -> Vec<Value> {
    let table = world.table().await;
    let mut rows: Vec<Value> = Vec::new();
    for file in table.files().await.unwrap() {
        let mut lines = LineDelimitedWriter::new(Vec::new());
        lines.write(&table.read_file(&file, None).await.unwrap()).unwrap();
        lines.finish().unwrap();
        let text = String::from_utf8(lines.into_inner()).unwrap();
        rows.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    rows.sort_by_key(|row| row["update_id"].as_i64());
    rows
}

async fn grown(world: &World) -> Vec<String> {
    let schema = world.table().await.schema();
    let names = schema.fields().iter().map(|field| field.name().clone());
    names.filter(|name| name.starts_with("msg_")).collect()
}

#[tokio::test]
async fn new_fields_become_columns_in_the_commit_that_brings_them() {
    let world = world(Evolution::AddColumns);
    let mut stage = world.stage().await;
    let before = world.version().await;
    let photo = r#""photo":[{"file_id":"f","width":90}],"a b":1"#;
    world.put("a", MINUTE, &(message(1, photo) + &update(2) + "odd\n")).await;
    assert_eq!(stage.work_until_idle(&never()).await.unwrap().commits, 1);
    assert_eq!(world.version().await, before + 1, "columns, rows and progress are one commit");
    assert_eq!(grown(&world).await, ["msg_photo", "msg_a_b"]);
    let rows = documents(&world).await;
    assert_eq!((&rows[1]["msg_photo"], &rows[1]["msg_a_b"]), (&json!([{"file_id": "f", "width": 90}]), &json!(1)));
    assert_eq!((&rows[1]["file_id"], &rows[1]["_rescued_data"]), (&json!("f"), &Value::Null));
    assert_eq!((&rows[0]["_corrupt_record"], &rows[0]["msg_photo"]), (&json!("odd"), &Value::Null));
    // The same stage goes on without a restart, into lists and structs, and so does another one.
    world.put("a", 0, &message(3, r#""photo":[{"file_id":"g","height":7}]"#)).await;
    assert_eq!(stage.work_until_idle(&never()).await.unwrap().rows, 1);
    world.put("a", -1, &message(4, r#""dice":{"value":6},"a b":2"#)).await;
    assert_eq!(world.load().await.rows, 1);
    let rows = documents(&world).await;
    assert_eq!(rows[3]["msg_photo"], json!([{"file_id": "g", "height": 7}]));
    assert_eq!((&rows[4]["msg_dice"], &rows[4]["msg_a_b"]), (&json!({"value": 6}), &json!(2)));
    assert_eq!(rows[4]["payload"], json!(message(4, r#""dice":{"value":6},"a b":2"#).trim_end()));
}

#[tokio::test]
async fn a_type_never_changes_and_what_does_not_fit_is_rescued_beside_what_did_not_fit_a_typed_column() {
    let world = world(Evolution::AddColumns);
    world.put("a", MINUTE, &message(1, r#""effect":7,"poll":{"votes":1}"#)).await;
    world.load().await;
    let odd =
        r#"{"update_id":2,"message":{"message_id":"x","text":"m","effect":[1.50],"poll":{"votes":"many"},"Effect":1}}"#;
    world.put("a", 0, odd).await;
    world.load().await;
    let rows = documents(&world).await;
    assert_eq!(rows[1]["_rescued_data"], r#"{"message_id":"x","effect":[1.50],"/poll/votes":"many","Effect":1}"#);
    assert_eq!((&rows[1]["msg_effect"], &rows[1]["text"]), (&Value::Null, &json!("m")));
    assert_eq!(grown(&world).await, ["msg_effect", "msg_poll"]);
}

#[tokio::test]
async fn only_messages_and_posts_bring_columns_and_none_that_is_typed_comes_twice() {
    let world = world(Evolution::AddColumns);
    let typed = r#"{"update_id":1,"channel_post":{"message_id":1,"message_thread_id":2,"from":{"id":1,"is_bot":false},
        "chat":{"id":1},"date":1,"text":"x","caption":"y","author_signature":"z"}}"#;
    let others = [r#"{"update_id":2,"poll":{"id":"7","options":[]}}"#, r#"{"update_id":3,"message":[1]}"#];
    world.put("a", MINUTE, &format!("{}\n{}", typed.replace('\n', ""), others.join("\n"))).await;
    assert_eq!(world.load().await.rows, 3);
    assert!(grown(&world).await.is_empty());
    assert_eq!(documents(&world).await[2]["_rescued_data"], r#"{"message":[1]}"#);
}

#[tokio::test]
async fn two_loaders_that_bring_a_column_at_once_bring_every_row_once() {
    let world = world(Evolution::AddColumns);
    let (mut one, mut two) = (world.stage().await, world.stage().await);
    let first = world.put("a", 2 * MINUTE, &message(1, r#""effect":7"#)).await;
    let second = world.put("b", MINUTE, &message(2, r#""effect":"seven","mood":1"#)).await;
    one.load_hinted(hinted([first.clone()]), &never()).await.unwrap();
    two.load_hinted(hinted([first, second]), &never()).await.unwrap();
    one.work_until_idle(&never()).await.unwrap();
    assert_eq!(world.update_ids().await, some(1..=2));
    assert_eq!(grown(&world).await, ["msg_effect", "msg_mood"]);
    let rows = documents(&world).await;
    assert_eq!((&rows[0]["msg_effect"], &rows[1]["_rescued_data"]), (&json!(7), &json!(r#"{"effect":"seven"}"#)));
}

#[tokio::test]
async fn a_new_field_stops_the_loader_where_that_is_asked_and_nothing_of_the_batch_is_loaded() {
    let mut world = world(Evolution::Fail);
    world.put("a", 3 * MINUTE, &update(1)).await;
    assert_eq!(world.load().await.rows, 1);
    world.put("a", 2 * MINUTE, &update(2)).await;
    let path = world.put("a", MINUTE, &(update(3) + &message(4, r#""dice":{"value":6}"#))).await;
    let mut stage = world.stage().await;
    let error = stage.work_until_idle(&never()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains(&format!("{path} line 2: dice;")), "{error}");
    assert_eq!(world.update_ids().await, some([1]));
    // As a service it stands still: the receiver and those who answer go on beside it.
    let (running, read, mut reads) = (world.serve().await, format!("get {path}"), 0);
    eventually(async || {
        reads += world.script.calls().iter().filter(|call| **call == read).count();
        reads > 1
    })
    .await;
    assert_eq!(world.update_ids().await, some([1]));
    running.end().await.unwrap();
    // Whoever takes the field in goes on where it stood.
    world.settings.evolution = Evolution::AddColumns;
    assert_eq!(world.load().await.rows, 3);
    world.settings.evolution = Evolution::Fail;
    world.put("a", 0, &message(5, r#""dice":{"value":1}"#)).await;
    assert_eq!(world.load().await.rows, 1, "it is no new field any more");
    assert_eq!(documents(&world).await[4]["msg_dice"], json!({"value": 1}));
}

#[tokio::test]
async fn a_column_that_somebody_has_made_is_no_new_field_to_a_loader_that_stands_still() {
    let mut world = world(Evolution::Fail);
    let mut stage = world.stage().await;
    world.put("a", MINUTE, &message(1, r#""dice":6"#)).await;
    assert!(stage.work_until_idle(&never()).await.is_err());
    let mut fields: Vec<_> = world.schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("msg_dice", DataType::Int64, true)));
    world.schema = Arc::new(Schema::new(fields));
    world.stage().await;
    assert_eq!(stage.work_until_idle(&never()).await.unwrap().rows, 1);
    assert_eq!(documents(&world).await[0]["msg_dice"], json!(6));
}

#[tokio::test]
async fn a_loader_that_has_stood_still_until_the_log_was_cleaned_opens_the_table_again() {
    let mut world = world(Evolution::Fail);
    let mut stage = world.stage().await;
    // Newer than all that is known, so that the table need not be asked whether it has it.
    world.put("a", -MINUTE, &message(1, r#""mood":6"#)).await;
    assert!(stage.work_until_idle(&never()).await.is_err());
    world.settings.evolution = Evolution::AddColumns;
    world.load().await;
    let short = Duration::from_secs(600);
    let options = MaintainOptions {
        checkpoint_every: 1,
        log_retention: short,
        allow_short_retention: true,
        ..MaintainOptions::default()
    };
    for _ in 0..2 {
        world.pass(HOUR);
        world.put("a", 0, &message(world.clock.now().as_micros(), r#""mood":7"#)).await;
        world.load().await;
        maintain(&world.storage, &Path::from(TABLE), &options, &world.clock, &never()).await.unwrap();
    }
    let first = StorageKey::Commit { table: Path::from(TABLE), version: 1 }.path();
    assert!(world.storage.get(&first).await.unwrap().is_none(), "the log was not cleaned");
    let before = documents(&world).await.len();
    let error = stage.work_until_idle(&never()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    stage.work_until_idle(&never()).await.unwrap();
    assert_eq!(documents(&world).await.len(), before);
}

#[tokio::test]
async fn other_modes_fill_what_is_there_and_add_nothing() {
    for evolution in [Evolution::Rescue, Evolution::Ignore] {
        let mut world = world(Evolution::AddColumns);
        world.put("a", MINUTE, &message(1, r#""mood":1"#)).await;
        world.load().await;
        world.settings.evolution = evolution;
        world.put("a", 0, &message(2, r#""mood":2,"effect":3"#)).await;
        world.put("a", -1, &message(3, r#""mood":"x""#)).await;
        world.load().await;
        assert_eq!(grown(&world).await, ["msg_mood"]);
        let rows = documents(&world).await;
        assert_eq!((&rows[1]["msg_mood"], &rows[1]["_rescued_data"]), (&json!(2), &Value::Null));
        assert_eq!(rows[2]["_rescued_data"], r#"{"mood":"x"}"#);
    }
}

#[tokio::test]
async fn data_in_the_place_of_names_does_not_make_columns_without_end() {
    let world = world(Evolution::AddColumns);
    let wide: Vec<String> = (0..2_000).map(|number| format!("\"k{number}\":1")).collect();
    world.put("a", MINUTE, &message(1, &wide.join(","))).await;
    assert_eq!(world.load().await.rows, 1);
    assert!(grown(&world).await.is_empty());
    let rescued = documents(&world).await[0]["_rescued_data"].as_str().unwrap().len();
    assert!(rescued > 10_000, "they are kept");
}

#[tokio::test]
async fn a_foreign_column_under_the_prefix_is_left_alone() {
    let mut world = world(Evolution::AddColumns);
    let mut fields: Vec<_> = world.schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("msg_blob", DataType::Binary, true)));
    fields.push(Arc::new(Field::new("MSG_mood", DataType::Utf8, true)));
    world.schema = Arc::new(Schema::new(fields));
    world.put("a", MINUTE, &message(1, r#""blob":1,"mood":2"#)).await;
    assert_eq!(world.load().await.rows, 1);
    assert_eq!(grown(&world).await, ["msg_blob"]);
    assert_eq!(documents(&world).await[0]["_rescued_data"], r#"{"blob":1,"mood":2}"#);
}
