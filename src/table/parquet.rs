//! Rows to and from Parquet bytes, with the statistics for the log.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StructArray, new_null_array};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use bytes::Bytes;
use object_store::path::Path;
use parquet::arrow::arrow_reader::{
    ArrowReaderBuilder, ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use serde_json::{Map, Value, json};

use super::{DataFile, dictionary, stats};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::storage::Storage;

/// Rows per row group: small enough that decoding one needs little memory.
const ROW_GROUP_ROWS: usize = 128 * 1024;
/// Characters of a string kept in the footer's statistics.
const FOOTER_STATISTICS_BYTES: usize = 64;
/// Up to this size, encoding and decoding happen in place: another thread would take longer.
const SMALL_ROWS: usize = 16;
const SMALL_BYTES: usize = 256 * 1024;

/// A data file that has not been written yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The Parquet file.
    pub bytes: Bytes,
    /// Its statistics, as the JSON text in an `add`.
    pub stats: String,
}

/// Smaller rows are not compressed: a compressor for each of thirty columns costs more than the rest of a one-message
/// commit, and every reader pays for as many decompressors. Compaction compresses what it merges.
const COMPRESSED_FROM_BYTES: usize = 32 * 1024;

/// The zstd levels for rows that stay as they are, and for rows that arrive too fast for that, which compaction
/// rewrites.
pub(super) const ZSTD_THOROUGH: i32 = 3;
pub(super) const ZSTD_QUICK: i32 = 1;
/// A column of whole records: bounds would say nothing, and no two values are equal.
const WHOLE_RECORDS: &str = "payload";

/// Encodes rows as one Parquet file (zstd unless it is small, dictionaries, statistics); `stats_columns` get minimum,
/// maximum and null count in the log.
///
/// # Errors
/// Configuration when a column has a type that Parquet cannot hold.
pub fn encode(rows: &RecordBatch, stats_columns: &[String]) -> Result<Encoded> {
    encode_at(rows, stats_columns, ZSTD_THOROUGH)
}

/// Like [`encode`], with this compression level.
///
/// # Errors
/// As [`encode`].
pub(super) fn encode_at(rows: &RecordBatch, stats_columns: &[String], zstd_level: i32) -> Result<Encoded> {
    let unfit = "encode rows as Parquet";
    let level = ZstdLevel::try_new(zstd_level).context(ErrorKind::Configuration, unfit)?;
    let weight = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(usize::MAX);
    let bytes = rows.columns().iter().map(weight).fold(0, usize::saturating_add);
    let is_light = bytes < COMPRESSED_FROM_BYTES;
    let compression = if is_light { Compression::UNCOMPRESSED } else { Compression::ZSTD(level) };
    let without_dictionary = if is_light { Vec::new() } else { dictionary::columns_without(rows) };
    let options = writer_options(compression, &without_dictionary);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut bytes, rows.schema(), options)
        .context(ErrorKind::Configuration, unfit)?;
    writer.write(rows).context(ErrorKind::Configuration, unfit)?;
    writer.close().context(ErrorKind::Configuration, unfit)?;
    Ok(Encoded { bytes: bytes.into(), stats: stats_of(rows, stats_columns).to_string() })
}

/// A part of whole records that are variants. Their metadata, the field names, often repeats.
fn of_variant(part: &str) -> ColumnPath {
    ColumnPath::new(vec![WHOLE_RECORDS.to_owned(), part.to_owned()])
}

/// How every data file is written: compressed ones also get dictionaries, except for these columns.
pub(super) fn writer_options(compression: Compression, without_dictionary: &[ColumnPath]) -> ArrowWriterOptions {
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_dictionary_enabled(compression != Compression::UNCOMPRESSED)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_statistics_truncate_length(Some(FOOTER_STATISTICS_BYTES))
        .set_column_statistics_enabled(WHOLE_RECORDS.into(), EnabledStatistics::None)
        .set_column_dictionary_enabled(WHOLE_RECORDS.into(), false)
        .set_column_statistics_enabled(of_variant("metadata"), EnabledStatistics::None)
        .set_column_statistics_enabled(of_variant("value"), EnabledStatistics::None)
        .set_column_dictionary_enabled(of_variant("value"), false)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(concat!("lakegram ", env!("CARGO_PKG_VERSION")).to_owned());
    let disable = |properties: WriterPropertiesBuilder, column: &ColumnPath| {
        properties.set_column_dictionary_enabled(column.clone(), false)
    };
    let properties = without_dictionary.iter().fold(properties, disable).build();
    ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true)
}

fn is_small(rows: &RecordBatch) -> bool {
    rows.num_rows() <= SMALL_ROWS && rows.get_array_memory_size() <= SMALL_BYTES
}

fn stats_of(rows: &RecordBatch, columns: &[String]) -> Value {
    let (mut min_values, mut max_values, mut null_count) = (Map::new(), Map::new(), Map::new());
    for column in columns {
        let Some(values) = rows.column_by_name(column) else { continue };
        null_count.insert(column.clone(), values.null_count().into());
        let bounds = stats::bounds(values);
        min_values.extend(bounds.min.map(|min| (column.clone(), min)));
        max_values.extend(bounds.max.map(|max| (column.clone(), max)));
    }
    json!({
        "numRecords": rows.num_rows(),
        "minValues": min_values,
        "maxValues": max_values,
        "nullCount": null_count,
    })
}

/// The fields named in `columns` (all of them when `None`), in that order; a name missing from the schema becomes an
/// untyped column of nulls.
pub fn pick(schema: &SchemaRef, columns: Option<&[&str]>) -> SchemaRef {
    let Some(columns) = columns else { return Arc::clone(schema) };
    let field = |name: &&str| {
        let missing = || Field::new(*name, DataType::Null, true);
        schema.field_with_name(name).cloned().unwrap_or_else(|_| missing())
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

/// The schema of a Parquet file.
///
/// # Errors
/// Corrupt when the bytes are not a Parquet file.
pub fn schema_of(bytes: &Bytes) -> Result<SchemaRef> {
    let metadata = ArrowReaderMetadata::load(bytes, ArrowReaderOptions::new())
        .context(ErrorKind::Corrupt, "read the footer of a Parquet file")?;
    Ok(Arc::clone(metadata.schema()))
}

/// The rows of a Parquet file, with exactly the columns of `wanted`: other types are cast, missing columns are null.
///
/// # Errors
/// Corrupt when the bytes are not a Parquet file or a column cannot be cast.
pub fn decode(bytes: Bytes, wanted: &SchemaRef) -> Result<RecordBatch> {
    let unreadable = "read a Parquet file";
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).context(ErrorKind::Corrupt, unreadable)?;
    let rows = usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    let mask = mask(&builder, wanted.fields().iter().map(|field| field.name().as_str()));
    let reader = builder.with_projection(mask).with_batch_size(rows.clamp(1, ROW_GROUP_ROWS)).build();
    let reader = reader.context(ErrorKind::Corrupt, unreadable)?;
    let mut batches = Vec::new();
    for batch in reader {
        batches.push(conform(&batch.context(ErrorKind::Corrupt, unreadable)?, wanted)?);
    }
    concat_batches(wanted, &batches).context(ErrorKind::Corrupt, unreadable)
}

/// The top-level columns with these names, as far as they exist. A dot in a name is just a dot.
pub(super) fn mask<'a, T>(builder: &ArrowReaderBuilder<T>, names: impl Iterator<Item = &'a str>) -> ProjectionMask {
    let indices = names.filter_map(|name| builder.schema().index_of(name).ok());
    ProjectionMask::roots(builder.parquet_schema(), indices)
}

/// The same rows with exactly the columns of `wanted`: other types are cast, missing columns are null.
///
/// # Errors
/// Corrupt when a value cannot be cast.
pub fn conform(rows: &RecordBatch, wanted: &SchemaRef) -> Result<RecordBatch> {
    let mut columns = Vec::with_capacity(wanted.fields().len());
    for field in wanted.fields() {
        columns.push(match rows.column_by_name(field.name()) {
            None => new_null_array(field.data_type(), rows.num_rows()),
            Some(values) if values.data_type() == field.data_type() => Arc::clone(values),
            Some(values) => grow(values, field.data_type()).context(
                ErrorKind::Corrupt,
                format!("column {} is {} where {} was expected", field.name(), values.data_type(), field.data_type()),
            )?,
        });
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(wanted), columns, &options)
        .context(ErrorKind::Corrupt, "rows do not match their schema")
}

/// The same values in another type; fields that a struct lacks are null, at any depth.
fn grow(values: &ArrayRef, wanted: &DataType) -> std::result::Result<ArrayRef, ArrowError> {
    match (values.data_type(), wanted) {
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let present = values.as_struct();
            let child = |field: &FieldRef| match present.column_by_name(field.name()) {
                Some(child) => grow(child, field.data_type()),
                None => Ok(new_null_array(field.data_type(), present.len())),
            };
            let children = fields.iter().map(child).collect::<std::result::Result<Vec<_>, _>>()?;
            Ok(Arc::new(StructArray::try_new_with_length(
                fields.clone(),
                children,
                present.nulls().cloned(),
                present.len(),
            )?))
        }
        (DataType::List(_), DataType::List(item)) => {
            let present = values.as_list::<i32>();
            let items = grow(present.values(), item.data_type())?;
            let (offsets, nulls) = (present.offsets().clone(), present.nulls().cloned());
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, items, nulls)?))
        }
        (present, wanted) if present == wanted => Ok(Arc::clone(values)),
        _ => cast(values, wanted),
    }
}

/// The rows of a table's data file, with exactly the columns of `wanted`.
///
/// # Errors
/// Corrupt when the file is missing or not Parquet; otherwise the store's error.
pub async fn read_file(storage: &Storage, table: &Path, file: &DataFile, wanted: SchemaRef) -> Result<RecordBatch> {
    let location = file.location(table)?;
    let bytes = storage.get(&location).await?;
    let bytes =
        bytes.ok_or_else(|| Error::corrupt(format!("{location} is missing, but the table's log refers to it")))?;
    decode_aside(bytes, wanted).await.map_err(|error| error.during(location))
}

/// Conforms and encodes these rows, on another thread if that takes long.
///
/// # Errors
/// As [`encode`] and [`conform`].
pub async fn encode_aside(rows: RecordBatch, schema: SchemaRef, stats_columns: Vec<String>) -> Result<Encoded> {
    let is_small = is_small(&rows);
    let work = move || encode(&conform(&rows, &schema)?, &stats_columns);
    if is_small {
        return work();
    }
    tokio::task::spawn_blocking(work).await.context(ErrorKind::Unavailable, "encode rows as Parquet")?
}

/// Like [`decode`], on another thread if that takes long.
///
/// # Errors
/// As [`decode`].
pub async fn decode_aside(bytes: Bytes, wanted: SchemaRef) -> Result<RecordBatch> {
    if bytes.len() <= SMALL_BYTES {
        return decode(bytes, &wanted);
    }
    let decoding = tokio::task::spawn_blocking(move || decode(bytes, &wanted));
    decoding.await.context(ErrorKind::Unavailable, "read a Parquet file")?
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::{Int64Type, TimeUnit};

    use super::*;

    fn rows() -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(Int64Array::from(vec![Some(3), None, Some(1)]))),
            ("text", Arc::new(StringArray::from(vec![Some("b"), Some("a"), None]))),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![5, 6, 7]).with_timezone("UTC"))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, values)| (name, values, true)))
            .unwrap()
    }

    #[test]
    fn bytes_that_are_no_parquet_are_corrupt() {
        let schema = rows().schema();
        for bytes in [Bytes::new(), Bytes::from_static(b"PAR1"), Bytes::from(vec![0; 100])] {
            assert_eq!(decode(bytes.clone(), &schema).unwrap_err().kind(), ErrorKind::Corrupt);
            assert_eq!(schema_of(&bytes).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn rows_survive_with_their_types() {
        let encoded = encode(&rows(), &[]).unwrap();
        assert_eq!(decode(encoded.bytes.clone(), &rows().schema()).unwrap(), rows());
        assert_eq!(schema_of(&encoded.bytes).unwrap().fields(), rows().schema().fields());
    }

    #[test]
    fn what_is_small_is_not_compressed_and_what_is_large_is() {
        let of = |characters: usize| {
            let text: ArrayRef = Arc::new(StringArray::from(vec!["a".repeat(characters)]));
            let rows = RecordBatch::try_from_iter_with_nullable([("text", text, true)]).unwrap();
            let encoded = encode(&rows, &[]).unwrap();
            assert_eq!(decode(encoded.bytes.clone(), &rows.schema()).unwrap(), rows);
            ArrowReaderMetadata::load(&encoded.bytes, ArrowReaderOptions::new()).unwrap()
        };
        let compression = |file: ArrowReaderMetadata| file.metadata().row_group(0).column(0).compression();
        assert_eq!(compression(of(1_000)), Compression::UNCOMPRESSED);
        assert!(matches!(compression(of(COMPRESSED_FROM_BYTES)), Compression::ZSTD(_)));
    }

    #[test]
    fn statistics_name_only_the_columns_asked_for() {
        let columns = ["id".to_owned(), "at".to_owned(), "absent".to_owned()];
        let stats: Value = serde_json::from_str(&encode(&rows(), &columns).unwrap().stats).unwrap();
        let expected = json!({
            "numRecords": 3,
            "minValues": { "id": 1, "at": "1970-01-01T00:00:00.000Z" },
            "maxValues": { "id": 3, "at": "1970-01-01T00:00:00.001Z" },
            "nullCount": { "id": 1, "at": 0 },
        });
        assert_eq!(stats, expected);
    }

    #[test]
    fn a_column_the_file_lacks_is_null_and_one_of_another_type_is_cast() {
        let file: Vec<(&str, ArrayRef)> = vec![("n", Arc::new(Int32Array::from(vec![1, 2])))];
        let encoded = encode(&RecordBatch::try_from_iter(file).unwrap(), &[]).unwrap();
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let wanted =
            Arc::new(Schema::new(vec![Field::new("late", instant, true), Field::new("n", DataType::Int64, true)]));
        let decoded = decode(encoded.bytes.clone(), &wanted).unwrap();
        assert_eq!(decoded.column(0).null_count(), 2);
        assert_eq!(decoded.column(1).as_primitive::<Int64Type>().values(), &[1, 2]);
        // Even without any column, the number of rows is known.
        assert_eq!(decode(encoded.bytes, &pick(&wanted, Some(&[]))).unwrap().num_rows(), 2);
    }

    #[test]
    fn more_rows_than_a_row_group_come_back_in_order() {
        let count = i64::try_from(ROW_GROUP_ROWS * 2 + 1).unwrap();
        let rows =
            RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(0..count)) as ArrayRef)]).unwrap();
        let decoded = decode(encode(&rows, &[]).unwrap().bytes, &rows.schema()).unwrap();
        assert_eq!(decoded, rows);
    }

    #[test]
    fn no_rows_is_a_file_too() {
        let none = RecordBatch::new_empty(rows().schema());
        assert_eq!(decode(encode(&none, &[]).unwrap().bytes, &none.schema()).unwrap(), none);
    }
}
