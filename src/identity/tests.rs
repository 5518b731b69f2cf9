//! What matches, what is refused, and that trouble with one table is that table's alone.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::storage::StorageKey;
use crate::storage::tests::troubled::{Switch, Trouble};

const FOLDERS: [&str; 3] = ["bronze/messages", "silver/responses", "silver/replies"];

fn wanted() -> Wanted {
    let fields = ["bot_id", "update_id", "reply_parts"].map(|name| Field::new(name, DataType::Int64, true));
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let spec = |folder| TableSpec {
        path: Path::from(folder),
        schema: SchemaRef::clone(&schema),
        stats_columns: Vec::new(),
        id: None,
    };
    Wanted { pipeline: Name::new("telegram").unwrap(), bot_id: Some(BotId(42)), specs: FOLDERS.map(spec) }
}

fn troubled() -> (Storage, Switch) {
    let switch = Switch::default();
    let wrapper = switch.clone();
    (Storage::memory().decorated(move |inner| wrapper.wrap(inner)), switch)
}

async fn settle(storage: &Storage) -> OwnTables {
    inspect(storage, &Clock::system(), wanted()).await.unwrap().settle().await.unwrap()
}

/// What keeps each stage from its table.
fn kinds(own: &OwnTables) -> [Option<ErrorKind>; 3] {
    TableRole::ALL.map(|role| own.of(role).err().map(|error| error.kind()))
}

async fn is_recorded(storage: &Storage) -> bool {
    Record::read(storage, &wanted().pipeline).await.unwrap().is_some()
}

/// Appends a row with an answer.
async fn fill(storage: &Storage, folder: &str, clock: &Clock) {
    use crate::table::{Append, Fence};
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    let mut table = LakeTable::open_existing(storage, &Path::from(folder), clock).await.unwrap().unwrap();
    let column = || Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    let names = ["bot_id", "update_id", "reply_parts"];
    let rows = RecordBatch::try_from_iter(names.map(|name| (name, column()))).unwrap();
    let fence = Fence { role: TableRole::Silver, seen: table.fence(TableRole::Silver) };
    table.append(Append { rows: Some(rows), fence, progress: Vec::new() }).await.unwrap();
}

#[tokio::test]
async fn a_check_that_fails_is_the_trouble_of_its_table_and_of_no_table_before_it() {
    let (storage, switch) = troubled();
    settle(&storage).await;
    fill(&storage, FOLDERS[1], &Clock::system()).await;
    // Whether the replies table may be created depends on what silver holds, and its files cannot be read.
    let record = StorageKey::Pipeline { pipeline: wanted().pipeline }.path();
    storage.delete(&record).await.unwrap();
    for folder in storage.list_after(&Path::from(FOLDERS[2]), None, 100).await.unwrap() {
        storage.delete(&folder.location).await.unwrap();
    }
    switch.begin(Trouble::Server, &["silver/responses/part-"]);
    let own = settle(&storage).await;
    assert!(switch.met() > 0);
    // Silver waits: nobody knows yet whether there was a replies table.
    assert_eq!(kinds(&own), [None, Some(ErrorKind::Unavailable), Some(ErrorKind::Unavailable)]);
    switch.end();
    let own = settle(&storage).await;
    assert_eq!(kinds(&own), [None, Some(ErrorKind::Configuration), Some(ErrorKind::Configuration)]);
}

#[tokio::test]
async fn a_table_that_cannot_be_created_keeps_only_its_stage_and_those_after_it_waiting() {
    let cases = [
        (Trouble::Server, ErrorKind::Unavailable),
        (Trouble::Forbidden, ErrorKind::Refused),
        (Trouble::Panic, ErrorKind::Panicked),
    ];
    for (trouble, kind) in cases {
        let (storage, switch) = troubled();
        // The table does not exist, and its first commit fails.
        switch.begin_creates(trouble, &["silver/responses/"]);
        let own = settle(&storage).await;
        assert_eq!(kinds(&own), [None, Some(kind), Some(kind)], "{trouble:?}");
        assert!(!is_recorded(&storage).await && !own.are_whole());
        switch.end();
        let own = settle(&storage).await;
        assert_eq!(kinds(&own), [None; 3], "{trouble:?}");
        assert!(is_recorded(&storage).await && own.are_whole());
    }
}

#[tokio::test]
async fn silver_answers_nothing_before_the_replies_table_of_a_new_pipeline_exists() {
    let (storage, switch) = troubled();
    switch.begin_creates(Trouble::Server, &["silver/replies/"]);
    let unavailable = Some(ErrorKind::Unavailable);
    assert_eq!(kinds(&settle(&storage).await), [None, unavailable, unavailable]);
    switch.end();
    assert_eq!(kinds(&settle(&storage).await), [None; 3]);
    // From now on a record tells whether there was one.
    switch.begin(Trouble::Server, &["silver/replies/"]);
    assert_eq!(kinds(&settle(&storage).await), [None, None, unavailable]);
}

#[tokio::test]
async fn a_record_that_cannot_be_written_keeps_nobody_from_working_and_is_written_by_the_next_look() {
    let (storage, switch) = troubled();
    switch.begin_creates(Trouble::Server, &["_lakegram/pipelines/"]);
    let own = settle(&storage).await;
    assert_eq!(kinds(&own), [None; 3]);
    assert!(!own.are_whole(), "the next look must not be spared");
    switch.end();
    assert!(!is_recorded(&storage).await);
    assert!(settle(&storage).await.are_whole() && is_recorded(&storage).await);
}

/// What may befall the table of a later stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Missing,
    OfAnotherPipeline,
    OfAnotherRole,
    Corrupt,
    Troubled,
}

impl Fate {
    fn any() -> impl Strategy<Value = Self> {
        proptest::sample::select(vec![
            Self::Missing,
            Self::OfAnotherPipeline,
            Self::OfAnotherRole,
            Self::Corrupt,
            Self::Troubled,
        ])
    }

    /// Brings it about for the table of a role, except for trouble of the store.
    async fn befall(self, storage: &Storage, role: TableRole) {
        let spec = wanted().specs[index(role)].clone();
        let (name, of) = match self {
            Self::Missing | Self::Troubled => return,
            Self::OfAnotherPipeline => ("another", role),
            Self::OfAnotherRole => ("telegram", TableRole::Bronze),
            Self::Corrupt => {
                let path = StorageKey::Commit { table: spec.path, version: 0 }.path();
                storage.put_new(&path, Bytes::from_static(b"{\"metaData\":")).await.unwrap();
                return;
            }
        };
        let identity = Identity::new(&Name::new(name).unwrap(), of, Some(BotId(42)), None);
        LakeTable::create(storage, &spec, Some(&identity), &Clock::system()).await.unwrap();
    }
}

/// What bronze may do with a table that exists, beside these later tables. Whether a missing one is created depends on
/// them, and is another matter.
async fn bronze_beside(is_own: bool, fates: [Fate; 2], trouble: Trouble) -> std::result::Result<Vec<Name>, String> {
    let (storage, switch) = troubled();
    let name = Name::new(if is_own { "telegram" } else { "another" }).unwrap();
    let identity = Identity::new(&name, TableRole::Bronze, Some(BotId(42)), None);
    LakeTable::create(&storage, &wanted().specs[0], Some(&identity), &Clock::system()).await.unwrap();
    for (fate, role) in fates.into_iter().zip([TableRole::Silver, TableRole::Reply]) {
        fate.befall(&storage, role).await;
    }
    match fates.map(|fate| fate == Fate::Troubled) {
        [true, true] => switch.begin(trouble, &["silver/"]),
        [true, false] => switch.begin(trouble, &["silver/responses"]),
        [false, true] => switch.begin(trouble, &["silver/replies"]),
        [false, false] => {}
    }
    let own = settle(&storage).await.of(TableRole::Bronze);
    own.map(|own| own.former_pipelines).map_err(|error| format!("{:?}: {error}", error.kind()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_later_table_changes_what_bronze_may_do(
        is_own: bool,
        fates in [Fate::any(), Fate::any()],
        trouble in proptest::sample::select(Trouble::ALL.to_vec()),
    ) {
        // A call that hangs is ended by the time limits of the store, which this one does not have.
        let trouble = if trouble == Trouble::Hang { Trouble::Server } else { trouble };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = runtime.block_on(bronze_beside(is_own, fates, trouble));
        let alone = runtime.block_on(bronze_beside(is_own, [Fate::Missing; 2], trouble));
        prop_assert_eq!(found, alone);
    }
}

#[tokio::test]
async fn of_two_pipelines_that_take_over_tables_of_release_0_1_at_once_the_first_keeps_them() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    for spec in wanted().specs {
        LakeTable::create(&storage, &spec, None, &clock).await.unwrap();
    }
    let other = Wanted { pipeline: Name::new("other").unwrap(), ..wanted() };
    let slower = inspect(&storage, &clock, other).await.unwrap();
    assert!(slower.problems().is_empty());
    assert_eq!(kinds(&settle(&storage).await), [None; 3]);
    let refused = slower.settle().await.unwrap();
    assert_eq!(kinds(&refused), [Some(ErrorKind::Configuration); 3]);
    let said = refused.of(TableRole::Bronze).unwrap_err().to_string();
    assert!(said.contains("belongs to pipeline `telegram`, but this is `other`"), "{said}");
    assert_eq!(kinds(&settle(&storage).await), [None; 3]);
}

#[tokio::test]
async fn the_table_of_a_loader_is_no_pipelines_bronze_table_and_cannot_be_adopted_as_one() {
    let (storage, clock) = (Storage::memory(), Clock::system());
    let pipeline = Name::new("p").unwrap();
    let paths = ["bronze/t", "silver/t", "silver/r"].map(Path::from);
    let schema = crate::schema::built_in(crate::schema::MESSAGES).unwrap();
    let spec = TableSpec { path: paths[0].clone(), schema, stats_columns: Vec::new(), id: None };
    let identity = Identity::new(&pipeline, TableRole::Bronze, None, None);
    let identity = Identity { source: Some("landing".to_owned()), ..identity };
    LakeTable::create(&storage, &spec, Some(&identity), &clock).await.unwrap();
    let wanted = Wanted::paths(&pipeline, Some(BotId(1)), paths);
    let inspection = inspect(&storage, &clock, wanted).await.unwrap();
    let what = "table bronze/t belongs to loader `p`, not to a bot's pipeline";
    assert_eq!(inspection.problems()[0].what, what);
    let error = inspection.plan(false).await.unwrap_err().to_string();
    assert!(error.starts_with(what) && error.contains("use another table"), "{error}");
}
