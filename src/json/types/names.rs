//! Column names: what Delta takes, and the way back to what the JSON has.

use arrow::datatypes::{DataType, Field};

/// Metadata key of a field: its name in the JSON, where the column could not have it.
const JSON_NAME: &str = "lakegram.json_name";

/// How a list's elements are called, in Delta and in paths.
pub(super) const ELEMENT: &str = "element";

/// The name a column's values have in the JSON.
pub(crate) fn json_name(field: &Field) -> &str {
    field.metadata().get(JSON_NAME).unwrap_or(field.name())
}

/// A nullable field for the values that the JSON has under `name`.
pub(super) fn column(name: &str, data_type: DataType) -> Field {
    let column_name = column_name(name);
    let is_changed = column_name != name;
    let field = Field::new(column_name, data_type, true);
    if !is_changed {
        return field;
    }
    field.with_metadata([(JSON_NAME.to_owned(), name.to_owned())].into())
}

/// What must differ between siblings: Delta takes no two that are the same but for their case.
pub(super) fn name_key(name: &str) -> String {
    column_name(name).to_lowercase()
}

/// Without column mapping, Delta refuses these characters (Parquet libraries once broke on them) and empty names.
fn column_name(name: &str) -> String {
    if name.is_empty() {
        return "_".to_owned();
    }
    name.replace([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='], "_")
}

/// The name as a path or a hint has it, in backticks where it needs them.
pub(super) fn quoted(name: &str) -> String {
    let is_plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_plain { name.to_owned() } else { format!("`{}`", name.replace('`', "``")) }
}
