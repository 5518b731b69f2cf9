//! JSON objects parsed one level at a time, with every value kept as raw text.
//!
//! This way, a value that does not fit its column is rescued verbatim, whatever it is: a number beyond every float, an
//! unpaired surrogate, a thousand brackets. Nothing below the requested level is ever built.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Capacity for the fields of most messages.
const USUAL_FIELDS: usize = 12;

/// The fields of a JSON object, in order.
pub(super) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A JSON string, copied only if it has escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Fields<'a> {
    /// The fields of `json`; `None` when it is not a JSON object.
    pub(super) fn parse(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// The value of `name`; null counts as absent, and of duplicates the last counts.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        let (_, value) = self.0.iter().rev().find(|(key, _)| key == name)?;
        (value.get() != "null").then_some(*value)
    }

    /// The names of all fields.
    pub(super) fn names(&self) -> impl Iterator<Item = &Cow<'a, str>> {
        self.0.iter().map(|(name, _)| name)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::with_capacity(USUAL_FIELDS);
        while let Some((Text(name), value)) = map.next_entry()? {
            fields.push((name, value));
        }
        Ok(Fields(fields))
    }
}

/// The integer that `value` is written as; `1.0` and `1e3` are not integers.
pub(super) fn integer(value: &RawValue) -> Option<i64> {
    value.get().parse().ok()
}

/// The string that `value` is.
pub(super) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str(value.get()).ok().map(|Text(text)| text)
}

/// The fields of the object that `value` is.
pub(super) fn object(value: &RawValue) -> Option<Fields<'_>> {
    Fields::parse(value.get())
}

/// The fields of the object that `value` is, or of the last one in an array.
pub(super) fn last_object(value: &RawValue) -> Option<Fields<'_>> {
    match serde_json::from_str::<Vec<&RawValue>>(value.get()) {
        Ok(items) => object(items.last()?),
        Err(_) => object(value),
    }
}
