//! Column names: what Delta accepts, and the way back to the JSON names.

use arrow::datatypes::{DataType, Field};

/// Metadata key of a field: its JSON name, if the column could not use it.
const JSON_NAME: &str = "lakegram.json_name";

/// The name of a list's elements, in Delta and in paths.
pub(super) const ELEMENT: &str = "element";

/// The JSON name of a column's values.
pub(crate) fn json_name(field: &Field) -> &str {
    field.metadata().get(JSON_NAME).unwrap_or(field.name())
}

/// A nullable field for the values that the JSON calls `name`.
pub(super) fn column(name: &str, data_type: DataType) -> Field {
    let column_name = column_name(name);
    let is_changed = column_name != name;
    let field = Field::new(column_name, data_type, true);
    if !is_changed {
        return field;
    }
    field.with_metadata([(JSON_NAME.to_owned(), name.to_owned())].into())
}

/// What must differ between siblings: Delta's column names are case-insensitive.
pub(super) fn name_key(name: &str) -> String {
    column_name(name).to_lowercase()
}

/// Without column mapping, Delta rejects these characters (Parquet libraries once broke on them) and empty names.
fn column_name(name: &str) -> String {
    if name.is_empty() {
        return "_".to_owned();
    }
    name.replace([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='], "_")
}

/// The name as written in a path or hint, in backticks if needed.
pub(super) fn quoted(name: &str) -> String {
    let is_plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_plain { name.to_owned() } else { format!("`{}`", name.replace('`', "``")) }
}
