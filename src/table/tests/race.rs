//! Several writers on one table.

use async_trait::async_trait;
use bytes::Bytes;
use object_store::{ObjectStoreExt, PutOptions, PutPayload, PutResult};
use proptest::prelude::*;

use super::faulty::{Fault, scripted};
use super::*;
use crate::error::ErrorKind;
use crate::storage::tests::intercepted::{Inner, Intercept};
use crate::table::Identity;
use crate::table::commit::{Landing, News, Provenance};

fn fenced(outcome: CommitOutcome) -> Vec<Commit> {
    match outcome {
        CommitOutcome::Fenced { commits } => commits,
        other => panic!("expected to be fenced: {other:?}"),
    }
}

#[tokio::test]
async fn writers_on_different_fences_both_commit_with_the_file_they_have() {
    let clock = Clock::system();
    let (storage, script) = scripted(&Storage::memory(), &clock);
    let (mut one, mut two) = (open(&storage, &clock).await, open(&storage, &clock).await);
    assert_eq!(append(&mut one, STAGE, rows([1])).await, CommitOutcome::Committed { version: 1 });
    script.counts();
    assert_eq!(append(&mut two, OTHER, rows([2])).await, CommitOutcome::Committed { version: 2 });
    assert_eq!(script.counts().0, 3, "the data file is put once");
    assert_eq!((two.fence(STAGE), two.fence(OTHER)), (1, 1));
    assert_eq!(all_ids(&storage).await, [1, 2]);
}

#[tokio::test]
async fn of_two_writers_on_one_fence_one_commits_and_the_other_learns_what_won() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let (mut one, mut two) = (open(&storage, &clock).await, open(&storage, &clock).await);
    append(&mut one, STAGE, rows([1])).await;
    append(&mut one, STAGE, rows([2])).await;
    let commits = fenced(append(&mut two, STAGE, rows([3])).await);
    assert_eq!(commits.iter().map(|commit| commit.version).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(ids(&two, &commits).await, [1, 2]);
    assert_eq!(append(&mut two, STAGE, rows([3])).await, CommitOutcome::Committed { version: 3 });
    assert_eq!(all_ids(&storage).await, [1, 2, 3]);
}

#[tokio::test]
async fn commits_that_were_passed_before_are_told_as_well() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let (mut one, mut two) = (open(&storage, &clock).await, open(&storage, &clock).await);
    append(&mut one, STAGE, rows([1])).await;
    // Another stage of this process moves the head of the same handle over it.
    append(&mut two, OTHER, rows([2])).await;
    let plan = Append { rows: Some(rows([3])), fence: Fence { role: STAGE, seen: 0 }, progress: vec![] };
    let commits = fenced(two.append(plan).await.unwrap());
    assert_eq!(ids(&two, &commits).await, [1, 2]);
}

#[tokio::test]
async fn refresh_tells_every_commit_once() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let (mut one, mut two) = (open(&storage, &clock).await, open(&storage, &clock).await);
    for id in 1..=20 {
        append(&mut one, STAGE, rows([id])).await;
    }
    let commits = two.refresh().await.unwrap();
    assert_eq!(ids(&two, &commits).await, (1..=20).collect::<Vec<_>>());
    assert_eq!(two.refresh().await.unwrap(), []);
    assert_eq!(append(&mut two, STAGE, rows([21])).await, CommitOutcome::Committed { version: 21 });
}

#[tokio::test]
async fn a_race_with_new_columns_rebuilds_the_file_only_when_it_must() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let (mut one, mut two) = (open(&storage, &clock).await, open(&storage, &clock).await);
    let wider: Vec<(&str, ArrayRef)> =
        vec![("id", Arc::new(Int64Array::from(vec![1]))), ("new", Arc::new(StringArray::from(vec!["x"])))];
    let wider = RecordBatch::try_from_iter(wider).unwrap();
    append(&mut one, STAGE, wider.clone()).await;
    assert_eq!(append(&mut two, OTHER, rows([2])).await, CommitOutcome::Committed { version: 2 });
    assert_eq!(two.schema(), one.schema());
    let mut three = open(&storage, &clock).await;
    append(&mut two, OTHER, wider).await;
    assert_eq!(append(&mut three, STAGE, rows([3])).await, CommitOutcome::Committed { version: 4 });
    let file = three.files().await.unwrap();
    assert_eq!(file.len(), 4);
}

#[tokio::test]
async fn a_race_with_a_changed_type_is_refused_by_name() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let mut table = open(&storage, &clock).await;
    let text = r#"{"metaData":{"id":"other","format":{"provider":"parquet","options":{}},"schemaString":"{\"type\":\"struct\",\"fields\":[{\"name\":\"id\",\"type\":\"string\",\"nullable\":true,\"metadata\":{}}]}","partitionColumns":[],"configuration":{}}}"#;
    put_commit(&storage, 1, &text.replace("other", table.table_id())).await;
    let plan = Append { rows: Some(rows([3])), fence: Fence { role: STAGE, seen: 0 }, progress: vec![] };
    let error = table.append(plan).await.unwrap_err();
    assert!(
        error.to_string().contains("column id of table bronze/messages has type string, but long was expected"),
        "{error}"
    );
}

#[tokio::test]
async fn a_commit_is_shown_every_winner_and_may_withdraw() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let (mut one, mut two) = (open(&storage, &clock).await, open(&storage, &clock).await);
    append(&mut one, STAGE, rows([1])).await;
    append(&mut one, STAGE, rows([2])).await;
    let parameters = serde_json::json!({});
    let provenance = Provenance { operation: "OPTIMIZE", metrics: parameters.clone(), parameters, blind_append: false };
    let mut shown = Vec::new();
    let landing = two.land(&provenance, |state, news| {
        let News::Commits(passed) = news else { panic!("a gap where there is none") };
        shown.push((state.version, passed.iter().map(|commit| commit.version).collect::<Vec<_>>()));
        Ok(passed.is_empty().then(Vec::new))
    });
    assert_eq!(landing.await.unwrap(), Landing::Withdrawn);
    assert_eq!(shown, [(0, vec![]), (2, vec![1, 2])]);
    let landing = two.land(&provenance, |_, _| Ok(Some(Vec::new()))).await.unwrap();
    assert_eq!(landing, Landing::Landed { version: 3, earlier: false });
    assert_eq!(all_ids(&storage).await, [1, 2]);
}

#[tokio::test]
async fn of_two_that_identify_an_unnamed_table_at_once_the_first_is_right() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let (mut one, mut two) = (open(&storage, &clock).await, open(&storage, &clock).await);
    let identity = |name: &str| Identity::new(&Name::new(name).unwrap(), STAGE, None, None);
    assert!(one.identify_if_unnamed(&identity("one")).await.unwrap());
    assert!(!two.identify_if_unnamed(&identity("two")).await.unwrap());
    assert_eq!(two.identity().unwrap(), Some(identity("one")));
    assert!(!one.identify_if_unnamed(&identity("one")).await.unwrap());
    assert_eq!((one.version(), two.version()), (1, 1));
    two.identify(&identity("two"), &[]).await.unwrap();
    assert_eq!(two.identity().unwrap(), Some(identity("two")), "adopting replaces it");
}

#[tokio::test]
async fn a_head_below_a_cleaned_log_never_commits_below_it() {
    for hours_idle in [0, 48] {
        let (storage, clock) = (Storage::memory(), Clock::system());
        let (mut one, mut two) = (open(&storage, &clock).await, open(&storage, &clock).await);
        for id in 1..=4 {
            append(&mut one, STAGE, rows([id])).await;
        }
        clock.step(hours_idle * 3_600_000_000);
        if hours_idle == 0 {
            // Within its life the log cannot have been cleaned; the commits are all there.
            assert_eq!(fenced(append(&mut two, STAGE, rows([9])).await).len(), 4);
            continue;
        }
        checkpoint_and_clean(&storage).await;
        assert_eq!(append(&mut two, STAGE, rows([9])).await, CommitOutcome::Stale);
        assert!(two.is_stale());
        assert_eq!(all_ids(&storage).await, [1, 2, 3, 4]);
        let below = StorageKey::Commit { table: table_path(), version: 1 }.path();
        assert_eq!(storage.get(&below).await.unwrap(), None, "nothing was put below the cleaned log");
    }
}

#[tokio::test]
async fn a_cleaned_log_without_a_commit_of_the_stage_is_no_obstacle() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let (mut one, mut two) = (open(&storage, &clock).await, open(&storage, &clock).await);
    append(&mut one, OTHER, rows([1])).await;
    append(&mut one, OTHER, rows([2])).await;
    clock.step(48 * 3_600_000_000);
    checkpoint_and_clean(&storage).await;
    assert_eq!(append(&mut two, STAGE, rows([3])).await, CommitOutcome::Committed { version: 3 });
    assert_eq!(all_ids(&storage).await, [1, 2, 3]);
}

#[tokio::test]
async fn a_table_that_was_removed_or_replaced_is_told_before_anything_is_put_and_one_that_is_put_back_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    for storage in [Storage::memory(), Storage::open(folder.path().to_str().unwrap()).unwrap()] {
        let clock = Clock::system();
        let mut table = open(&storage, &clock).await;
        append(&mut table, STAGE, rows([1])).await;
        let kept = take_away(&storage).await;
        // In the cloud the table was seen a moment ago, and is looked at once that is too long ago.
        clock.step(31_000_000);
        let said = refused(&mut table).await;
        assert!(said.contains("was removed while it was in use") && said.contains("lakegram adopt"), "{said}");
        let there = storage.list_after(&table_path(), None, 9).await.unwrap();
        assert!(there.is_empty(), "something was put where the table was: {there:?}");

        open(&storage, &clock).await;
        assert!(refused(&mut table).await.contains("was replaced by another one"));
        let mut other = open(&storage, &clock).await;
        append(&mut other, STAGE, rows([7])).await;
        clock.step(31_000_000);
        assert!(refused(&mut table).await.contains("was replaced by another one"), "it has a commit of that version");
        assert_eq!(all_ids(&storage).await, [7]);

        take_away(&storage).await;
        put_back(&storage, &kept[..1]).await;
        clock.step(31_000_000);
        assert!(refused(&mut table).await.contains("was replaced by an older copy of itself"));
        put_back(&storage, &kept).await;
        assert_eq!(append(&mut table, STAGE, rows([2])).await, CommitOutcome::Committed { version: 2 });
        assert_eq!(all_ids(&storage).await, [1, 2]);
        take_away(&storage).await;
    }
}

#[tokio::test]
async fn a_table_that_is_replaced_between_its_opening_and_the_first_append_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for storage in [Storage::memory(), Storage::open(folder.path().to_str().unwrap()).unwrap()] {
        for has_checkpoint in [false, true] {
            let clock = Clock::system();
            let mut other = open(&storage, &clock).await;
            append(&mut other, STAGE, rows([7])).await;
            let kept = take_away(&storage).await;
            let mut ours = open(&storage, &clock).await;
            append(&mut ours, STAGE, rows([1])).await;
            if has_checkpoint {
                let delta = crate::table::delta::delta_table(&storage, &table_path()).await.unwrap();
                deltalake::checkpoints::create_checkpoint(&delta, None).await.unwrap();
            }
            let mut table = open(&storage, &clock).await;
            take_away(&storage).await;
            put_back(&storage, &kept).await;
            assert!(refused(&mut table).await.contains("was replaced by another one"));
            assert_eq!(all_ids(&storage).await, [7]);
            take_away(&storage).await;
        }
    }
}

/// Deletes the head of the table after a data file was put.
#[derive(Debug)]
struct Vanishing(Path);

#[async_trait]
impl Intercept for Vanishing {
    async fn put(
        &self,
        inner: &Inner,
        to: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let put = inner.put_opts(to, payload, options).await;
        if to.as_ref().ends_with(".parquet") {
            inner.delete(&self.0).await?;
        }
        put
    }
}

#[tokio::test]
async fn a_table_that_is_replaced_between_a_file_and_its_commit_is_told_before_the_commit() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::system());
    let plain = Storage::open(folder.path().to_str().unwrap()).unwrap();
    append(&mut open(&plain, &clock).await, STAGE, rows([1])).await;
    let path = |version| StorageKey::Commit { table: table_path(), version }.path();
    let mut table = open(&plain.clone().intercepted(Vanishing(path(1))), &clock).await;
    assert!(refused(&mut table).await.contains("was replaced by an older copy of itself"));
    assert_eq!(plain.head(&path(2)).await.unwrap(), None);
}

async fn refused(table: &mut LakeTable) -> String {
    let fence = Fence { role: STAGE, seen: table.fence(STAGE) };
    let refused = table.append(Append { rows: Some(rows([2])), fence, progress: Vec::new() }).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    refused.to_string()
}

/// Takes everything of the table away, commits first.
async fn take_away(storage: &Storage) -> Vec<(Path, Bytes)> {
    let mut kept = Vec::new();
    for object in storage.list_after(&table_path(), None, 100).await.unwrap() {
        let found = storage.object_store().get(&object.location).await.unwrap();
        kept.push((object.location.clone(), found.bytes().await.unwrap()));
        storage.delete(&object.location).await.unwrap();
    }
    kept
}

async fn put_back(storage: &Storage, kept: &[(Path, Bytes)]) {
    for (path, bytes) in kept {
        storage.put_new(path, bytes.clone()).await.unwrap();
    }
}

#[tokio::test]
async fn a_late_commit_that_counts_gets_its_vacuumed_file_back() {
    let clock = Clock::system();
    let plain = Storage::memory();
    let (storage, script) = scripted(&plain, &clock);
    let mut table = open(&storage, &clock).await;
    // The commit lands and then the machine sleeps for two days, while vacuum takes the file.
    script.commits.lock().unwrap().extend([Fault::LoseAndBlind, Fault::StepBefore(172_800)]);
    let vacuum = async {
        loop {
            let log = plain.list_after(&table_path(), None, 100).await.unwrap();
            let file = log.into_iter().find(|object| object.location.as_ref().ends_with(".parquet"));
            let landed = StorageKey::Commit { table: table_path(), version: 1 }.path();
            if let (Some(file), Some(_)) = (file, plain.get(&landed).await.unwrap()) {
                return plain.delete(&file.location).await.unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    let (outcome, ()) = tokio::join!(append(&mut table, STAGE, rows([1])), vacuum);
    assert_eq!(outcome, CommitOutcome::Stale);
    assert_eq!(all_ids(&plain).await, [1]);
}

/// One writer that plans, commits and takes what won into what it knows, as a stage does.
struct Writer {
    table: LakeTable,
    /// What the writer writes through.
    storage: Storage,
    /// The same without its faults, for what a stage would simply try again.
    plain: Storage,
    clock: Clock,
    known: Vec<i64>,
}

impl Writer {
    async fn new(storage: &Storage, plain: &Storage, clock: &Clock) -> Self {
        let (storage, plain, clock) = (storage.clone(), plain.clone(), clock.clone());
        let table = open(&storage, &clock).await;
        let mut writer = Self { table, storage, plain, clock, known: Vec::new() };
        let added = writer.table.files().await.unwrap();
        writer.learn(&[Commit { added, ..Commit::default() }]).await;
        writer
    }

    async fn learn(&mut self, commits: &[Commit]) {
        let table = LakeTable::open_existing(&self.plain, &table_path(), &self.clock).await.unwrap().unwrap();
        self.known.extend(ids(&table, commits).await);
    }

    async fn open_again(&mut self) {
        // When it fails the handle stays stale, and we come here again.
        if let Ok(table) = LakeTable::open(&self.storage, &spec(), &self.clock).await {
            self.table = table;
            self.known = all_ids(&self.plain).await;
        }
    }

    /// Sees to it that `id` is in the table, whoever brings it there.
    async fn bring(&mut self, id: i64) {
        for _ in 0..40 {
            if self.known.contains(&id) {
                return;
            }
            let fence = Fence { role: STAGE, seen: self.table.fence(STAGE) };
            let append = Append { rows: Some(rows([id])), fence, progress: vec![(position("lane"), id)] };
            match self.table.append(append).await {
                Ok(CommitOutcome::Committed { .. } | CommitOutcome::AlreadyCommitted { .. }) => self.known.push(id),
                Ok(CommitOutcome::Fenced { commits }) => self.learn(&commits).await,
                Ok(CommitOutcome::Stale) => self.open_again().await,
                // Again on the same handle, as the documentation of `append` has it.
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            }
        }
        panic!("{id} never came to the table");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_on_a_local_folder_bring_every_row_once() {
    let folder = tempfile::tempdir().unwrap();
    let (storage, clock) = (Storage::open(folder.path().to_str().unwrap()).unwrap(), Clock::system());
    let writers = (0..4).map(|number| {
        let (storage, clock) = (storage.clone(), clock.clone());
        tokio::spawn(async move {
            let mut writer = Writer::new(&storage, &storage, &clock).await;
            for id in 0..6 {
                writer.bring(id * 2 + number % 2).await;
            }
        })
    });
    for writer in futures::future::join_all(writers).await {
        writer.unwrap();
    }
    assert_eq!(all_ids(&storage).await, (0..12).collect::<Vec<_>>());
    assert_eq!(open(&storage, &clock).await.fence(STAGE), 12);
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        8 => Just(Fault::None),
        1 => Just(Fault::Refuse),
        2 => Just(Fault::Lose),
        1 => Just(Fault::LoseAndBlind),
        1 => Just(Fault::StepAfter(400)),
        1 => Just(Fault::StepAfter(700)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn two_writers_never_lose_nor_double_a_row_and_the_fence_counts_their_commits(
        yields in prop::collection::vec(0_u8..4, 0..120),
        commits in prop::collection::vec(fault(), 0..16),
        files in prop::collection::vec(fault(), 0..16),
        first in prop::collection::vec(0_i64..8, 1..7),
        second in prop::collection::vec(0_i64..8, 1..7),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (plain, clock) = (Storage::memory(), Clock::system());
            let (storage, script) = scripted(&plain, &clock);
            let (mut one, mut two) = (Writer::new(&storage, &plain, &clock).await, Writer::new(&storage, &plain, &clock).await);
            script.yields.lock().unwrap().extend(&yields);
            script.commits.lock().unwrap().extend(&commits);
            script.files.lock().unwrap().extend(&files);
            let work = async |writer: &mut Writer, ids: &[i64]| {
                for id in ids {
                    writer.bring(*id).await;
                }
            };
            tokio::join!(work(&mut one, &first), work(&mut two, &second));
            let mut expected: Vec<i64> = first.iter().chain(&second).copied().collect();
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(all_ids(&plain).await, expected);
            let table = open(&plain, &clock).await;
            assert_eq!(table.fence(STAGE), table.version(), "every version but the first is a commit of the stage");
            assert_eq!(usize::try_from(table.version()).unwrap(), expected.len());
            assert_eq!(table.txn(&position("lane")), expected.last().copied());
        });
    }
}
