//! What becomes of records, and that both paths agree about it.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use arrow::json::LineDelimitedWriter;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn schema() -> SchemaRef {
    let nested = vec![
        Field::new("age", DataType::Int64, true),
        Field::new("tags", DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))), true),
    ];
    let item = DataType::Struct(vec![Field::new("price", DataType::Float64, true)].into());
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("small", DataType::Int16, true),
        Field::new("ok", DataType::Boolean, true),
        Field::new("ratio", DataType::Float64, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("user", DataType::Struct(nested.into()), true),
        Field::new("items", DataType::List(Arc::new(Field::new("element", item, true))), true),
        Field::new("amount", DataType::Decimal128(10, 2), true),
    ]))
}

fn parsed(records: &[&str], is_careful: bool) -> Parsed {
    let mut parser = Parser::new(&schema(), Unknown::Rescue).unwrap();
    parser.is_careful = is_careful;
    records.iter().for_each(|record| parser.push(record));
    parser.finish().unwrap()
}

/// The rows as JSON, with both columns of what did not fit.
fn rows(parsed: &Parsed) -> Vec<Value> {
    let mut fields: Vec<_> = schema().fields().iter().cloned().collect();
    let mut columns = parsed.columns.clone();
    for (name, values) in [("_rescued_data", &parsed.rescued), ("_corrupt_record", &parsed.corrupt)] {
        fields.push(Arc::new(Field::new(name, DataType::Utf8, true)));
        columns.push(Arc::new(values.clone()));
    }
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let mut lines = LineDelimitedWriter::new(Vec::new());
    lines.write(&batch).unwrap();
    lines.finish().unwrap();
    let text = String::from_utf8(lines.into_inner()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn one(record: &str) -> Value {
    let (quick, careful) = (rows(&parsed(&[record], false)), rows(&parsed(&[record], true)));
    assert_eq!(quick, careful, "{record}");
    quick.into_iter().next().unwrap()
}

fn rescued(record: &str) -> Value {
    one(record)["_rescued_data"].as_str().map_or(Value::Null, |text| serde_json::from_str(text).unwrap())
}

#[test]
fn what_fits_is_in_its_column_and_nothing_else_is_said() {
    let record = r#"{"id":1,"small":-7,"ok":true,"ratio":0.1,"text":"a\u00e9\n","user":{"age":3,"tags":["x",null]},
        "items":[{"price":1.5},{}],"amount":12.34,"at":"2024-01-01T00:00:00Z"}"#;
    let expected = json!({
        "id": 1, "small": -7, "ok": true, "ratio": 0.1, "text": "aé\n", "user": {"age": 3, "tags": ["x", null]},
        "items": [{"price": 1.5}, {}], "amount": 12.34, "at": "2024-01-01T00:00:00Z",
    });
    assert_eq!(one(record), expected);
    assert_eq!(one("{}"), json!({}));
    assert_eq!(one(r#" {"id":null} "#), json!({}));
}

#[test]
fn what_fits_no_column_is_rescued_word_for_word_with_its_place() {
    assert_eq!(rescued(r#"{"id":"x","new":1.10}"#), serde_json::from_str::<Value>(r#"{"id":"x","new":1.10}"#).unwrap());
    assert!(one(r#"{"new":1.10}"#)["_rescued_data"].as_str().unwrap().contains("1.10"));
    assert_eq!(rescued(r#"{"user":{"age":"old","new":[1]}}"#), json!({"/user/age": "old", "/user/new": [1]}));
    assert_eq!(rescued(r#"{"items":[{"price":1},{"price":"x"},7]}"#), json!({"/items/1/price": "x", "/items/2": 7}));
    assert_eq!(rescued(r#"{"user":[]}"#), json!({"user": []}));
    assert_eq!(rescued(r#"{"ID":1}"#), json!({"ID": 1}), "case counts");
    assert_eq!(rescued(r#"{"small":40000}"#), json!({"small": 40000}));
    assert_eq!(
        one(r#"{"id":9223372036854775808,"ratio":1e400}"#)["_rescued_data"],
        r#"{"id":9223372036854775808,"ratio":1e400}"#
    );
    assert_eq!(rescued(r#"{"at":"yesterday"}"#), json!({"at": "yesterday"}));
}

#[test]
fn a_name_that_comes_twice_keeps_its_first_value_and_rescues_the_others() {
    let row = one(r#"{"id":1,"id":2,"user":{"age":1,"age":2},"x":1,"x":2}"#);
    assert_eq!((&row["id"], &row["user"]["age"]), (&json!(1), &json!(1)));
    assert_eq!(row["_rescued_data"], r#"{"id":2,"/user/age":2,"x":{"_duplicates":[1,2]}}"#);
}

#[test]
fn a_text_column_takes_whatever_comes_as_its_json() {
    let records = [r#"{"text":1.10}"#, r#"{"text":{"a": [1]}}"#, r#"{"text":"s\t"}"#, r#"{"text":true}"#];
    let parsed = parsed(&records, false);
    let texts: Vec<_> = parsed.columns[4].as_string::<i32>().iter().flatten().collect();
    assert_eq!(texts, ["1.10", r#"{"a": [1]}"#, "s\t", "true"]);
    assert_eq!((parsed.rescued_rows, parsed.corrupt_rows), (0, 0));
}

#[test]
fn what_is_no_object_is_a_row_of_its_own_and_harms_no_other() {
    let deep = "[".repeat(1_000_000);
    let bad = ["", "nonsense", "[1]", "7", r#"{"id":1"#, r#"{"id":1}}"#, r#"{"user":{"age":1},"id":}"#, &deep];
    for record in bad {
        assert_eq!(one(record), json!({ "_corrupt_record": record }));
    }
    let parsed = parsed(&[r#"{"id":1}"#, r#"{"user":{"age":1},"id""#, r#"{"id":3}"#], false);
    let ids: Vec<_> = parsed.columns[0].as_primitive::<Int64Type>().iter().collect();
    assert_eq!((ids, parsed.corrupt_rows), (vec![Some(1), None, Some(3)], 1));
}

#[test]
fn deep_nesting_in_what_has_no_column_is_kept_as_it_is() {
    let deep = format!(r#"{{"id":1,"x":{}1{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    let row = one(&deep);
    assert_eq!(row["id"], 1);
    assert!(row["_rescued_data"].as_str().unwrap().len() > 10_000);
}

#[test]
fn bytes_that_are_no_text_and_records_that_are_too_large_are_told() {
    let mut parser = Parser::new(&schema(), Unknown::Rescue).unwrap();
    parser.push_faulty(b"{\"id\":\"\xff\"}", None);
    parser.push_faulty(b"{\"id\":1,\"text\":\"\xc3", Some(Fault::TooLarge { bytes: 99 }));
    parser.push_faulty(b"]]", None);
    let rows = rows(&parser.finish().unwrap());
    let first: Value = serde_json::from_str(rows[0]["_corrupt_record"].as_str().unwrap()).unwrap();
    let bytes = BASE64_STANDARD.decode(first["_corrupt_record"].as_str().unwrap()).unwrap();
    assert_eq!(bytes, b"{\"id\":\"\xff\"}");
    assert!(rows[1]["_corrupt_record"].as_str().unwrap().starts_with(r#"{"_begins":"{\"id\":1,"#));
    assert_eq!(rows[2]["_corrupt_record"], "]]");
}

#[test]
fn fields_without_a_column_tell_their_types_or_are_passed_over() {
    let options = InferOptions { typed: true, timestamps: false };
    let mut parser = Parser::new(&schema(), Unknown::Infer(options)).unwrap();
    parser.push(r#"{"id":1}"#);
    parser.push(r#"{"id":1,"user":{"new":1.5}}"#);
    assert!(matches!(parser.finish().unwrap().seen, Some(JsonType::Struct(fields)) if fields.len() == 2));
    let mut parser = Parser::new(&schema(), Unknown::Ignore).unwrap();
    parser.push(r#"{"id":"x","new":1,"user":{"new":2,"age":1.5}}"#);
    assert_eq!(parser.finish().unwrap().rescued.value(0), r#"{"id":"x","/user/age":1.5}"#);
}

#[test]
fn a_column_whose_type_flips_with_each_row_keeps_every_value() {
    let records: Vec<String> =
        (0..100).map(|n| if n % 2 == 0 { format!(r#"{{"id":{n}}}"#) } else { format!(r#"{{"id":"{n}"}}"#) }).collect();
    let parsed = parsed(&records.iter().map(String::as_str).collect::<Vec<_>>(), false);
    assert_eq!((parsed.columns[0].null_count(), parsed.rescued_rows), (50, 50));
}

/// JSON that meets the columns, misses them and breaks.
fn record() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| json!(n).to_string()),
        (-40_000..40_000i32).prop_map(|n| n.to_string()),
        Just("-0".to_owned()),
        Just("1e999".to_owned()),
        Just("12.340".to_owned()),
        Just("\"\\ud800\"".to_owned()),
        Just("\"2024-01-01T00:00:00.5Z\"".to_owned()),
        ".{0,6}".prop_map(|text| json!(text).to_string()),
    ];
    let name = prop_oneof![
        4 => prop::sample::select(vec!["id", "small", "ok", "ratio", "text", "at", "user", "items", "amount", "age", "tags", "price"]).prop_map(str::to_owned),
        1 => "[a-z/~\\\\\"]{0,3}",
    ];
    let value = scalar.prop_recursive(4, 24, 4, move |inner| {
        let field = (name.clone(), inner.clone()).prop_map(|(name, value)| format!("{}: {value}", json!(name)));
        prop_oneof![
            1 => prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            3 => prop::collection::vec(field, 0..6).prop_map(|fields| format!("{{{}}}", fields.join(","))),
        ]
    });
    prop_oneof![20 => value.clone(), 1 => (value, any::<prop::sample::Index>()).prop_map(|(text, at)| {
        let cut = at.index(text.len().max(1));
        text.chars().take(cut).collect()
    })]
}

proptest! {
    #[test]
    fn both_paths_make_the_same_rows_of_any_records(records in prop::collection::vec(record(), 1..12)) {
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        let (quick, careful) = (parsed(&records, false), parsed(&records, true));
        prop_assert_eq!(rows(&quick), rows(&careful));
        prop_assert_eq!(quick.columns[0].len(), records.len());
        prop_assert_eq!((quick.corrupt_rows, quick.rescued_rows), (careful.corrupt_rows, careful.rescued_rows));
    }
}
