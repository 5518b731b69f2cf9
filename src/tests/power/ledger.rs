//! The final check: what the outside world was told, compared with what the tables contain.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;

use super::run::Failure;
use crate::clock::Clock;
use crate::standin::telegram::SentMessage;
use crate::storage::Storage;
use crate::table::LakeTable;

/// What the outside world knows.
pub(super) struct World<'a> {
    /// The update of each message, by the message's number.
    pub(super) updates: &'a BTreeMap<u64, i64>,
    /// What the bot has said on Telegram.
    pub(super) said: &'a [SentMessage],
}

/// The fate of the messages.
pub(super) struct Books {
    pub(super) sent: u64,
    pub(super) unknown: u64,
}

/// Compares the folder of a machine that has finished its work with what the world knows.
pub(super) async fn check(data: &Path, world: &World<'_>) -> Result<Books, Failure> {
    let storage = Storage::open(&data.display().to_string())?;
    let expected: Vec<i64> = world.updates.values().copied().collect();
    for table in ["bronze/telegram_messages", "silver/telegram_responses"] {
        let rows = Rows::read(&storage, table).await?;
        if rows.updates != expected {
            return Err(difference(table, &rows.updates, &expected));
        }
    }
    let replies = Rows::read(&storage, "silver/telegram_replies").await?;
    if replies.updates != expected {
        return Err(difference("telegram_replies", &replies.updates, &expected));
    }
    let mut books = Books { sent: 0, unknown: 0 };
    for (number, update) in world.updates {
        let heard = world.said.iter().filter(|message| answers(message, *number)).count();
        match (replies.statuses.get(update).map(String::as_str), heard) {
            (Some("sent"), 1) => books.sent += 1,
            (Some("unknown"), 0 | 1) => books.unknown += 1,
            (status, heard) => {
                return Err(Failure(format!("message {number}, update {update}: {status:?}, heard {heard} times")));
            }
        }
    }
    Ok(books)
}

/// Whether a message of the bot answers the message with this number, which it quotes.
fn answers(message: &SentMessage, number: u64) -> bool {
    let quoted = message.text.split("message ").nth(1).unwrap_or_default();
    quoted.chars().take_while(char::is_ascii_digit).collect::<String>() == number.to_string()
}

fn difference(table: &str, found: &[i64], expected: &[i64]) -> Failure {
    let (there, meant): (BTreeSet<_>, BTreeSet<_>) = (found.iter().collect(), expected.iter().collect());
    let lost: Vec<_> = meant.difference(&there).collect();
    let doubled = found.len() - there.len();
    let foreign = there.difference(&meant).count();
    Failure(format!("{table}: lost {lost:?}, {doubled} doubled, {foreign} of nobody"))
}

/// The rows of a table, sorted by update.
struct Rows {
    updates: Vec<i64>,
    statuses: BTreeMap<i64, String>,
}

impl Rows {
    /// Reads every live file completely; its log must have no gap.
    async fn read(storage: &Storage, table: &str) -> Result<Self, Failure> {
        let path = object_store::path::Path::from(table);
        let opened = LakeTable::open_existing(storage, &path, &Clock::system()).await?;
        let opened = opened.ok_or_else(|| Failure(format!("{table} is not there")))?;
        check_log(storage, &path, opened.version()).await?;
        let mut rows = Self { updates: Vec::new(), statuses: BTreeMap::new() };
        for file in opened.files().await? {
            let size = storage.head(&file.location(&path)?).await?.map(|object| object.size as i64);
            if size != Some(file.size_bytes) {
                return Err(Failure(format!("{table}: {} has {size:?} of {} bytes", file.path, file.size_bytes)));
            }
            rows.take(&opened.read_file(&file, None).await?)?;
        }
        rows.updates.sort_unstable();
        Ok(rows)
    }

    fn take(&mut self, batch: &RecordBatch) -> Result<(), Failure> {
        let updates = batch.column_by_name("update_id").ok_or_else(|| Failure("no column update_id".to_owned()))?;
        let updates = updates.as_primitive::<Int64Type>().values();
        self.updates.extend(updates);
        if let Some(statuses) = batch.column_by_name("status") {
            let statuses = statuses.as_string::<i32>().iter().map(|status| status.unwrap_or_default().to_owned());
            self.statuses.extend(updates.iter().copied().zip(statuses));
        }
        Ok(())
    }
}

/// From where the log begins up to the head, every version exists. What clean-up deleted below may have come back, with
/// gaps; a checkpoint covers it.
async fn check_log(storage: &Storage, table: &object_store::path::Path, head: i64) -> Result<(), Failure> {
    let entries = storage.list_after(&table.clone().join("_delta_log"), None, 100_000).await?;
    let version = |kind: &str| {
        let name = |entry: &object_store::ObjectMeta| entry.location.filename()?.strip_suffix(kind)?.parse().ok();
        entries.iter().filter_map(name).collect::<BTreeSet<i64>>()
    };
    let (commits, checkpoint) = (version(".json"), version(".checkpoint.parquet").last().copied());
    let missing: Vec<i64> = (checkpoint.map_or(0, |at| at + 1)..=head).filter(|at| !commits.contains(at)).collect();
    match (missing.as_slice(), commits.last()) {
        ([], Some(&last)) if last <= head => Ok(()),
        ([], None) => Ok(()),
        ([], last) => Err(Failure(format!("{table}: opens at version {head}, yet there is {last:?}"))),
        (missing, _) => Err(Failure(format!("{table}: versions {missing:?} are missing below {head}"))),
    }
}
