//! Decides which columns get no Parquet dictionary: looking up every value costs more than the rest of writing it, for
//! nothing if hardly any value repeats.

use std::collections::HashSet;
use std::hash::Hash;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use parquet::schema::types::ColumnPath;

/// Values that are sampled, and how many are needed to decide.
const MOST_VALUES: usize = 512;
const FEWEST_VALUES: usize = 128;
/// If this many out of a hundred values differ, a dictionary does not pay off.
const DIFFERENT_PERCENT: usize = 80;

/// The leaves of these rows, by Parquet path, whose first values are nearly all different.
pub(super) fn columns_without(rows: &RecordBatch) -> Vec<ColumnPath> {
    let mut found = Vec::new();
    for (field, values) in rows.schema().fields().iter().zip(rows.columns()) {
        look_into(&mut vec![field.name().clone()], values, &mut found);
    }
    found
}

fn look_into(path: &mut Vec<String>, values: &ArrayRef, found: &mut Vec<ColumnPath>) {
    match values.data_type() {
        DataType::Struct(fields) => {
            for (field, child) in fields.iter().zip(values.as_struct().columns()) {
                path.push(field.name().clone());
                look_into(path, child, found);
                path.pop();
            }
        }
        DataType::List(item) => {
            path.extend(["list".to_owned(), item.name().clone()]);
            look_into(path, values.as_list::<i32>().values(), found);
            path.truncate(path.len() - 2);
        }
        DataType::Utf8 if differ(values.as_string::<i32>().iter()) => found.push(ColumnPath::new(path.clone())),
        DataType::Int64 if differ(values.as_primitive::<Int64Type>().iter()) => {
            found.push(ColumnPath::new(path.clone()));
        }
        _ => {}
    }
}

fn differ<T: Eq + Hash>(values: impl Iterator<Item = Option<T>>) -> bool {
    let (mut count, mut different) = (0, HashSet::with_capacity(MOST_VALUES));
    for value in values.flatten().take(MOST_VALUES) {
        count += 1;
        different.insert(value);
    }
    count >= FEWEST_VALUES && different.len() * 100 > count * DIFFERENT_PERCENT
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, ListArray, StringArray, StructArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn columns_whose_values_differ_are_told_at_any_depth() {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..200));
        let few: ArrayRef = Arc::new(Int64Array::from_iter_values((0..200).map(|number| number % 7)));
        let texts: ArrayRef = Arc::new((0..200).map(|number| Some(number.to_string())).collect::<StringArray>());
        let fields = vec![
            (Arc::new(Field::new("text", DataType::Utf8, true)), texts),
            (Arc::new(Field::new("few", DataType::Int64, true)), Arc::clone(&few)),
        ];
        let item = Arc::new(Field::new("element", DataType::Int64, true));
        let lists = ListArray::new(item, OffsetBuffer::from_lengths(vec![1; 200]), Arc::clone(&ids), None);
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::clone(&ids)),
            ("few", few),
            ("deep", Arc::new(StructArray::from(fields))),
            ("lists", Arc::new(lists)),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let paths: Vec<String> = columns_without(&rows).iter().map(ToString::to_string).collect();
        assert_eq!(
            paths.iter().map(|path| path.replace('"', "")).collect::<Vec<_>>(),
            ["id", "deep.text", "lists.list.element"]
        );
        let short = rows.project(&[0]).unwrap().slice(0, FEWEST_VALUES - 1);
        assert!(columns_without(&short).is_empty(), "too few to tell");
    }
}
