//! Applies hints to columns: sets the types of existing columns and adds new ones.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Fields, Schema};

use super::scan::Scanner;
use super::{Hint, HintError};
use crate::json::types::ddl::{commented, type_ddl};
use crate::json::types::evolve::list_of;
use crate::json::types::names::{ELEMENT, column, name_key, quoted};

/// The schema with the hints applied in order. A name matches a column regardless of case, by its JSON name or its
/// table name.
///
/// # Errors
/// When a path leads through something that has no fields, or asks for a column reserved for the loader.
pub(crate) fn apply(schema: Schema, hints: &[Hint], reserved: &[&str]) -> Result<Schema, HintError> {
    let mut columns = Columns::of(&schema.fields);
    let reserved: HashMap<String, &str> = reserved.iter().map(|name| (name_key(name), *name)).collect();
    for hint in hints {
        if let Some(taken) = hint.path.first().and_then(|name| reserved.get(&name_key(name))) {
            let problem = format!("column `{taken}` is reserved for the loader; remove the hint");
            return Scanner::error(hint.position, problem);
        }
        columns.set(hint)?;
    }
    Ok(Schema::new_with_metadata(columns.fields, schema.metadata))
}

/// Sibling fields, and where each is.
#[derive(Default)]
pub(in crate::json::types) struct Columns {
    pub(in crate::json::types) fields: Vec<FieldRef>,
    places: HashMap<String, usize>,
}

impl Columns {
    fn of(fields: &Fields) -> Self {
        Self { fields: fields.to_vec(), places: fields.iter().map(|field| name_key(field.name())).zip(0..).collect() }
    }

    /// Applies one hint at its path.
    pub(in crate::json::types) fn set(&mut self, hint: &Hint) -> Result<(), HintError> {
        self.set_along(hint, &hint.path)
    }

    fn set_along(&mut self, hint: &Hint, path: &[String]) -> Result<(), HintError> {
        let [name, path @ ..] = path else { return Ok(()) };
        let comment = hint.comment.as_deref().filter(|_| path.is_empty());
        match self.places.entry(name_key(name)) {
            Entry::Occupied(place) => {
                let field = &mut self.fields[*place.get()];
                let data_type = hint.set_on(field.data_type(), path)?;
                *field = Arc::new(commented(field.as_ref().clone().with_data_type(data_type), comment));
            }
            Entry::Vacant(place) => {
                place.insert(self.fields.len());
                self.fields.push(Arc::new(commented(column(name, hint.type_along(path)), comment)));
            }
        }
        Ok(())
    }
}

impl Hint {
    /// The type with this hint applied at `path`.
    fn set_on(&self, current: &DataType, path: &[String]) -> Result<DataType, HintError> {
        let Some((step, further)) = path.split_first() else { return Ok(self.data_type.clone()) };
        let way = || {
            let way: Vec<String> = self.path[..self.path.len() - path.len()].iter().map(|name| quoted(name)).collect();
            way.join(".")
        };
        match current {
            DataType::Struct(fields) => {
                let mut columns = Columns::of(fields);
                columns.set_along(self, path)?;
                Ok(DataType::Struct(columns.fields.into()))
            }
            DataType::List(element) if is_element(step) => {
                let data_type = self.set_on(element.data_type(), further)?;
                Ok(DataType::List(Arc::new(element.as_ref().clone().with_data_type(data_type))))
            }
            DataType::List(_) => {
                let problem = format!("{0} is a list; write {0}.{ELEMENT} to refer to its elements", way());
                Scanner::error(self.position, problem)
            }
            leaf => {
                let problem = format!(
                    "{0} has type {leaf}, which has no field {step}; give {0} itself a type, like {0} struct<{step}: string>",
                    way(),
                    leaf = type_ddl(leaf),
                    step = quoted(step)
                );
                Scanner::error(self.position, problem)
            }
        }
    }

    /// The type of something new that only has what `path` leads to.
    fn type_along(&self, path: &[String]) -> DataType {
        match path {
            [] => self.data_type.clone(),
            [step, further @ ..] if is_element(step) => list_of(self.type_along(further)),
            [step, further @ ..] => {
                let mut field = column(step, self.type_along(further));
                if further.is_empty() {
                    field = commented(field, self.comment.as_deref());
                }
                DataType::Struct(vec![field].into())
            }
        }
    }
}

fn is_element(step: &str) -> bool {
    step.eq_ignore_ascii_case(ELEMENT)
}
