//! Opening: what is made, what is widened, what is refused.

use super::*;
use crate::error::ErrorKind;
use crate::table::delta::delta_table;

const PROTOCOL: &str = r#"{"protocol":{"minReaderVersion":1,"minWriterVersion":2}}"#;

fn metadata(fields: &str, partitions: &str) -> String {
    let schema = serde_json::to_string(&format!(r#"{{"type":"struct","fields":[{fields}]}}"#)).unwrap();
    format!(
        r#"{{"metaData":{{"id":"t","format":{{"provider":"parquet","options":{{}}}},"schemaString":{schema},"partitionColumns":[{partitions}],"configuration":{{}}}}}}"#
    )
}

async fn refused(commit: &str) -> String {
    let storage = Storage::memory();
    put_commit(&storage, 0, commit).await;
    let error = LakeTable::open(&storage, &spec(), &Clock::system()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    error.to_string()
}

#[tokio::test]
async fn what_we_do_not_understand_is_refused_by_name() {
    let id = r#"{"name":"id","type":"long","nullable":true,"metadata":{}}"#;
    let features = r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"],"writerFeatures":["deletionVectors","appendOnly"]}}"#;
    let text = refused(&format!("{features}\n{}", metadata(id, ""))).await;
    assert!(text.contains("deletionVectors") && text.contains("bronze/messages"), "{text}");
    let old = r#"{"protocol":{"minReaderVersion":2,"minWriterVersion":5}}"#;
    assert!(refused(&format!("{old}\n{}", metadata(id, ""))).await.contains("writer version 5"));
    assert!(refused(&format!("{PROTOCOL}\n{}", metadata(id, "\"id\""))).await.contains("partitioned by id"));
    let ruled = r#"{"name":"id","type":"long","nullable":true,"metadata":{"delta.invariants":"id > 0"}}"#;
    assert!(refused(&format!("{PROTOCOL}\n{}", metadata(ruled, ""))).await.contains("column id"));
}

#[tokio::test]
async fn a_column_of_another_type_is_refused_with_table_column_and_both_types() {
    let text = r#"{"name":"text","type":"integer","nullable":true,"metadata":{}}"#;
    let message = refused(&format!("{PROTOCOL}\n{}", metadata(text, ""))).await;
    assert!(
        message.contains("column text of table bronze/messages has type integer, but string was expected"),
        "{message}"
    );
    let shouted = r#"{"name":"TEXT","type":"string","nullable":true,"metadata":{}}"#;
    assert!(refused(&format!("{PROTOCOL}\n{}", metadata(shouted, ""))).await.contains("differ only in case"));
}

#[tokio::test]
async fn a_log_without_its_beginning_and_without_a_checkpoint_is_corrupt() {
    let storage = Storage::memory();
    put_commit(&storage, 7, "{}").await;
    let error = LakeTable::open(&storage, &spec(), &Clock::system()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("gap"), "{error}");
}

#[tokio::test]
async fn a_table_that_is_not_there_is_none() {
    assert!(LakeTable::open_existing(&Storage::memory(), &table_path(), &Clock::system()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_openers_make_one_table() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Storage::open(folder.path().to_str().unwrap()).unwrap();
    let opens = (0..8).map(|_| {
        let storage = storage.clone();
        tokio::spawn(async move { open(&storage, &Clock::system()).await.table_id().to_owned() })
    });
    let opened: Vec<String> = futures::future::join_all(opens).await.into_iter().map(Result::unwrap).collect();
    assert!(opened.iter().all(|id| *id == opened[0]));
}

#[tokio::test]
async fn a_new_table_reads_with_every_reader_and_is_kept_append_only() {
    let storage = Storage::memory();
    let table = open(&storage, &Clock::system()).await;
    assert_eq!((table.version(), table.schema()), (0, spec().schema));
    assert!(table.state.txns.is_empty());
    let theirs = delta_table(&storage, &table_path()).await.unwrap();
    let snapshot = theirs.snapshot().unwrap();
    let (protocol, metadata) = (snapshot.protocol(), snapshot.metadata());
    assert_eq!((protocol.min_reader_version(), protocol.min_writer_version()), (1, 2));
    assert_eq!(metadata.configuration()["delta.appendOnly"], "true");
    assert_eq!(metadata.configuration()["delta.enableExpiredLogCleanup"], "false");
    assert!(!metadata.configuration().contains_key("delta.setTransactionRetentionDuration"));
    assert_eq!(metadata.id(), table.table_id());
    assert_eq!(metadata.name(), Some("messages"));
}

#[tokio::test]
async fn an_earlier_table_gets_the_new_columns_and_keeps_its_own() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let earlier = TableSpec { schema: columns(&[("id", DataType::Int64), ("own", DataType::Utf8)]), ..spec() };
    LakeTable::open(&storage, &earlier, &clock).await.unwrap();
    let mut table = open(&storage, &clock).await;
    assert_eq!(table.version(), 1);
    let names: Vec<_> = table.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["id", "own", "text"]);
    assert_eq!(append(&mut table, STAGE, rows([1])).await, CommitOutcome::Committed { version: 2 });
    assert_eq!(open(&storage, &clock).await.version(), 2, "nothing is left to add");
    let file = &table.files().await.unwrap()[0];
    let read = table.read_file(file, None).await.unwrap();
    assert_eq!((read.num_columns(), read.column(1).null_count()), (3, 1));
}

#[tokio::test]
async fn a_cleaned_log_opens_from_its_checkpoint_with_every_txn_even_when_the_hint_is_gone() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let mut table = open(&storage, &clock).await;
    let progress = vec![(position("edge"), 77)];
    let fence = Fence { role: STAGE, seen: 0 };
    table.append(Append { rows: Some(rows([1, 2])), fence, progress }).await.unwrap();
    append(&mut table, STAGE, rows([3])).await;
    assert_eq!(checkpoint_and_clean(&storage).await, 2);
    append(&mut table, STAGE, rows([4])).await;
    for hint in [true, false] {
        if !hint {
            storage.delete(&StorageKey::LastCheckpoint { table: table_path() }.path()).await.unwrap();
        }
        let opened = open(&storage, &clock).await;
        assert_eq!((opened.version(), opened.progress()), (3, table.progress()));
        assert_eq!((opened.fence(STAGE), opened.txn(&position("edge"))), (3, Some(77)));
        assert_eq!(opened.table_id(), table.table_id());
        assert_eq!(all_ids(&storage).await, [1, 2, 3, 4]);
    }
}

#[tokio::test]
async fn a_hint_that_makes_no_sense_is_no_hint() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let mut table = open(&storage, &clock).await;
    append(&mut table, STAGE, rows([1])).await;
    let hint_path = StorageKey::LastCheckpoint { table: table_path() }.path();
    for hint in ["", "{", r#"{"version":-1}"#, r#"{"version":1,"parts":4294967295}"#, r#"{"version":999}"#] {
        storage.put_overwrite(&hint_path, hint.into()).await.unwrap();
        assert_eq!(open(&storage, &clock).await.version(), 1, "{hint}");
    }
}

#[tokio::test]
async fn a_hint_that_points_below_a_cleaned_log_is_overruled_by_the_listing() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let mut table = open(&storage, &clock).await;
    append(&mut table, STAGE, rows([1])).await;
    let hint_path = StorageKey::LastCheckpoint { table: table_path() }.path();
    checkpoint_and_clean(&storage).await;
    let old_hint = storage.get(&hint_path).await.unwrap().unwrap();
    for id in 2..6 {
        append(&mut table, STAGE, rows([id])).await;
    }
    checkpoint_and_clean(&storage).await;
    storage.put_overwrite(&hint_path, old_hint).await.unwrap();
    let opened = open(&storage, &clock).await;
    assert_eq!((opened.version(), opened.fence(STAGE)), (5, 5));
    assert_eq!(all_ids(&storage).await, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn files_are_those_of_the_version_this_handle_has_seen() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let mut behind = open(&storage, &clock).await;
    append(&mut behind, STAGE, rows([1])).await;
    let mut ahead = open(&storage, &clock).await;
    append(&mut ahead, STAGE, rows([2])).await;
    assert_eq!((behind.files().await.unwrap().len(), ahead.files().await.unwrap().len()), (1, 2));
    let file = &behind.files().await.unwrap()[0];
    assert_eq!((file.num_records, &file.min_values["id"], &file.max_values["id"]), (Some(1), &1.into(), &1.into()));
}

#[tokio::test]
async fn files_of_a_version_that_was_cleaned_away_ask_for_opening_again() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let (behind, mut ahead) = (open(&storage, &clock).await, open(&storage, &clock).await);
    append(&mut ahead, STAGE, rows([1])).await;
    checkpoint_and_clean(&storage).await;
    let error = behind.files().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("open it again"), "{error}");
    assert_eq!(ahead.files().await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_shipped_schemas_make_tables_and_a_timestamp_without_a_zone_does_not() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    for file in [crate::schema::MESSAGES, crate::schema::RESPONSES, crate::schema::REPLIES] {
        let schema = crate::schema::built_in(file).unwrap();
        let spec = TableSpec { path: Path::from(file), schema: Arc::clone(&schema), stats_columns: vec![], id: None };
        assert_eq!(LakeTable::open(&storage, &spec, &clock).await.unwrap().schema(), schema);
        delta_table(&storage, &spec.path).await.unwrap();
    }
    let unzoned = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None);
    let spec = TableSpec { schema: columns(&[("at", unzoned)]), ..spec() };
    let error = LakeTable::open(&storage, &spec, &clock).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Configuration && error.to_string().contains("zone UTC"), "{error}");
}
