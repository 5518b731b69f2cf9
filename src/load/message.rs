//! The fields of messages that have no typed column, as columns of the bronze table with a prefix.
//!
//! Telegram adds fields every month, and every bot receives different ones: the columns are inferred from the messages,
//! as they are for foreign files.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use crate::error::Result;
use crate::json::parse::{Parsed, Parser, Unknown};
use crate::json::types::{InferOptions, JsonType, MAX_COLUMNS, leaves, new_names, settled, widen};
use crate::load::updates::Extra;
use crate::panic::catch_sync;
use crate::pipeline::Evolution;

/// The prefix of the column name. Not `message_`, because a typed column `message_id` already exists.
pub(in crate::load) const PREFIX: &str = "msg_";
/// The fields of a message that have typed columns.
const TYPED: [&str; 8] =
    ["message_id", "message_thread_id", "from", "chat", "date", "text", "caption", "author_signature"];
const INFER: InferOptions = InferOptions { typed: true, timestamps: false };

/// The result for the fields of some messages.
#[derive(Debug)]
pub(in crate::load) enum Fields {
    /// Columns.
    Columns(Extra),
    /// Fields that must stop the loader, and the row that has them.
    New {
        /// The index of the message.
        row: usize,
        /// Their dotted paths.
        names: Vec<String>,
    },
}

/// The message field columns of a table, under their field names.
struct Present {
    columns: SchemaRef,
    /// Names that must not become columns.
    reserved: Vec<String>,
    /// The number of other columns in the table.
    others: usize,
}

impl Present {
    fn of(table: &Schema) -> Self {
        let (mut columns, mut reserved) = (Vec::new(), TYPED.map(str::to_owned).to_vec());
        for field in table.fields() {
            let named = |name: &str| Arc::new(field.as_ref().clone().with_name(name));
            match field.name().strip_prefix(PREFIX).map(named) {
                // A column added by someone else may have a type that JSON has no values for.
                Some(bare) if Parser::new(&schema([Arc::clone(&bare)]), Unknown::Ignore).is_ok() => columns.push(bare),
                Some(bare) => reserved.push(bare.name().clone()),
                // Delta's column names are case-insensitive.
                None => reserved.extend(field.name().to_lowercase().strip_prefix(PREFIX).map(str::to_owned)),
            }
        }
        let others = table.fields().len() - columns.len();
        Self { columns: schema(columns), reserved, others }
    }

    fn reserved(&self) -> Vec<&str> {
        self.reserved.iter().map(String::as_str).collect()
    }

    /// The first message with a field that has no column.
    fn first_new(&self, messages: &[Option<&str>]) -> Option<Fields> {
        messages.iter().enumerate().find_map(|(row, message)| {
            let seen = settled(JsonType::read((*message)?, INFER).ok()?)?;
            let names = new_names(&self.columns, &seen, &self.reserved());
            (!names.is_empty()).then_some(Fields::New { row, names })
        })
    }

    /// The columns extended by those of such messages, if there are new ones.
    fn grown(&self, seen: JsonType) -> Option<SchemaRef> {
        let wider = widen(&self.columns, &settled(seen)?, &self.reserved())?;
        if self.others + leaves(wider.fields()) > MAX_COLUMNS {
            tracing::warn!("more than {MAX_COLUMNS} columns; further fields of messages get none");
            return None;
        }
        Some(Arc::new(wider))
    }
}

/// Whether rows of such a table have, or may get, columns of this kind.
pub(in crate::load) fn are_wanted(table: &Schema, evolution: Evolution) -> bool {
    matches!(evolution, Evolution::AddColumns | Evolution::Fail)
        || table.fields().iter().any(|field| field.name().starts_with(PREFIX))
}

/// The fields of messages (at most one message per row) as columns: those that the table has and, if `evolution` says
/// so, new ones.
///
/// # Errors
/// Configuration when a non-nullable column has no value.
pub(in crate::load) fn columns_of(table: &Schema, evolution: Evolution, messages: &[Option<&str>]) -> Result<Fields> {
    contained(messages, |messages| make_columns(table, evolution, messages))
}

/// What `make` makes of messages. One that it panics on gets no columns of its own, so that it does not hold up the
/// others: all of it is in `payload`.
fn contained<T>(messages: &[Option<&str>], make: impl Fn(&[Option<&str>]) -> Result<T>) -> Result<T> {
    let panic = match catch_sync(|| make(messages)) {
        Ok(made) => return made,
        Err(panic) => panic,
    };
    let is_sound = |message: &&str| catch_sync(|| make(&[Some(message)]).map(drop)).is_ok();
    let sound: Vec<Option<&str>> = messages.iter().map(|message| message.filter(is_sound)).collect();
    if sound == messages {
        return Err(panic.into());
    }
    tracing::error!(%panic, "the fields of a message cannot become columns; they stay in payload");
    catch_sync(|| make(&sound)).unwrap_or_else(|panic| Err(panic.into()))
}

fn make_columns(table: &Schema, evolution: Evolution, messages: &[Option<&str>]) -> Result<Fields> {
    let present = Present::of(table);
    if evolution == Evolution::Fail
        && let Some(new) = present.first_new(messages)
    {
        return Ok(new);
    }
    let mut columns = Arc::clone(&present.columns);
    let unknown = if evolution == Evolution::AddColumns { Unknown::Infer(INFER) } else { Unknown::Ignore };
    let mut parsed = parse(&columns, unknown, messages)?;
    if let Some(grown) = parsed.seen.take().and_then(|seen| present.grown(seen)) {
        columns = grown;
        parsed = parse(&columns, unknown, messages)?;
    }
    let fields = columns.fields().iter().map(|field| {
        let name = format!("{PREFIX}{}", field.name());
        Arc::new(field.as_ref().clone().with_name(name))
    });
    Ok(Fields::Columns(Extra { columns: fields.zip(parsed.columns).collect(), rescued: parsed.rescued }))
}

fn parse(columns: &SchemaRef, unknown: Unknown, messages: &[Option<&str>]) -> Result<Parsed> {
    let mut parser = Parser::new(columns, unknown)?.passing_over(&TYPED);
    // A row without a message has none of its fields.
    messages.iter().for_each(|message| parser.push(message.unwrap_or("{}")));
    parser.finish()
}

fn schema<F: Into<arrow::datatypes::Fields>>(fields: F) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_message_that_panics_has_no_columns_and_the_others_have_theirs() {
        let make = |messages: &[Option<&str>]| -> Result<Vec<Option<String>>> {
            assert!(!messages.contains(&Some("odd")), "an odd message");
            Ok(messages.iter().map(|message| message.map(str::to_owned)).collect())
        };
        let made = contained(&[Some("a"), Some("odd"), None, Some("b")], make).unwrap();
        assert_eq!(made, [Some("a".to_owned()), None, None, Some("b".to_owned())]);
        let error = contained(&[None], |_| -> Result<()> { unreachable!("of none of them") }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Panicked);
    }
}
