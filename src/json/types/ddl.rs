//! Columns as Spark DDL, the way people read and write them. [`super::parse_hints`] parses it.

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

use super::names::{json_name, quoted};

/// Metadata key of a field's comment; the key is Delta's.
const COMMENT: &str = "comment";

/// The field with this comment.
pub(super) fn commented(mut field: Field, comment: Option<&str>) -> Field {
    if let Some(comment) = comment {
        let mut metadata = field.metadata().clone();
        metadata.insert(COMMENT.to_owned(), comment.to_owned());
        field.set_metadata(metadata);
    }
    field
}

/// All columns, under their JSON names.
pub(crate) fn to_ddl(schema: &Schema) -> String {
    let columns: Vec<String> = schema.fields().iter().map(|field| column_ddl(field)).collect();
    columns.join(", ")
}

/// One column.
pub(super) fn column_ddl(field: &Field) -> String {
    field_ddl(field, " ")
}

fn field_ddl(field: &Field, separator: &str) -> String {
    let escaped = |comment: &String| comment.replace('\\', "\\\\").replace('\'', "\\'");
    let comment = field.metadata().get(COMMENT).map(|comment| format!(" comment '{}'", escaped(comment)));
    let (name, data_type) = (quoted(json_name(field)), type_ddl(field.data_type()));
    format!("{name}{separator}{data_type}{}", comment.unwrap_or_default())
}

/// One type.
pub(super) fn type_ddl(data_type: &DataType) -> String {
    let word = match data_type {
        DataType::Boolean => "boolean",
        DataType::Int8 => "tinyint",
        DataType::Int16 => "smallint",
        DataType::Int32 => "int",
        DataType::Int64 => "bigint",
        DataType::Float32 => "float",
        DataType::Float64 => "double",
        DataType::Decimal128(precision, scale) => return format!("decimal({precision},{scale})"),
        DataType::Utf8 => "string",
        DataType::Date32 => "date",
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "timestamp",
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp_ntz",
        DataType::List(element) => return format!("array<{}>", type_ddl(element.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields.iter().map(|field| field_ddl(field, ": ")).collect();
            return format!("struct<{}>", fields.join(", "));
        }
        // No column of a JSON folder has another type. Its Arrow name shows what it is, and is rejected when parsed.
        other => return other.to_string(),
    };
    word.to_owned()
}
