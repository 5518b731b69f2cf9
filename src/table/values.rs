//! The columns of a batch by name and type, and the values of a row.

use arrow::array::{Array, AsArray, Int64Array, PrimitiveArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Int64Type, TimestampMicrosecondType};

use crate::clock::Timestamp;
use crate::error::{Error, Result};

/// The columns of some rows.
pub(crate) struct Columns<'a> {
    batch: &'a RecordBatch,
}

impl<'a> Columns<'a> {
    pub(crate) fn of(batch: &'a RecordBatch) -> Self {
        Self { batch }
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Whether the table has this column: one that it lacks is read as a column of nulls.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.batch.column_by_name(name).is_some_and(|column| *column.data_type() != DataType::Null)
    }

    /// A column of integers.
    ///
    /// # Errors
    /// Corrupt when the batch has no such column or it has another type; so for the others.
    pub(crate) fn integers(&self, name: &str) -> Result<&'a Int64Array> {
        self.primitives::<Int64Type>(name, "a bigint")
    }

    pub(crate) fn moments(&self, name: &str) -> Result<&'a TimestampMicrosecondArray> {
        self.primitives::<TimestampMicrosecondType>(name, "a timestamp")
    }

    pub(crate) fn strings(&self, name: &str) -> Result<&'a StringArray> {
        let column = self.batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        column.ok_or_else(|| odd(name, "a string"))
    }

    fn primitives<T: ArrowPrimitiveType>(&self, name: &str, kind: &str) -> Result<&'a PrimitiveArray<T>> {
        let column = self.batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<T>());
        column.ok_or_else(|| odd(name, kind))
    }
}

fn odd(name: &str, kind: &str) -> Error {
    Error::corrupt(format!("column {name} is missing or is not {kind}"))
}

/// The value of a row; `None` if it is null.
pub(crate) fn integer(column: &Int64Array, row: usize) -> Option<i64> {
    column.is_valid(row).then(|| column.value(row))
}

/// The value of a row; `None` if it is null.
pub(crate) fn text(column: &StringArray, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.value(row))
}

/// The value of a row; `None` if it is null.
pub(crate) fn moment(column: &TimestampMicrosecondArray, row: usize) -> Option<Timestamp> {
    column.is_valid(row).then(|| Timestamp::from_micros(column.value(row)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, new_null_array};

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_column_is_found_by_name_and_type_and_null_is_no_value() {
        let columns: [(&str, ArrayRef); 4] = [
            ("n", Arc::new(Int64Array::from(vec![Some(7), None]))),
            ("s", Arc::new(StringArray::from(vec![None, Some("x")]))),
            ("t", Arc::new(TimestampMicrosecondArray::from(vec![Some(5), None]).with_timezone("UTC"))),
            ("absent", new_null_array(&DataType::Null, 2)),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let columns = Columns::of(&batch);
        let numbers = columns.integers("n").unwrap();
        assert_eq!((integer(numbers, 0), integer(numbers, 1)), (Some(7), None));
        let strings = columns.strings("s").unwrap();
        assert_eq!((text(strings, 0), text(strings, 1)), (None, Some("x")));
        let moments = columns.moments("t").unwrap();
        assert_eq!((moment(moments, 0), moment(moments, 1)), (Some(Timestamp::from_micros(5)), None));
        assert_eq!(
            (columns.len(), columns.has("n"), columns.has("absent"), columns.has("other")),
            (2, true, false, false)
        );
        for error in [columns.integers("s").unwrap_err(), columns.integers("other").unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().ends_with("is missing or is not a bigint"), "{error}");
        }
    }
}
