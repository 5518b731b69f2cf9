//! Columns under construction: plain vectors that can be truncated back to the start of a record.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, ListArray, StringArray, StringBuilder, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};

use crate::error::{Context, Error, ErrorKind, Result};
use crate::json::types::json_name;

/// The values of one column so far and their validity. A column may have fewer rows than its record or struct: missing
/// rows at the end are null and are only filled in once a value follows.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) values: Values,
    /// One entry per row. A null still has a placeholder in `values`.
    pub(super) valid: Vec<bool>,
}

/// The values, by type.
#[derive(Debug)]
pub(super) enum Values {
    Boolean(Vec<bool>),
    Integer(Vec<i64>, Width),
    Double(Vec<f64>),
    Float(Vec<f32>),
    Decimal(Vec<i128>, u8, i8),
    Date(Vec<i32>),
    /// Microseconds since 1970, and whether they are instants (with a time zone) or local date-times.
    Timestamp(Vec<i64>, bool),
    Text(Text),
    List(Box<ListValues>),
    Struct(StructValues),
}

/// Bits of an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Eight,
    Sixteen,
    ThirtyTwo,
    SixtyFour,
}

/// Strings, one after another.
#[derive(Debug)]
pub(super) struct Text {
    ends: Vec<i32>,
    all: String,
    /// Set once a value that is not a string was met. Such values are kept as JSON text, so later ones are not parsed
    /// either.
    pub(super) takes_json: bool,
}

#[derive(Debug)]
pub(super) struct ListValues {
    field: FieldRef,
    pub(super) ends: Vec<i32>,
    pub(super) items: Column,
}

#[derive(Debug)]
pub(super) struct StructValues {
    pub(super) names: Names,
    pub(super) children: Vec<Column>,
}

/// Maps the field names of a JSON object to columns.
#[derive(Debug)]
pub(super) struct Names {
    fields: Fields,
    /// As written in the JSON.
    names: Vec<Box<str>>,
    by_name: HashMap<Box<str>, usize>,
}

impl Column {
    /// An empty column of this type.
    ///
    /// # Errors
    /// Configuration when JSON has no values of this type.
    pub(super) fn new(field: &Field) -> Result<Self> {
        let values = match field.data_type() {
            DataType::Boolean => Values::Boolean(Vec::new()),
            DataType::Int8 => Values::Integer(Vec::new(), Width::Eight),
            DataType::Int16 => Values::Integer(Vec::new(), Width::Sixteen),
            DataType::Int32 => Values::Integer(Vec::new(), Width::ThirtyTwo),
            DataType::Int64 => Values::Integer(Vec::new(), Width::SixtyFour),
            DataType::Float64 => Values::Double(Vec::new()),
            DataType::Float32 => Values::Float(Vec::new()),
            DataType::Decimal128(precision, scale) => Values::Decimal(Vec::new(), *precision, *scale),
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => Values::Timestamp(Vec::new(), zone.is_some()),
            DataType::Utf8 => Values::Text(Text { ends: vec![0], all: String::new(), takes_json: false }),
            DataType::List(item) => {
                Values::List(Box::new(ListValues { field: Arc::clone(item), ends: vec![0], items: Self::new(item)? }))
            }
            DataType::Struct(fields) => Values::Struct(StructValues::new(fields)?),
            other => {
                let text =
                    format!("column `{}` has type {other}, which no JSON value can fill; use string", field.name());
                return Err(Error::configuration(text));
            }
        };
        Ok(Self { values, valid: Vec::new() })
    }

    pub(super) fn len(&self) -> usize {
        self.valid.len()
    }

    /// Appends a null.
    pub(super) fn push_null(&mut self) {
        self.pad(self.len() + 1);
    }

    /// Appends nulls until there are `rows` rows.
    pub(super) fn pad(&mut self, rows: usize) {
        if self.len() >= rows {
            return;
        }
        match &mut self.values {
            Values::Boolean(values) => values.resize(rows, false),
            Values::Integer(values, _) | Values::Timestamp(values, _) => values.resize(rows, 0),
            Values::Double(values) => values.resize(rows, 0.0),
            Values::Float(values) => values.resize(rows, 0.0),
            Values::Decimal(values, _, _) => values.resize(rows, 0),
            Values::Date(values) => values.resize(rows, 0),
            Values::Text(text) => text.ends.resize(rows + 1, text.end()),
            Values::List(list) => list.ends.resize(rows + 1, list.ends.last().copied().unwrap_or(0)),
            Values::Struct(_) => {}
        }
        self.valid.resize(rows, false);
    }

    /// Removes all rows from `rows` on.
    pub(super) fn truncate(&mut self, rows: usize) {
        match &mut self.values {
            Values::Boolean(values) => values.truncate(rows),
            Values::Integer(values, _) | Values::Timestamp(values, _) => values.truncate(rows),
            Values::Double(values) => values.truncate(rows),
            Values::Float(values) => values.truncate(rows),
            Values::Decimal(values, _, _) => values.truncate(rows),
            Values::Date(values) => values.truncate(rows),
            Values::Text(text) => text.truncate(rows),
            Values::List(list) => list.truncate(rows),
            Values::Struct(values) => values.children.iter_mut().for_each(|child| child.truncate(rows)),
        }
        self.valid.truncate(rows);
    }

    /// Builds the array of the column's type.
    ///
    /// # Errors
    /// Configuration when a nested field is not nullable and a value is missing.
    pub(super) fn finish(self) -> Result<ArrayRef> {
        let rows = self.len();
        let nulls = self.valid.iter().any(|valid| !valid).then(|| NullBuffer::from(self.valid));
        Ok(match self.values {
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.into(), nulls)),
            Values::Integer(values, width) => integers(values, width, nulls),
            Values::Double(values) => Arc::new(Float64Array::new(values.into(), nulls)),
            Values::Float(values) => Arc::new(Float32Array::new(values.into(), nulls)),
            Values::Decimal(values, precision, scale) => {
                let decimals = Decimal128Array::new(values.into(), nulls).with_precision_and_scale(precision, scale);
                Arc::new(decimals.context(ErrorKind::Configuration, UNFIT)?)
            }
            Values::Date(values) => Arc::new(Date32Array::new(values.into(), nulls)),
            Values::Timestamp(values, is_moment) => {
                let array = TimestampMicrosecondArray::new(values.into(), nulls);
                Arc::new(if is_moment { array.with_timezone("UTC") } else { array })
            }
            Values::Text(text) => text.finish(nulls)?,
            Values::List(list) => {
                let ListValues { field, ends, items } = *list;
                let items = items.finish()?;
                let list = ListArray::try_new(field, OffsetBuffer::new(ends.into()), items, nulls);
                Arc::new(list.context(ErrorKind::Configuration, UNFIT)?)
            }
            Values::Struct(values) => {
                let fields = values.names.fields.clone();
                let array = StructArray::try_new(fields, values.finish(rows)?, nulls);
                Arc::new(array.context(ErrorKind::Configuration, UNFIT)?)
            }
        })
    }
}

const FEW: usize = 16;
const UNFIT: &str = "values do not fit their columns";

fn integers(values: Vec<i64>, width: Width, nulls: Option<NullBuffer>) -> ArrayRef {
    // Every value was checked against the width when it was pushed.
    #[allow(clippy::cast_possible_truncation)]
    match width {
        Width::Eight => {
            Arc::new(Int8Array::new(values.into_iter().map(|value| value as i8).collect::<Vec<_>>().into(), nulls))
        }
        Width::Sixteen => {
            Arc::new(Int16Array::new(values.into_iter().map(|value| value as i16).collect::<Vec<_>>().into(), nulls))
        }
        Width::ThirtyTwo => {
            Arc::new(Int32Array::new(values.into_iter().map(|value| value as i32).collect::<Vec<_>>().into(), nulls))
        }
        Width::SixtyFour => Arc::new(Int64Array::new(values.into(), nulls)),
    }
}

impl Width {
    /// Whether a value of this width can hold it.
    pub(super) fn holds(self, value: i64) -> bool {
        match self {
            Self::Eight => i8::try_from(value).is_ok(),
            Self::Sixteen => i16::try_from(value).is_ok(),
            Self::ThirtyTwo => i32::try_from(value).is_ok(),
            Self::SixtyFour => true,
        }
    }
}

impl Text {
    /// Appends a string; `false` when the column cannot hold more bytes.
    pub(super) fn push(&mut self, text: &str) -> bool {
        if self.all.len() + text.len() > i32::MAX.unsigned_abs() as usize {
            return false;
        }
        self.all.push_str(text);
        self.ends.push(self.end());
        true
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
    fn end(&self) -> i32 {
        self.all.len() as i32
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows + 1);
        self.all.truncate(self.ends.last().map_or(0, |end| end.unsigned_abs() as usize));
    }

    /// Building an array from a buffer validates all of it as UTF-8 again. That is free for ASCII; for other scripts,
    /// copying what is known to be valid is several times faster.
    fn finish(self, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
        if self.all.is_ascii() {
            let array = StringArray::try_new(OffsetBuffer::new(self.ends.into()), self.all.into_bytes().into(), nulls);
            return Ok(Arc::new(array.context(ErrorKind::Configuration, UNFIT)?));
        }
        let mut copy = StringBuilder::with_capacity(self.ends.len(), self.all.len());
        for (row, ends) in self.ends.windows(2).enumerate() {
            let &[start, end] = ends else { break };
            let is_there = nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
            let text = self.all.get(start.unsigned_abs() as usize..end.unsigned_abs() as usize);
            copy.append_option(text.filter(|_| is_there));
        }
        Ok(Arc::new(copy.finish()))
    }
}

impl ListValues {
    /// Ends a row with the items pushed since the previous one.
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
    pub(super) fn end(&mut self) {
        self.ends.push(self.items.len() as i32);
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows + 1);
        self.items.truncate(self.ends.last().map_or(0, |end| end.unsigned_abs() as usize));
    }
}

impl StructValues {
    pub(super) fn new(fields: &Fields) -> Result<Self> {
        let children = fields.iter().map(|field| Column::new(field)).collect::<Result<Vec<_>>>()?;
        let names: Vec<Box<str>> = fields.iter().map(|field| json_name(field).into()).collect();
        let by_name = names.iter().cloned().zip(0..).collect();
        Ok(Self { names: Names { fields: fields.clone(), names, by_name }, children })
    }

    /// Builds the arrays, each with `rows` rows.
    pub(super) fn finish(self, rows: usize) -> Result<Vec<ArrayRef>> {
        let finish = |mut column: Column| {
            column.pad(rows);
            column.finish()
        };
        self.children.into_iter().map(finish).collect()
    }
}

/// The column for a field's value in row `row`; `None` when the row already has one.
pub(super) fn column_at(children: &mut [Column], index: usize, row: usize) -> Option<&mut Column> {
    let column = children.get_mut(index)?;
    column.pad(row);
    (column.len() == row).then_some(column)
}

impl Names {
    /// The column for a JSON field. Fields usually come in column order, so the column after the previous one is tried
    /// first.
    pub(super) fn index(&self, name: &str, likely: usize) -> Option<usize> {
        match self.names.get(likely) {
            Some(next) if **next == *name => Some(likely),
            // Comparing a few names is faster than hashing one.
            _ if self.names.len() <= FEW => self.names.iter().position(|other| **other == *name),
            _ => self.by_name.get(name).copied(),
        }
    }

    /// The JSON field name of a column.
    pub(super) fn name(&self, index: usize) -> &str {
        self.names.get(index).map_or("", AsRef::as_ref)
    }
}
