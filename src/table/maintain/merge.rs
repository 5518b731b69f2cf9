//! Merges the rows of several files into one, a few thousand at a time. Decoded, a group of files may be many times
//! larger than on disk, and compaction runs beside the stages.

use arrow::array::{ArrayRef, RecordBatch, new_empty_array};
use arrow::compute::{SortOptions, concat, concat_batches, sort_to_indices, take};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::table::parquet::{Encoded, conform, writer_options};
use crate::table::{DataFile, LakeTable, stats};

/// Rows decoded and written at a time, and how large they may get in memory before they are written: writing single
/// rows, file by file, would run every column's encoder for each.
const BATCH_ROWS: usize = 8 * 1_024;
const BATCH_BYTES: usize = 8 * 1_024 * 1_024;
/// Inputs held at a time, and how many of them are read side by side.
const HANDFUL_FILES: usize = 64;
const HANDFUL_BYTES: i64 = 4 * 1_024 * 1_024;
const READ_AHEAD: usize = 4;
const DOING: &str = "rewrite small files";

/// The rows of these files, in order, as one file with the table's columns; `None` when it was stopped. Memory holds a
/// few inputs as stored, the output as it will be stored, and one batch of rows.
///
/// # Errors
/// Corrupt when a file is missing or not Parquet; otherwise the store's error.
pub(super) async fn merge(table: &LakeTable, files: &[DataFile], stop: &CancellationToken) -> Result<Option<Encoded>> {
    let mut merge = Merge::new(table.schema(), &table.stats_columns)?;
    let mut files = files;
    while !files.is_empty() {
        if stop.is_cancelled() {
            return Ok(None);
        }
        let (handful, rest) = files.split_at(handful(files));
        files = rest;
        let reads = handful.iter().map(|file| read(table, file)).collect::<Vec<_>>();
        let inputs: Vec<(Path, Bytes)> = stream::iter(reads).buffered(READ_AHEAD).try_collect().await?;
        let merging = tokio::task::spawn_blocking(move || {
            for (location, bytes) in inputs {
                merge.take_file(bytes).map_err(|error| error.during(location))?;
            }
            Result::Ok(merge)
        });
        merge = merging.await.context(ErrorKind::Unavailable, DOING)??;
    }
    let finishing = tokio::task::spawn_blocking(move || merge.finish()).await;
    finishing.context(ErrorKind::Unavailable, DOING)?.map(Some)
}

/// How many files to read together: many if they are small, one if it is large.
fn handful(files: &[DataFile]) -> usize {
    let mut bytes = 0;
    let fits = |file: &&DataFile| {
        bytes += file.size_bytes;
        bytes <= HANDFUL_BYTES
    };
    files.iter().take(HANDFUL_FILES).take_while(fits).count().max(1)
}

async fn read(table: &LakeTable, file: &DataFile) -> Result<(Path, Bytes)> {
    let location = file.location(&table.log.table)?;
    let bytes = table.log.storage.get(&location).await?;
    let gone = || Error::corrupt(format!("{location} is missing, but the table's log refers to it"));
    let bytes = bytes.ok_or_else(gone)?;
    Ok((location, bytes))
}

/// One file being written.
struct Merge {
    schema: SchemaRef,
    writer: ArrowWriter<Vec<u8>>,
    columns: Vec<Column>,
    /// Rows not written yet, with their count and size.
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    waiting_bytes: usize,
    rows: usize,
}

/// A column with statistics: at most two bounds so far, and its null count.
struct Column {
    name: String,
    outermost: ArrayRef,
    nulls: usize,
}

impl Merge {
    fn new(schema: SchemaRef, stats_columns: &[String]) -> Result<Self> {
        let level = ZstdLevel::try_new(3).context(ErrorKind::Configuration, DOING)?;
        let options = writer_options(Compression::ZSTD(level), &[]);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), SchemaRef::clone(&schema), options);
        let column = |name: &String| {
            let field = schema.field_with_name(name).ok()?;
            Some(Column { name: name.clone(), outermost: new_empty_array(field.data_type()), nulls: 0 })
        };
        let columns = stats_columns.iter().filter_map(column).collect();
        Ok(Self {
            writer: writer.context(ErrorKind::Configuration, DOING)?,
            schema,
            columns,
            waiting: Vec::new(),
            waiting_rows: 0,
            waiting_bytes: 0,
            rows: 0,
        })
    }

    fn take_file(&mut self, bytes: Bytes) -> Result<()> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).context(ErrorKind::Corrupt, DOING)?;
        let reader = builder.with_batch_size(BATCH_ROWS).build().context(ErrorKind::Corrupt, DOING)?;
        for rows in reader {
            let rows = conform(&rows.context(ErrorKind::Corrupt, DOING)?, &self.schema)?;
            self.waiting_rows += rows.num_rows();
            self.waiting_bytes += rows.get_array_memory_size();
            self.waiting.push(rows);
            if self.waiting_rows >= BATCH_ROWS || self.waiting_bytes >= BATCH_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let rows =
            concat_batches(&self.schema, &std::mem::take(&mut self.waiting)).context(ErrorKind::Corrupt, DOING)?;
        (self.waiting_rows, self.waiting_bytes) = (0, 0);
        self.writer.write(&rows).context(ErrorKind::Corrupt, DOING)?;
        self.rows += rows.num_rows();
        for column in &mut self.columns {
            column.take(&rows).context(ErrorKind::Corrupt, DOING)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Encoded> {
        self.flush()?;
        let (mut min_values, mut max_values, mut null_count) = (Map::new(), Map::new(), Map::new());
        for column in self.columns {
            let bounds = stats::bounds(&column.outermost);
            min_values.extend(bounds.min.map(|min| (column.name.clone(), min)));
            max_values.extend(bounds.max.map(|max| (column.name.clone(), max)));
            null_count.insert(column.name, column.nulls.into());
        }
        let stats = json!({
            "numRecords": self.rows,
            "minValues": min_values,
            "maxValues": max_values,
            "nullCount": null_count,
        });
        let bytes = self.writer.into_inner().context(ErrorKind::Corrupt, DOING)?;
        Ok(Encoded { bytes: bytes.into(), stats: stats.to_string() })
    }
}

impl Column {
    fn take(&mut self, rows: &RecordBatch) -> std::result::Result<(), ArrowError> {
        let Some(values) = rows.column_by_name(&self.name) else { return Ok(()) };
        self.nulls += values.null_count();
        let all = concat(&[self.outermost.as_ref(), values.as_ref()])?;
        let first = |descending| {
            // A type without an order has no bounds.
            let order = SortOptions { descending, nulls_first: false };
            sort_to_indices(&all, Some(order), Some(1)).and_then(|index| take(&all, &index, None))
        };
        if let (Ok(smallest), Ok(largest)) = (first(false), first(true)) {
            self.outermost = concat(&[smallest.as_ref(), largest.as_ref()])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::table::parquet::{decode, encode};

    type Row = (Option<i64>, Option<String>, Option<i64>, Option<f64>);

    fn batch(rows: &[Row]) -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>())),
            ("text", Arc::new(rows.iter().map(|row| row.1.clone()).collect::<StringArray>())),
            ("at", Arc::new(rows.iter().map(|row| row.2).collect::<TimestampMicrosecondArray>().with_timezone("UTC"))),
            ("score", Arc::new(rows.iter().map(|row| row.3).collect::<Float64Array>())),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, values)| (name, values, true)))
            .unwrap()
    }

    fn names() -> Vec<String> {
        ["id", "text", "at", "score", "absent"].map(str::to_owned).to_vec()
    }

    fn merged(files: &[RecordBatch], schema: &SchemaRef) -> Encoded {
        let mut merge = Merge::new(SchemaRef::clone(schema), &names()).unwrap();
        for file in files {
            merge.take_file(encode(file, &[]).unwrap().bytes).unwrap();
        }
        merge.finish().unwrap()
    }

    #[test]
    fn a_file_that_is_no_parquet_is_corrupt() {
        let mut merge = Merge::new(batch(&[]).schema(), &names()).unwrap();
        assert_eq!(merge.take_file(Bytes::from_static(b"PAR1")).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_column_that_an_older_file_lacks_is_null() {
        let old = batch(&[(Some(1), None, None, None)]).project(&[0]).unwrap();
        let new = batch(&[(Some(2), Some("b".to_owned()), None, None)]);
        let merged = merged(&[old, new.clone()], &new.schema());
        let rows = decode(merged.bytes, &new.schema()).unwrap();
        assert_eq!((rows.num_rows(), rows.column(1).null_count()), (2, 1));
        let stats: Value = serde_json::from_str(&merged.stats).unwrap();
        assert_eq!((&stats["nullCount"]["text"], &stats["minValues"]["text"]), (&1.into(), &"b".into()));
    }

    fn row() -> impl Strategy<Value = Row> {
        let number = prop_oneof![8 => any::<f64>().prop_map(Some), 1 => Just(Some(f64::NAN)), 1 => Just(None)];
        (any::<Option<i64>>(), prop::option::of(".{0,3}|[aé]{126,130}"), prop::option::of(-9_i64..9_000_000), number)
    }

    proptest! {
        #[test]
        fn many_files_become_what_their_rows_are_in_one(
            files in prop::collection::vec(prop::collection::vec(row(), 0..6), 1..5),
        ) {
            let files: Vec<RecordBatch> = files.iter().map(|rows| batch(rows)).collect();
            let schema = files[0].schema();
            let whole = concat_batches(&schema, &files).unwrap();
            let merged = merged(&files, &schema);
            let rows = decode(merged.bytes, &schema).unwrap();
            // As text, because NaN does not equal NaN.
            prop_assert_eq!(format!("{:?}", rows.columns()), format!("{:?}", whole.columns()));
            prop_assert_eq!(merged.stats, encode(&whole, &names()).unwrap().stats);
        }
    }
}
