//! Reads a data file piece by piece: memory holds a part of the requested columns, however large the file is.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::statistics::Statistics;

use super::snapshot::TableLog;
use super::{Commit, DataFile, LakeTable, parquet as files};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// Rows decoded at a time; a payload may be megabytes.
const BATCH_ROWS: usize = 1_024;
/// Bytes read at once from the end of a file; most footers fit.
const FOOTER_BYTES: usize = 32 * 1_024;

/// What the store has in place of a data file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileHealth {
    /// A Parquet file with the size and row count that the log says.
    Whole,
    /// Nothing.
    Missing,
    /// Something other than what the log says.
    Torn {
        /// What is wrong with it.
        why: String,
    },
}

/// Skips row groups whose statistics show that no value lies within these bounds.
#[derive(Clone, Copy, Debug)]
pub struct Within<'a> {
    /// A column of timestamps.
    pub column: &'a str,
    /// The smallest wanted value, in microseconds since 1970.
    pub from: i64,
    /// The largest wanted value.
    pub to: i64,
}

/// The rows of a file, piece by piece.
pub struct Scan {
    stream: ParquetRecordBatchStream<StoreReader>,
    wanted: SchemaRef,
    location: Path,
}

/// Reads ranges of one object.
struct StoreReader {
    storage: Storage,
    location: Path,
    size_bytes: u64,
}

impl LakeTable {
    /// What one commit did; `None` when its log entry was cleaned up or does not exist yet.
    ///
    /// # Errors
    /// When the store fails or the entry cannot be understood.
    pub async fn commit_at(&self, version: i64) -> Result<Option<Commit>> {
        let actions = self.log.read(version).await?;
        Ok(actions.map(|actions| Commit::from_actions(version, &actions)))
    }

    /// Checks whether a file exists and matches the log: its size, its footer, its row count.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn file_health(&self, file: &DataFile) -> Result<FileHealth> {
        let location = match file.location(&self.log.table) {
            Ok(location) => location,
            Err(error) => return Ok(FileHealth::Torn { why: error.to_string() }),
        };
        let Some(there) = self.log.storage.head(&location).await? else { return Ok(FileHealth::Missing) };
        if i64::try_from(there.size) != Ok(file.size_bytes) {
            let why = format!("it has {} bytes, but the log says {}", there.size, file.size_bytes);
            return Ok(FileHealth::Torn { why });
        }
        let mut reader = StoreReader { storage: self.log.storage.clone(), location, size_bytes: there.size };
        let metadata = match reader.get_metadata(None).await.map_err(|error| parquet_error(error, &reader.location)) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                return Ok(FileHealth::Torn { why: error.to_string() });
            }
            Err(error) => return Err(error),
        };
        let rows = metadata.file_metadata().num_rows();
        match file.num_records {
            Some(logged) if logged != rows => {
                Ok(FileHealth::Torn { why: format!("it has {rows} rows, but the log says {logged}") })
            }
            _ => Ok(FileHealth::Whole),
        }
    }

    /// Reads one file piece by piece, only `columns`; a column the file lacks is null.
    ///
    /// # Errors
    /// Corrupt when the file is missing or not Parquet; otherwise the store's error.
    pub async fn scan(&self, file: &DataFile, columns: &[&str], within: Option<Within<'_>>) -> Result<Scan> {
        Scan::open(&self.log, file, files::pick(&self.state.schema, Some(columns)), Part::Within(within)).await
    }
}

/// Which rows of a file are read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    /// Those that may lie within these bounds; all of them when `None`.
    Within(Option<Within<'a>>),
    /// Those at these positions, in ascending order.
    Rows(&'a [u32]),
}

impl Scan {
    /// Begins to read part of a file, with exactly the columns of `wanted`.
    ///
    /// # Errors
    /// As [`LakeTable::scan`].
    pub(super) async fn open(log: &TableLog, file: &DataFile, wanted: SchemaRef, part: Part<'_>) -> Result<Self> {
        let location = file.location(&log.table)?;
        let size_bytes = u64::try_from(file.size_bytes).unwrap_or(0);
        let reader = StoreReader { storage: log.storage.clone(), location: location.clone(), size_bytes };
        let builder =
            ParquetRecordBatchStreamBuilder::new(reader).await.map_err(|error| parquet_error(error, &location))?;
        let mask = files::mask(&builder, wanted.fields().iter().map(|field| field.name().as_str()));
        let builder = match part {
            Part::Within(within) => {
                let groups = groups_within(&builder, within);
                builder.with_row_groups(groups)
            }
            Part::Rows(rows) => {
                let total = builder.metadata().file_metadata().num_rows();
                let total = usize::try_from(total).unwrap_or(0);
                let ranges = rows.iter().map(|row| *row as usize..*row as usize + 1);
                let ranges = ranges.filter(|range| range.end <= total);
                builder.with_row_selection(RowSelection::from_consecutive_ranges(ranges, total))
            }
        };
        let stream = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build();
        Ok(Self { stream: stream.map_err(|error| parquet_error(error, &location))?, wanted, location })
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// Corrupt when the file cannot be decoded; otherwise the store's error.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let piece = self.stream.try_next().await.map_err(|error| parquet_error(error, &self.location))?;
        piece.map(|rows| files::conform(&rows, &self.wanted)).transpose()
    }
}

impl AsyncFileReader for StoreReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        let store = self.storage.object_store();
        async move { store.get_range(&self.location, range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        let store = self.storage.object_store();
        async move { store.get_ranges(&self.location, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        let size_bytes = self.size_bytes;
        async move {
            let reader = ParquetMetaDataReader::new().with_arrow_reader_options(options);
            let reader = reader.with_prefetch_hint(Some(FOOTER_BYTES));
            Ok(Arc::new(reader.load_and_finish(self, size_bytes).await?))
        }
        .boxed()
    }
}

/// The row groups of a file that may have rows within these bounds.
fn groups_within(builder: &ParquetRecordBatchStreamBuilder<StoreReader>, within: Option<Within<'_>>) -> Vec<usize> {
    // Bounds in another unit than ours say nothing here.
    let in_micros = |column: &str| match builder.schema().field_with_name(column) {
        Ok(field) => matches!(field.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)),
        Err(_) => false,
    };
    let within = within.filter(|within| in_micros(within.column));
    let groups = builder.metadata().row_groups().iter().enumerate();
    groups.filter(|(_, group)| within.is_none_or(|within| may_hold(group, within))).map(|(index, _)| index).collect()
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

/// A store failure is transient; bytes that are not Parquet stay that way.
fn parquet_error(error: ParquetError, location: &Path) -> Error {
    let error = match error {
        ParquetError::External(source) => match source.downcast::<object_store::Error>() {
            Ok(error) if matches!(*error, object_store::Error::NotFound { .. }) => {
                Error::corrupt("it is missing, but the table's log refers to it")
            }
            Ok(error) => Error::from(*error),
            Err(other) => Error::corrupt("cannot read a Parquet file").caused_by(other),
        },
        error => Error::corrupt("cannot read a Parquet file").caused_by(error),
    };
    error.during(location)
}

fn may_hold(group: &RowGroupMetaData, within: Within<'_>) -> bool {
    let column = group.columns().iter().find(|column| column.column_path().string() == within.column);
    match column.and_then(|column| column.statistics()) {
        Some(Statistics::Int64(values)) if values.null_count_opt() == Some(0) => {
            let below = values.max_opt().is_some_and(|max| *max < within.from);
            let above = values.min_opt().is_some_and(|min| *min > within.to);
            !below && !above
        }
        _ => true,
    }
}
