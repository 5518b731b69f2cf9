//! The fields of messages on lines, as columns, or as the reason why the lines are not loaded.

use arrow::datatypes::SchemaRef;

use super::batch::INLINE_BYTES;
use super::rows::Line;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::load::message::{self, Fields};
use crate::pipeline::Evolution;

/// The columns that the table has, or gets if that is wanted, for the messages on these lines; `None` if there are
/// none.
///
/// # Errors
/// As [`message::columns_of`].
pub(super) async fn of(table: &SchemaRef, evolution: Evolution, lines: &[&Line]) -> Result<Option<Fields>> {
    if !message::are_wanted(table, evolution) {
        return Ok(None);
    }
    let messages: Vec<Option<String>> = lines.iter().map(|line| line.message().map(str::to_owned)).collect();
    let (table, bytes) = (SchemaRef::clone(table), messages.iter().flatten().map(String::len).sum::<usize>());
    let make = move || {
        let messages: Vec<Option<&str>> = messages.iter().map(Option::as_deref).collect();
        message::columns_of(&table, evolution, &messages)
    };
    if bytes <= INLINE_BYTES {
        return make().map(Some);
    }
    let making = tokio::task::spawn_blocking(make);
    making.await.context(ErrorKind::Unavailable, "turn the fields of messages into columns")?.map(Some)
}

/// Why lines are not loaded: line `row` has these fields.
pub(super) fn refused(lines: &[&Line], row: usize, names: &[String]) -> Error {
    let place = lines.get(row).map(|line| format!("{} line {}", line.source_file(), line.source_row()));
    Error::configuration(format!(
        "new fields of a message in {}: {}; choose bronze.evolution = \"add_columns\" to have them as columns, or \
         \"rescue\" to leave them in payload",
        place.unwrap_or_default(),
        names.join(", ")
    ))
}
