//! What a table's protocol and schema require of us: whether we support it, and how its columns grow.
//!
//! Columns are only ever added, nullable and at the end. Everything else that differs is an error for a person.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef};
use deltalake::kernel::engine::arrow_conversion::{TryFromArrow, TryIntoKernel};
use deltalake::kernel::{DataType, StructField, StructType};
use object_store::path::Path;
use serde_json::Value;

use super::log::{Format, MetaData, Protocol};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::random_id;
use crate::schema;

/// Features of reader version 3 that we support; timestamps without time zone are just a type to us.
const READER_FEATURES: [&str; 2] = ["timestampNtz", VARIANT];
/// Features of writer version 7 that we support. None of these requires anything of a commit that only adds files.
const WRITER_FEATURES: [&str; 5] = ["appendOnly", "invariants", "changeDataFeed", "timestampNtz", VARIANT];
/// The feature of tables with a column of variants.
const VARIANT: &str = "variantType";
/// Column metadata that requires a writer to compute or check values.
const RULES: [&str; 4] = ["delta.invariants", "delta.generationExpression", "delta.identity.start", "CURRENT_DEFAULT"];

/// The table property that names the columns with statistics.
const STATS_PROPERTY: &str = "delta.dataSkippingStatsColumns";

/// The protocol of a table that we create: one that every Delta reader supports, unless it has variants.
pub(crate) fn new_protocol(columns: &Schema) -> Protocol {
    if !columns.fields().iter().any(|field| is_variant(field)) {
        return Protocol { min_reader_version: 1, min_writer_version: 2, ..Protocol::default() };
    }
    let named = |features: &[&str]| Some(features.iter().map(|&feature| feature.to_owned()).collect());
    Protocol {
        min_reader_version: 3,
        min_writer_version: 7,
        reader_features: named(&[VARIANT]),
        writer_features: named(&["appendOnly", VARIANT]),
    }
}

/// Whether a column holds variants: nothing else that we write is binary.
fn is_variant(field: &Field) -> bool {
    let ArrowType::Struct(parts) = field.data_type() else { return false };
    let is_part = |part: &Arc<Field>| matches!(part.name().as_str(), "metadata" | "value") && !part.is_nullable();
    parts.len() == 2 && parts.iter().all(|part| is_part(part) && *part.data_type() == ArrowType::Binary)
}

/// The metadata of a new table at `table` with these columns.
pub(crate) fn new_metadata(
    table: &Path,
    columns: &SchemaRef,
    stats_columns: &[String],
    created_millis: i64,
) -> Result<MetaData> {
    let fields = columns.fields().iter().map(|field| delta_field(table, field)).collect::<Result<Vec<_>>>()?;
    let unfit = || format!("the columns of table {table} do not make a Delta schema");
    let schema = StructType::try_new(fields).context(ErrorKind::Configuration, unfit())?;
    let known: Vec<&str> =
        stats_columns.iter().map(String::as_str).filter(|name| columns.column_with_name(name).is_some()).collect();
    let mut configuration = BTreeMap::from([
        ("delta.appendOnly".to_owned(), Some("true".to_owned())),
        ("delta.enableExpiredLogCleanup".to_owned(), Some("false".to_owned())),
        ("delta.checkpointInterval".to_owned(), Some("100".to_owned())),
    ]);
    if !known.is_empty() {
        configuration.insert(STATS_PROPERTY.to_owned(), Some(known.join(",")));
    }
    Ok(MetaData {
        id: random_id().to_string(),
        name: table.filename().map(str::to_owned),
        format: Format::default(),
        schema_string: serde_json::to_string(&schema).context(ErrorKind::Configuration, unfit())?,
        configuration,
        created_time: Some(created_millis),
        ..MetaData::default()
    })
}

/// The columns whose statistics the table's properties ask for.
pub(crate) fn stats_columns(metadata: &MetaData) -> Vec<String> {
    let listed = metadata.configuration.get(STATS_PROPERTY).and_then(Option::as_deref).unwrap_or_default();
    listed.split(',').map(|name| name.trim().trim_matches('`').to_owned()).filter(|name| !name.is_empty()).collect()
}

/// Refuses a table that requires more than we support.
///
/// # Errors
/// A configuration error that names the features.
pub(crate) fn check_protocol(table: &Path, protocol: &Protocol) -> Result<()> {
    let unknown = |features: &Option<Vec<String>>, known: &[&str]| -> Vec<String> {
        features.iter().flatten().filter(|feature| !known.contains(&feature.as_str())).cloned().collect()
    };
    let mut features = unknown(&protocol.reader_features, &READER_FEATURES);
    features.extend(unknown(&protocol.writer_features, &WRITER_FEATURES));
    features.dedup();
    let reader_fits = matches!(protocol.min_reader_version, 1 | 3);
    let writer_fits = matches!(protocol.min_writer_version, 1 | 2 | 7);
    if reader_fits && writer_fits && features.is_empty() {
        return Ok(());
    }
    Err(Error::configuration(format!(
        "table {table} requires reader version {}, writer version {} and features [{}]; lakegram supports reader 1, writer \
         2 and [{}]: drop the others, or let lakegram make the table",
        protocol.min_reader_version,
        protocol.min_writer_version,
        features.join(", "),
        WRITER_FEATURES.join(", "),
    )))
}

/// The columns of a table, refused if rows cannot be written by just appending a file.
///
/// # Errors
/// A configuration error that says what prevents it; corrupt when the schema cannot be parsed.
pub(crate) fn arrow_schema(table: &Path, metadata: &MetaData) -> Result<SchemaRef> {
    if !metadata.partition_columns.is_empty() {
        return Err(Error::configuration(format!(
            "table {table} is partitioned by {}; lakegram appends to tables without partitions",
            metadata.partition_columns.join(", ")
        )));
    }
    let schema = schema::parse(&metadata.schema_string).map_err(|error| error.during(format!("table {table}")))?;
    let ruled = schema.fields().iter().find(|field| RULES.iter().any(|rule| field.metadata().contains_key(*rule)));
    match ruled {
        None => Ok(schema),
        Some(field) => Err(Error::configuration(format!(
            "column {} of table {table} has a rule (invariant, generated, identity or default); drop the rule",
            field.name()
        ))),
    }
}

/// Checks that the columns of `wanted` that a table has are of the same type.
///
/// # Errors
/// A configuration error that names table, column and both types.
pub fn check_columns(table: &Path, have: &Schema, wanted: &Schema) -> Result<()> {
    missing(table, have, wanted).map(drop)
}

/// The columns of `wanted` that the table lacks, and those whose structs lack fields, as they would have to be.
///
/// # Errors
/// A configuration error that names table, column and both types where they differ, or the two spellings of a name
/// that differ only in case.
pub(crate) fn missing(table: &Path, have: &Schema, wanted: &Schema) -> Result<Vec<Field>> {
    let mut missing = Vec::new();
    for field in wanted.fields() {
        let namesake = have.fields().iter().find(|other| other.name().eq_ignore_ascii_case(field.name()));
        let Some(namesake) = namesake else {
            missing.push(field.as_ref().clone());
            continue;
        };
        if namesake.name() != field.name() {
            return Err(Error::configuration(format!(
                "table {table} has a column {}, but {} was expected; names must not differ only in case",
                namesake.name(),
                field.name()
            )));
        }
        let Some(grown) = grown(namesake, field) else {
            let (found, meant) = (delta_type(table, namesake)?, delta_type(table, field)?);
            if found == meant {
                continue;
            }
            return Err(Error::configuration(format!(
                "column {} of table {table} has type {found}, but {meant} was expected; change the schema file, or use a new table",
                field.name()
            )));
        };
        if grown != **namesake {
            missing.push(grown);
        }
    }
    Ok(missing)
}

/// The field plus what a struct of `wanted` has in addition, at any depth; `None` if the types differ otherwise.
fn grown(have: &Field, wanted: &Field) -> Option<Field> {
    let data_type = match (have.data_type(), wanted.data_type()) {
        (ArrowType::Struct(present), ArrowType::Struct(more)) => {
            let mut fields: Vec<Field> = present.iter().map(|field| field.as_ref().clone()).collect();
            for field in more {
                match fields.iter_mut().find(|other| other.name().eq_ignore_ascii_case(field.name())) {
                    Some(namesake) if namesake.name() == field.name() => *namesake = grown(namesake, field)?,
                    Some(_) => return None,
                    None => fields.push(field.as_ref().clone().with_nullable(true)),
                }
            }
            ArrowType::Struct(fields.into())
        }
        (ArrowType::List(present), ArrowType::List(more)) => ArrowType::List(Arc::new(grown(present, more)?)),
        (present, more) if present == more => present.clone(),
        _ => return None,
    };
    Some(have.clone().with_data_type(data_type))
}

/// The same metadata with these columns, nullable: added at the end, or replacing those of the same name.
///
/// # Errors
/// A configuration error when Delta does not have a type; corrupt when the schema cannot be parsed.
pub(crate) fn widened(table: &Path, metadata: &MetaData, added: &[Field]) -> Result<MetaData> {
    let unreadable = || format!("widen the schema of table {table}");
    if let Some(field) = added.iter().find(|field| is_variant(field)) {
        let text =
            format!("column {} of table {table} would be its first variant column; use a new table", field.name());
        return Err(Error::configuration(text));
    }
    // As plain JSON, so that unknown properties of existing columns stay as they are.
    let mut schema: Value = serde_json::from_str(&metadata.schema_string).context(ErrorKind::Corrupt, unreadable())?;
    let fields = schema.get_mut("fields").and_then(Value::as_array_mut);
    let fields = fields.ok_or_else(|| Error::corrupt(format!("{}: it has no fields", unreadable())))?;
    for field in added {
        let field = serde_json::to_value(delta_field(table, field)?).context(ErrorKind::Configuration, unreadable())?;
        match fields.iter_mut().find(|other| other.get("name") == field.get("name")) {
            Some(present) => present["type"] = field["type"].clone(),
            None => fields.push(field),
        }
    }
    Ok(MetaData { schema_string: schema.to_string(), ..metadata.clone() })
}

/// The schema of a data file with these rows in a table with `schema`: the columns of the rows, in the table's order
/// and with its types.
///
/// # Errors
/// A configuration error when the rows have no value for a required column.
pub(crate) fn file_schema(table: &Path, schema: &SchemaRef, rows: &RecordBatch) -> Result<Schema> {
    let mut fields = Vec::new();
    for field in schema.fields() {
        let values = rows.column_by_name(field.name());
        let full = values.is_some_and(|values| values.null_count() == 0);
        if !field.is_nullable() && !full {
            return Err(Error::configuration(format!(
                "column {} of table {table} is required, but the rows to append lack it; make it nullable",
                field.name()
            )));
        }
        fields.extend(values.is_some().then(|| field.as_ref().clone()));
    }
    Ok(Schema::new(fields))
}

fn delta_field(table: &Path, field: &Field) -> Result<StructField> {
    // A timestamp without a time zone is a separate table feature, which our tables do not require of their readers.
    if delta_type(table, field)?.to_string().contains("timestamp_ntz") {
        return Err(Error::configuration(format!("{}; give its timestamps the zone UTC", unfit(table, field))));
    }
    if is_variant(field) {
        return Ok(StructField::nullable(field.name(), DataType::unshredded_variant()));
    }
    let nullable = field.clone().with_nullable(true);
    StructField::try_from_arrow(&nullable).context(ErrorKind::Configuration, unfit(table, field))
}

fn delta_type(table: &Path, field: &Field) -> Result<DataType> {
    if is_variant(field) {
        return Ok(DataType::unshredded_variant());
    }
    field.data_type().try_into_kernel().context(ErrorKind::Configuration, unfit(table, field))
}

fn unfit(table: &Path, field: &Field) -> String {
    format!("column {} of table {table} cannot be of type {}", field.name(), field.data_type())
}
