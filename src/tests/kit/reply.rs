//! The reply stage between a store and the Bot API's stand-in.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};

use crate::clock::Clock;
use crate::error::Result;
use crate::id::Name;
use crate::pipeline::ReplySettings;
use crate::schema;
use crate::stage::reply::{ReplyOptions, ReplyStage};
use crate::standin::telegram::TelegramStandIn;
use crate::storage::Storage;
use crate::table::OwnTable;
use crate::telegram::BotClient;
use crate::telemetry::Telemetry;

/// The table whose answers the stage sends.
pub(in crate::tests) const SILVER: &str = "silver/telegram_responses";

/// Opens the stage.
pub(in crate::tests) async fn reply_stage(
    storage: Storage,
    telegram: &TelegramStandIn,
    settings: &ReplySettings,
    clock: &Clock,
) -> Result<ReplyStage> {
    ReplyStage::open(ReplyOptions {
        storage,
        pipeline: Name::new("p").unwrap(),
        settings: settings.clone(),
        silver_table: SILVER.to_owned(),
        bot_id: telegram.bot_id(),
        bot: BotClient::new(&telegram.api_url(), telegram.token()).unwrap(),
        schema: schema::built_in(schema::REPLIES).unwrap(),
        own: OwnTable::default(),
        clock: clock.clone(),
        telemetry: Telemetry::new(),
    })
    .await
}

/// A column of integers.
pub(in crate::tests) fn integers(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

/// Rows of these columns.
pub(in crate::tests) fn rows<const COLUMNS: usize>(columns: [(&str, ArrayRef); COLUMNS]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}
