//! Which columns are worth having: those whose type is known, and not without end.

use arrow::datatypes::{DataType, Fields};

use super::lattice::JsonType;

/// Where data stands in the place of names every record brings a column of its own. Beyond so many no column is added.
pub(crate) const MAX_COLUMNS: usize = 2_000;

/// What has a type. A field that was only ever null waits for its first value, which says what it is.
pub(crate) fn settled(seen: JsonType) -> Option<JsonType> {
    match seen {
        JsonType::Null => None,
        JsonType::List(items) => settled(*items).map(|items| JsonType::List(Box::new(items))),
        JsonType::Struct(fields) => {
            let fields = fields.into_iter().filter_map(|(name, field)| Some((name, settled(field)?)));
            let fields: Vec<_> = fields.collect();
            (!fields.is_empty()).then_some(JsonType::Struct(fields))
        }
        leaf => Some(leaf),
    }
}

pub(crate) fn leaves(fields: &Fields) -> usize {
    let below = |data_type: &DataType| match data_type {
        DataType::Struct(fields) => leaves(fields),
        DataType::List(item) => match item.data_type() {
            DataType::Struct(fields) => leaves(fields),
            _ => 1,
        },
        _ => 1,
    };
    fields.iter().map(|field| below(field.data_type())).sum()
}
