//! Appending alone: what is put, what is counted, and every way in which an answer can be lost.

use super::faulty::{Fault, scripted};
use super::*;
use crate::error::ErrorKind;
use crate::table::delta::delta_table;

fn progress(seen: i64, lane: i64) -> Append {
    let fence = Fence { role: STAGE, seen };
    Append { rows: None, fence, progress: vec![(position("edge"), lane)] }
}

#[tokio::test]
async fn a_quiet_append_is_two_puts_and_nothing_else() {
    let clock = Clock::system();
    let (storage, script) = scripted(&Storage::memory(), &clock);
    let mut table = open(&storage, &clock).await;
    for id in 0..50 {
        script.counts();
        append(&mut table, STAGE, rows([id])).await;
        let looks = usize::from(id == 0);
        assert_eq!(script.counts(), (2, looks, 0), "only the first looks whether the table is there");
    }
    table.append(progress(50, 1)).await.unwrap();
    assert_eq!(script.counts(), (1, 0, 0));
    assert_eq!(table.fence(STAGE), 51);
    assert_eq!(table.refresh().await.unwrap(), []);
    assert_eq!(script.counts(), (0, 1, 0));
}

#[tokio::test]
async fn on_a_disk_each_put_looks_for_itself() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::system());
    let local = Storage::open(folder.path().to_str().unwrap()).unwrap();
    let (storage, script) = scripted(&local, &clock);
    let mut table = open(&storage, &clock).await;
    for id in 0..5 {
        script.counts();
        append(&mut table, STAGE, rows([id])).await;
        let looks = usize::from(id == 0);
        assert_eq!(script.counts(), (2, looks, 0), "a put looks at the head that this handle has put or seen");
    }
    table.append(progress(5, 1)).await.unwrap();
    assert_eq!(script.counts(), (1, 0, 0));
    let mut other = open(&storage, &clock).await;
    append(&mut other, OTHER, rows([6])).await;
    assert_eq!(table.refresh().await.unwrap().len(), 1);
    script.counts();
    append(&mut table, STAGE, rows([7])).await;
    assert_eq!(script.counts(), (2, 2, 0), "the head is somebody else's: an older commit says whose table it is");
    // An older commit may be cleaned up.
    clock.step(301_000_000);
    append(&mut table, STAGE, rows([8])).await;
    local.delete(&StorageKey::Commit { table: table_path(), version: 0 }.path()).await.unwrap();
    append(&mut other, OTHER, rows([9])).await;
    append(&mut table, STAGE, rows([10])).await;
}

#[tokio::test]
async fn progress_rides_along_and_never_decreases() {
    let mut table = open(&Storage::memory(), &Clock::system()).await;
    for (seen, lane) in [(0, 5), (1, 3), (2, 8)] {
        table.append(progress(seen, lane)).await.unwrap();
        assert_eq!(table.txn(&position("edge")), Some(lane.max(5)));
    }
    let twice = vec![(position("edge"), 20), (position("edge"), 10), (TxnId::Fence(STAGE), 99)];
    table.append(Append { progress: twice, ..progress(3, 0) }).await.unwrap();
    assert_eq!((table.txn(&position("edge")), table.fence(STAGE)), (Some(20), 4), "the fence is nobody's progress");
}

#[tokio::test]
async fn rows_are_there_for_delta_rs_with_their_statistics() {
    let folder = tempfile::tempdir().unwrap();
    for storage in [Storage::memory(), Storage::open(folder.path().to_str().unwrap()).unwrap()] {
        let mut table = open(&storage, &Clock::system()).await;
        append(&mut table, STAGE, rows(0..100)).await;
        append(&mut table, STAGE, rows(100..150)).await;
        let theirs = delta_table(&storage, &table_path()).await.unwrap();
        assert_eq!(theirs.version(), Some(2));
        let log_store = theirs.log_store();
        let value =
            theirs.snapshot().unwrap().transaction_version(log_store.as_ref(), TxnId::Fence(STAGE)).await.unwrap();
        assert_eq!(value, Some(2));
        let actions = theirs.snapshot().unwrap().snapshot().log_data();
        let counts: Vec<_> = actions.iter().map(|file| file.num_records()).collect();
        assert_eq!(counts.iter().flatten().sum::<usize>(), 150);
        assert_eq!(all_ids(&storage).await, (0..150).collect::<Vec<_>>());
    }
}

#[cfg(feature = "sql")]
#[tokio::test]
async fn sql_reads_the_rows() {
    use deltalake::datafusion::prelude::SessionContext;

    let folder = tempfile::tempdir().unwrap();
    for storage in [Storage::memory(), Storage::open(folder.path().to_str().unwrap()).unwrap()] {
        let mut table = open(&storage, &Clock::system()).await;
        append(&mut table, STAGE, rows(0..100)).await;
        append(&mut table, STAGE, rows(100..150)).await;
        let theirs = delta_table(&storage, &table_path()).await.unwrap();
        let context = SessionContext::new();
        theirs.update_datafusion_session(&context.state()).unwrap();
        context.register_table("bronze", theirs.table_provider().await.unwrap()).unwrap();
        let answer = context.sql("select count(*), sum(id) from bronze where id >= 100").await.unwrap();
        let answer = answer.collect().await.unwrap();
        let number = |column: usize| answer[0].column(column).as_primitive::<Int64Type>().value(0);
        assert_eq!((number(0), number(1)), (50, (100..150).sum::<i64>()));
    }
}

#[cfg(feature = "sql")]
#[tokio::test]
async fn no_reader_skips_a_file_that_holds_what_it_looks_for() {
    use arrow::array::TimestampMicrosecondArray;
    use arrow::datatypes::TimeUnit;
    use deltalake::datafusion::prelude::SessionContext;

    let (storage, clock) = (Storage::memory(), Clock::system());
    let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = columns(&[("at", instant), ("key", DataType::Utf8)]);
    let stats_columns = vec!["at".to_owned(), "key".to_owned()];
    let spec = TableSpec { schema: Arc::clone(&schema), stats_columns, ..spec() };
    let mut table = LakeTable::open(&storage, &spec, &clock).await.unwrap();
    let long = |end: &str| format!("{}{end}", "k".repeat(200));
    for (micros, end) in [(1_760_000_000_123_456_i64, "a"), (1_760_000_001_000_001, "b")] {
        let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![micros]).with_timezone("UTC"));
        let key: ArrayRef = Arc::new(StringArray::from(vec![long(end)]));
        append(&mut table, STAGE, RecordBatch::try_new(Arc::clone(&schema), vec![at, key]).unwrap()).await;
    }
    let theirs = delta_table(&storage, &table_path()).await.unwrap();
    let context = SessionContext::new();
    theirs.update_datafusion_session(&context.state()).unwrap();
    context.register_table("t", theirs.table_provider().await.unwrap()).unwrap();
    let moment = "timestamp '2025-10-09T08:53:20.123456Z'";
    for (condition, expected) in [
        (format!("at = {moment}"), 1),
        (format!("at > {moment}"), 1),
        (format!("at >= {moment}"), 2),
        (format!("at < {moment}"), 0),
        (format!("key = '{}'", long("b")), 1),
        (format!("key > '{}'", long("a")), 1),
        (format!("key >= '{}'", long("a")), 2),
    ] {
        let answer = context.sql(&format!("select count(*) from t where {condition}")).await.unwrap();
        let answer = answer.collect().await.unwrap();
        assert_eq!(answer[0].column(0).as_primitive::<Int64Type>().value(0), expected, "{condition}");
    }
}

#[tokio::test]
async fn new_columns_land_in_the_same_commit_as_the_rows_that_bring_them() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let mut table = open(&storage, &clock).await;
    let wider: Vec<(&str, ArrayRef)> =
        vec![("id", Arc::new(Int64Array::from(vec![1]))), ("new", Arc::new(StringArray::from(vec!["x"])))];
    let wider = RecordBatch::try_from_iter(wider).unwrap();
    assert_eq!(append(&mut table, STAGE, wider).await, CommitOutcome::Committed { version: 1 });
    assert_eq!(open(&storage, &clock).await.schema(), table.schema());
    assert_eq!(table.schema().fields().len(), 3);
    assert!(table.schema().field_with_name("new").unwrap().is_nullable());
    let theirs = delta_table(&storage, &table_path()).await.unwrap();
    assert_eq!(theirs.snapshot().unwrap().schema().fields().len(), 3);
}

#[tokio::test]
async fn rows_of_another_type_are_refused_and_nothing_is_put() {
    let clock = Clock::system();
    let (storage, script) = scripted(&Storage::memory(), &clock);
    let mut table = open(&storage, &clock).await;
    script.counts();
    let wrong = RecordBatch::try_from_iter([("id", Arc::new(StringArray::from(vec!["x"])) as ArrayRef)]).unwrap();
    let fence = Fence { role: STAGE, seen: 0 };
    let error = table.append(Append { rows: Some(wrong), fence, progress: vec![] }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("column id of table bronze/messages has type long, but string was expected"));
    assert_eq!(script.counts(), (0, 1, 0));
}

#[tokio::test]
async fn a_put_that_fails_is_tried_again_until_it_works() {
    let clock = Clock::system();
    let (storage, script) = scripted(&Storage::memory(), &clock);
    let mut table = open(&storage, &clock).await;
    script.files.lock().unwrap().extend([Fault::Refuse, Fault::Lose, Fault::None]);
    script.commits.lock().unwrap().extend([Fault::Refuse, Fault::Refuse]);
    assert_eq!(append(&mut table, STAGE, rows([1])).await, CommitOutcome::Committed { version: 1 });
    assert_eq!(append(&mut table, STAGE, rows([2])).await, CommitOutcome::Committed { version: 2 });
    assert_eq!(all_ids(&storage).await, [1, 2]);
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found_and_never_doubled() {
    for (fault, expected) in [
        // The put itself reads back and finds its bytes.
        (Fault::Lose, CommitOutcome::Committed { version: 1 }),
        (Fault::LoseAndBlind, CommitOutcome::AlreadyCommitted { version: 1 }),
    ] {
        let clock = Clock::system();
        let (storage, script) = scripted(&Storage::memory(), &clock);
        let mut table = open(&storage, &clock).await;
        script.commits.lock().unwrap().push_back(fault);
        assert_eq!(append(&mut table, STAGE, rows([1])).await, expected);
        assert_eq!(append(&mut table, STAGE, rows([2])).await, CommitOutcome::Committed { version: 2 });
        assert_eq!(all_ids(&storage).await, [1, 2]);
    }
}

#[tokio::test]
async fn an_append_that_is_dropped_half_way_fences_the_next_one() {
    let clock = Clock::system();
    let (storage, script) = scripted(&Storage::memory(), &clock);
    let mut table = open(&storage, &clock).await;
    script.commits.lock().unwrap().extend([Fault::LoseAndBlind, Fault::Refuse]);
    // Dropped once the put of its commit has met the first fault: the commit is there, and its answer is lost.
    tokio::select! {
        biased;
        () = script.until_commits_left(1) => {}
        outcome = append(&mut table, STAGE, rows([1])) => panic!("{outcome:?}"),
    }
    match append(&mut table, STAGE, rows([1])).await {
        CommitOutcome::Fenced { commits } => assert_eq!(ids(&table, &commits).await, [1]),
        other => panic!("{other:?}"),
    }
    assert_eq!(all_ids(&storage).await, [1]);
}

#[tokio::test]
async fn an_attempt_that_outlives_its_life_is_stale_whatever_the_put_said() {
    for fault in [Fault::StepBefore(700), Fault::StepAfter(700)] {
        for on_commit in [false, true] {
            let clock = Clock::system();
            let (storage, script) = scripted(&Storage::memory(), &clock);
            let mut table = open(&storage, &clock).await;
            let faults = if on_commit { &script.commits } else { &script.files };
            faults.lock().unwrap().push_back(fault);
            assert_eq!(append(&mut table, STAGE, rows([1])).await, CommitOutcome::Stale);
            assert_eq!(append(&mut table, STAGE, rows([1])).await, CommitOutcome::Stale, "until it is opened again");
            assert!(table.is_stale() && table.refresh().await.is_err());
            let mut table = open(&storage, &clock).await;
            assert_eq!(table.fence(STAGE), i64::from(on_commit), "opening tells whether it counts");
            append(&mut table, STAGE, rows([2])).await;
            assert_eq!(all_ids(&storage).await, if on_commit { vec![1, 2] } else { vec![2] });
        }
    }
}

#[tokio::test]
async fn a_clock_that_steps_back_or_forth_between_appends_changes_nothing() {
    let clock = Clock::system();
    let storage = Storage::memory();
    let mut table = open(&storage, &clock).await;
    for (id, seconds) in [(1, -86_400), (2, 400), (3, 86_400 * 30), (4, -1), (5, 700)] {
        clock.step(seconds * 1_000_000);
        assert_eq!(append(&mut table, STAGE, rows([id])).await, CommitOutcome::Committed { version: id });
    }
    assert_eq!(all_ids(&storage).await, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn an_idle_head_is_read_afresh_at_the_price_of_three_looks() {
    let clock = Clock::system();
    let (storage, script) = scripted(&Storage::memory(), &clock);
    let mut table = open(&storage, &clock).await;
    clock.step(3_600 * 1_000_000);
    script.counts();
    append(&mut table, STAGE, rows([1])).await;
    assert_eq!(script.counts(), (2, 3, 0));
}
