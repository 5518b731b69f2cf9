//! Tables whose payload is a variant.

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use object_store::path::Path;
use parquet_variant::Variant;
use tokio_util::sync::CancellationToken;

use super::World;
use crate::clock::Clock;
use crate::error::ErrorKind;
use crate::json::variant::variant_of;
use crate::table::maintain::{MaintainOptions, maintain};

fn shown(json: &str) -> Option<String> {
    let (metadata, value) = variant_of(json)?;
    Some(format!("{:?}", Variant::try_new(&metadata, &value).unwrap()))
}

const SETTINGS: &str = "payload = true\npayload_type = \"variant\"";

/// The variants of a table, as debug shows them, by file and row.
async fn variants(world: &World) -> Vec<Option<String>> {
    let table = world.table().await;
    let mut found = Vec::new();
    for file in table.files().await.unwrap() {
        let columns = ["payload", "_source_file", "_source_row"];
        let rows = table.read_file(&file, Some(&columns)).await.unwrap();
        let (payload, files) = (rows.column(0).as_struct(), rows.column(1).as_string::<i32>());
        let (metadata, values) = (payload.column(0).as_binary::<i32>(), payload.column(1).as_binary::<i32>());
        for row in 0..rows.num_rows() {
            let shown = || format!("{:?}", Variant::try_new(metadata.value(row), values.value(row)).unwrap());
            let place = (files.value(row).to_owned(), rows.column(2).as_primitive::<Int64Type>().value(row));
            found.push((place, payload.is_valid(row).then(shown)));
        }
    }
    found.sort();
    found.into_iter().map(|(_, variant)| variant).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_variants_is_made_appended_to_compacted_and_opened_again() {
    let world = World::new();
    let records =
        ["{\"id\":1,\"user\":{\"name\":\"x\",\"tags\":[1.5,null]}}", "{\"id\":2,\"a\":1,\"a\":2}", "odd", "{\"id\":3}"];
    world.put("a.jsonl", records[..3].join("\n"));
    let loaded = world.load(SETTINGS).await.unwrap();
    assert_eq!((loaded.rows, loaded.rescued_rows, loaded.corrupt_rows), (3, 1, 1));
    world.put("b.jsonl", records[3]);
    world.load(SETTINGS).await.unwrap();
    let expected = [shown(records[0]), None, None, shown(records[3])];
    assert_eq!(variants(&world).await, expected);
    assert_eq!(world.values("_rescued_data").await[1], format!("{{\"payload\":{}}}", records[1]));
    let log = world.data().get(&Path::from("bronze/t/_delta_log/00000000000000000000.json")).await.unwrap().unwrap();
    let log = String::from_utf8(log.to_vec()).unwrap();
    let protocol = "{\"minReaderVersion\":3,\"minWriterVersion\":7,\"readerFeatures\":[\"variantType\"],\
                    \"writerFeatures\":[\"appendOnly\",\"variantType\"]}";
    assert!(log.contains(protocol) && log.contains(r#"\"name\":\"payload\",\"type\":\"variant\""#), "{log}");

    let options = MaintainOptions { compact_at_files: 2, checkpoint_every: 1, ..MaintainOptions::default() };
    let (data, stop, clock) = (world.data(), CancellationToken::new(), Clock::system());
    let done = maintain(&data, &Path::from("bronze/t"), &options, &clock, &stop).await.unwrap();
    assert_eq!(done.unwrap().1.files_compacted, 2);
    assert!(world.data().get(&Path::from("bronze/t/_delta_log/_last_checkpoint")).await.unwrap().is_some());
    assert_eq!(variants(&world).await, expected);
    world.put("c.jsonl", records[3]);
    assert_eq!(world.load(SETTINGS).await.unwrap().rows, 1);
    assert_eq!(variants(&world).await.len(), 5);
    crate::table::delta::delta_table(&world.data(), &Path::from("bronze/t")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_made_without_variants_gets_none() {
    for before in ["", "payload = true"] {
        let world = World::new();
        world.put("a.jsonl", "{\"id\":1}");
        world.load(before).await.unwrap();
        world.put("b.jsonl", "{\"id\":2}");
        let error = world.load(SETTINGS).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("column payload of table bronze/t"), "{error}");
        assert_eq!(world.rows().await.len(), 1);
    }
}
