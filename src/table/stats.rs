//! Smallest and largest value of a column, written as a Delta log writes them.
//!
//! A bound may be looser than the truth and never tighter: readers skip a file on its word.

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::{cast, max, max_string, min, min_string};
use arrow::datatypes::{
    ArrowNumericType, DataType, Date32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, SecondsFormat};
use serde_json::Value;

/// Characters of a string that are kept; the paths of raw segments differ only after some sixty.
const STRING_PREFIX_CHARS: usize = 128;

/// The bounds of a column; `None` where it has no values or no order.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) min: Option<Value>,
    pub(crate) max: Option<Value>,
}

/// The bounds of the values of one column.
pub(crate) fn bounds(values: &ArrayRef) -> Bounds {
    use DataType as Type;
    let in_type =
        |data_type: DataType| cast(values, &data_type).unwrap_or_else(|_| arrow::array::new_null_array(&data_type, 0));
    match values.data_type() {
        Type::Int8 | Type::Int16 | Type::Int32 | Type::Int64 => primitive::<Int64Type>(
            in_type(Type::Int64).as_primitive(),
            |value| Some(value.into()),
            |value| Some(value.into()),
        ),
        Type::Float32 | Type::Float64 => {
            // NaN has no place in JSON, and arrow sorts it last: a column with one has no largest value.
            let number = |value: f64| serde_json::Number::from_f64(value).map(Value::Number);
            primitive::<Float64Type>(in_type(Type::Float64).as_primitive(), number, number)
        }
        Type::Utf8 | Type::LargeUtf8 | Type::Utf8View => {
            let strings = in_type(Type::Utf8);
            let strings = strings.as_string::<i32>();
            Bounds { min: min_string(strings).map(string_min), max: max_string(strings).and_then(string_max) }
        }
        Type::Timestamp(_, zone) => {
            let micros = in_type(Type::Timestamp(TimeUnit::Microsecond, zone.clone()));
            let zoned = zone.is_some();
            let floor = move |micros: i64| timestamp(micros.div_euclid(1_000), zoned);
            let ceil = move |micros: i64| timestamp(micros.saturating_add(999).div_euclid(1_000), zoned);
            primitive::<TimestampMicrosecondType>(micros.as_primitive(), floor, ceil)
        }
        Type::Date32 => primitive::<Date32Type>(values.as_primitive(), date, date),
        _ => Bounds::default(),
    }
}

fn primitive<T: ArrowNumericType>(
    values: &PrimitiveArray<T>,
    smallest: impl Fn(T::Native) -> Option<Value>,
    largest: impl Fn(T::Native) -> Option<Value>,
) -> Bounds {
    Bounds { min: min(values).and_then(smallest), max: max(values).and_then(largest) }
}

fn string_min(text: &str) -> Value {
    text.chars().take(STRING_PREFIX_CHARS).collect::<String>().into()
}

/// A cut maximum is raised above everything with that prefix by the greatest character there is.
fn string_max(text: &str) -> Option<Value> {
    let Some((end, next)) = text.char_indices().nth(STRING_PREFIX_CHARS) else { return Some(text.into()) };
    (next != char::MAX).then(|| format!("{}{}", &text[..end], char::MAX).into())
}

fn timestamp(millis: i64, zoned: bool) -> Option<Value> {
    let moment = DateTime::from_timestamp_millis(millis)?;
    let text = moment.to_rfc3339_opts(SecondsFormat::Millis, true);
    Some(if zoned { text } else { text.trim_end_matches('Z').to_owned() }.into())
}

fn date(days: i32) -> Option<Value> {
    let moment = DateTime::from_timestamp(i64::from(days) * 86_400, 0)?;
    Some(moment.format("%Y-%m-%d").to_string().into())
}
