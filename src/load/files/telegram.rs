//! Files of Telegram updates: fills the bronze table of a bot's own loader, without the bot.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::part::{Made, Part, Piece};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::id::BotId;
use crate::json::parse::too_large;
use crate::json::records::{Fault, Record};
use crate::load::message::{self, Fields};
use crate::load::updates::{self, Extra, Origin, Row};
use crate::pipeline::Evolution;
use crate::pipeline::files::FilesTableSettings;
use crate::telegram::Update;
use crate::telegram::update::message_of;

/// Columns with statistics in the log.
pub(super) const STATS_COLUMNS: [&str; 4] = ["update_id", "chat_id", "date", "_ingested_at"];

/// How updates become rows, shared by all parts of a batch that are processed side by side.
#[derive(Clone, Debug)]
pub(super) struct Updates {
    bot_id: Option<BotId>,
    evolution: Evolution,
    /// The columns of the table, including those that parts of this batch add.
    columns: Arc<Mutex<SchemaRef>>,
}

impl Updates {
    pub(super) fn new(settings: &FilesTableSettings, table: SchemaRef) -> Self {
        Self {
            bot_id: settings.bot_id.map(BotId),
            evolution: settings.evolution(),
            columns: Arc::new(Mutex::new(table)),
        }
    }

    /// The rows of a part: one per record.
    ///
    /// # Errors
    /// Configuration when a new field must stop the loader, or the table's columns do not match those of updates.
    pub(super) fn make(&self, part: &Part, ingested_at: Timestamp) -> Result<Made> {
        let rows: Vec<Row<Cow<'_, str>>> = part.pieces.iter().flat_map(|piece| self.rows(piece)).collect();
        let rows: Vec<&Row<Cow<'_, str>>> = rows.iter().collect();
        loop {
            let table = self.columns();
            let made = updates::to_batch(&table, &rows, ingested_at, self.extra(&table, &rows)?.as_ref())?;
            if self.agree(&table, &made) {
                let count = |name| made.column_by_name(name).map_or(0, |column| column.len() - column.null_count());
                let (rescued, corrupt) = (count("_rescued_data"), count("_corrupt_record"));
                return Ok(Made { rows: made, rescued_rows: rescued as u64, corrupt_rows: corrupt as u64 });
            }
        }
    }

    fn rows<'p>(&self, piece: &'p Piece) -> impl Iterator<Item = Row<Cow<'p, str>>> {
        let bot_id = self.bot_id;
        piece.chunk.records.iter().map(move |record| {
            let source_file = Arc::clone(&piece.file);
            let origin = Origin { bot_id, received_at: None, source_file, source_row: record.row };
            let (bytes, text) = (piece.chunk.indented_bytes(record), piece.chunk.text(record));
            // An update is valid text.
            Row::new(origin, update_of(record, bytes), || Cow::Borrowed(text.unwrap_or_default()))
        })
    }

    fn columns(&self) -> SchemaRef {
        Arc::clone(&self.columns.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn extra(&self, table: &SchemaRef, rows: &[&Row<Cow<'_, str>>]) -> Result<Option<Extra>> {
        if !message::are_wanted(table, self.evolution) {
            return Ok(None);
        }
        let messages: Vec<Option<&str>> = rows.iter().map(|row| message_of(row.payload()?)).collect();
        match message::columns_of(table, self.evolution, &messages)? {
            Fields::Columns(extra) => Ok(Some(extra)),
            Fields::New { row, names } => {
                let place =
                    rows.get(row).map(|row| format!("{} row {}", row.origin.source_file, row.origin.source_row));
                Err(Error::configuration(format!(
                    "new fields of a message in {}: {}; choose another bronze.evolution",
                    place.unwrap_or_default(),
                    names.join(", ")
                )))
            }
        }
    }

    /// Announces new columns to the other parts. `false` if another part has added some meanwhile, possibly the same
    /// ones with another type.
    fn agree(&self, made_for: &SchemaRef, made: &RecordBatch) -> bool {
        if made.schema() == *made_for {
            return true;
        }
        let mut columns = self.columns.lock().unwrap_or_else(PoisonError::into_inner);
        let agree = *columns == *made_for;
        if agree {
            *columns = made.schema();
        }
        agree
    }
}

fn update_of<'a>(record: &Record, bytes: &'a [u8]) -> Update<Cow<'a, str>> {
    match record.fault {
        None => Update::borrowed(bytes),
        Some(Fault::TooLarge { bytes: length }) => Update::Corrupt { text: too_large(length, bytes).into() },
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use serde_json::{Value, json};

    use super::super::tests::World;
    use super::*;
    use crate::load::lanes::batch_of;

    const SETTINGS: &str = "schema = \"telegram_messages.json\"";

    /// One update of every kind, and some odd ones.
    fn updates() -> Vec<String> {
        let folder = format!("{}/tests/fixtures/updates", env!("CARGO_MANIFEST_DIR"));
        let mut lines: Vec<String> = crate::telegram::update::UPDATE_KINDS
            .iter()
            .map(|kind| std::fs::read_to_string(format!("{folder}/{kind}.json")).unwrap().trim().replace('\n', " "))
            .collect();
        let odd = [
            r#"{"update_id":1,"message":{"message_id":"x","text":7,"date":1e3,"chat":[],"from":{"id":1,"first_name":"\ud800"}}}"#,
            r#"{"update_id":2,"message":{"text":"caf\u00e9 \"q\"","photo":[{"file_id":"a"},{"file_id":"b"}]},"message":null}"#,
            r#"{"update_id":"3"}"#,
            r#"{"update_id":4,"brand_new_post":{"caption":"c","from":{"id":2}}}"#,
            r#"{"_corrupt_record":"x","_encoding":"base64"}"#,
            "[1]",
            "nothing",
        ];
        lines.extend(odd.map(str::to_owned));
        lines
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_of_updates_makes_the_rows_that_the_loader_of_lanes_makes() {
        let (world, lines) = (World::new(), updates().join("\n"));
        world.put("a.jsonl", &lines);
        let loaded = world.load(SETTINGS).await.unwrap();
        let lanes = batch_of(lines.as_bytes()).unwrap();
        assert_eq!((loaded.rows as usize, loaded.corrupt_rows, loaded.rescued_rows), (lanes.num_rows(), 4, 1));
        let table = world.table().await;
        let rows = table.read_file(&table.files().await.unwrap()[0], None).await.unwrap();
        let names =
            |rows: &RecordBatch| rows.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        assert_eq!(names(&rows), names(&lanes));
        for (index, name) in names(&rows).iter().enumerate() {
            match name.as_str() {
                "bot_id" | "_received_at" | "_trace_id" => assert_eq!(rows.column(index).null_count(), rows.num_rows()),
                "_source_file" | "_ingested_at" => assert_eq!(rows.column(index).null_count(), 0),
                _ => assert_eq!(rows.column(index), lanes.column(index), "{name}"),
            }
        }
        assert_eq!(world.load(SETTINGS).await.unwrap().rows, 0, "and not again");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn documents_and_what_is_no_text_have_their_place_too() {
        let world = World::new();
        let document = "{\n \"update_id\": 7,\n \"message\": {\"text\": \"x\"}\n}";
        world.put("a.json", format!("[{document},\n{{\"update_id\":8}}] ]"));
        world.put("b.jsonl", b"{\"update_id\":9,\"message\":{\"text\":\"\xff\"}}\n".as_slice());
        world.put("c.jsonl", format!("{{\"update_id\":10,\"x\":\"{}\"}}\n", "y".repeat(2_000)));
        world.load(&format!("max_record = \"1KiB\"|{SETTINGS}\nbot_id = 5")).await.unwrap();
        let rows = world.rows().await;
        assert_eq!((&rows[0]["payload"], &rows[0]["_source_row"]), (&json!(document), &json!(1)));
        assert_eq!((&rows[1]["update_id"], &rows[1]["bot_id"]), (&json!(8), &json!(5)));
        assert_eq!(rows[0]["_trace_id"], crate::id::trace_id(BotId(5), 7));
        assert_eq!(rows[2]["_corrupt_record"], "]");
        assert!(rows[3]["_corrupt_record"].as_str().unwrap().starts_with("data:;base64,"), "{}", rows[3]);
        let begun = rows[4]["_corrupt_record"].as_str().unwrap();
        assert!(begun.starts_with("{\"_begins\":\"{\\\"update_id\\\":10") && begun.contains("_too_large_bytes"));
        assert!(rows[2..].iter().all(|row| row["payload"] == Value::Null));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn fields_of_messages_become_columns_or_stop_the_loader_where_that_is_asked() {
        let world = World::new();
        let message = |id: i64, more: &str| format!("{{\"update_id\":{id},\"message\":{{\"text\":\"m\",{more}}}}}\n");
        // More than fits into a part, so that several are processed side by side and add the same column with different
        // types.
        let many: String = (0..100_000).map(|id| message(id, "\"dice\":{\"value\":6},\"mood\":1")).collect();
        world.put("a.jsonl", many);
        world.put("b.jsonl", message(-1, "\"dice\":{\"emoji\":\"x\"},\"mood\":\"well\""));
        let refused = world.load(&format!("{SETTINGS}\nevolution = \"fail\"")).await.unwrap_err().to_string();
        assert!(refused.contains("a message in in/") && refused.contains(": dice, mood;"), "{refused}");
        assert!(world.table().await.files().await.unwrap().is_empty());
        let loaded = world.load(&format!("{SETTINGS}\nevolution = \"add_columns\"")).await.unwrap();
        assert_eq!((loaded.rows, loaded.commits), (100_001, 1));
        let last = world.rows().await.pop().unwrap();
        assert_eq!(last["msg_dice"], json!({"emoji": "x"}));
        // Whichever part came first decides the type; the value is kept in either case.
        let is_rescued = last["_rescued_data"] == "{\"mood\":\"well\"}";
        assert_ne!(is_rescued, last["msg_mood"] == "well", "{last}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_table_of_other_columns_is_refused() {
        let world = World::new();
        world.put("a.jsonl", "{\"update_id\":\"x\"}\n");
        world.load("").await.unwrap();
        let error = world.load(SETTINGS).await.unwrap_err().to_string();
        assert!(error.starts_with("column update_id of table bronze/t has type string"), "{error}");
    }

    #[test]
    fn the_texts_of_a_row_are_those_of_the_record() {
        let line = br#"{"update_id":1,"message":{"text":"plain","from":{"username":"a\u0062"}}}"#;
        let Update::Known(columns) = Update::borrowed(line) else { panic!("it is an update") };
        assert!(matches!(columns.text, Some(Cow::Borrowed("plain"))), "no copy is made");
        assert_eq!(columns.username.as_deref(), Some("ab"));
        assert_eq!(batch_of(line).unwrap().column_by_name("username").unwrap().as_string::<i32>().value(0), "ab");
    }
}
