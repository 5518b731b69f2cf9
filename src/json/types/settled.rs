//! Which inferred columns are worth adding: those whose type is known, up to limits of depth and number.

use std::cmp::Reverse;

use arrow::datatypes::{DataType, Fields};

use super::lattice::{JsonType, MAX_COLUMNS, MAX_DEPTH};

/// The part that has a type. A field that was always null waits for its first value, which decides its type. What is
/// deeper than [`MAX_DEPTH`] gets no column, and neither does what would be more than [`MAX_COLUMNS`].
pub(crate) fn settled(seen: JsonType) -> Option<JsonType> {
    let settled = settled_at(seen, 0)?;
    if leaves_of(&settled) <= MAX_COLUMNS {
        return Some(settled);
    }
    tracing::warn!("more than {MAX_COLUMNS} columns; further fields are kept in _rescued_data");
    match settled {
        JsonType::Struct(fields) => Some(JsonType::Struct(bounded_fields(fields, MAX_COLUMNS))),
        _ => None,
    }
}

fn settled_at(seen: JsonType, depth: usize) -> Option<JsonType> {
    match seen {
        JsonType::Null => None,
        JsonType::List(_) | JsonType::Struct(_) if depth > MAX_DEPTH => None,
        JsonType::List(items) => settled_at(*items, depth + 1).map(|items| JsonType::List(Box::new(items))),
        JsonType::Struct(fields) => {
            // Readers take a NUL for the end of a name.
            let fields = fields.into_iter().filter(|(name, _)| !name.contains('\0'));
            let fields = fields.filter_map(|(name, field)| Some((name, settled_at(field, depth + 1)?)));
            let fields: Vec<_> = fields.collect();
            (!fields.is_empty()).then_some(JsonType::Struct(fields))
        }
        leaf => Some(leaf),
    }
}

/// Fields with at most so many leaves. First to go are those within the objects that have most of them, since there
/// names are data; then the last fields.
fn bounded_fields(fields: Vec<(String, JsonType)>, most: usize) -> Vec<(String, JsonType)> {
    let mut total: usize = fields.iter().map(|(_, field)| leaves_of(field)).sum();
    let mut by_size: Vec<usize> = (0..fields.len()).collect();
    by_size.sort_by_cached_key(|place| Reverse((fields.get(*place).map_or(0, |(_, field)| leaves_of(field)), *place)));
    let mut fields: Vec<_> = fields.into_iter().map(Some).collect();
    for place in by_size {
        let Some(slot) = fields.get_mut(place).filter(|_| total > most) else { break };
        let Some((name, field)) = slot.take() else { continue };
        let leaves = leaves_of(&field);
        if leaves == 1 {
            *slot = Some((name, field));
            break;
        }
        let others = total - leaves;
        let bounded = bounded(field, most.saturating_sub(others));
        total = others + bounded.as_ref().map_or(0, leaves_of);
        *slot = bounded.map(|field| (name, field));
    }
    let mut left = most;
    let fits = |(_, field): &(String, JsonType)| {
        let leaves = leaves_of(field);
        let fits = leaves <= left;
        left -= if fits { leaves } else { 0 };
        fits
    };
    fields.into_iter().flatten().filter(fits).collect()
}

/// A nested type with at most so many leaves; none if its names are data.
fn bounded(seen: JsonType, most: usize) -> Option<JsonType> {
    match seen {
        JsonType::List(items) => bounded(*items, most).map(|items| JsonType::List(Box::new(items))),
        JsonType::Struct(fields) if fields.len() <= most => {
            let fields = bounded_fields(fields, most);
            (!fields.is_empty()).then_some(JsonType::Struct(fields))
        }
        JsonType::Struct(_) => None,
        leaf => (most > 0).then_some(leaf),
    }
}

fn leaves_of(seen: &JsonType) -> usize {
    match seen {
        JsonType::Struct(fields) => fields.iter().map(|(_, field)| leaves_of(field)).sum::<usize>().max(1),
        JsonType::List(items) => leaves_of(items),
        _ => 1,
    }
}

/// How many columns of a file these are.
pub(crate) fn leaves(fields: &Fields) -> usize {
    fn below(data_type: &DataType) -> usize {
        match data_type {
            DataType::Struct(fields) => leaves(fields),
            DataType::List(item) => below(item.data_type()),
            _ => 1,
        }
    }
    fields.iter().map(|field| below(field.data_type())).sum()
}

#[cfg(test)]
mod tests {
    use super::super::{InferOptions, schema_of};
    use super::*;

    fn columns(text: &str) -> Vec<String> {
        let seen = JsonType::read(text, InferOptions { typed: true, timestamps: false }).unwrap();
        let schema = settled(seen).map(|seen| schema_of(&seen, &[]));
        let schema = schema.map_or_else(Vec::new, |schema| schema.fields().to_vec());
        assert!(leaves(&schema.clone().into()) <= MAX_COLUMNS);
        schema.iter().map(|field| field.name().clone()).collect()
    }

    fn object(names: usize, value: &str) -> String {
        let fields: Vec<String> = (0..names).map(|name| format!("\"k{name}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    }

    #[test]
    fn names_that_are_data_get_no_column_and_the_others_keep_theirs() {
        let wide = object(MAX_COLUMNS, "1");
        for by_user in
            [&wide, &format!("[{wide}]"), &format!("[[{{\"x\":{wide}}}]]"), &object(1_500, "{\"a\":1,\"b\":2}")]
        {
            let found = columns(&format!("{{\"id\":1,\"by_user\":{by_user},\"at\":2,\"deep\":{{\"er\":1}}}}"));
            assert_eq!(found.first().map(String::as_str), Some("id"));
            assert!(found.contains(&"at".to_owned()) && found.contains(&"deep".to_owned()), "{}", by_user.len());
        }
        assert_eq!(columns(&object(100_000, "1")).len(), MAX_COLUMNS);
        assert_eq!(columns(&object(5_000, "[{\"a\":1,\"b\":{\"c\":[2]}}]")).len(), MAX_COLUMNS / 2);
    }

    #[test]
    fn a_name_with_a_nul_gets_no_column() {
        assert_eq!(columns(r#"{"id":2,"bad\u0000key":7,"in":{"\u0000":1}}"#), ["id"]);
    }

    #[test]
    fn what_is_too_deep_gets_no_column_and_what_is_beside_it_does() {
        let nested = |open: &str, close: &str, depth| format!("{}1{}", open.repeat(depth), close.repeat(depth));
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
            let levels = open.matches(['[', '{']).count();
            for (depth, names) in [(MAX_DEPTH / levels, 2), (MAX_DEPTH / levels + 1, 1), (120 / levels, 1)] {
                let found = columns(&format!("{{\"id\":1,\"x\":{}}}", nested(open, close, depth)));
                assert_eq!(found.len(), names, "{open} {depth}");
            }
        }
    }
}
