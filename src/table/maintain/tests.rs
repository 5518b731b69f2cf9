//! Maintenance beside appends, readers and other writers.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use serde_json::json;

use super::*;
use crate::error::ErrorKind;
use crate::id::{BotId, Name};
use crate::storage::StorageKey;
use crate::table::commit::Provenance;
use crate::table::log::{Action, Add, Remove};
use crate::table::snapshot::Want;
use crate::table::{Append, CommitOutcome, Fence, TableRole, TableSpec, Tail, TailStep, TxnId};

const STAGE: TableRole = TableRole::Bronze;
const DAY_MICROS: i64 = 86_400_000_000;

fn position(lane: i64) -> TxnId {
    TxnId::Position { pipeline: Name::cleaned("p"), bot_id: BotId(1), lane: Name::cleaned(&lane.to_string()) }
}

pub(super) fn path() -> Path {
    Path::from("t")
}

pub(super) fn now() -> MaintainOptions {
    MaintainOptions { compact_at_files: 2, checkpoint_every: 1, ..MaintainOptions::default() }
}

/// Only the log's clean-up and vacuum.
fn only_clean(reader_watermark: Option<i64>) -> MaintainOptions {
    MaintainOptions {
        compact_at_files: usize::MAX,
        checkpoint_every: i64::MAX,
        reader_watermark,
        ..MaintainOptions::default()
    }
}

pub(super) fn only_compact() -> MaintainOptions {
    MaintainOptions { checkpoint_every: i64::MAX, ..now() }
}

/// Only a checkpoint of the head.
fn only_checkpoint() -> MaintainOptions {
    MaintainOptions { compact_at_files: usize::MAX, clean: false, ..now() }
}

pub(super) async fn open(storage: &Storage, clock: &Clock) -> LakeTable {
    let schema = Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("text", DataType::Utf8, true)]);
    let spec = TableSpec { path: path(), schema: Arc::new(schema), stats_columns: vec!["id".to_owned()], id: None };
    LakeTable::open(storage, &spec, clock).await.unwrap()
}

async fn append(table: &mut LakeTable, id: i64) {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(vec![id, -id]))),
        ("text", Arc::new(StringArray::from(vec![Some(format!("text {id}")), None]))),
    ];
    let rows = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, values)| (name, values, true)));
    let rows = Some(rows.unwrap());
    for _ in 0..8 {
        let fence = Fence { role: STAGE, seen: table.fence(STAGE) };
        let progress = vec![(position(id % 3), id)];
        let outcome = table.append(Append { rows: rows.clone(), fence, progress }).await.unwrap();
        match outcome {
            CommitOutcome::Committed { .. } => return,
            // The clock was stepped: what was known is known anew.
            CommitOutcome::Stale => *table = open(&table.log.storage, &table.clock).await,
            other => panic!("{other:?}"),
        }
    }
    panic!("the append never landed");
}

pub(super) async fn filled(storage: &Storage, clock: &Clock, count: i64) -> LakeTable {
    let mut table = open(storage, clock).await;
    for id in 1..=count {
        append(&mut table, id).await;
    }
    table
}

pub(super) async fn run(storage: &Storage, options: &MaintainOptions, clock: &Clock) -> MaintainSummary {
    maintain(storage, &path(), options, clock, &CancellationToken::new()).await.unwrap().unwrap_or_default().1
}

/// All rows of the table as somebody who has just come reads them, in a fixed order.
pub(super) async fn rows(storage: &Storage) -> Vec<(i64, Option<String>)> {
    let table = LakeTable::open_existing(storage, &path(), &Clock::system()).await.unwrap().unwrap();
    let mut rows = Vec::new();
    for file in table.files().await.unwrap() {
        let batch = table.read_file(&file, None).await.unwrap();
        assert_eq!(file.num_records, Some(i64::try_from(batch.num_rows()).unwrap()));
        let ids = batch.column(0).as_primitive::<Int64Type>().values().iter().copied();
        rows.extend(ids.zip(batch.column(1).as_string::<i32>().iter().map(|text| text.map(str::to_owned))));
    }
    rows.sort();
    rows
}

pub(super) fn expected(count: i64) -> Vec<(i64, Option<String>)> {
    let mut rows: Vec<_> = (1..=count).flat_map(|id| [(id, Some(format!("text {id}"))), (-id, None)]).collect();
    rows.sort();
    rows
}

async fn tail_ids(tail: &mut Tail) -> Vec<i64> {
    let mut ids = Vec::new();
    loop {
        match tail.next().await.unwrap() {
            TailStep::AtHead => return ids,
            TailStep::Lost | TailStep::Replaced => panic!("lost after version {}", tail.version()),
            TailStep::Rewritten { version, .. } => panic!("version {version} is not only rows that were moved"),
            TailStep::Rows { batches, .. } => {
                for batch in batches {
                    ids.extend(batch.column(0).as_primitive::<Int64Type>().values().iter().filter(|id| **id > 0));
                }
            }
        }
    }
}

async fn names(storage: &Storage) -> Vec<String> {
    let objects = storage.list_after(&path(), None, 10_000).await.unwrap();
    objects.into_iter().map(|object| object.location.to_string()).collect()
}

async fn data_files(storage: &Storage) -> usize {
    names(storage).await.iter().filter(|name| !name.contains("_delta_log") && name.ends_with(".parquet")).count()
}

async fn commits(storage: &Storage) -> Vec<i64> {
    let version = |name: String| name.rsplit('/').next()?.strip_suffix(".json")?.parse().ok();
    names(storage).await.into_iter().filter_map(version).collect()
}

/// Compacts what a handle sees, however far the table has come since.
async fn compact(work: &Work<'_>, table: &mut LakeTable) -> Result<(usize, usize)> {
    let files = table.files().await?;
    work.compact(table, files).await
}

/// Takes a file out of the table as another engine would.
async fn remove_file(storage: &Storage, path_of_file: &str) {
    let mut other = LakeTable::open_existing(storage, &path(), &Clock::system()).await.unwrap().unwrap();
    let file = other.files().await.unwrap().into_iter().find(|file| file.path == path_of_file).unwrap();
    let provenance = Provenance { operation: "DELETE", parameters: json!({}), metrics: json!({}), blind_append: false };
    other.land(&provenance, |_, _| Ok(Some(vec![Action::Remove(Remove::of(&file, 0, true))]))).await.unwrap();
}

#[tokio::test]
async fn a_retention_below_a_day_is_refused() {
    let (storage, clock, stop) = (Storage::memory(), Clock::system(), CancellationToken::new());
    let short = Duration::from_secs(3_600);
    for options in
        [MaintainOptions { log_retention: short, ..now() }, MaintainOptions { vacuum_retention: short, ..now() }]
    {
        let error = maintain(&storage, &path(), &options, &clock, &stop).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let allowed = MaintainOptions { allow_short_retention: true, ..options };
        assert_eq!(run(&storage, &allowed, &clock).await, MaintainSummary::default());
    }
}

#[tokio::test]
async fn nothing_is_begun_after_a_stop() {
    let (storage, clock, stop) = (Storage::memory(), Clock::system(), CancellationToken::new());
    filled(&storage, &clock, 5).await;
    stop.cancel();
    let done = maintain(&storage, &path(), &now(), &clock, &stop).await.unwrap();
    assert_eq!(done.unwrap().1, MaintainSummary::default());
}

#[tokio::test]
async fn compaction_changes_no_row_and_a_second_one_finds_nothing_to_do() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    filled(&storage, &clock, 9).await;
    let summary = run(&storage, &only_compact(), &clock).await;
    assert_eq!((summary.files_compacted, summary.files_written), (9, 1));
    assert_eq!(rows(&storage).await, expected(9));
    let table = open(&storage, &clock).await;
    let file = table.files().await.unwrap().remove(0);
    assert_eq!((&file.min_values["id"], &file.max_values["id"]), (&json!(-9), &json!(9)));
    assert_eq!(table.fence(STAGE), 9);
    assert_eq!(run(&storage, &only_compact(), &clock).await, MaintainSummary::default());
}

#[tokio::test]
async fn groups_stay_below_the_target() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let table = filled(&storage, &clock, 12).await;
    let largest = table.files().await.unwrap().iter().map(|file| file.size_bytes).max().unwrap();
    let target_bytes = u64::try_from(largest).unwrap() * 4;
    let summary = run(&storage, &MaintainOptions { target_bytes, ..only_compact() }, &clock).await;
    assert_eq!((summary.files_compacted, summary.files_written), (12, 3));
    assert_eq!(rows(&storage).await, expected(12));
}

#[tokio::test]
async fn files_without_a_newer_column_are_compacted_with_nulls() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let mut table = filled(&storage, &clock, 2).await;
    let wide: Vec<(&str, ArrayRef)> =
        vec![("id", Arc::new(Int64Array::from(vec![3]))), ("new", Arc::new(Int64Array::from(vec![7])))];
    let wide = RecordBatch::try_from_iter(wide).unwrap();
    let fence = Fence { role: STAGE, seen: 2 };
    table.append(Append { rows: Some(wide), fence, progress: Vec::new() }).await.unwrap();
    assert_eq!(run(&storage, &only_compact(), &clock).await.files_compacted, 3);
    let table = open(&storage, &clock).await;
    let file = table.files().await.unwrap().remove(0);
    let batch = table.read_file(&file, Some(&["id", "new"])).await.unwrap();
    let new = batch.column(1).as_primitive::<Int64Type>();
    assert_eq!((batch.num_rows(), new.iter().flatten().collect::<Vec<_>>()), (5, vec![7]));
}

#[tokio::test]
async fn a_compaction_gives_up_when_another_writer_removed_an_input() {
    let (storage, clock, stop) = (Storage::memory(), Clock::system(), CancellationToken::new());
    filled(&storage, &clock, 4).await;
    // The handle is behind: its plan meets the other's commit as a lost race.
    let mut behind = LakeTable::open_existing(&storage, &path(), &clock).await.unwrap().unwrap();
    let input = behind.files().await.unwrap().remove(0);
    remove_file(&storage, &input.path).await;
    let options = only_compact();
    let work = Work { log: TableLog::new(&storage, &path()), options: &options, clock: &clock, stop: &stop };
    assert_eq!(compact(&work, &mut behind).await.unwrap(), (0, 0));
    assert_eq!(rows(&storage).await.len(), 6);
    assert_eq!(data_files(&storage).await, 5, "the new file is left for vacuum");
    // Anew it goes.
    assert_eq!(run(&storage, &only_compact(), &clock).await.files_compacted, 3);
    assert_eq!(rows(&storage).await.len(), 6);
}

#[tokio::test]
async fn a_compaction_gives_up_when_the_columns_have_changed() {
    let (storage, clock, stop) = (Storage::memory(), Clock::system(), CancellationToken::new());
    let mut table = filled(&storage, &clock, 3).await;
    let mut behind = LakeTable::open_existing(&storage, &path(), &clock).await.unwrap().unwrap();
    let wide = RecordBatch::try_from_iter([("new", Arc::new(Int64Array::from(vec![7])) as ArrayRef)]).unwrap();
    let fence = Fence { role: STAGE, seen: 3 };
    table.append(Append { rows: Some(wide), fence, progress: Vec::new() }).await.unwrap();
    let options = only_compact();
    let work = Work { log: TableLog::new(&storage, &path()), options: &options, clock: &clock, stop: &stop };
    assert_eq!(compact(&work, &mut behind).await.unwrap(), (0, 0));
    assert_eq!(run(&storage, &only_compact(), &clock).await.files_compacted, 4);
}

#[tokio::test]
async fn two_compactions_of_the_same_files_double_no_row() {
    let (storage, clock, stop) = (Storage::memory(), Clock::system(), CancellationToken::new());
    filled(&storage, &clock, 6).await;
    let mut behind = LakeTable::open_existing(&storage, &path(), &clock).await.unwrap().unwrap();
    assert_eq!(run(&storage, &only_compact(), &clock).await.files_compacted, 6);
    let options = only_compact();
    let work = Work { log: TableLog::new(&storage, &path()), options: &options, clock: &clock, stop: &stop };
    assert_eq!(compact(&work, &mut behind).await.unwrap(), (0, 0));
    assert_eq!(rows(&storage).await, expected(6));
}

#[tokio::test]
async fn what_was_passed_on_the_way_to_one_group_counts_for_the_next() {
    let (storage, clock, stop) = (Storage::memory(), Clock::system(), CancellationToken::new());
    filled(&storage, &clock, 12).await;
    let mut behind = LakeTable::open_existing(&storage, &path(), &clock).await.unwrap().unwrap();
    let mut files = behind.files().await.unwrap();
    files.sort_by_key(|file| (file.modification_millis, file.path.clone()));
    // Somebody moves a file of the last group, which the first group's commit does not touch.
    let moved = files.pop().unwrap();
    let target_bytes = u64::try_from(moved.size_bytes).unwrap() * 4;
    let bytes = storage.get(&moved.location(&path()).unwrap()).await.unwrap().unwrap();
    storage.put_new(&path().join("moved.parquet"), bytes).await.unwrap();
    let stats = r#"{"numRecords":2}"#.to_owned();
    let actions =
        vec![Action::Remove(Remove::of(&moved, 0, false)), Action::Add(Add::new("moved.parquet", 1, 0, stats, false))];
    let mut other = open(&storage, &clock).await;
    let provenance =
        Provenance { operation: "OPTIMIZE", parameters: json!({}), metrics: json!({}), blind_append: false };
    other.land(&provenance, |_, _| Ok(Some(actions.clone()))).await.unwrap();
    let options = MaintainOptions { target_bytes, ..only_compact() };
    let work = Work { log: TableLog::new(&storage, &path()), options: &options, clock: &clock, stop: &stop };
    let (compacted, written) = compact(&work, &mut behind).await.unwrap();
    assert_eq!((compacted, written), (11, 3));
    assert_eq!(rows(&storage).await, expected(12));
}

#[tokio::test]
async fn rows_stay_in_the_order_in_which_they_came_and_as_old_as_they_were() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let mut table = open(&storage, &clock).await;
    for id in 1..=5 {
        append(&mut table, id).await;
        clock.step(1_000_000);
    }
    let newest = table.files().await.unwrap().iter().map(|file| file.modification_millis).max();
    run(&storage, &only_compact(), &clock).await;
    let table = open(&storage, &clock).await;
    let files = table.files().await.unwrap();
    assert_eq!((files.len(), Some(files[0].modification_millis)), (1, newest));
    let batch = table.read_file(&files[0], Some(&["id"])).await.unwrap();
    assert_eq!(batch.column(0).as_primitive::<Int64Type>().values(), &[1, -1, 2, -2, 3, -3, 4, -4, 5, -5]);
}

#[tokio::test]
async fn a_compaction_lands_after_the_appends_it_races_with() {
    let (storage, clock, stop) = (Storage::memory(), Clock::system(), CancellationToken::new());
    let mut table = filled(&storage, &clock, 6).await;
    let mut behind = LakeTable::open_existing(&storage, &path(), &clock).await.unwrap().unwrap();
    append(&mut table, 7).await;
    append(&mut table, 8).await;
    let options = only_compact();
    let work = Work { log: TableLog::new(&storage, &path()), options: &options, clock: &clock, stop: &stop };
    assert_eq!(compact(&work, &mut behind).await.unwrap(), (6, 1));
    append(&mut table, 9).await;
    assert_eq!(rows(&storage).await, expected(9));
}

async fn tail_beside_maintenance(storage: &Storage) {
    let clock = Clock::system();
    let mut table = open(storage, &clock).await;
    let mut tail = Tail::new(storage, &path(), -1, &["id"], &clock);
    let mut seen = Vec::new();
    let appending = async {
        for id in 1..=40 {
            append(&mut table, id).await;
            tokio::task::yield_now().await;
        }
    };
    let reading = async {
        for _ in 0..40 {
            seen.extend(tail_ids(&mut tail).await);
            tokio::task::yield_now().await;
        }
    };
    let maintaining = async {
        for _ in 0..5 {
            run(storage, &now(), &clock).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(appending, reading, maintaining);
    // Everything is old now, and what the reader has not handled is kept.
    clock.step(9 * DAY_MICROS);
    let amid = run(storage, &MaintainOptions { reader_watermark: Some(tail.version()), ..now() }, &clock).await;
    seen.extend(tail_ids(&mut tail).await);
    assert_eq!(seen, (1..=40).collect::<Vec<_>>());
    let behind = run(storage, &MaintainOptions { reader_watermark: Some(tail.version()), ..now() }, &clock).await;
    assert!(amid.log_entries_deleted + behind.log_entries_deleted > 0, "clean-up took nothing, so this shows nothing");
    assert_eq!(rows(storage).await, expected(40));
}

#[tokio::test]
async fn a_tail_sees_each_row_once_beside_maintenance() {
    tail_beside_maintenance(&Storage::memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_sees_each_row_once_beside_maintenance_on_a_disk() {
    let folder = tempfile::tempdir().unwrap();
    tail_beside_maintenance(&Storage::open(folder.path().to_str().unwrap()).unwrap()).await;
}

#[tokio::test]
async fn a_checkpoint_holds_every_txn_and_is_made_once() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let table = filled(&storage, &clock, 7).await;
    let every = |checkpoint_every| MaintainOptions { checkpoint_every, ..only_clean(None) };
    assert_eq!(run(&storage, &every(9), &clock).await.checkpoint, None);
    assert_eq!(run(&storage, &every(8), &clock).await.checkpoint, Some(7));
    let read = crate::table::checkpoint::actions(
        storage
            .get(&Checkpoint { version: 7, parts: None }.paths(&Path::from("t/_delta_log"))[0])
            .await
            .unwrap()
            .unwrap(),
        false,
    );
    let txns = read.unwrap().into_iter().filter_map(|action| match action {
        Action::Txn(txn) => Some((txn.app_id, txn.version)),
        _ => None,
    });
    assert_eq!(txns.collect::<std::collections::BTreeMap<_, _>>(), table.state.txns);
    assert_eq!(table.state.txns.len(), 4);
    assert_eq!(run(&storage, &every(1), &clock).await, MaintainSummary::default());
    // A lost hint is no reason to make the same checkpoint every minute.
    storage.delete(&StorageKey::LastCheckpoint { table: path() }.path()).await.unwrap();
    assert_eq!(run(&storage, &every(1), &clock).await, MaintainSummary::default());
}

#[tokio::test]
async fn after_clean_up_and_vacuum_everybody_reads_the_same_rows() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let mut table = filled(&storage, &clock, 5).await;
    assert_eq!(run(&storage, &now(), &clock).await.checkpoint, Some(6));
    for id in 6..=8 {
        append(&mut table, id).await;
    }
    assert_eq!(commits(&storage).await, (0..=9).collect::<Vec<_>>(), "nothing is old");
    clock.step(8 * DAY_MICROS);
    let summary = run(&storage, &only_clean(None), &clock).await;
    assert_eq!((summary.log_entries_deleted, summary.files_vacuumed), (6, 5));
    assert_eq!(commits(&storage).await, (6..=9).collect::<Vec<_>>());
    assert_eq!(rows(&storage).await, expected(8));
    let delta = delta::delta_table(&storage, &path()).await.unwrap();
    assert_eq!((delta.version(), delta.get_file_uris().unwrap().count()), (Some(9), 4));
    append(&mut table, 9).await;
    assert_eq!((table.fence(STAGE), rows(&storage).await), (9, expected(9)));
    // The older checkpoint goes once a newer one is named.
    assert_eq!(run(&storage, &now(), &clock).await.checkpoint, Some(11));
    clock.step(8 * DAY_MICROS);
    run(&storage, &only_clean(None), &clock).await;
    let checkpoints = |names: Vec<String>| names.into_iter().filter(|name| name.contains(".checkpoint.")).count();
    assert_eq!(checkpoints(names(&storage).await), 1);
    assert_eq!(rows(&storage).await, expected(9));
}

#[tokio::test]
async fn nothing_is_cleaned_on_the_word_of_a_hint_to_what_is_gone() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    filled(&storage, &clock, 3).await;
    let hint = StorageKey::LastCheckpoint { table: path() }.path();
    storage.put_overwrite(&hint, r#"{"version":3,"size":1}"#.into()).await.unwrap();
    clock.step(60 * DAY_MICROS);
    assert_eq!(run(&storage, &only_clean(None), &clock).await.log_entries_deleted, 0);
    assert_eq!(rows(&storage).await, expected(3));
}

#[tokio::test]
async fn nothing_is_cleaned_on_the_word_of_a_checkpoint_that_cannot_be_read() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    filled(&storage, &clock, 3).await;
    assert_eq!(run(&storage, &only_checkpoint(), &clock).await.checkpoint, Some(3));
    let torn = Checkpoint { version: 3, parts: None }.paths(&Path::from("t/_delta_log")).remove(0);
    storage.put_overwrite(&torn, "PAR1".into()).await.unwrap();
    clock.step(60 * DAY_MICROS);
    let (options, stop) = (only_clean(None), CancellationToken::new());
    let work = Work { log: TableLog::new(&storage, &path()), options: &options, clock: &clock, stop: &stop };
    assert_eq!(work.clean_log().await.unwrap(), 0);
}

#[tokio::test]
async fn every_version_in_the_log_stands_upon_a_checkpoint_in_it() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let mut table = open(&storage, &clock).await;
    for id in 1..=9 {
        append(&mut table, id).await;
        if id % 3 == 0 {
            assert_eq!(run(&storage, &only_checkpoint(), &clock).await.checkpoint, Some(id));
        }
    }
    clock.step(8 * DAY_MICROS);
    assert_eq!(run(&storage, &only_clean(Some(1)), &clock).await.log_entries_deleted, 0, "none is before version 2");
    assert_eq!(run(&storage, &only_clean(Some(4)), &clock).await.log_entries_deleted, 3);
    assert_eq!(commits(&storage).await, (3..=9).collect::<Vec<_>>());
    let mut delta = delta::delta_table(&storage, &path()).await.unwrap();
    for version in 3..=9 {
        delta.load_version(version).await.unwrap();
    }
    assert_eq!(run(&storage, &only_clean(None), &clock).await.log_entries_deleted, 8, "six commits, two checkpoints");
    assert_eq!((commits(&storage).await, rows(&storage).await), (vec![9], expected(9)));
    append(&mut table, 10).await;
    assert_eq!(rows(&storage).await, expected(10));
}

#[tokio::test]
async fn a_clean_up_that_is_cut_short_leaves_a_table_that_can_be_read() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let mut table = filled(&storage, &clock, 3).await;
    run(&storage, &only_checkpoint(), &clock).await;
    append(&mut table, 4).await;
    run(&storage, &only_checkpoint(), &clock).await;
    let log = Path::from("t/_delta_log");
    for entry in storage.list_after(&log, None, 100).await.unwrap() {
        if entry.location.as_ref().contains("00004.") {
            break;
        }
        storage.delete(&entry.location).await.unwrap();
        assert_eq!(rows(&storage).await, expected(4));
        assert_eq!(delta::delta_table(&storage, &path()).await.unwrap().version(), Some(4));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_finds_what_it_has_still_to_read_for_thirty_days() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let mut table = filled(&storage, &clock, 2).await;
    run(&storage, &only_checkpoint(), &clock).await;
    for id in 3..=6 {
        append(&mut table, id).await;
    }
    run(&storage, &now(), &clock).await;
    clock.step(8 * DAY_MICROS);
    let summary = run(&storage, &only_clean(Some(2)), &clock).await;
    // Versions 0 and 1, for version 3 stands upon version 2; and the files of versions 1 and 2.
    assert_eq!((summary.log_entries_deleted, summary.files_vacuumed), (2, 2));
    let mut tail = Tail::new(&storage, &path(), 2, &["id"], &clock);
    assert_eq!(tail_ids(&mut tail).await, [3, 4, 5, 6]);
    clock.step(23 * DAY_MICROS);
    let summary = run(&storage, &only_clean(Some(2)), &clock).await;
    assert_eq!((summary.log_entries_deleted, summary.files_vacuumed), (6, 4), "five commits, a checkpoint");
    assert_eq!(commits(&storage).await, [7]);
    assert_eq!(rows(&storage).await, expected(6));
    let delta = delta::delta_table(&storage, &path()).await.unwrap();
    let txn =
        delta.snapshot().unwrap().transaction_version(delta.log_store().as_ref(), TxnId::Fence(STAGE)).await.unwrap();
    assert_eq!(txn, Some(6));
    let mut late = Tail::new(&storage, &path(), 2, &["id"], &clock);
    assert!(matches!(late.next().await.unwrap(), TailStep::Lost));
}

#[tokio::test]
async fn vacuum_counts_from_the_removal_and_leaves_alone_what_is_not_ours() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    filled(&storage, &clock, 4).await;
    let others = ["t/orphan.parquet", "t/nested/part-1.parquet", "t/_part.parquet", "t/a b.parquet", "t/note.txt"];
    for other in others {
        storage.put_new(&Path::from(other), "x".into()).await.unwrap();
    }
    assert_eq!(run(&storage, &only_clean(None), &clock).await.files_vacuumed, 0);
    clock.step(8 * DAY_MICROS);
    // The inputs are eight days old when they leave the table; the orphan goes.
    let summary = run(&storage, &now(), &clock).await;
    assert_eq!((summary.files_compacted, summary.files_vacuumed), (4, 1));
    clock.step(6 * DAY_MICROS);
    assert_eq!(run(&storage, &only_clean(None), &clock).await.files_vacuumed, 0);
    clock.step(2 * DAY_MICROS);
    assert_eq!(run(&storage, &only_clean(None), &clock).await.files_vacuumed, 4);
    let left = names(&storage).await;
    assert!(others.iter().all(|other| left.iter().any(|name| name == other) == (*other != "t/orphan.parquet")));
    assert_eq!(rows(&storage).await, expected(4));
    let live = TableLog::new(&storage, &path()).snapshot(Want { files: true, at: None }).await.unwrap().unwrap();
    assert_eq!(live.files.len(), 1);
}
