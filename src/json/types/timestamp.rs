//! What counts as a timestamp: one definition, shared by inference and parsing.

use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};

/// Where ISO 8601 has the `T` after the date.
const TIME_MARK: usize = "2024-01-01".len();

/// Microseconds since 1970 of an ISO 8601 string with date, time and offset (or `Z`); `None` for anything less, which
/// is not an instant. Seconds may be missing, and the offset may be short: `+0100`, `+01`.
pub(crate) fn timestamp_micros(text: &str) -> Option<i64> {
    // RFC 3339 also allows a space here; such strings are often meant for people and stay text.
    if text.as_bytes().get(TIME_MARK) != Some(&b'T') || !text.is_ascii() {
        return None;
    }
    let moment = match DateTime::parse_from_rfc3339(text) {
        Ok(moment) => moment,
        Err(_) => DateTime::parse_from_rfc3339(&spelled_out(text)?).ok()?,
    };
    micros_of(moment.naive_utc())
}

/// Microseconds since 1970 of a time without an offset; `None` if a column would not say the same. Anything finer than
/// a microsecond would be lost, a leap second would be the next second, and readers know only the years from 1 to
/// 9999.
pub(crate) fn micros_of(reading: NaiveDateTime) -> Option<i64> {
    let is_exact = reading.nanosecond() < 1_000_000_000 && reading.nanosecond().is_multiple_of(1_000);
    (is_exact && (1..=9_999).contains(&reading.year())).then(|| reading.and_utc().timestamp_micros())
}

/// Whether a text begins with a date as ISO 8601 writes it: four digits for the year, two for month and day.
pub(crate) fn begins_with_date(text: &str) -> bool {
    let date = text.as_bytes().get(..TIME_MARK).unwrap_or_default();
    date.len() == TIME_MARK
        && date.iter().enumerate().all(|(index, byte)| match index {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

/// Adds what ISO 8601 allows to omit and RFC 3339 does not. `text` is ASCII.
fn spelled_out(text: &str) -> Option<String> {
    let (moment, offset) = text.split_at(text.rfind(['Z', '+', '-']).filter(|&at| at > TIME_MARK)?);
    let seconds = if moment.len() == "2024-01-01T00:00".len() { ":00" } else { "" };
    let (hours, minutes) = offset.split_at(offset.len().min("+01".len()));
    let minutes = match minutes.len() {
        0 if hours.len() > 1 => ":00".to_owned(),
        2 => format!(":{minutes}"),
        _ => minutes.to_owned(),
    };
    Some(format!("{moment}{seconds}{hours}{minutes}"))
}
