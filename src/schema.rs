//! Table schemas: Delta struct JSON files, parsed into Arrow, with the shipped ones built in.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoArrow;

use crate::error::{Context, Error, ErrorKind, Result};

/// File name of the bronze schema.
pub const MESSAGES: &str = "telegram_messages.json";
/// File name of the silver schema.
pub const RESPONSES: &str = "telegram_responses.json";
/// File name of the replies schema.
pub const REPLIES: &str = "telegram_replies.json";

const BUILT_IN: [(&str, &str); 3] = [
    (MESSAGES, include_str!("../schemas/telegram_messages.json")),
    (RESPONSES, include_str!("../schemas/telegram_responses.json")),
    (REPLIES, include_str!("../schemas/telegram_replies.json")),
];

/// The schema in `file`: from `folder` if it exists there, otherwise the built-in one.
///
/// # Errors
/// A configuration error when the file is in neither place or is not a Delta struct.
pub fn load(folder: &Path, file: &str) -> Result<SchemaRef> {
    let path = folder.join(file);
    if path.is_file() {
        let text = std::fs::read_to_string(&path)
            .context(ErrorKind::Configuration, format!("cannot read the schema {}", path.display()))?;
        return parse(&text).map_err(|error| error.during(path.display()));
    }
    built_in(file).ok_or_else(|| {
        Error::configuration(format!(
            "schema {} does not exist; create it, or use one of {MESSAGES}, {RESPONSES}, {REPLIES}",
            path.display()
        ))
    })
}

/// A built-in schema.
pub fn built_in(file: &str) -> Option<SchemaRef> {
    let (_, text) = BUILT_IN.iter().find(|(name, _)| *name == file)?;
    parse(text).ok()
}

/// Parses Delta struct JSON: `{"type": "struct", "fields": […]}`.
///
/// # Errors
/// A configuration error that says what is wrong with it.
pub fn parse(text: &str) -> Result<SchemaRef> {
    let delta: StructType = serde_json::from_str(text).context(
        ErrorKind::Configuration,
        "not a Delta schema; write {\"type\": \"struct\", \"fields\": [{\"name\", \"type\", \"nullable\", \"metadata\"}]}",
    )?;
    let arrow: Schema =
        (&delta).try_into_arrow().context(ErrorKind::Configuration, "a type in the schema has no Arrow equivalent")?;
    Ok(Arc::new(arrow))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, TimeUnit};

    use super::*;

    #[test]
    fn the_built_in_schemas_parse_and_every_column_is_nullable() {
        for (file, _) in BUILT_IN {
            let schema = built_in(file).unwrap();
            assert!(schema.fields().iter().all(|field| field.is_nullable()), "{file}");
        }
    }

    #[test]
    fn timestamps_are_microseconds_in_utc() {
        let schema = built_in(MESSAGES).unwrap();
        let expected = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        assert_eq!(schema.field_with_name("_received_at").unwrap().data_type(), &expected);
    }

    #[test]
    fn a_schema_that_is_none_is_refused_with_the_form() {
        assert!(parse("{}").unwrap_err().to_string().starts_with("not a Delta schema"));
    }
}
