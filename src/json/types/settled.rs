//! Which inferred columns are worth adding: those whose type is known, up to a limit.

use arrow::datatypes::{DataType, Fields};

use super::lattice::JsonType;

/// If data is used as field names, every record brings new columns. Beyond this number none are added.
pub(crate) const MAX_COLUMNS: usize = 2_000;

/// The part that has a type. A field that was always null waits for its first value, which decides its type.
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
