//! The promises, checked on what is left at the end: raw log files and Parquet against what Telegram has seen.
//!
//! Reads the Delta logs by itself, so that an error of `LakeTable` cannot hide itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::world::World;
use crate::storage::Storage;
use crate::table::{TableRole, TxnId};

/// A table as its log and its files tell.
#[derive(Debug, Default)]
pub(in crate::tests) struct Table {
    rows: Vec<RecordBatch>,
    /// Values of each txn, in the order of the versions.
    txns: BTreeMap<String, Vec<i64>>,
    wrong: Vec<String>,
}

impl Table {
    pub(in crate::tests) async fn read(storage: &Storage, path: &str) -> Self {
        let mut table = Self::default();
        let store = storage.object_store();
        let log = Path::from(format!("{path}/_delta_log"));
        let listed: Vec<_> = store.list(Some(&log)).try_collect().await.unwrap();
        let version = |name: &str| name.strip_suffix(".json").and_then(|digits| digits.parse::<usize>().ok());
        let versions: BTreeSet<usize> =
            listed.iter().filter_map(|meta| version(meta.location.filename().unwrap_or_default())).collect();
        if versions.iter().copied().ne(0..versions.len()) {
            table.wrong.push(format!("{path}: versions {versions:?} are not contiguous"));
        }
        let mut files = BTreeSet::new();
        for version in versions {
            let commit = Path::from(format!("{path}/_delta_log/{version:020}.json"));
            let bytes = storage.get(&commit).await.unwrap().unwrap();
            for line in String::from_utf8_lossy(&bytes).lines() {
                table.replay(&serde_json::from_str(line).unwrap(), &mut files);
            }
        }
        for file in files {
            let Some(bytes) = storage.get(&Path::from(format!("{path}/{file}"))).await.unwrap() else {
                table.wrong.push(format!("{path}: {file} is in the log and not in the store"));
                continue;
            };
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
            table.rows.extend(reader.map(Result::unwrap));
        }
        table
    }

    fn replay(&mut self, action: &Value, files: &mut BTreeSet<String>) {
        if let Some(path) = action.pointer("/add/path").and_then(Value::as_str) {
            files.insert(path.to_owned());
        }
        if let Some(path) = action.pointer("/remove/path").and_then(Value::as_str) {
            files.remove(path);
        }
        if let Some(app_id) = action.pointer("/txn/appId").and_then(Value::as_str) {
            let value = action.pointer("/txn/version").and_then(Value::as_i64).unwrap_or(-1);
            self.txns.entry(app_id.to_owned()).or_default().push(value);
        }
    }

    pub(in crate::tests) fn integers(&self, name: &str) -> Vec<Option<i64>> {
        let column = |batch: &RecordBatch| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
        self.rows.iter().flat_map(|batch| column(batch).iter().collect::<Vec<_>>()).collect()
    }

    pub(in crate::tests) fn texts(&self, name: &str) -> Vec<Option<String>> {
        let text = |batch: &RecordBatch| {
            let column = batch.column_by_name(name).unwrap().as_string::<i32>();
            column.iter().map(|text| text.map(str::to_owned)).collect::<Vec<_>>()
        };
        self.rows.iter().flat_map(text).collect()
    }

    /// How far a stage has handled its upstream table; 0 when it never said.
    pub(in crate::tests) fn watermark(&self, of: TableRole) -> i64 {
        let is_it = |id: &str| matches!(TxnId::parse(id), Some(TxnId::Watermark { role, .. }) if role == of);
        let values = self.txns.iter().find(|(id, _)| is_it(id)).and_then(|(_, values)| values.last());
        values.copied().unwrap_or(0)
    }

    /// The fence goes up by one with each commit of its stage, and nothing that shows progress goes back.
    pub(in crate::tests) fn check_txns(&self, name: &str, role: TableRole) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        let fence = TxnId::Fence(role).to_string();
        for (app_id, values) in &self.txns {
            let fits = match *app_id == fence {
                true => values.iter().copied().eq(1..=i64::try_from(values.len()).unwrap()),
                false => values.is_sorted_by(|one, next| one < next),
            };
            if !fits {
                wrong.push(format!("{name}: txn {app_id} went {values:?}"));
            }
        }
        wrong
    }
}

/// Says how the ids of a table differ from one row for each update.
pub(in crate::tests) fn once_each(name: &str, ids: &[Option<i64>], updates: &BTreeSet<i64>) -> Vec<String> {
    let mut counts: BTreeMap<i64, usize> = updates.iter().map(|id| (*id, 0)).collect();
    ids.iter().for_each(|id| *counts.entry(id.unwrap_or(-1)).or_default() += 1);
    let odd = counts.into_iter().filter(|(id, count)| *count != 1 || !updates.contains(id));
    odd.map(|(id, count)| format!("{name}: update {id} has {count} rows")).collect()
}

/// What is wrong at the end, when every update was acknowledged and nothing waits.
pub(super) async fn check(world: &World) -> Vec<String> {
    let storage = &world.storage;
    let bronze = Table::read(storage, "bronze/telegram_messages").await;
    let silver = Table::read(storage, "silver/telegram_responses").await;
    let replies = Table::read(storage, "silver/telegram_replies").await;
    let updates: BTreeSet<i64> = world.said().iter().map(|said| said.update_id).collect();
    let mut wrong = bronze.check_txns("bronze", TableRole::Bronze);
    wrong.extend(silver.check_txns("silver", TableRole::Silver));
    wrong.extend(replies.check_txns("replies", TableRole::Reply));
    wrong.extend(once_each("bronze", &bronze.integers("update_id"), &updates));
    wrong.extend(once_each("silver", &silver.integers("update_id"), &updates));
    wrong.extend(check_replies(world, &silver, &replies));
    wrong.extend(intents(world).await.iter().map(|path| format!("{path} is left over")));
    wrong
}

/// The intents there are.
pub(super) async fn intents(world: &World) -> Vec<Path> {
    let listed = world.storage.object_store().list(Some(&Path::from("intents")));
    listed.map_ok(|meta| meta.location).try_collect().await.unwrap()
}

/// The outcomes of the parts of one reply, by part.
type Outcomes = BTreeMap<i64, (String, Option<i64>)>;

fn check_replies(world: &World, silver: &Table, replies: &Table) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut by_update: HashMap<i64, Outcomes> = HashMap::new();
    let (ids, parts) = (replies.integers("update_id"), replies.integers("part"));
    let (statuses, messages) = (replies.texts("status"), replies.integers("telegram_message_id"));
    for (row, id) in ids.iter().enumerate() {
        let (id, part) = (id.unwrap_or(-1), parts[row].unwrap_or(-1));
        let outcome = (statuses[row].clone().unwrap_or_default(), messages[row]);
        if by_update.entry(id).or_default().insert(part, outcome).is_some() {
            wrong.push(format!("replies: part {part} for update {id} has several rows"));
        }
    }
    let wanted = silver.integers("update_id").into_iter().zip(silver.integers("reply_parts"));
    let wanted: HashMap<i64, i64> = wanted.map(|(id, parts)| (id.unwrap_or(-1), parts.unwrap_or(0))).collect();
    let sent = world.telegram.sent();
    let mut texts = BTreeSet::new();
    for message in &sent {
        if !texts.insert((message.chat_id, &message.text)) {
            wrong.push(format!("Telegram has taken twice: {}", message.text));
        }
    }
    for said in world.said() {
        let accepted: BTreeSet<i64> =
            sent.iter().filter(|message| message.text.contains(&said.word)).map(|message| message.message_id).collect();
        let outcomes = by_update.remove(&said.update_id).unwrap_or_default();
        let parts = wanted.get(&said.update_id).copied().unwrap_or(0);
        let found = check_reply(parts, &outcomes, &accepted);
        wrong.extend(found.map(|what| format!("reply to {}: {what}: {outcomes:?}, accepted {accepted:?}", said.word)));
    }
    wrong.extend(by_update.keys().map(|id| format!("replies: update {id} was never said")));
    wrong
}

/// What is wrong with one reply of so many parts.
fn check_reply(parts: i64, outcomes: &Outcomes, accepted: &BTreeSet<i64>) -> Option<String> {
    let with = |status: &str| outcomes.values().filter(|(found, _)| found == status).count();
    let (sent, unknown) = (with("sent"), with("unknown"));
    if !outcomes.keys().copied().eq(1..=i64::try_from(outcomes.len()).unwrap()) {
        return Some("its parts have gaps".to_owned());
    }
    let ended = outcomes.values().rev().skip(1).all(|(status, _)| status == "sent");
    let complete = i64::try_from(sent).unwrap() == parts || outcomes.values().last().is_some_and(|(s, _)| s != "sent");
    if !ended || !complete {
        return Some(format!("of {parts} parts it has other outcomes than it should"));
    }
    if accepted.len() < sent || accepted.len() > sent + unknown {
        return Some("Telegram has taken other parts".to_owned());
    }
    let known = outcomes.values().filter_map(|(_, message)| *message).all(|message| accepted.contains(&message));
    (!known).then(|| "its messages are not those that Telegram took".to_owned())
}

/// How many rows of the replies table have this status.
pub(super) async fn replies_with(world: &World, status: &str) -> usize {
    let replies = Table::read(&world.storage, "silver/telegram_replies").await;
    replies.texts("status").into_iter().flatten().filter(|found| found == status).count()
}
