//! A table read without `LakeTable`, so that an error there cannot hide itself.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::storage::Storage;
use crate::table::{TableRole, TxnId};

/// A table according to its log and its files.
#[derive(Debug, Default)]
pub(in crate::tests) struct Table {
    rows: Vec<RecordBatch>,
    /// The values of each txn, in version order.
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

    /// Up to which version a stage has handled its upstream table; 0 if unknown.
    pub(in crate::tests) fn watermark(&self, of: TableRole) -> i64 {
        let is_it = |id: &str| matches!(TxnId::parse(id), Some(TxnId::Watermark { role, .. }) if role == of);
        let values = self.txns.iter().find(|(id, _)| is_it(id)).and_then(|(_, values)| values.last());
        values.copied().unwrap_or(0)
    }

    /// The fence rises by one with each commit of its stage, and no other progress ever goes back.
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

/// How the ids of a table differ from one row per update.
pub(in crate::tests) fn once_each(name: &str, ids: &[Option<i64>], updates: &BTreeSet<i64>) -> Vec<String> {
    let mut counts: BTreeMap<i64, usize> = updates.iter().map(|id| (*id, 0)).collect();
    ids.iter().for_each(|id| *counts.entry(id.unwrap_or(-1)).or_default() += 1);
    let odd = counts.into_iter().filter(|(id, count)| *count != 1 || !updates.contains(id));
    odd.map(|(id, count)| format!("{name}: update {id} has {count} rows")).collect()
}
