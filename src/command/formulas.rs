//! CSV for spreadsheets: people write to a bot what they like, and a cell that begins like a formula is run as one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};

use crate::error::{Context, ErrorKind, Result};

/// The rows with a quote before every text that a spreadsheet would run, as OWASP advises
/// (<https://owasp.org/www-community/attacks/CSV_Injection>). Numbers stay as they are.
pub(super) fn marked(rows: &RecordBatch) -> Result<RecordBatch> {
    let context = "cannot mark the formulas in the rows";
    let columns = rows.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let texts = cast(column, &DataType::Utf8).context(ErrorKind::Corrupt, context)?;
            let marked = texts.as_string::<i32>().iter().map(|text| text.map(mark));
            Ok(Arc::new(marked.collect::<StringArray>()) as ArrayRef)
        }
        _ => Ok(Arc::clone(column)),
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let schema = rows.schema();
    let fields = schema
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, column)| Field::new(mark(field.name()), column.data_type().clone(), field.is_nullable()));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    RecordBatch::try_new(schema, columns).context(ErrorKind::Corrupt, context)
}

/// Spreadsheets skip blanks before a formula, and take these signs of other scripts for the same.
fn mark(text: &str) -> String {
    let begins = text.trim_start_matches([' ', '\u{a0}', '\u{feff}']);
    match begins.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn text_that_would_be_run_is_quoted_and_nothing_else() {
        let texts =
            ["=1+1", "+49 30", "-2", "@SUM(A1)", "\t=1", "\r=1", " =1", "\u{ff1d}1", "a=1", "", "'=1", "1-1", "ä"];
        let views: StringViewArray = texts.iter().map(Some).chain([None]).collect();
        let columns: [(&str, ArrayRef); 2] =
            [("=cmd", Arc::new(views)), ("number", Arc::new((-7..7).map(Some).collect::<Int64Array>()))];
        let rows = marked(&RecordBatch::try_from_iter(columns).unwrap()).unwrap();
        let expected = [
            "'=1+1",
            "'+49 30",
            "'-2",
            "'@SUM(A1)",
            "'\t=1",
            "'\r=1",
            "' =1",
            "'\u{ff1d}1",
            "a=1",
            "",
            "'=1",
            "1-1",
            "ä",
        ];
        let found: Vec<Option<&str>> = rows.column(0).as_string::<i32>().iter().collect();
        assert_eq!(found, expected.iter().map(|text| Some(*text)).chain([None]).collect::<Vec<_>>());
        assert_eq!(rows.schema().field(0).name(), "'=cmd");
        assert_eq!(rows.column(1).data_type(), &DataType::Int64);
    }
}
