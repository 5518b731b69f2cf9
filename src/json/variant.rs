//! Whole records as Delta's variant: JSON in a binary form that readers can look into without parsing it.
//!
//! A variant keeps every value but not how it was written: white space, field order, escapes and the spelling of
//! numbers are lost. A record whose values it could not all keep does not become a variant; its text is kept elsewhere.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, BinaryBuilder, StringArray, StructArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields};
use parquet_variant::{
    ObjectFieldBuilder, Variant, VariantBuilder, VariantBuilderExt, VariantDecimal4, VariantDecimal8, VariantDecimal16,
};
use serde_json::value::RawValue;

use super::parse::fields_of;
use crate::error::{Context, ErrorKind, Result};

/// The largest variant that Spark reads.
const MAX_BYTES: usize = 16 << 20;
/// The maximum nesting depth; parsers go no deeper.
const MAX_DEPTH: usize = 128;

/// The Arrow type of a variant. Delta's schema has a name of its own for it.
pub(crate) fn data_type() -> DataType {
    DataType::Struct(fields())
}

fn fields() -> Fields {
    let binary = |name: &str| Field::new(name, DataType::Binary, false);
    vec![binary("metadata"), binary("value")].into()
}

/// Records as variants: null if there is none or if it is kept as text. Also returns the texts of the latter.
///
/// # Errors
/// Corrupt when the parts of the column do not match.
pub(crate) fn column_of<'a>(
    records: impl Iterator<Item = Option<&'a str>>,
) -> Result<(StructArray, Vec<Option<&'a str>>)> {
    let (mut metadata, mut values) = (BinaryBuilder::new(), BinaryBuilder::new());
    let (mut valid, mut texts) = (Vec::new(), Vec::new());
    for record in records {
        let variant = record.and_then(variant_of);
        valid.push(variant.is_some());
        texts.push(record.filter(|_| variant.is_none()));
        let (names, value) = variant.unwrap_or_default();
        metadata.append_value(names);
        values.append_value(value);
    }
    let children: Vec<Arc<dyn Array>> = vec![Arc::new(metadata.finish()), Arc::new(values.finish())];
    let column = StructArray::try_new(fields(), children, Some(NullBuffer::from(valid)));
    Ok((column.context(ErrorKind::Corrupt, "a column of variants")?, texts))
}

/// The rescued data of each record, with the text of those that are not variants. Such a text contains everything.
pub(crate) fn with_texts(rescued: &StringArray, texts: &[Option<&str>]) -> StringArray {
    let whole = texts.iter().map(|text| text.map(|text| Cow::Owned(format!("{{\"payload\":{text}}}"))));
    rescued.iter().zip(whole).map(|(rescued, whole)| whole.or(rescued.map(Cow::Borrowed))).collect()
}

/// Metadata and value; `None` if a variant would not keep all of it.
pub(crate) fn variant_of(json: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut builder = VariantBuilder::new();
    append(json.trim(), &mut builder, MAX_DEPTH)?;
    let (metadata, value) = builder.try_finish().ok()?;
    (metadata.len() <= MAX_BYTES && value.len() <= MAX_BYTES).then_some((metadata, value))
}

/// Appends a JSON value; `None` if it cannot be kept.
fn append(json: &str, builder: &mut impl VariantBuilderExt, depth: usize) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    match json.as_bytes().first()? {
        b'{' => {
            let fields = fields_of(json)?;
            let mut names = HashSet::new();
            // Of two fields with the same name a variant keeps one, and some readers reject an empty name.
            if !fields.iter().all(|(name, _)| !name.is_empty() && names.insert(name.as_ref())) {
                return None;
            }
            let mut object = builder.try_new_object().ok()?;
            for (name, value) in &fields {
                append(value.get(), &mut ObjectFieldBuilder::new(name, &mut object), depth)?;
            }
            object.finish();
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
            let mut list = builder.try_new_list().ok()?;
            for item in items {
                append(item.get(), &mut list, depth)?;
            }
            list.finish();
        }
        b'"' => builder.append_value(serde_json::from_str::<String>(json).ok()?.as_str()),
        b't' => builder.append_value(true),
        b'f' => builder.append_value(false),
        b'n' => builder.append_value(Variant::Null),
        _ => builder.append_value(number(json)?),
    }
    Some(())
}

/// A number, with exactly the value that is written.
fn number(text: &str) -> Option<Variant<'static, 'static>> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, ""));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_minus_zero = text.starts_with('-') && mantissa.bytes().all(|byte| matches!(byte, b'-' | b'.' | b'0'));
    if exponent.is_empty() && !is_minus_zero {
        return decimal(format!("{whole}{fraction}").parse().ok()?, fraction.len().try_into().ok()?);
    }
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).skip_while(|digit| *digit == b'0').count();
    let value: f64 = text.parse().ok()?;
    // This many digits survive the round trip through a float.
    let is_kept = digits == 0 || digits <= f64::DIGITS as usize && value.is_normal();
    is_kept.then(|| value.into())
}

/// The narrowest integer or decimal.
fn decimal(unscaled: i128, scale: u8) -> Option<Variant<'static, 'static>> {
    if scale == 0
        && let Ok(integer) = i64::try_from(unscaled)
    {
        let narrow = i8::try_from(integer).map(Variant::from).ok();
        let narrow = narrow.or_else(|| i16::try_from(integer).map(Variant::from).ok());
        let narrow = narrow.or_else(|| i32::try_from(integer).map(Variant::from).ok());
        return Some(narrow.unwrap_or_else(|| integer.into()));
    }
    let four = || VariantDecimal4::try_new(unscaled.try_into().ok()?, scale).ok().map(Variant::from);
    let eight = || VariantDecimal8::try_new(unscaled.try_into().ok()?, scale).ok().map(Variant::from);
    four().or_else(eight).or_else(|| VariantDecimal16::try_new(unscaled, scale).ok().map(Variant::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(json: &str) -> Option<String> {
        let (metadata, value) = variant_of(json)?;
        Some(format!("{:?}", Variant::try_new(&metadata, &value).unwrap()))
    }

    #[test]
    fn every_value_is_kept() {
        let json = " {\"b\":[1,-200,70000,5000000000,1.50,true,null,\"caf\\u00e9\"],\"a\":{\"b\":{}},\"c\":1e3}";
        let (metadata, value) = variant_of(json).unwrap();
        let variant = Variant::try_new(&metadata, &value).unwrap();
        let list = variant.get_object_field("b").unwrap();
        let item = |index| list.get_list_element(index).unwrap();
        assert_eq!((item(0), item(1), item(2)), (Variant::Int8(1), Variant::Int16(-200), Variant::Int32(70_000)));
        assert_eq!(item(4), VariantDecimal4::try_new(150, 2).unwrap().into());
        assert_eq!((item(3), item(6), item(7)), (5_000_000_000_i64.into(), Variant::Null, "café".into()));
        assert_eq!(variant.get_object_field("c"), Some(1_000.0.into()));
    }

    #[test]
    fn a_number_is_as_large_as_it_was_written_or_kept_as_text() {
        for (json, expected) in [
            ("18446744073709551615", Some("Decimal16")),
            ("0.000000001", Some("Decimal4")),
            ("-12345678901234.5", Some("Decimal8")),
            ("99999999999999999999999999999999999999", Some("Decimal16")),
            ("-0", Some("Double")),
            ("1.5e-3", Some("Double")),
            ("0e999", Some("Double")),
            ("999999999999999999999999999999999999999", None),
            ("1e400", None),
            ("1e-320", None),
            ("1.2345678901234567e5", None),
        ] {
            let shown = shown(json);
            assert_eq!(shown.is_some(), expected.is_some(), "{json}: {shown:?}");
            assert!(shown.unwrap_or_default().contains(expected.unwrap_or_default()), "{json}");
        }
    }

    #[test]
    fn what_would_lose_something_is_no_variant() {
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
        let large = format!("\"{}\"", "x".repeat(MAX_BYTES));
        for json in ["{\"a\":1,\"a\":2}", "{\"\":1}", "\"\\ud800\"", "{\"a\":[{\"b\":1e400}]}", &deep, &large] {
            assert!(variant_of(json).is_none(), "{}", json.get(..20).unwrap_or(json));
        }
        let records = ["{\"a\":1}", "{\"a\":1,\"a\":2}", "{\"b\":1}"];
        let (column, texts) = column_of(records.iter().copied().map(Some).chain([None])).unwrap();
        assert_eq!(column.nulls().unwrap().iter().collect::<Vec<_>>(), [true, false, true, false]);
        let rescued = StringArray::from(vec![None, Some("{\"a\":2}"), Some("{\"x\":1}"), None]);
        let all = with_texts(&rescued, &texts);
        let expected = [None, Some("{\"payload\":{\"a\":1,\"a\":2}}"), Some("{\"x\":1}"), None];
        assert_eq!(all.iter().collect::<Vec<_>>(), expected);
    }
}
