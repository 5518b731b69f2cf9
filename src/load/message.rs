//! The fields of messages that have no typed column, as columns of the bronze table under a prefix of their own.
//!
//! Telegram adds fields every month, and what a bot is sent is its own business: which columns these are is inferred
//! from the messages, just as those of foreign files are.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use crate::error::Result;
use crate::json::parse::{Parsed, Parser, Unknown};
use crate::json::types::{InferOptions, JsonType, MAX_COLUMNS, leaves, new_names, settled, widen};
use crate::load::updates::Extra;
use crate::pipeline::Evolution;

/// What stands before the name of the field. Not `message_`: a typed column `message_id` is there already.
pub(in crate::load) const PREFIX: &str = "msg_";
/// The fields of a message that typed columns hold.
const TYPED: [&str; 8] =
    ["message_id", "message_thread_id", "from", "chat", "date", "text", "caption", "author_signature"];
const INFER: InferOptions = InferOptions { typed: true, timestamps: false };

/// What the fields of messages come to.
#[derive(Debug)]
pub(in crate::load) enum Fields {
    /// Columns.
    Columns(Extra),
    /// Fields that are to stop the loader, and the row that has them.
    New {
        /// Where among the messages.
        row: usize,
        /// Their dotted paths.
        names: Vec<String>,
    },
}

/// The columns of message fields that a table has, called as the fields are.
struct Present {
    columns: SchemaRef,
    /// Names that no field of a message gets a column of.
    reserved: Vec<String>,
    /// How many columns the table has besides.
    others: usize,
}

impl Present {
    fn of(table: &Schema) -> Self {
        let (mut columns, mut reserved) = (Vec::new(), TYPED.map(str::to_owned).to_vec());
        for field in table.fields() {
            let named = |name: &str| Arc::new(field.as_ref().clone().with_name(name));
            match field.name().strip_prefix(PREFIX).map(named) {
                // Somebody else's column may be of a type that JSON has no values of.
                Some(bare) if Parser::new(&schema([Arc::clone(&bare)]), Unknown::Ignore).is_ok() => columns.push(bare),
                Some(bare) => reserved.push(bare.name().clone()),
                // Delta takes no two names that are the same but for their case.
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

    /// The columns with those of such messages besides, where there are others.
    fn grown(&self, seen: JsonType) -> Option<SchemaRef> {
        let wider = widen(&self.columns, &settled(seen)?, &self.reserved())?;
        if self.others + leaves(wider.fields()) > MAX_COLUMNS {
            tracing::warn!("more than {MAX_COLUMNS} columns; further fields of messages get none");
            return None;
        }
        Some(Arc::new(wider))
    }
}

/// Whether rows of such a table have columns of this kind, or may get some.
pub(in crate::load) fn are_wanted(table: &Schema, evolution: Evolution) -> bool {
    matches!(evolution, Evolution::AddColumns | Evolution::Fail)
        || table.fields().iter().any(|field| field.name().starts_with(PREFIX))
}

/// The fields of messages, one or none a row, as columns: those that the table has, and where `evolution` says so,
/// those that it lacks.
///
/// # Errors
/// Configuration when a column may not be null and has no value.
pub(in crate::load) fn columns_of(table: &Schema, evolution: Evolution, messages: &[Option<&str>]) -> Result<Fields> {
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
