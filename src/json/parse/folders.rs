//! Partition columns: fills what the file's folders say into the columns that its record left empty.

use super::column::{Column, StructValues, Values, column_at};
use super::rescue::{Step, ValuePath};
use super::{Notes, raw};
use crate::json::partition::PartitionValue;

/// Appends the values to row `row` of the columns of `root`. If the record has a field of that name, the record wins.
pub(super) fn append(root: &mut StructValues, row: usize, partition: &[PartitionValue], notes: &mut Notes) {
    for value in partition {
        let path = &ValuePath { parent: None, step: Step::Field(&value.name) };
        let Some(index) = root.names.index(&value.name, usize::MAX) else {
            let rescued = path.rescue(&value.json);
            if !notes.ignores_unknown && notes.rescued.iter().all(|other| other.key != rescued.key) {
                notes.rescued.push(rescued);
            }
            continue;
        };
        if let Some(column) = column_at(&mut root.children, index, row) {
            push(column, value, notes, path);
        }
    }
}

fn push(column: &mut Column, value: &PartitionValue, notes: &mut Notes, path: &ValuePath<'_>) {
    let json = match &column.values {
        Values::Boolean(_) | Values::Integer(..) | Values::Double(_) | Values::Float(_) | Values::Decimal(..) => {
            &value.number
        }
        Values::Text(_) | Values::Date(_) | Values::Timestamp(..) | Values::List(_) | Values::Struct(_) => {
            &value.string
        }
    };
    let before = notes.rescued.len();
    raw::push(column, json, notes, path);
    // A value that does not fit is kept the way the folder spells it.
    if let Some(rescued) = notes.rescued.get_mut(before) {
        rescued.value.clone_from(&value.json);
    }
}
