//! The lattice of JSON types: what a value shows, and what two types have in common.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::timestamp::timestamp_micros;

/// If data is used as field names, every record brings new columns. Beyond this number none are added.
pub(crate) const MAX_COLUMNS: usize = 2_000;
/// How many lists and objects a column may have within each other. Readers parse the schema in the log as JSON, three
/// levels of it for each object, and the parsers of some refuse more than 128; others need a stack for every level.
pub(crate) const MAX_DEPTH: usize = 30;
/// Fields that are remembered of an object: enough to see that they are too many for columns.
const MAX_FIELDS: usize = MAX_COLUMNS + 1;
/// So few names are compared with all others; for more, a map is built.
const FEW: usize = 8;

/// The type seen at one place of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JsonType {
    /// Only null so far, which is compatible with anything.
    Null,
    Boolean,
    /// An integer that fits into 64 bits.
    Long,
    Double,
    /// A string that is a timestamp.
    Timestamp,
    /// A string, or values so different that only their JSON text can hold them all.
    Text,
    /// A list, with the common type of its elements.
    List(Box<JsonType>),
    /// An object, its fields in order of first appearance.
    Struct(Vec<(String, JsonType)>),
}

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InferOptions {
    /// Whether to infer scalar types; otherwise everything but lists, objects and nulls is text.
    pub(crate) typed: bool,
    /// Whether a string with an ISO 8601 date, time and offset (or `Z`) is a timestamp.
    pub(crate) timestamps: bool,
}

impl JsonType {
    /// The type of one value. An object's fields come in the value's order, which is by name as long as `serde_json`
    /// sorts them.
    #[cfg(test)]
    pub(crate) fn of(value: &serde_json::Value, options: InferOptions) -> Self {
        // A parsed value has nothing left to fail on.
        TypeOf { options, depth: 0 }.deserialize(value).unwrap_or(Self::Text)
    }

    /// The type of one JSON text, its fields in written order. If an object has a name twice, the type holds both
    /// values.
    ///
    /// # Errors
    /// When it is not JSON or has numbers that do not fit into 64 bits.
    pub(crate) fn read(text: &str, options: InferOptions) -> serde_json::Result<Self> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let seen = TypeOf { options, depth: 0 }.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(seen)
    }

    /// The narrowest type that holds what either holds.
    pub(crate) fn merge(self, other: Self) -> Self {
        match (self, other) {
            (Self::Null, seen) | (seen, Self::Null) => seen,
            (Self::Long, Self::Double) | (Self::Double, Self::Long) => Self::Double,
            (Self::List(element), Self::List(other)) => Self::List(Box::new(element.merge(*other))),
            (Self::Struct(fields), Self::Struct(others)) => Self::Struct(merge_fields(fields, others)),
            (one, other) if one == other => one,
            _ => Self::Text,
        }
    }
}

type Named = (String, JsonType);

fn merge_fields(mut fields: Vec<Named>, others: Vec<Named>) -> Vec<Named> {
    let places = places(&fields, &others);
    for ((name, seen), place) in others.into_iter().zip(places) {
        let is_full = fields.len() >= MAX_FIELDS;
        match place.and_then(|place| fields.get_mut(place)) {
            Some((_, field)) => *field = std::mem::replace(field, JsonType::Null).merge(seen),
            None if is_full => {}
            None => fields.push((name, seen)),
        }
    }
    fields
}

/// The position in `fields` of each of `others`.
fn places(fields: &[Named], others: &[Named]) -> Vec<Option<usize>> {
    // Records of one folder mostly look alike: the next field is at the next position, so no map is needed.
    let mut by_name: Option<HashMap<&str, usize>> = None;
    let mut next = 0;
    let place = |(name, _): &Named| {
        let place = if fields.get(next).is_some_and(|(field, _)| field == name) {
            Some(next)
        } else if others.len() <= FEW {
            fields.iter().position(|(field, _)| field == name)
        } else {
            let index = || fields.iter().enumerate().map(|(place, (field, _))| (field.as_str(), place)).collect();
            by_name.get_or_insert_with(index).get(name.as_str()).copied()
        };
        next = place.map_or(next, |place| place + 1);
        place
    };
    others.iter().map(place).collect()
}

/// Looks at a value as it is parsed, keeping none of it.
#[derive(Clone, Copy)]
struct TypeOf {
    options: InferOptions,
    /// How many lists and objects the value is in.
    depth: usize,
}

impl TypeOf {
    fn deeper(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }

    fn leaf(self, typed: JsonType) -> JsonType {
        if self.options.typed { typed } else { JsonType::Text }
    }
}

impl<'de> DeserializeSeed<'de> for TypeOf {
    type Value = JsonType;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<JsonType, D::Error> {
        // Nothing deeper gets a column, and looking at it would take a stack for every level.
        if self.depth > MAX_DEPTH + 1 {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(|IgnoredAny| JsonType::Null);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TypeOf {
    type Value = JsonType;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<JsonType, E> {
        Ok(JsonType::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<JsonType, E> {
        Ok(self.leaf(JsonType::Boolean))
    }

    fn visit_i64<E>(self, _: i64) -> Result<JsonType, E> {
        Ok(self.leaf(JsonType::Long))
    }

    fn visit_u64<E>(self, number: u64) -> Result<JsonType, E> {
        Ok(self.leaf(if i64::try_from(number).is_ok() { JsonType::Long } else { JsonType::Double }))
    }

    fn visit_f64<E>(self, _: f64) -> Result<JsonType, E> {
        Ok(self.leaf(JsonType::Double))
    }

    fn visit_str<E>(self, text: &str) -> Result<JsonType, E> {
        let is_timestamp = self.options.typed && self.options.timestamps && timestamp_micros(text).is_some();
        Ok(if is_timestamp { JsonType::Timestamp } else { JsonType::Text })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<JsonType, A::Error> {
        let mut element = JsonType::Null;
        while let Some(seen) = list.next_element_seed(self.deeper())? {
            element = element.merge(seen);
        }
        Ok(JsonType::List(Box::new(element)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<JsonType, A::Error> {
        let mut fields: Vec<Named> = Vec::new();
        let mut places = HashMap::new();
        while let Some(name) = object.next_key::<String>()? {
            let seen = object.next_value_seed(self.deeper())?;
            match places.entry(name) {
                Entry::Vacant(_) if fields.len() >= MAX_FIELDS => {}
                Entry::Vacant(place) => {
                    fields.push((place.key().clone(), seen));
                    place.insert(fields.len() - 1);
                }
                Entry::Occupied(place) => {
                    let (_, field) = &mut fields[*place.get()];
                    *field = std::mem::replace(field, JsonType::Null).merge(seen);
                }
            }
        }
        Ok(JsonType::Struct(fields))
    }
}
