//! Hive partitions: folders named `name=value` below the source are fields of every record in their files.

use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::types::{InferOptions, JsonType};

/// How Hive writes a null value.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// Which partition columns are wanted; all of them if none are named.
#[derive(Clone, Debug, Default)]
pub(crate) struct Partitioning {
    wanted: Option<Arc<[String]>>,
}

/// The value of one partition column, in the form that each kind of column takes. All are JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionValue {
    pub(crate) name: String,
    /// Without a column type: an integer or boolean if it is written exactly as JSON writes it, otherwise a string.
    pub(crate) json: String,
    /// For strings, dates and timestamps.
    pub(crate) string: String,
    /// For numbers and booleans.
    pub(crate) number: String,
}

impl Partitioning {
    pub(crate) fn new(wanted: Option<&[String]>) -> Self {
        Self { wanted: wanted.map(Into::into) }
    }

    /// The values for a file, by its path below the source. Nulls are left out; of duplicate names the first counts.
    pub(crate) fn of(&self, below: &str) -> Arc<[PartitionValue]> {
        let folders = below.rsplit_once('/').map_or("", |(folders, _)| folders);
        let mut values: Vec<PartitionValue> = Vec::new();
        for (name, value) in folders.split('/').filter_map(|folder| folder.split_once('=')) {
            let (name, value) = (decoded(name), decoded(value));
            if !name.is_empty() && value != NULL && values.iter().all(|other| other.name != name) {
                values.push(PartitionValue::new(name, &value));
            }
        }
        let Some(wanted) = &self.wanted else { return values.into() };
        wanted.iter().filter_map(|name| values.iter().find(|value| value.name == *name).cloned()).collect()
    }
}

impl PartitionValue {
    fn new(name: String, value: &str) -> Self {
        let string = serde_json::Value::from(value).to_string();
        let is_boolean = matches!(value, "true" | "false");
        // `007` is a code and `1.10` a version: turning them into numbers would change them.
        let is_whole = value.parse::<i64>().is_ok_and(|number| number.to_string() == value);
        let json = if is_boolean || is_whole { value.to_owned() } else { string.clone() };
        let number = if is_boolean { Some(value.to_owned()) } else { number(value) };
        Self { name, json, number: number.unwrap_or_else(|| string.clone()), string }
    }
}

/// Percent-decoded: Hive and Spark encode characters that a folder name cannot have.
fn decoded(part: &str) -> String {
    percent_decode_str(part).decode_utf8().map_or_else(|_| part.to_owned(), Into::into)
}

/// The number meant by digits with leading zeros, as in `month=01`.
fn number(text: &str) -> Option<String> {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, fraction)| (whole, Some(fraction)));
    let are_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(whole) || !fraction.is_none_or(are_digits) {
        return None;
    }
    let whole = Some(whole.trim_start_matches('0')).filter(|whole| !whole.is_empty()).unwrap_or("0");
    Some(format!("{sign}{whole}{}", fraction.map(|fraction| format!(".{fraction}")).unwrap_or_default()))
}

/// The type of records together with their files' partition columns; a record's own field wins.
pub(crate) fn with_partitions<'a>(
    records: Option<JsonType>,
    values: impl Iterator<Item = &'a PartitionValue>,
    options: InferOptions,
) -> Option<JsonType> {
    let mut fields: Vec<(String, JsonType)> = Vec::new();
    for value in values {
        let seen = JsonType::read(&value.json, options).unwrap_or(JsonType::Text);
        match fields.iter_mut().find(|(name, _)| *name == value.name) {
            Some((_, field)) => *field = std::mem::replace(field, JsonType::Null).merge(seen),
            None => fields.push((value.name.clone(), seen)),
        }
    }
    if let Some(JsonType::Struct(own)) = &records {
        fields.retain(|(name, _)| !own.iter().any(|(other, seen)| other == name && *seen != JsonType::Null));
    }
    match (records, fields.is_empty()) {
        (records, true) => records,
        (None, false) => Some(JsonType::Struct(fields)),
        (Some(records), false) => Some(records.merge(JsonType::Struct(fields))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(wanted: Option<&[&str]>, below: &str) -> Vec<(String, String)> {
        let wanted: Option<Vec<String>> = wanted.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let values = Partitioning::new(wanted.as_deref()).of(below);
        values.iter().map(|value| (value.name.clone(), value.json.clone())).collect()
    }

    fn pair(name: &str, json: &str) -> (String, String) {
        (name.to_owned(), json.to_owned())
    }

    #[test]
    fn folders_name_columns_and_files_do_not() {
        assert_eq!(values(None, "year=2026/x/k=a=b/c=1.json"), [pair("year", "2026"), pair("k", "\"a=b\"")]);
        assert!(values(None, "c=1.json").is_empty() && values(None, "=1/a.json").is_empty());
        assert_eq!(values(Some(&["b", "none", "a"]), "a=1/b=2/c=3/x"), [pair("b", "2"), pair("a", "1")]);
        assert!(values(Some(&[]), "a=1/x").is_empty());
        assert_eq!(values(None, "a=1/a=2/x"), [pair("a", "1")]);
    }

    #[test]
    fn names_and_values_are_decoded_and_null_is_none() {
        assert_eq!(values(None, "a%20b=x%2Fy%3D/x"), [pair("a b", "\"x/y=\"")]);
        assert_eq!(values(None, "a=%ff/x"), [pair("a", "\"%ff\"")], "no text, so as it is");
        assert_eq!(
            values(None, "a=__HIVE_DEFAULT_PARTITION__/b=null/c=/x"),
            [pair("b", "\"null\""), pair("c", "\"\"")]
        );
    }

    #[test]
    fn only_what_is_written_as_a_number_is_one_by_itself() {
        for (text, json, as_number) in [
            ("7", "7", "7"),
            ("-7", "-7", "-7"),
            ("01", "\"01\"", "1"),
            ("000", "\"000\"", "0"),
            ("-0", "\"-0\"", "-0"),
            ("1.10", "\"1.10\"", "1.10"),
            ("1e5", "\"1e5\"", "\"1e5\""),
            ("9223372036854775808", "\"9223372036854775808\"", "9223372036854775808"),
            ("true", "true", "true"),
            ("True", "\"True\"", "\"True\""),
            ("inf", "\"inf\"", "\"inf\""),
        ] {
            let value = PartitionValue::new("k".to_owned(), text);
            assert_eq!((value.json.as_str(), value.number.as_str()), (json, as_number), "{text}");
        }
    }

    #[test]
    fn types_are_those_of_records_and_a_field_of_their_own_wins() {
        let options = InferOptions { typed: true, timestamps: false };
        let of = |below: &str| Partitioning::default().of(below).to_vec();
        let folders: Vec<_> = [of("month=1/day=1/x"), of("month=02/x")].concat();
        let seen = |records: Option<&str>| {
            let records = records.map(|text| JsonType::read(text, options).unwrap());
            let Some(JsonType::Struct(fields)) = with_partitions(records, folders.iter(), options) else { panic!() };
            fields
        };
        let field = |name: &str, seen| (name.to_owned(), seen);
        assert_eq!(seen(None), [field("month", JsonType::Text), field("day", JsonType::Long)]);
        let both = [field("month", JsonType::Long), field("day", JsonType::Long)];
        assert_eq!(seen(Some(r#"{"month":3,"day":null}"#)), both);
        assert_eq!(with_partitions(None, [].iter(), options), None);
    }
}
