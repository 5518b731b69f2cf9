//! The careful path: takes a record value by value as raw text, so that what fits no column is kept verbatim.

use std::borrow::Cow;
use std::fmt;

use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::Date32Type;
use chrono::NaiveDateTime;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Notes;
use super::column::{Column, StructValues, Values, column_at};
use super::rescue::{Step, ValuePath};
use crate::json::types::{begins_with_date, micros_of, timestamp_micros};

/// The fields of a JSON object in order, with unparsed values.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Fields<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// The fields of a JSON object in order, with unparsed values; `None` when it is not an object.
pub(crate) fn fields_of(json: &str) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    serde_json::from_str::<Fields<'_>>(json).ok().map(|Fields(fields)| fields)
}

/// Appends a record to the columns of `root`, which have `row` rows. Of duplicate names the first value counts.
///
/// # Errors
/// When it is not a JSON object; nothing is appended then.
pub(super) fn append(root: &mut StructValues, row: usize, text: &str, notes: &mut Notes) -> serde_json::Result<()> {
    let fields: Fields<'_> = serde_json::from_str(text)?;
    push_fields(root, row, fields, notes, None);
    Ok(())
}

fn push_fields(
    values: &mut StructValues,
    row: usize,
    fields: Fields<'_>,
    notes: &mut Notes,
    parent: Option<&ValuePath<'_>>,
) {
    for (name, value) in fields.0 {
        let path = &ValuePath { parent, step: Step::Field(&name) };
        let Some(index) = values.names.index(&name, usize::MAX) else {
            notes.unknown(path, value.get());
            continue;
        };
        match column_at(&mut values.children, index, row) {
            Some(column) => push(column, value.get(), notes, path),
            None => notes.misfit(path, value.get()),
        }
    }
}

/// Appends a value, or null if it does not fit and is rescued.
pub(super) fn push(column: &mut Column, text: &str, notes: &mut Notes, path: &ValuePath<'_>) {
    if text == "null" {
        return column.push_null();
    }
    let row = column.len();
    let is_there = match &mut column.values {
        Values::Boolean(values) => text.parse().map(|value| values.push(value)).is_ok(),
        Values::Integer(values, width) => {
            let value = text.parse().ok().filter(|value| width.holds(*value));
            value.map(|value| values.push(value)).is_some()
        }
        Values::Double(values) => double(text).map(|value| values.push(value)).is_some(),
        Values::Float(values) => float(text).map(|value| values.push(value)).is_some(),
        Values::Decimal(values, precision, scale) => {
            decimal(text, *precision, *scale).map(|value| values.push(value)).is_some()
        }
        Values::Text(content) if !text.starts_with('"') => content.push(text),
        Values::Text(_) | Values::Date(_) | Values::Timestamp(..) => {
            let string = serde_json::from_str::<Cow<'_, str>>(text);
            if string.is_ok_and(|string| push_string(column, &string)) {
                return;
            }
            false
        }
        Values::List(list) => {
            let items = serde_json::from_str::<Vec<&RawValue>>(text);
            let is_list = items.is_ok();
            for (index, item) in items.into_iter().flatten().enumerate() {
                push(&mut list.items, item.get(), notes, &ValuePath { parent: Some(path), step: Step::Item(index) });
            }
            if is_list {
                list.end();
            }
            is_list
        }
        Values::Struct(values) => match serde_json::from_str::<Fields<'_>>(text) {
            Ok(fields) => {
                push_fields(values, row, fields, notes, Some(path));
                true
            }
            Err(_) => false,
        },
    };
    if is_there {
        column.valid.push(true);
    } else {
        column.push_null();
        notes.misfit(path, text);
    }
}

/// Appends a JSON string to a string column; `false`, with nothing appended, when it does not fit.
pub(super) fn push_string(column: &mut Column, string: &str) -> bool {
    let is_there = match &mut column.values {
        Values::Text(text) => text.push(string),
        Values::Date(values) => date(string).map(|value| values.push(value)).is_some(),
        Values::Timestamp(values, is_moment) => timestamp(string, *is_moment).map(|value| values.push(value)).is_some(),
        _ => false,
    };
    if is_there {
        column.valid.push(true);
    }
    is_there
}

/// The double nearest to a number, as every JSON reader has it; `None` when it is out of range, or so small that it
/// would be zero.
fn double(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
    let whole = text.strip_prefix('-').unwrap_or(text);
    // The parser accepts `inf` and `nan`, which are not JSON.
    let is_number = whole.starts_with(|first: char| first.is_ascii_digit());
    (is_number && (value != 0.0 || is_zero(whole))).then_some(value)
}

/// The same for the nearest float.
fn float(text: &str) -> Option<f32> {
    let value: f32 = text.parse().ok().filter(|value: &f32| value.is_finite())?;
    (double(text).is_some() && (value != 0.0 || double(text) == Some(0.0))).then_some(value)
}

fn is_zero(number: &str) -> bool {
    number.bytes().take_while(|byte| !matches!(byte, b'e' | b'E')).all(|byte| matches!(byte, b'0' | b'.'))
}

/// The decimal for a number, if it has no more digits than the column.
fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let scale = usize::try_from(scale).ok()?;
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let are_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !are_digits(whole) || !are_digits(fraction) || fraction.len() > scale {
        return None;
    }
    let value: i128 = format!("{whole}{fraction:0<scale$}").parse().ok()?;
    let limit = 10_i128.checked_pow(u32::from(precision))?;
    (value < limit).then_some(sign * value)
}

fn date(text: &str) -> Option<i32> {
    // The parser also accepts times, and drops them.
    (text.len() == 10 && begins_with_date(text) && !text.starts_with("0000")).then(|| Date32Type::parse(text)).flatten()
}

/// Microseconds since 1970. An instant needs an offset, a local date-time must not have one. Anything finer than a
/// microsecond does not fit.
fn timestamp(text: &str, is_moment: bool) -> Option<i64> {
    if is_moment {
        return timestamp_micros(text);
    }
    if !begins_with_date(text) {
        return None;
    }
    let reading = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f");
    micros_of(reading.or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f")).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_is_the_nearest_one_within_its_range() {
        assert_eq!((double("0.1"), float("0.1")), (Some(0.1), Some(0.1)));
        assert_eq!((double("-12e3"), float("-12e3")), (Some(-12_000.0), Some(-12_000.0)));
        assert_eq!(double("9007199254740993"), Some(9_007_199_254_740_992.0));
        assert_eq!((double("-0.0e9"), float("0")), (Some(0.0), Some(0.0)));
        assert_eq!((double("1e39"), float("1e39")), (Some(1e39), None));
        assert_eq!((double("1e-50"), float("1e-50")), (Some(1e-50), None));
        for text in ["1e400", "-1e-400", "nan", "inf", "-inf", "true", "\"1\""] {
            assert_eq!((double(text), float(text)), (None, None), "{text}");
        }
    }

    #[test]
    fn a_decimal_has_no_more_digits_than_its_column() {
        assert_eq!(decimal("-12.340", 5, 2), Some(-1_234));
        assert_eq!(decimal("999.99", 5, 2), Some(99_999));
        for text in ["1000", "0.001", "1e2", "\"1\"", "."] {
            assert_eq!(decimal(text, 5, 2), None, "{text}");
        }
    }

    #[test]
    fn a_moment_has_an_offset_and_a_reading_has_none() {
        assert_eq!(timestamp("1970-01-01T01:00:00.000001+01:00", true), Some(1));
        assert_eq!(timestamp("1970-01-01T00:00:00", true), None);
        assert_eq!(timestamp("1970-01-01 00:00:01", false), Some(1_000_000));
        assert_eq!(timestamp("1970-01-01T00:00:00Z", false), None);
        assert_eq!((date("1970-01-02"), date("1970-01-02T00:00:00Z")), (Some(1), None));
        for text in ["+2026-1-01", "0000-01-01", "2026-1-001", "-001-01-01"] {
            assert_eq!((date(text), timestamp(&format!("{text}T00:00:00"), false)), (None, None), "{text}");
        }
        for text in ["2016-12-31T23:59:60", "2026-05-05T10:10:60.5", "10000-01-01T00:00:00"] {
            assert_eq!((timestamp(text, false), timestamp(&format!("{text}Z"), true)), (None, None), "{text}");
        }
    }
}
