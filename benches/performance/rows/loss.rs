//! A start on tables of millions of rows whose progress is lost: everything is compared, in little memory.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lakegram::clock::Clock;
use lakegram::schema::{MESSAGES, REPLIES, RESPONSES};
use lakegram::standin::model::{ModelStandIn, ModelStandInOptions};
use lakegram::standin::telegram::{Options, TelegramStandIn};
use lakegram::storage::Storage;
use lakegram::table::TableRole;
use lakegram::table::maintain::{MaintainOptions, maintain};
use object_store::path::Path;
use tokio_util::sync::CancellationToken;

use crate::support::figures::thousands;
use crate::support::history::{History, Message, storage_without_fsync};
use crate::support::load::post;
use crate::support::report::{Findings, Row};
use crate::support::service::{Service, TOKEN, lakegram};
use crate::support::{Bench, Result};

/// Rows of one commit of the history.
const ROWS_A_COMMIT: i64 = 100_000;
const PATIENCE: Duration = Duration::from_secs(900);
/// What a start and a loss may take.
const BAR_BYTES: u64 = 300_000_000;

/// The tables: none has a watermark, as after a loss or in tables of another release.
const TABLES: [(TableRole, &str, &str, &str); 3] = [
    (TableRole::Bronze, "bronze/telegram_messages", MESSAGES, ""),
    (TableRole::Silver, "silver/telegram_responses", RESPONSES, "answered"),
    (TableRole::Reply, "silver/telegram_replies", REPLIES, "sent"),
];

pub(crate) async fn run(bench: &Bench) -> Result<Findings> {
    let count = bench.scaled(10_000_000, 1_000_000);
    let folder = bench.folder()?;
    let data = folder.path().join("data");
    for (role, table, schema, status) in TABLES {
        let mut history = History::open(&storage_without_fsync(&data)?, table, schema, role).await?;
        for first in (0..count).step_by(usize::try_from(ROWS_A_COMMIT)?) {
            let rows =
                Message::rows(&history.table.schema(), first..(first + ROWS_A_COMMIT).min(count), message(status)?)?;
            history.append(rows, Vec::new()).await?;
        }
        let storage = Storage::open(&data.to_string_lossy())?;
        let options = MaintainOptions { clean: false, ..MaintainOptions::default() };
        maintain(&storage, &Path::from(table), &options, &Clock::system(), &CancellationToken::new()).await?;
    }
    let options = Options { token: TOKEN.to_owned(), accept_unknown_chats: true, ..Options::default() };
    let telegram = TelegramStandIn::start(options).await?;
    let model = ModelStandIn::start(ModelStandInOptions::default()).await?;
    let mut command = lakegram(folder.path(), &["serve"]);
    command.env("TELEGRAM_API_URL", telegram.api_url()).env("LLM_BASE_URL", model.base_url());
    let began = Instant::now();
    let service = Service::start(command)?;
    let chat = 3_000_000_000;
    post(service.address, chat, chat, "How late is it in Lisbon when it is noon here?").await?;
    // What is new is asked once everything before it was compared.
    let answered = telegram.wait_for(|ledger| ledger.sent().any(|sent| sent.chat_id == chat), PATIENCE).await;
    let (took, sent, usage) = (began.elapsed(), telegram.sent().len(), service.usage()?);
    service.stop()?;
    if !answered || sent != 1 {
        return Err(format!("answered {answered}, with {sent} messages where one was asked for").into());
    }
    let peak = usage.peak_resident_bytes;
    let row = Row {
        work: format!("a start without progress, {} rows in each table", thousands(f64::from(i32::try_from(count)?))),
        ours: format!("{:.1} s to the first new answer, {:.1} s of CPU", took.as_secs_f64(), usage.cpu_seconds),
        beside: "every row compared, one message sent".to_owned(),
        bar: format!("under {} MB at the peak", BAR_BYTES / 1_000_000),
        measured: format!("{} MB", peak / 1_000_000),
        reached: Some(peak < BAR_BYTES),
    };
    Ok(Findings { rows: vec![row], ..Findings::default() })
}

/// What all messages of a table have in common.
fn message(status: &'static str) -> Result<Message> {
    let day_ago = SystemTime::now().duration_since(UNIX_EPOCH)? - Duration::from_secs(86_400);
    Ok(Message {
        update_id: 1_000_000_000,
        chat_id: 1,
        received_micros: i64::try_from(day_ago.as_micros())?,
        source_file: "raw/telegram/bench".to_owned(),
        version_before: 0,
        status,
    })
}
