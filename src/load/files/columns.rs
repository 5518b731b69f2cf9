//! Which columns the records get: inferred from a sample, set by hints, extended as records bring more.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{FieldRef, Fields, Schema, SchemaRef};

use super::part::{Layout, PAYLOAD, RESERVED};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::json::parse::Unknown;
use crate::json::types::{
    Hint, InferOptions, JsonType, MAX_COLUMNS, apply, leaves, new_names, parse_hints, schema_of, settled, to_ddl, widen,
};
use crate::pipeline::Evolution;
use crate::pipeline::files::{ColumnTypes, FilesTableSettings, PayloadType};

/// What the settings say about columns.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) infer: InferOptions,
    pub(super) evolution: Evolution,
    pub(super) payload: Option<PayloadType>,
    infers: bool,
    hints: Vec<Hint>,
}

/// The current columns, shared by all parts of a batch that are processed side by side.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    rules: Arc<Rules>,
    columns: Arc<Mutex<SchemaRef>>,
}

impl Rules {
    /// # Errors
    /// Configuration when the hints are not valid DDL.
    pub(super) fn new(settings: &FilesTableSettings) -> Result<Self> {
        let hints = parse_hints(&settings.schema_hints).context(ErrorKind::Configuration, "bronze.schema_hints")?;
        let infer = InferOptions { typed: settings.types == ColumnTypes::Infer, timestamps: settings.timestamps };
        let infers = settings.types != ColumnTypes::Hints;
        if !infers && hints.is_empty() {
            return Err(Error::configuration("bronze.types = \"hints\" requires columns in bronze.schema_hints"));
        }
        let evolution = match settings.evolution() {
            Evolution::AddColumns if !infers => Evolution::Rescue,
            evolution => evolution,
        };
        Ok(Self { infer, evolution, payload: settings.payload_column(), infers, hints })
    }

    fn reserved(&self) -> Vec<&'static str> {
        RESERVED.into_iter().chain(self.payload.map(|_| PAYLOAD)).collect()
    }

    /// The columns for records like these.
    ///
    /// # Errors
    /// Configuration when the hints do not match them.
    pub(super) fn first_columns(&self, sample: Option<JsonType>) -> Result<SchemaRef> {
        let sample = sample.filter(|_| self.infers).and_then(settled).unwrap_or(JsonType::Struct(Vec::new()));
        let inferred = schema_of(&sample, &self.reserved());
        let columns = apply(inferred, &self.hints, &self.reserved());
        Ok(Arc::new(columns.context(ErrorKind::Configuration, "bronze.schema_hints")?))
    }

    /// The columns of a table, followed by those that hints name and it lacks. Existing ones stay as they are.
    ///
    /// # Errors
    /// As [`Rules::first_columns`].
    pub(super) fn with_hints(&self, columns: &SchemaRef) -> Result<SchemaRef> {
        let hinted = self.hinted(columns)?;
        let added = hinted.fields().iter().skip(columns.fields().len());
        let fields: Fields = columns.fields().iter().chain(added).cloned().collect();
        Ok(Arc::new(Schema::new_with_metadata(fields, columns.metadata().clone())))
    }

    fn hinted(&self, columns: &SchemaRef) -> Result<Schema> {
        let hinted = apply(columns.as_ref().clone(), &self.hints, &self.reserved());
        hinted.context(ErrorKind::Configuration, "bronze.schema_hints")
    }

    /// The first column that differs from its hint, and both types.
    ///
    /// # Errors
    /// As [`Rules::first_columns`].
    pub(super) fn unlike(&self, columns: &SchemaRef) -> Result<Option<String>> {
        let hinted = self.hinted(columns)?;
        let ddl = |field: &FieldRef| to_ddl(&Schema::new(vec![Arc::clone(field)]));
        let mut pairs = columns.fields().iter().zip(hinted.fields());
        let unlike = pairs.find(|(is, meant)| is.data_type() != meant.data_type() && ddl(is) != ddl(meant));
        Ok(unlike.map(|(is, meant)| format!("the hint says `{}`, but the column is `{}`", ddl(meant), ddl(is))))
    }

    fn unknown(&self) -> Unknown {
        match self.evolution {
            Evolution::AddColumns | Evolution::Fail => Unknown::Infer(self.infer),
            Evolution::Rescue => Unknown::Rescue,
            Evolution::Ignore => Unknown::Ignore,
        }
    }
}

impl Shared {
    pub(super) fn new(rules: Arc<Rules>, columns: SchemaRef) -> Self {
        Self { rules, columns: Arc::new(Mutex::new(columns)) }
    }

    /// How the next part is processed.
    pub(super) fn layout(&self) -> Layout {
        Layout { columns: self.columns(), unknown: self.rules.unknown(), payload: self.rules.payload }
    }

    pub(super) fn columns(&self) -> SchemaRef {
        Arc::clone(&self.columns.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds what a part has seen beyond the columns it was processed with. Returns whether the columns have changed, so
    /// that it must be processed again.
    ///
    /// # Errors
    /// Configuration when new fields must stop the loader; it names them.
    pub(super) fn grow(&self, made_with: &SchemaRef, seen: Option<JsonType>) -> Result<bool> {
        let Some(seen) = seen.and_then(settled) else { return Ok(false) };
        let reserved = self.rules.reserved();
        let mut columns = self.columns.lock().unwrap_or_else(PoisonError::into_inner);
        if self.rules.evolution == Evolution::Fail {
            let names = new_names(&columns, &seen, &reserved);
            return match names.is_empty() {
                true => Ok(false),
                false => Err(Error::configuration(format!(
                    "new fields: {}; add them with bronze.schema_hints, or choose another bronze.evolution",
                    names.join(", ")
                ))),
            };
        }
        if let Some(wider) = widen(&columns, &seen, &reserved) {
            if leaves(wider.fields()) > MAX_COLUMNS {
                tracing::warn!("more than {MAX_COLUMNS} columns; further fields are kept in _rescued_data");
            } else {
                *columns = Arc::new(wider);
            }
        }
        Ok(*columns != *made_with)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    fn rules(more: &str) -> Arc<Rules> {
        Arc::new(Rules::new(&toml::from_str(&format!("table = \"t\"\n{more}")).unwrap()).unwrap())
    }

    fn read(text: &str) -> Option<JsonType> {
        JsonType::read(text, InferOptions { typed: true, timestamps: false }).ok()
    }

    fn names(columns: &Schema) -> Vec<&str> {
        columns.fields().iter().map(|field| field.name().as_str()).collect()
    }

    #[test]
    fn a_field_that_was_only_null_waits_for_its_first_value() {
        let rules = rules("");
        let columns = rules.first_columns(read(r#"{"a":1,"b":null,"c":[],"d":{},"e":{"f":null,"g":"x"}}"#)).unwrap();
        assert_eq!(names(&columns), ["a", "e"]);
        let shared = Shared::new(rules, Arc::clone(&columns));
        assert!(!shared.grow(&columns, read(r#"{"b":null}"#)).unwrap());
        assert!(shared.grow(&columns, read(r#"{"b":7}"#)).unwrap());
        assert_eq!(names(&shared.columns()), ["a", "e", "b"]);
        assert!(!shared.grow(&shared.columns(), read(r#"{"b":"x"}"#)).unwrap(), "types stay");
    }

    #[test]
    fn hints_win_and_our_own_names_get_no_column() {
        let rules = rules("payload = true\nschema_hints = \"a string, z timestamp\"");
        let columns = rules.first_columns(read(r#"{"a":1,"payload":1,"_source_file":"x"}"#)).unwrap();
        assert_eq!(names(&columns), ["a", "z"]);
        assert_eq!(columns.field(0).data_type(), &DataType::Utf8);
        let settings = toml::from_str("table = \"t\"\nschema_hints = \"a strng\"").unwrap();
        assert!(Rules::new(&settings).unwrap_err().to_string().starts_with("bronze.schema_hints"));
    }

    #[test]
    fn a_hint_that_comes_too_late_is_named() {
        let rules = rules("schema_hints = \"a string, z timestamp, user.name string\"");
        let columns = |text: &str| Arc::new(schema_of(&read(text).unwrap(), &[]));
        assert_eq!(rules.unlike(&columns(r#"{"b":1,"a":"x","user":{"name":"x","age":1}}"#)).unwrap(), None);
        let mismatch = rules.unlike(&columns(r#"{"b":1,"a":1}"#)).unwrap().unwrap();
        assert_eq!(mismatch, "the hint says `a string`, but the column is `a bigint`");
    }

    #[test]
    fn new_fields_stop_the_loader_where_that_is_asked() {
        let rules = rules("evolution = \"fail\"");
        let columns = rules.first_columns(read(r#"{"a":{"b":1}}"#)).unwrap();
        let shared = Shared::new(rules, Arc::clone(&columns));
        let error = shared.grow(&columns, read(r#"{"a":{"c":1},"d":2}"#)).unwrap_err();
        assert!(error.to_string().starts_with("new fields: a.c, d;"), "{error}");
    }

    #[test]
    fn data_in_the_place_of_names_does_not_make_columns_without_end() {
        let rules = rules("");
        let columns = rules.first_columns(read(r#"{"a":1}"#)).unwrap();
        let shared = Shared::new(rules, Arc::clone(&columns));
        let wide: Vec<String> = (0..MAX_COLUMNS).map(|number| format!("\"k{number}\":1")).collect();
        assert!(!shared.grow(&columns, read(&format!("{{{}}}", wide.join(",")))).unwrap());
    }
}
