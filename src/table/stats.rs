//! The smallest and largest value of a column, written the way a Delta log writes them.
//!
//! A bound may be looser than the truth but never tighter: readers rely on it to skip files.

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute::{cast, max, max_string, min, min_string};
use arrow::datatypes::{
    ArrowNumericType, DataType, Date32Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, SecondsFormat};
use serde_json::Value;

/// Characters of a string that are kept; the paths of raw segments only differ after some sixty.
const STRING_PREFIX_CHARS: usize = 128;

/// The bounds of a column; `None` if it has no values or no order.
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
            // JSON has no NaN, and arrow sorts it last: a column with a NaN has no largest value.
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

/// A truncated maximum is raised above everything with that prefix by appending the greatest character there is.
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
    use proptest::prelude::*;

    use super::*;

    fn array(values: impl Array + 'static) -> ArrayRef {
        Arc::new(values)
    }

    fn text(value: &Option<Value>) -> &str {
        value.as_ref().and_then(Value::as_str).unwrap()
    }

    #[test]
    fn a_column_without_order_or_values_has_no_bounds() {
        let nulls = bounds(&array(Int64Array::from(vec![None, None])));
        let booleans = bounds(&array(arrow::array::BooleanArray::from(vec![true])));
        let not_a_number = bounds(&array(Float64Array::from(vec![1.0, f64::NAN])));
        assert_eq!((nulls, booleans), (Bounds::default(), Bounds::default()));
        assert_eq!(not_a_number, Bounds { min: Some(1.0.into()), max: None });
    }

    #[test]
    fn timestamps_go_down_to_the_millisecond_for_the_minimum_and_up_for_the_maximum() {
        let micros = vec![Some(1_760_000_000_123_456), None, Some(1_760_000_000_123_001)];
        let zoned = bounds(&array(TimestampMicrosecondArray::from(micros.clone()).with_timezone("UTC")));
        assert_eq!(text(&zoned.min), "2025-10-09T08:53:20.123Z");
        assert_eq!(text(&zoned.max), "2025-10-09T08:53:20.124Z");
        let local = bounds(&array(TimestampMicrosecondArray::from(micros)));
        assert_eq!(text(&local.min), "2025-10-09T08:53:20.123");
        let before = bounds(&array(TimestampMicrosecondArray::from(vec![-1]).with_timezone("UTC")));
        assert_eq!((text(&before.min), text(&before.max)), ("1969-12-31T23:59:59.999Z", "1970-01-01T00:00:00.000Z"));
    }

    #[test]
    fn dates_are_days() {
        let days = bounds(&array(Date32Array::from(vec![0, 20_000])));
        assert_eq!((text(&days.min), text(&days.max)), ("1970-01-01", "2024-10-04"));
    }

    #[test]
    fn a_long_string_that_goes_on_with_the_greatest_character_has_no_maximum() {
        let long = bounds(&array(StringArray::from(vec![char::MAX.to_string().repeat(STRING_PREFIX_CHARS + 1)])));
        assert!(long.min.is_some() && long.max.is_none());
    }

    proptest! {
        #[test]
        fn bounds_of_strings_enclose_every_value(values in prop::collection::vec("[aé\u{10ffff}]{120,140}|.{0,9}", 1..8)) {
            let bounds = bounds(&array(StringArray::from(values.clone())));
            for value in &values {
                prop_assert!(text(&bounds.min) <= value.as_str());
                prop_assert!(bounds.max.is_none() || value.as_str() <= text(&bounds.max));
            }
        }

        #[test]
        fn bounds_of_integers_are_the_integers(values in prop::collection::vec(any::<i64>(), 1..8)) {
            let bounds = bounds(&array(Int64Array::from(values.clone())));
            prop_assert_eq!(bounds.min, values.iter().min().map(|value| (*value).into()));
            prop_assert_eq!(bounds.max, values.iter().max().map(|value| (*value).into()));
        }
    }
}
