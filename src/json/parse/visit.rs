//! The fast path: a record goes from its text straight into the columns, in one pass and without building a document.
//!
//! Whatever does not fit is an error here; the record is then processed again, value by value, by [`super::raw`].

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::column::{Column, Names, StructValues, Values, column_at};
use super::rescue::{Step, ValuePath};
use super::{Notes, raw};

/// Appends a record to the columns of `root`, which have `row` rows.
///
/// # Errors
/// When it is not a JSON object or a value does not fit. The columns may then already have some of its values.
pub(super) fn append(root: &mut StructValues, row: usize, text: &str, notes: &mut Notes) -> serde_json::Result<()> {
    let mut record = serde_json::Deserializer::from_str(text);
    record.deserialize_map(Object { values: root, row, notes, path: None })?;
    record.end()
}

/// A JSON object that becomes row `row` of these columns.
struct Object<'a> {
    values: &'a mut StructValues,
    row: usize,
    notes: &'a mut Notes,
    path: Option<&'a ValuePath<'a>>,
}

/// A JSON value that becomes the next row of a column.
struct Cell<'a> {
    column: &'a mut Column,
    notes: &'a mut Notes,
    path: &'a ValuePath<'a>,
}

/// Finds the column for a field without copying its name.
struct KeyOf<'a> {
    names: &'a Names,
    /// The column that most likely comes next.
    likely: usize,
}

enum Key {
    Known(usize),
    Unknown(String),
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let Object { values, row, notes, path } = self;
        let StructValues { names, children } = values;
        let mut likely = 0;
        while let Some(key) = fields.next_key_seed(KeyOf { names, likely })? {
            match key {
                Key::Known(index) => {
                    likely = index + 1;
                    let Some(column) = column_at(children, index, row) else {
                        return Err(A::Error::custom("a duplicate name"));
                    };
                    let path = &ValuePath { parent: path, step: Step::Field(names.name(index)) };
                    fields.next_value_seed(Cell { column, notes, path })?;
                }
                Key::Unknown(_) if notes.ignores_unknown => drop(fields.next_value::<IgnoredAny>()?),
                Key::Unknown(name) => {
                    let value = fields.next_value::<&RawValue>()?;
                    notes.unknown(&ValuePath { parent: path, step: Step::Field(&name) }, value.get());
                }
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for KeyOf<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyOf<'_> {
    type Value = Key;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        Ok(self.names.index(name, self.likely).map_or_else(|| Key::Unknown(name.to_owned()), Key::Known))
    }
}

impl<'de> DeserializeSeed<'de> for Cell<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let is_raw = match &self.column.values {
            // serde_json's own float parsing is off by a bit now and then, and decimals would have to pass through it.
            Values::Double(_) | Values::Float(_) | Values::Decimal(..) => true,
            Values::Text(text) => text.takes_json,
            _ => false,
        };
        if !is_raw {
            return deserializer.deserialize_any(self);
        }
        let value: &RawValue = serde::Deserialize::deserialize(deserializer)?;
        raw::push(self.column, value.get(), self.notes, self.path);
        Ok(())
    }
}

impl Cell<'_> {
    fn misfit<E: serde::de::Error>(self) -> Result<(), E> {
        if let Values::Text(text) = &mut self.column.values {
            text.takes_json = true;
        }
        Err(E::custom("a value that does not fit its column"))
    }
}

impl<'de> Visitor<'de> for Cell<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.column.push_null();
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        match &mut self.column.values {
            Values::Boolean(values) => values.push(value),
            _ => return self.misfit(),
        }
        self.column.valid.push(true);
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        match &mut self.column.values {
            Values::Integer(values, width) if width.holds(value) => values.push(value),
            _ => return self.misfit(),
        }
        self.column.valid.push(true);
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.misfit(),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, _value: f64) -> Result<(), E> {
        self.misfit()
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        match raw::push_string(self.column, value) {
            true => Ok(()),
            false => self.misfit(),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Cell { column, notes, path } = self;
        let Values::List(list) = &mut column.values else { return Cell { column, notes, path }.misfit() };
        for index in 0.. {
            let path = &ValuePath { parent: Some(path), step: Step::Item(index) };
            if items.next_element_seed(Cell { column: &mut list.items, notes, path })?.is_none() {
                break;
            }
        }
        list.end();
        column.valid.push(true);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<(), A::Error> {
        let Cell { column, notes, path } = self;
        let row = column.len();
        let Values::Struct(values) = &mut column.values else { return Cell { column, notes, path }.misfit() };
        Object { values, row, notes, path: Some(path) }.visit_map(fields)?;
        column.valid.push(true);
        Ok(())
    }
}
