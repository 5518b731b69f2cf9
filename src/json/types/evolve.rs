//! Derives Arrow columns from observed types, and extends existing columns with new ones.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};

use super::lattice::JsonType;
use super::names::{ELEMENT, column, json_name, name_key, quoted};

/// The columns for such a record; none when it is not an object. Names in `reserved` get no column.
pub(crate) fn schema_of(record: &JsonType, reserved: &[&str]) -> Schema {
    evolve(&Schema::empty(), record, reserved).0
}

/// The current columns followed by those that only `seen` has, at every depth; `None` when nothing is new. Existing
/// columns stay as they are.
pub(crate) fn widen(current: &Schema, seen: &JsonType, reserved: &[&str]) -> Option<Schema> {
    let (schema, new_names) = evolve(current, seen, reserved);
    (!new_names.is_empty()).then_some(schema)
}

/// The dotted paths of what [`widen`] would add, for messages.
pub(crate) fn new_names(current: &Schema, seen: &JsonType, reserved: &[&str]) -> Vec<String> {
    evolve(current, seen, reserved).1
}

fn evolve(current: &Schema, seen: &JsonType, reserved: &[&str]) -> (Schema, Vec<String>) {
    let JsonType::Struct(seen) = seen else { return (current.clone(), Vec::new()) };
    let mut evolution = Evolution::default();
    let fields = evolution.widen_fields(current.fields(), seen, reserved);
    (Schema::new_with_metadata(fields, current.metadata().clone()), evolution.new_names)
}

#[derive(Default)]
struct Evolution {
    /// The path from the record to the current field.
    path: Vec<String>,
    new_names: Vec<String>,
}

impl Evolution {
    fn widen_fields(&mut self, current: &Fields, seen: &[(String, JsonType)], reserved: &[&str]) -> Fields {
        let mut fields = current.to_vec();
        let places: HashMap<&str, usize> = current.iter().map(|field| json_name(field)).zip(0..).collect();
        let column_names = current.iter().map(|field| field.name().as_str());
        let mut taken: HashSet<String> = column_names.chain(reserved.iter().copied()).map(name_key).collect();
        for (name, seen) in seen {
            self.path.push(quoted(name));
            if let Some(&place) = places.get(name.as_str()) {
                fields[place] = self.widen_field(&current[place], seen);
            } else if taken.insert(name_key(name)) {
                self.new_names.push(self.path.join("."));
                fields.push(Arc::new(column(name, data_type_of(seen))));
            }
            self.path.pop();
        }
        fields.into()
    }

    fn widen_field(&mut self, current: &FieldRef, seen: &JsonType) -> FieldRef {
        let widened = match (current.data_type(), seen) {
            (DataType::Struct(fields), JsonType::Struct(seen)) => {
                DataType::Struct(self.widen_fields(fields, seen, &[]))
            }
            (DataType::List(element), JsonType::List(seen)) => {
                self.path.push(ELEMENT.to_owned());
                let element = self.widen_field(element, seen);
                self.path.pop();
                DataType::List(element)
            }
            _ => return Arc::clone(current),
        };
        Arc::new(current.as_ref().clone().with_data_type(widened))
    }
}

fn data_type_of(seen: &JsonType) -> DataType {
    match seen {
        JsonType::Null | JsonType::Text => DataType::Utf8,
        JsonType::Boolean => DataType::Boolean,
        JsonType::Long => DataType::Int64,
        JsonType::Double => DataType::Float64,
        JsonType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        JsonType::List(element) => list_of(data_type_of(element)),
        // Delta has no struct without fields, so it is kept as text, like everything without a type.
        JsonType::Struct(fields) if fields.is_empty() => DataType::Utf8,
        JsonType::Struct(fields) => DataType::Struct(Evolution::default().widen_fields(&Fields::empty(), fields, &[])),
    }
}

/// A list of such elements, named the way Delta names them.
pub(super) fn list_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new(ELEMENT, element, true)))
}
