//! What types promise: laws of the lattice, names that Delta takes, hints that read back, columns that only grow.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::ddl::commented;
use super::names::{column, name_key};
use super::*;

const TYPED: InferOptions = InferOptions { typed: true, timestamps: true };
const TEXTS: InferOptions = InferOptions { typed: false, timestamps: true };
const RESERVED: [&str; 5] = ["_rescued_data", "_corrupt_record", "_source_file", "_source_row", "_ingested_at"];

fn read(text: &str) -> JsonType {
    JsonType::read(text, TYPED).unwrap()
}

fn columns_of(text: &str) -> Schema {
    schema_of(&read(text), &RESERVED)
}

fn hinted(schema: Schema, ddl: &str) -> Schema {
    apply(schema, &parse_hints(ddl).unwrap(), &RESERVED).unwrap()
}

fn type_hinted(ddl: &str) -> DataType {
    hinted(Schema::empty(), &format!("it {ddl}")).field(0).data_type().clone()
}

fn refusal(ddl: &str) -> String {
    parse_hints(ddl).unwrap_err().to_string()
}

fn names(schema: &Schema) -> Vec<&str> {
    schema.fields().iter().map(|field| field.name().as_str()).collect()
}

mod inference {
    use super::*;

    fn of(text: &str) -> JsonType {
        let seen = read(text);
        assert_eq!(JsonType::of(&serde_json::from_str(text).unwrap(), TYPED), seen, "{text}");
        seen
    }

    #[test]
    fn numbers() {
        assert_eq!(of("0"), JsonType::Long);
        assert_eq!(of("9223372036854775807"), JsonType::Long);
        assert_eq!(of("-9223372036854775808"), JsonType::Long);
        assert_eq!(of("9223372036854775808"), JsonType::Double);
        assert_eq!(of("-9223372036854775809"), JsonType::Double);
        assert_eq!(of("1e3"), JsonType::Double);
        // serde_json reads a negative zero as the float it is in no integer type.
        assert_eq!(of("-0"), JsonType::Double);
        // Beyond any double, serde_json refuses the whole text.
        assert!(JsonType::read("1e400", TYPED).unwrap_err().to_string().contains("out of range"));
        assert!(serde_json::from_str::<Value>("1e400").is_err());
    }

    #[test]
    fn timestamps_name_a_moment() {
        let moment = 1_704_067_200_000_000;
        for (text, micros) in [
            ("2024-01-01T00:00:00Z", moment),
            ("2024-01-01T00:00:00.000001Z", moment + 1),
            ("2024-01-01T00:00:00.123456000Z", moment + 123_456),
            ("2024-01-01T01:00:00+01:00", moment),
            ("2024-01-01T01:00:00.000+0100", moment),
            ("2023-12-31T19:00:00-05", moment),
            ("2024-01-01T00:00Z", moment),
            ("2024-01-01T01:00+01:00", moment),
            ("1969-12-31T23:59:59.999999Z", -1),
            ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
            ("0001-01-01T00:00:00Z", -62_135_596_800_000_000),
        ] {
            assert_eq!(timestamp_micros(text), Some(micros), "{text}");
            assert_eq!(JsonType::of(&json!(text), TYPED), JsonType::Timestamp);
        }
    }

    #[test]
    fn other_texts_stay_text() {
        for text in [
            "",
            "2024-01-01",
            "12:00",
            "2024-01-01T00:00:00",
            "2024-01-01 00:00:00Z",
            "2024-02-30T00:00:00Z",
            "2024-01-01T25:00:00Z",
            "2024-01-01T00Z",
            "2024-01-01TZ",
            "2024-01-01T+",
            "2024-01-01T00:00:00+1",
            "2024-01-01T00:00:00Zé",
            "+024-01-01T00:00:00Z",
            "2024-01-01T00:00:00Z or so",
            "aaaaaaaaaaT😀Z",
            "2016-12-31T23:59:60Z",
            "2026-05-05T10:10:60.5Z",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59-18:00",
            "0001-01-01T00:00:00+14:00",
            "+294247-01-10T04:00:54.775807Z",
            "-0001-01-01T00:00:00Z",
            "2026-01-01T00:00:00,5Z",
            "2026-W01-1T00:00:00Z",
        ] {
            assert_eq!(timestamp_micros(text), None, "{text}");
            assert_eq!(JsonType::of(&json!(text), TYPED), JsonType::Text);
        }
        let options = InferOptions { typed: true, timestamps: false };
        assert_eq!(JsonType::of(&json!("2024-01-01T00:00:00Z"), options), JsonType::Text);
    }

    #[test]
    fn objects_and_lists() {
        assert_eq!(of("null"), JsonType::Null);
        assert_eq!(of("[]"), JsonType::List(Box::new(JsonType::Null)));
        assert_eq!(of("[null, 1, 2.5]"), JsonType::List(Box::new(JsonType::Double)));
        assert_eq!(of("[1, true]"), JsonType::List(Box::new(JsonType::Text)));
        let elements = vec![("a".to_owned(), JsonType::Long), ("b".to_owned(), JsonType::Null)];
        assert_eq!(of(r#"[{"a": 1}, {"b": null}]"#), JsonType::List(Box::new(JsonType::Struct(elements))));
    }

    #[test]
    fn fields_keep_the_order_they_are_written_in() {
        let schema = columns_of(r#"{"z": 1, "a": {"y": 1, "b": 2}, "m": 3}"#);
        assert_eq!(to_ddl(&schema), "z bigint, a struct<y: bigint, b: bigint>, m bigint");
    }

    #[test]
    fn a_name_that_comes_twice_has_one_type_for_both() {
        let fields = vec![("a".to_owned(), JsonType::Double), ("b".to_owned(), JsonType::Boolean)];
        assert_eq!(read(r#"{"a": 1, "b": true, "a": 2.5}"#), JsonType::Struct(fields));
    }

    #[test]
    fn without_types_all_but_lists_and_objects_is_text() {
        let record = r#"{"n": 1, "b": true, "t": "2024-01-01T00:00:00Z", "l": [1.5], "s": {"x": 1}, "z": null}"#;
        let seen = JsonType::read(record, TEXTS).unwrap();
        let ddl = "n string, b string, t string, l array<string>, s struct<x: string>, z string";
        assert_eq!(to_ddl(&schema_of(&seen, &[])), ddl);
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        assert!(JsonType::read("{} {}", TYPED).is_err());
        assert!(JsonType::read("{", TYPED).is_err());
    }

    #[test]
    fn differing_types_meet_in_text() {
        assert_eq!(JsonType::Timestamp.merge(JsonType::Text), JsonType::Text);
        assert_eq!(JsonType::Long.merge(JsonType::Timestamp), JsonType::Text);
        assert_eq!(JsonType::Boolean.merge(JsonType::Long), JsonType::Text);
        assert_eq!(read("{}").merge(read("[]")), JsonType::Text);
        assert_eq!(read("{}").merge(JsonType::Null), read("{}"));
    }

    #[test]
    fn fields_merge_whatever_their_order() {
        let merged = read(r#"{"a": 1, "b": 1, "c": 1}"#).merge(read(r#"{"d": 1, "c": 0.5, "a": "x", "e": 1}"#));
        assert_eq!(to_ddl(&schema_of(&merged, &[])), "a string, b bigint, c double, d bigint, e bigint");
    }
}

mod columns {
    use super::*;

    #[test]
    fn types() {
        let schema =
            columns_of(r#"{"n": null, "e": {}, "l": [], "t": "2024-01-01T00:00:00Z", "o": {"x": [{"y": 1}]}}"#);
        let ddl = "n string, e string, l array<string>, t timestamp, o struct<x: array<struct<y: bigint>>>";
        assert_eq!(to_ddl(&schema), ddl);
        assert!(schema.fields().iter().all(|field| field.is_nullable()));
        let DataType::List(element) = schema.field(2).data_type() else { panic!("no list") };
        assert_eq!((element.name().as_str(), element.is_nullable()), ("element", true));
    }

    #[test]
    fn what_is_no_object_has_no_columns() {
        assert_eq!(columns_of("[1]"), Schema::empty());
        assert_eq!(columns_of("null"), Schema::empty());
    }

    #[test]
    fn names_that_delta_refuses_are_replaced() {
        let schema = columns_of(r#"{"a b,c;d{e}f(g)h\ni\tj=k": 1, "": 2, "order.id": 3, "😀 name": 4, "Ünï": 5}"#);
        assert_eq!(names(&schema), ["a_b_c_d_e_f_g_h_i_j_k", "_", "order.id", "😀_name", "Ünï"]);
        let originals: Vec<&str> = schema.fields().iter().map(|field| json_name(field)).collect();
        assert_eq!(originals, ["a b,c;d{e}f(g)h\ni\tj=k", "", "order.id", "😀 name", "Ünï"]);
        assert_eq!(schema.field(3).metadata().get("lakegram.json_name").map(String::as_str), Some("😀 name"));
        assert!(schema.field(2).metadata().is_empty());
    }

    #[test]
    fn of_siblings_that_collide_the_first_stays() {
        let schema = columns_of(r#"{"Id": 1, "id": "x", "a b": 1, "a_b": "x", "A=B": 2, "s": {"X": 1, "x": 2}}"#);
        assert_eq!(to_ddl(&schema), "Id bigint, `a b` bigint, s struct<X: bigint>");
        assert_eq!(names(&columns_of(r#"{"ÄRGER": 1, "ärger": 2}"#)), ["ÄRGER"]);
    }

    #[test]
    fn names_of_the_loader_get_no_column_at_the_top() {
        let schema = columns_of(r#"{"_Source_File": 1, " rescued_data": 2, "a": {"_source_file": 3}}"#);
        assert_eq!(to_ddl(&schema), "a struct<_source_file: bigint>");
    }
}

mod evolution {
    use super::*;

    #[test]
    fn new_fields_come_last_at_every_depth() {
        let current = columns_of(r#"{"a": 1, "s": {"x": 1}, "l": [{"p": 1}], "m": [[{"q": 1}]]}"#);
        let seen =
            read(r#"{"new": true, "l": [{"o": "x", "p": 0.5}], "s": {"w w": [], "x": "text"}, "m": [[{"r": 1}]]}"#);
        assert_eq!(
            to_ddl(&widen(&current, &seen, &RESERVED).unwrap()),
            "a bigint, s struct<x: bigint, `w w`: array<string>>, l array<struct<p: bigint, o: string>>, \
             m array<array<struct<q: bigint, r: bigint>>>, new boolean"
        );
        let new = ["new", "l.element.o", "s.`w w`", "m.element.element.r"];
        assert_eq!(new_names(&current, &seen, &RESERVED), new);
    }

    #[test]
    fn nothing_new_is_none() {
        let current = columns_of(r#"{"a b": 1, "s": {"x": 1}, "t": "x"}"#);
        for record in [
            r#"{"a b": "other type"}"#,
            r#"{"a_b": 1, "A B": 2, "S": {"y": 1}}"#,
            r#"{"t": {"x": 1}, "s": [1]}"#,
            r#"{"_source_row": 7}"#,
            "{}",
            "[1]",
        ] {
            assert_eq!(widen(&current, &read(record), &RESERVED), None, "{record}");
            assert_eq!(new_names(&current, &read(record), &RESERVED), [""; 0], "{record}");
        }
    }

    #[test]
    fn what_the_schema_carries_stays() {
        let told = hinted(columns_of(r#"{"s": {"x": 1}}"#), "s struct<x: int comment 'inner'> comment 'outer'");
        let told = Schema::new_with_metadata(told.fields, [("key".to_owned(), "value".to_owned())].into());
        let wider = widen(&told, &read(r#"{"s": {"y": 1}}"#), &[]).unwrap();
        assert_eq!(to_ddl(&wider), "s struct<x: int comment 'inner', y: bigint> comment 'outer'");
        assert_eq!(wider.metadata(), told.metadata());
    }
}

mod hinting {
    use super::*;

    #[test]
    fn every_type() {
        let micros = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Arc::from));
        for (ddl, data_type) in [
            ("boolean", DataType::Boolean),
            ("byte", DataType::Int8),
            ("TINYINT", DataType::Int8),
            ("short", DataType::Int16),
            ("smallint", DataType::Int16),
            ("int", DataType::Int32),
            ("Integer", DataType::Int32),
            ("long", DataType::Int64),
            ("bigint", DataType::Int64),
            ("float", DataType::Float32),
            ("real", DataType::Float32),
            ("double", DataType::Float64),
            ("decimal", DataType::Decimal128(10, 0)),
            ("dec(5)", DataType::Decimal128(5, 0)),
            ("numeric( 38 , 38 )", DataType::Decimal128(38, 38)),
            ("decimal(10,2)", DataType::Decimal128(10, 2)),
            ("string", DataType::Utf8),
            ("varchar(20)", DataType::Utf8),
            ("char(1)", DataType::Utf8),
            ("date", DataType::Date32),
            ("timestamp", micros(Some("UTC"))),
            ("timestamp_ntz", micros(None)),
        ] {
            assert_eq!(type_hinted(ddl), data_type, "{ddl}");
        }
        let DataType::List(element) = type_hinted("array<array<double>>") else { panic!("no list") };
        let DataType::List(inner) = element.data_type() else { panic!("no list in it") };
        assert_eq!(**inner, Field::new("element", DataType::Float64, true));
        let fields = vec![Field::new("a", DataType::Int64, true), column("b c", DataType::Utf8)];
        assert_eq!(type_hinted("struct<a: bigint, `b c` string>"), DataType::Struct(fields.into()));
    }

    #[test]
    fn a_list_of_hints_as_auto_loader_takes_it() {
        let ddl = "date date, user_info.dob timestamp, amounts array<double>,\n meta STRUCT<a: bigint, b string>,\n \
                   purchases.element.price decimal(10,2), `odd name` string COMMENT 'it''s', `a.b`.`c``d` int,";
        let hints = parse_hints(&ddl.replace("''", "\\'")).unwrap();
        let paths: Vec<String> = hints.iter().map(|hint| hint.path.join("|")).collect();
        let expected = ["date", "user_info|dob", "amounts", "meta", "purchases|element|price", "odd name", "a.b|c`d"];
        assert_eq!(paths, expected);
        assert_eq!(hints[5].comment.as_deref(), Some("it's"));
        assert_eq!((hints[0].position, hints[1].position), (1, 12));
        assert_eq!(parse_hints(" \n").unwrap(), []);
    }

    #[test]
    fn errors_say_where() {
        for (ddl, message) in [
            ("a strin", "character 3: unknown type `strin`; the nearest is `string`, of boolean, tinyint"),
            ("`😀` Timestmp", "character 5: unknown type `Timestmp`; the nearest is `timestamp`"),
            ("a int, b binary", "character 10: JSON has no `binary`; use string"),
            ("a array<map<string, int>>", "character 9: `map` is not supported; use string"),
            ("a", "character 2: expected a type, but the text ends"),
            ("a int b int", "character 7: expected a comma before the next column, but found `b`"),
            ("a int,, b int", "character 7: expected a column name (put it in backticks"),
            ("my-col int", "character 3: expected a type, but found `-`"),
            ("a. int", "character 7: expected a type, but the text ends"),
            ("`a int", "character 1: unterminated name"),
            ("a int comment 'x", "character 15: unterminated comment"),
            ("a int comment x", "character 15: put the comment in quotes"),
            ("a int not null", "character 7: any record may lack the column"),
            ("a decimal(39)", "character 11: a precision must be a number from 1 to 38"),
            ("a decimal(0,0)", "character 11: a precision must be a number from 1 to 38"),
            ("a decimal(5,6)", "character 13: a scale must be a number from 0 to 5"),
            ("a decimal(5,-1)", "character 13: a scale must be a number from 0 to 5"),
            ("a decimal(5", "character 12: expected `)`, but the text ends"),
            ("a varchar(x)", "character 11: a length must be a number from 1"),
            ("a array", "character 8: expected `<`, as in array<string>"),
            ("a array<int", "character 12: expected `>` after the element type"),
            ("a struct<>", "character 10: expected a column name"),
            ("a struct<b int", "character 15: expected a comma before the next field, or `>`"),
            ("a struct<b int, B int>", "character 17: the struct has two fields `B`"),
            ("a int, `A` string", "character 8: `A` already has a hint"),
        ] {
            assert!(refusal(ddl).contains(message), "{ddl}: {}", refusal(ddl));
        }
    }

    #[test]
    fn depth_ends_in_an_error() {
        assert!(refusal(&format!("a {}", "array<".repeat(100_000))).contains("more than 30 levels deep"));
        assert!(refusal(&format!("a{} int", ".a".repeat(100_000))).contains("path is longer than 30"));
    }

    #[test]
    fn hints_reach_what_is_there() {
        let schema = columns_of(r#"{"Date": "x", "user": {"dob": "x", "age": 1}, "buys": [{"price": 1.5}], "a b": 1}"#);
        let ddl = "date date, user.dob timestamp, BUYS.element.price decimal(10,2), `a b` int comment 'odd'";
        assert_eq!(
            to_ddl(&hinted(schema.clone(), ddl)),
            "Date date, user struct<dob: timestamp, age: bigint>, buys array<struct<price: decimal(10,2)>>, \
             `a b` int comment 'odd'"
        );
        assert_eq!(to_ddl(&hinted(columns_of(r#"{"l": [1]}"#), "l.element int")), "l array<int>");
        assert_eq!(to_ddl(&hinted(columns_of(r#"{"a b": 1}"#), "a_b int")), "`a b` int");
    }

    #[test]
    fn hints_add_what_is_not_there() {
        let schema = columns_of(r#"{"s": {"x": 1}}"#);
        let ddl = "s.y date, deep.er.still int, deep.also string comment 'told', list.element.price double";
        assert_eq!(
            to_ddl(&hinted(schema, ddl)),
            "s struct<x: bigint, y: date>, deep struct<er: struct<still: int>, also: string comment 'told'>, \
             list array<struct<price: double>>"
        );
    }

    #[test]
    fn a_path_that_leads_nowhere_is_an_error() {
        let schema = columns_of(r#"{"leaf": "x", "l": [{"x": 1}], "s": {"a b": 1}}"#);
        for (ddl, message) in [
            (
                "leaf.a int",
                "character 1: leaf has type string, which has no field a; give leaf itself a type, like leaf struct<a",
            ),
            ("s.`a b`.c int", "s.`a b` has type bigint, which has no field c"),
            ("l.x int", "l is a list; write l.element"),
            ("a int, l.element.x.y int", "character 8: l.element.x has type bigint, which has no field y"),
            ("_Source_Row int", "column `_source_row` is reserved for the loader"),
        ] {
            let error = apply(schema.clone(), &parse_hints(ddl).unwrap(), &RESERVED).unwrap_err().to_string();
            assert!(error.contains(message), "{ddl}: {error}");
        }
    }
}

mod versions {
    use super::*;

    #[test]
    fn a_version_is_readable_and_reads_back() {
        let columns = columns_of(r#"{"id": 1, "odd name": [{"x": null}]}"#);
        let version = SchemaVersion {
            number: 3,
            created_at: "2024-01-01T00:00:00Z".to_owned(),
            reason: "inferred from 12 files".to_owned(),
            columns,
        };
        let text = version.to_json().unwrap();
        let expected = r#"{
  "number": 3,
  "created_at": "2024-01-01T00:00:00Z",
  "reason": "inferred from 12 files",
  "ddl": [
    "id bigint",
    "`odd name` array<struct<x: string>>"
  ]
}"#;
        assert_eq!(text, expected);
        assert_eq!(SchemaVersion::from_json(&text).unwrap(), version);
    }

    #[test]
    fn errors_name_the_entry() {
        let text = r#"{"number": 3, "created_at": "", "reason": "", "ddl": ["a int", "b itn"]}"#;
        let error = SchemaVersion::from_json(text).unwrap_err().to_string();
        assert!(
            error.starts_with("schema version 3, entry 2 of ddl: schema hints, character 3: unknown type"),
            "{error}"
        );
        let error = SchemaVersion::from_json("{}").unwrap_err().to_string();
        assert!(error.contains("missing field `number`"), "{error}");
    }
}

mod laws {
    use super::*;

    fn json_type() -> impl Strategy<Value = JsonType> {
        let leaf = prop::sample::select(vec![
            JsonType::Null,
            JsonType::Boolean,
            JsonType::Long,
            JsonType::Double,
            JsonType::Timestamp,
            JsonType::Text,
        ]);
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![inner.clone().prop_map(|element| JsonType::List(Box::new(element))), record(inner),]
        })
    }

    fn record(inner: impl Strategy<Value = JsonType>) -> impl Strategy<Value = JsonType> {
        let names = prop::sample::select(vec!["a", "A", "b", "c c", "c_c", "", "_source_row", "d.e"]);
        prop::collection::vec((names, inner), 0..6).prop_map(|fields| {
            let mut seen = HashSet::new();
            let fields = fields.into_iter().filter(|(name, _)| seen.insert(*name));
            JsonType::Struct(fields.map(|(name, field)| (name.to_owned(), field)).collect())
        })
    }

    fn sorted(seen: JsonType) -> JsonType {
        match seen {
            JsonType::List(element) => JsonType::List(Box::new(sorted(*element))),
            JsonType::Struct(fields) => {
                let mut fields: Vec<_> = fields.into_iter().map(|(name, field)| (name, sorted(field))).collect();
                fields.sort_by(|(one, _), (other, _)| one.cmp(other));
                JsonType::Struct(fields)
            }
            leaf => leaf,
        }
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof!["[a-zA-Z_]{1,3}", "[a` .:<>,'\"\\\\=\n]{0,4}", any::<String>()]
    }

    fn fields(types: impl Strategy<Value = DataType>, least: usize) -> impl Strategy<Value = Vec<FieldRef>> {
        let comment = prop::option::weighted(0.2, prop_oneof!["[a'\"\\\\nt\n]{0,5}", any::<String>()]);
        prop::collection::vec((name(), types, comment), least..5).prop_map(|fields| {
            let mut keys = HashSet::new();
            let fields = fields.into_iter().filter(|(name, ..)| keys.insert(name_key(name)));
            let fields =
                fields.map(|(name, data_type, comment)| commented(column(&name, data_type), comment.as_deref()));
            fields.map(Arc::new).collect()
        })
    }

    fn schema() -> impl Strategy<Value = Schema> {
        let zone = prop::option::of(Just("UTC"));
        let timestamp = zone.prop_map(|zone| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Arc::from)));
        let decimal = (1..=38_u8).prop_flat_map(|precision| {
            (0..=precision.cast_signed()).prop_map(move |scale| DataType::Decimal128(precision, scale))
        });
        let plain = prop::sample::select(vec![
            DataType::Boolean,
            DataType::Int8,
            DataType::Int16,
            DataType::Int32,
            DataType::Int64,
            DataType::Float32,
            DataType::Float64,
            DataType::Utf8,
            DataType::Date32,
        ]);
        let types = prop_oneof![4 => plain, 1 => timestamp, 1 => decimal].prop_recursive(3, 24, 4, |inner| {
            let list = |element| DataType::List(Arc::new(Field::new("element", element, true)));
            prop_oneof![
                inner.clone().prop_map(list),
                fields(inner, 1).prop_map(|fields| DataType::Struct(fields.into())),
            ]
        });
        fields(types, 0).prop_map(Schema::new)
    }

    fn assert_delta_takes(fields: &[FieldRef]) -> Result<(), TestCaseError> {
        let mut keys = HashSet::new();
        for field in fields {
            let is_refused =
                field.name().is_empty() || field.name().chars().any(|letter| " ,;{}()\n\t=".contains(letter));
            prop_assert!(!is_refused, "{field}");
            prop_assert!(keys.insert(field.name().to_lowercase()));
            let mut data_type = field.data_type();
            while let DataType::List(element) = data_type {
                data_type = element.data_type();
            }
            if let DataType::Struct(nested) = data_type {
                prop_assert!(!nested.is_empty());
                assert_delta_takes(nested)?;
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn merging_is_associative(a in json_type(), b in json_type(), c in json_type()) {
            prop_assert_eq!(a.clone().merge(b.clone()).merge(c.clone()), a.merge(b.merge(c)));
        }

        #[test]
        fn merging_is_commutative_but_for_order(a in json_type(), b in json_type()) {
            prop_assert_eq!(sorted(a.clone().merge(b.clone())), sorted(b.merge(a)));
        }

        #[test]
        fn merging_with_itself_or_null_changes_nothing(a in json_type()) {
            prop_assert_eq!(a.clone().merge(a.clone()), a.clone());
            prop_assert_eq!(JsonType::Null.merge(a.clone()), a.clone());
            prop_assert_eq!(a.clone().merge(JsonType::Null), a);
        }

        #[test]
        fn merging_again_changes_nothing(a in json_type(), b in json_type()) {
            let merged = a.clone().merge(b.clone());
            prop_assert_eq!(merged.clone().merge(a), merged.clone());
            prop_assert_eq!(merged.clone().merge(b), merged);
        }

        #[test]
        fn schemas_are_what_delta_takes(a in record(json_type()), b in record(json_type())) {
            let current = schema_of(&a, &RESERVED);
            assert_delta_takes(current.fields())?;
            let wider = widen(&current, &b, &RESERVED);
            prop_assert_eq!(wider.is_none(), new_names(&current, &b, &RESERVED).is_empty());
            let wider = wider.unwrap_or(current.clone());
            assert_delta_takes(wider.fields())?;
            let at_once = schema_of(&a.merge(b.clone()), &RESERVED);
            prop_assert_eq!(names(&wider), names(&at_once));
            prop_assert_eq!(&names(&wider)[..current.fields().len()], names(&current));
            prop_assert_eq!(widen(&wider, &b, &RESERVED), None);
        }

        #[test]
        fn ddl_reads_back(schema in schema()) {
            let ddl = to_ddl(&schema);
            let hints = parse_hints(&ddl).map_err(|error| TestCaseError::fail(format!("{ddl}: {error}")))?;
            prop_assert_eq!(&apply(Schema::empty(), &hints, &[]).unwrap(), &schema);
            // Hints that say what is there change nothing.
            prop_assert_eq!(apply(schema.clone(), &hints, &[]).unwrap(), schema);
        }

        #[test]
        fn inferred_schemas_read_back_from_the_log(seen in record(json_type())) {
            let columns = schema_of(&seen, &RESERVED);
            let version = SchemaVersion { number: 0, created_at: String::new(), reason: String::new(), columns };
            prop_assert_eq!(SchemaVersion::from_json(&version.to_json().unwrap()).unwrap(), version);
        }

        #[test]
        fn no_text_breaks_the_parser(ddl in prop_oneof![
            any::<String>(),
            "([a`.:<>,()'\"\\\\ 1é]|int|struct<|array<|decimal\\(|comment|map){0,12}",
        ]) {
            if let Ok(hints) = parse_hints(&ddl) {
                drop(apply(Schema::empty(), &hints, &RESERVED));
            }
        }

        #[test]
        fn no_text_breaks_timestamps(text in prop_oneof![any::<String>(), "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-9:.Z+é-]{0,12}"]) {
            timestamp_micros(&text);
        }
    }
}
