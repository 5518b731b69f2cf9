//! What a process does with the store while the wire fails: lands lines, appends rows, looks, and cleans up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use futures::future::join_all;
use object_store::path::Path;

use super::connection::Wire;
use crate::admission::Admission;
use crate::error::{Error, ErrorKind};
use crate::hint::key_hints;
use crate::id::{BotId, Name};
use crate::receive::{LaneOptions, LaneWriter};
use crate::storage::{PutNew, Storage};
use crate::table::{Append, CommitOutcome, Fence, LakeTable, TableRole, TableSpec, TxnId};
use crate::telemetry::Telemetry;
use crate::tests::kit::Dice;

/// The path of everything in the bucket.
pub(super) const ROOT: &str = "in/here/";
pub(super) const TABLE: &str = "bronze/lines";
pub(super) const FENCE: TableRole = TableRole::Bronze;
/// The last row that is in the table, as a txn of the commit that brought it.
const PROGRESS: TxnId = TxnId::SourceFrom;
const PAUSE: Duration = Duration::from_secs(1);

/// What was done through all lives, as reported to those who did it.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// Lines that somebody began to land, and those that were said to be durable.
    pub(super) lines: AtomicI64,
    pub(super) durable: Mutex<BTreeSet<i64>>,
    /// Rows that the table is to have, and those that were said to be in it.
    pub(super) wanted: AtomicI64,
    pub(super) committed: Mutex<BTreeSet<i64>>,
    scratch: AtomicI64,
    pub(super) wrong: Mutex<Vec<String>>,
}

/// One process.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) wire: Wire,
    pub(super) witness: Arc<Witness>,
    pub(super) lane: &'static str,
    pub(super) dice: Dice,
}

impl Life {
    /// Does everything at once, for so long; then it is gone in the midst of it.
    pub(super) async fn live(self, span: Duration, lines: u64) {
        let clock = self.wire.clock.clone();
        // Each process has memory of its own of what it has put.
        let storage = self.wire.open();
        let working = async {
            tokio::join!(
                self.clone().land(storage.clone(), lines),
                self.clone().append(storage.clone()),
                self.clone().look(),
                self.clone().come_and_go(storage),
            )
        };
        let _dead = clock.timeout(span, working).await;
    }

    /// Whether to try again after an error: the wire must not make any other of it.
    async fn again(&self, doing: &str, error: &Error) {
        if !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unknown) {
            self.say(format!("{doing}: {:?}: {error}", error.kind()));
        }
        self.wire.clock.sleep(PAUSE).await;
    }

    fn say(&self, what: String) {
        self.witness.wrong.lock().unwrap().push(what);
    }

    async fn land(self, storage: Storage, lines: u64) {
        let (hinter, _hints) = key_hints();
        let options = LaneOptions {
            storage: storage.clone(),
            pipeline: Name::new("telegram").unwrap(),
            bot_id: BotId(42),
            lane: Name::new(self.lane).unwrap(),
            admission: Admission::new(1_000_000),
            hinter,
            clock: self.wire.clock.clone(),
            telemetry: Telemetry::new(),
        };
        let (writer, task) = LaneWriter::open(options).unwrap();
        let givers: Vec<_> = (0..3).map(|giver| self.clone().give(writer.clone(), giver, lines)).collect();
        // The lane ends with the last of its givers.
        drop(writer);
        let (_, ended) = tokio::join!(join_all(givers), task);
        if let Err(error) = ended {
            self.say(format!("the lane ended with {error}"));
        }
    }

    async fn give(mut self, writer: LaneWriter, giver: u64, lines: u64) {
        self.dice = Dice::of(self.dice.next(), "giver", giver);
        for _ in 0..lines {
            self.wire.clock.sleep(PAUSE.mul_f64(self.dice.below(3_000) as f64 / 1_000.0)).await;
            let number = self.witness.lines.fetch_add(1, Ordering::SeqCst);
            // Whatever was not landed is another line when it comes again: each may be there once at most.
            if writer.land_pulled(Bytes::from(format!("{{\"n\": {number}}}"))).await.is_ok() {
                self.witness.durable.lock().unwrap().insert(number);
            }
        }
    }

    /// Appends the rows that are still to come, as a stage does: what is done is what the table says.
    pub(super) async fn append(mut self, storage: Storage) {
        let spec =
            TableSpec { path: Path::from(TABLE), schema: schema(), stats_columns: vec!["n".to_owned()], id: None };
        loop {
            let mut table = match LakeTable::open(&storage, &spec, &self.wire.clock).await {
                Ok(table) => table,
                Err(error) => {
                    self.again("open the table", &error).await;
                    continue;
                }
            };
            while !table.is_stale() {
                let done = table.txn(&PROGRESS).unwrap_or(0);
                let wanted = self.witness.wanted.load(Ordering::SeqCst);
                if done >= wanted {
                    return;
                }
                let last = wanted.min(done + 1 + self.dice.below(3).cast_signed());
                let fence = Fence { role: FENCE, seen: table.fence(FENCE) };
                let progress = vec![(PROGRESS, last)];
                match table.append(Append { rows: Some(rows(done + 1, last)), fence, progress }).await {
                    Ok(CommitOutcome::Committed { .. } | CommitOutcome::AlreadyCommitted { .. }) => {
                        self.witness.committed.lock().unwrap().extend(done + 1..=last);
                    }
                    Ok(CommitOutcome::Fenced { .. } | CommitOutcome::Stale) => {}
                    Err(error) => self.again("append", &error).await,
                }
            }
        }
    }

    fn segments(&self) -> BTreeMap<String, Bytes> {
        let contents = self.wire.bucket.contents().into_iter();
        let path = |key: String| key.strip_prefix(ROOT).map(str::to_owned).unwrap_or(key);
        contents.map(|(key, bytes)| (path(key), bytes)).filter(|(path, _)| path.starts_with("raw/")).collect()
    }

    /// Lists and reads: whatever is given must be all of it, and what is there.
    async fn look(mut self) {
        let storage = self.wire.open();
        loop {
            self.wire.clock.sleep(PAUSE).await;
            let before = self.segments();
            let Ok(listed) = storage.list_after(&Path::from("raw"), None, 10_000).await else { continue };
            let (listed, after): (BTreeSet<_>, _) =
                (listed.into_iter().map(|meta| meta.location.to_string()).collect(), self.segments());
            if !before.keys().all(|key| listed.contains(key)) || !listed.iter().all(|key| after.contains_key(key)) {
                self.say(format!("a listing gave {listed:?}, and there were {:?}", before.keys()));
            }
            if before.is_empty() {
                continue;
            }
            let (key, bytes) = self.dice.pick(&before.into_iter().collect::<Vec<_>>()).clone();
            match storage.get(&Path::from(key.clone())).await {
                Ok(found) if found.as_ref() != Some(&bytes) => self.say(format!("{key} is read as {found:?}")),
                _ => {}
            }
            match storage.head(&Path::from(key.clone())).await {
                Ok(found) if found.as_ref().map(|meta| meta.size) != Some(bytes.len() as u64) => {
                    self.say(format!("{key} looks like {found:?}"));
                }
                _ => {}
            }
        }
    }

    /// Makes objects and deletes them again, as intents are.
    async fn come_and_go(self, storage: Storage) {
        loop {
            let number = self.witness.scratch.fetch_add(1, Ordering::SeqCst);
            let (path, bytes) = (Path::from(format!("scratch/{number}")), Bytes::from(number.to_string()));
            let mut in_doubt = false;
            loop {
                match storage.put_new(&path, bytes.clone()).await {
                    Ok(PutNew::Created) => break,
                    Ok(PutNew::Taken) => self.say(format!("{path} is taken by nobody")),
                    Err(error) => {
                        in_doubt = true;
                        self.again("put a scratch", &error).await;
                    }
                }
            }
            while let Err(error) = storage.delete(&path).await {
                self.again("delete a scratch", &error).await;
            }
            // A put that is late makes it once more.
            if !in_doubt && storage.head(&path).await.is_ok_and(|found| found.is_some()) {
                self.say(format!("{path} is there after its deletion"));
            }
            self.wire.clock.sleep(PAUSE).await;
        }
    }
}

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]))
}

fn rows(first: i64, last: i64) -> RecordBatch {
    let numbers: Int64Array = (first..=last).map(Some).collect();
    RecordBatch::try_new(schema(), vec![Arc::new(numbers)]).unwrap()
}
