//! The conformance suite of the flow: what every stage must survive, whatever it does with a row.
//!
//! `cargo test --lib faults::flow -- --nocapture` prints the counts. A stage takes part with an implementation of
//! [`Stage`] and a test that runs [`suite`].

mod reply;
mod silver;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::{StreamExt, stream};
use object_store::path::Path;
use serde_json::json;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use self::reply::Replier;
use self::silver::Silver;
use super::gate::{Death, Gate, Kind, Point};
use super::script::FaultScript;
use super::store::faulty;
use crate::clock::Clock;
use crate::error::{ErrorKind, Result};
use crate::storage::{Storage, StorageKey};
use crate::table::maintain::{MaintainOptions, maintain};
use crate::table::{Append, CommitOutcome, Fence, LakeTable, TableRole, TableSpec};

/// How many times faster than real time.
const PACE: u32 = 300;
/// Longer than any process works, even if it has to watch another's intents.
const LIFE: Duration = Duration::from_secs(9_000);
/// Trials that run at the same time.
const AT_ONCE: usize = 8;

/// An update and its chat.
type Update = (i64, i64);

/// A stage under test, with its upstream table and the outside systems it calls.
trait Stage: Sized + Send + Sync + 'static {
    const NAME: &'static str;
    /// Which table it reads.
    const UPSTREAM: TableRole;

    fn new() -> impl Future<Output = Self> + Send;
    fn storage(&self) -> &Storage;
    fn clock(&self) -> &Clock;
    /// The definition of the upstream table.
    fn upstream(&self) -> TableSpec;
    /// Rows of the upstream table that require work.
    fn rows(&self, updates: &[Update]) -> RecordBatch;
    /// A process that works until nothing is left.
    fn work(&self, storage: Storage) -> impl Future<Output = Result<()>> + Send;
    /// A process that works until it fails.
    fn serve(&self, storage: Storage) -> impl Future<Output = Result<()>> + Send;
    /// What is wrong when these updates are all there ever were, and nothing is left to do.
    fn check(&self, updates: &BTreeSet<i64>) -> impl Future<Output = Vec<String>> + Send;
}

/// A stage and the updates that its upstream table has delivered.
struct Trial<S> {
    stage: S,
    updates: BTreeSet<i64>,
}

impl<S: Stage> Trial<S> {
    async fn new() -> Self {
        Self { stage: S::new().await, updates: BTreeSet::new() }
    }

    /// Appends rows to the upstream table, which is created if there is none.
    async fn append(&mut self, updates: &[Update]) {
        let (storage, spec, clock) = (self.stage.storage(), self.stage.upstream(), self.stage.clock());
        let mut table = LakeTable::open(storage, &spec, clock).await.unwrap();
        let fence = Fence { role: S::UPSTREAM, seen: table.fence(S::UPSTREAM) };
        let append = Append { rows: Some(self.stage.rows(updates)), fence, progress: Vec::new() };
        assert!(matches!(table.append(append).await.unwrap(), CommitOutcome::Committed { .. }));
        self.updates.extend(updates.iter().map(|(id, _)| *id));
    }

    /// Starts processes until one has done everything, then checks the result.
    async fn finish(&self) -> Vec<String> {
        let mut error = String::new();
        for _ in 0..3 {
            let work = self.stage.work(self.stage.storage().clone());
            match self.stage.clock().timeout(LIFE, work).await {
                Some(Ok(())) => return self.stage.check(&self.updates).await,
                Some(Err(failed)) => error = failed.to_string(),
                None => error = "it does not end".to_owned(),
            }
        }
        vec![error]
    }

    /// A process that dies at a call of its store. Returns the number of calls it made.
    async fn live(&self, death: Option<Death>) -> u64 {
        let gate = Arc::new(Gate::new(death, u64::MAX));
        let script = Arc::new(FaultScript::new(0, 0, self.stage.clock()));
        let storage = faulty(self.stage.storage(), &script, &gate, &Handle::current());
        tokio::select! {
            worked = self.stage.work(storage) => worked.unwrap(),
            () = gate.died() => {}
        }
        let calls = gate.counts().values().sum();
        gate.kill();
        calls
    }

    /// Removes the upstream table.
    async fn remove_upstream(&self) {
        let (storage, table) = (self.stage.storage(), self.stage.upstream().path);
        for object in storage.list_after(&table, None, 1_000).await.unwrap() {
            storage.delete(&object.location).await.unwrap();
        }
    }

    /// A foreign writer replaces every file of the upstream table by one with the same rows. Returns the
    /// names of the new files.
    async fn rewrite_upstream(&self) -> Vec<Path> {
        let (storage, path) = (self.stage.storage(), self.stage.upstream().path);
        let table = LakeTable::open_existing(storage, &path, self.stage.clock()).await.unwrap().unwrap();
        let (version, mut actions, mut copies) = (table.version() + 1, String::new(), Vec::new());
        for (number, file) in table.files().await.unwrap().iter().enumerate() {
            let bytes = storage.get(&file.location(&path).unwrap()).await.unwrap().unwrap();
            let copy = format!("rewritten-{version}-{number}.parquet");
            copies.push(path.clone().join(copy.as_str()));
            storage.put_new(&copies[number], bytes).await.unwrap();
            let remove = json!({"path": file.path, "deletionTimestamp": 1, "dataChange": true});
            let add = json!({"path": copy, "partitionValues": {}, "size": file.size_bytes,
                "modificationTime": file.modification_millis, "dataChange": true});
            actions += &format!("{}\n{}\n", json!({ "remove": remove }), json!({ "add": add }));
        }
        storage.put_new(&StorageKey::Commit { table: path, version }.path(), actions.into()).await.unwrap();
        copies
    }

    /// Maintains the upstream table until the log entries that added its rows are gone, even if a stage still needs
    /// them.
    async fn clean_up_upstream(&self) {
        let options = MaintainOptions { compact_at_files: 2, checkpoint_every: 1, ..MaintainOptions::default() };
        let (storage, path, clock) = (self.stage.storage(), self.stage.upstream().path, self.stage.clock());
        for _ in 0..2 {
            maintain(storage, &path, &options, clock, &CancellationToken::new()).await.unwrap();
            clock.step(8 * 86_400_000_000);
        }
    }
}

/// A process dies before or after any one of its calls of the store.
async fn crash<S: Stage>() -> (usize, Vec<String>) {
    async fn prepare<S: Stage>() -> Trial<S> {
        let mut trial = Trial::<S>::new().await;
        for updates in [&[(1, 7), (2, 8)][..], &[(3, 7)]] {
            trial.append(updates).await;
        }
        trial
    }
    async fn crash_at<S: Stage>(call: u64, after: bool) -> Vec<String> {
        let mut trial = prepare::<S>().await;
        trial.live(Some(Death { point: Point::Any(call), after, kind: Kind::Exit })).await;
        trial.append(&[(4, 8)]).await;
        let wrong = trial.finish().await;
        wrong.into_iter().map(|what| format!("death at call {call}, after it {after}: {what}")).collect()
    }
    let calls = prepare::<S>().await.live(None).await;
    let points = (1..=calls).flat_map(|call| [(call, false), (call, true)]);
    let runs = stream::iter(points).map(|(call, after)| tokio::spawn(crash_at::<S>(call, after)));
    let runs: Vec<_> = runs.buffer_unordered(AT_ONCE).collect().await;
    (runs.len(), runs.into_iter().flat_map(|run| run.unwrap()).collect())
}

/// Two processes work at the same time, by mistake.
async fn two_processes<S: Stage>() -> Vec<String> {
    let mut trial = Trial::<S>::new().await;
    for id in 0..20 {
        trial.append(&[(2 * id, 1 + id % 7), (2 * id + 1, 1 + id % 5)]).await;
    }
    tokio::join!(trial.live(None), trial.live(None));
    trial.finish().await
}

/// The upstream table is rewritten, and its log continues.
async fn rewritten<S: Stage>() -> Vec<String> {
    let mut trial = Trial::<S>::new().await;
    trial.append(&[(1, 7), (2, 8)]).await;
    let mut wrong = trial.finish().await;
    trial.append(&[(3, 7)]).await;
    trial.rewrite_upstream().await;
    trial.append(&[(4, 7)]).await;
    wrong.extend(trial.finish().await);
    wrong
}

/// The upstream table is rewritten twice, and the files of the first time are gone when the stage comes to them.
async fn rewritten_again<S: Stage>() -> Vec<String> {
    let mut trial = Trial::<S>::new().await;
    trial.append(&[(1, 7), (2, 8)]).await;
    let mut wrong = trial.finish().await;
    trial.append(&[(3, 7)]).await;
    let copies = trial.rewrite_upstream().await;
    trial.append(&[(4, 7)]).await;
    trial.rewrite_upstream().await;
    for copy in &copies {
        trial.stage.storage().delete(copy).await.unwrap();
    }
    trial.append(&[(5, 8)]).await;
    wrong.extend(trial.finish().await);
    wrong
}

/// A clean-up removes log and files that the stage has not read.
async fn overtaken<S: Stage>() -> Vec<String> {
    let mut trial = Trial::<S>::new().await;
    trial.append(&[(1, 7)]).await;
    let mut wrong = trial.finish().await;
    for id in 2..6 {
        trial.append(&[(id, 7)]).await;
    }
    trial.clean_up_upstream().await;
    wrong.extend(trial.finish().await);
    wrong
}

/// The upstream table is removed and created again with the same rows and more: in one commit, in as many as before,
/// or in more.
async fn recreated<S: Stage>() -> Vec<String> {
    let mut wrong = Vec::new();
    for commits in [1, 5, 9] {
        let mut trial = Trial::<S>::new().await;
        for id in 0..5 {
            trial.append(&[(id, 7)]).await;
        }
        wrong.extend(trial.finish().await);
        trial.remove_upstream().await;
        let updates: Vec<Update> = (0..9).map(|id| (id, 7)).collect();
        for updates in updates.chunks(updates.len().div_ceil(commits)) {
            trial.append(updates).await;
        }
        wrong.extend(trial.finish().await);
        trial.append(&[(9, 7)]).await;
        wrong.extend(trial.finish().await);
    }
    wrong
}

/// A foreign writer duplicates rows: in the same commit and in a later one, before and after they are done.
async fn doubled<S: Stage>() -> Vec<String> {
    let mut trial = Trial::<S>::new().await;
    trial.append(&[(1, 7), (2, 8), (1, 7)]).await;
    trial.append(&[(2, 8)]).await;
    let mut wrong = trial.finish().await;
    trial.append(&[(1, 7), (3, 7)]).await;
    wrong.extend(trial.finish().await);
    wrong
}

/// The upstream table is replaced while a process is working: it fails with an error that says so, and nothing is done
/// twice.
async fn replaced_while_running<S: Stage>() -> Vec<String> {
    let mut trial = Trial::<S>::new().await;
    trial.append(&[(1, 7)]).await;
    let mut wrong = trial.finish().await;
    let storage = trial.stage.storage().clone();
    let ended = {
        let serving = trial.stage.serve(storage);
        let replaced = async {
            // By then it has found the table.
            trial.stage.clock().sleep(Duration::from_secs(20)).await;
            trial.remove_upstream().await;
            let spec = trial.stage.upstream();
            LakeTable::open(trial.stage.storage(), &spec, trial.stage.clock()).await.unwrap();
            std::future::pending::<()>().await;
        };
        let serving = trial.stage.clock().timeout(LIFE, serving);
        tokio::select! { ended = serving => ended, () = replaced => None }
    };
    match ended {
        Some(Err(error)) if error.kind() == ErrorKind::Corrupt && error.to_string().contains("replaced") => {}
        other => wrong.push(format!("it ended with {other:?}")),
    }
    trial.append(&[(1, 7), (2, 7)]).await;
    wrong.extend(trial.finish().await);
    wrong
}

/// Every scenario for one stage.
async fn suite<S: Stage>() -> Vec<String> {
    let (points, mut wrong) = crash::<S>().await;
    let named = |name: &str, found: Vec<String>| -> Vec<String> {
        found.into_iter().map(|what| format!("{} {name}: {what}", S::NAME)).collect()
    };
    wrong = named("crash", wrong);
    wrong.extend(named("two processes", two_processes::<S>().await));
    wrong.extend(named("rewritten", rewritten::<S>().await));
    wrong.extend(named("rewritten again", rewritten_again::<S>().await));
    wrong.extend(named("overtaken", overtaken::<S>().await));
    wrong.extend(named("recreated", recreated::<S>().await));
    wrong.extend(named("doubled", doubled::<S>().await));
    wrong.extend(named("replaced while running", replaced_while_running::<S>().await));
    println!("{}: {points} deaths and 7 more scenarios, {} promises broken", S::NAME, wrong.len());
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silver_conforms() {
    let wrong = suite::<Silver>().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replier_conforms() {
    let wrong = suite::<Replier>().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
