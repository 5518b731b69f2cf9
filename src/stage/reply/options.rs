//! What the reply stage is given, and what it reports.

use arrow::datatypes::SchemaRef;
use prometheus::{Histogram, IntCounterVec};

use crate::clock::Clock;
use crate::id::{BotId, Name};
use crate::pipeline::ReplySettings;
use crate::storage::Storage;
use crate::table::OwnTable;
use crate::telegram::BotClient;
use crate::telemetry::Telemetry;

/// What the stage works with.
#[derive(Debug)]
pub struct ReplyOptions {
    /// The store below `LAKEGRAM_DATA`.
    pub storage: Storage,
    /// The pipeline's name.
    pub pipeline: Name,
    /// Its reply settings.
    pub settings: ReplySettings,
    /// The silver table's folder.
    pub silver_table: String,
    /// The bot that replies; rows of other bots are ignored.
    pub bot_id: BotId,
    /// Its Bot API client.
    pub bot: BotClient,
    /// The columns of the replies table.
    pub schema: SchemaRef,
    /// The replies table that is the pipeline's own.
    pub own: OwnTable,
    /// Time.
    pub clock: Clock,
    /// Metrics and hops.
    pub telemetry: Telemetry,
}

/// What a batch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplySummary {
    /// Parts that Telegram confirmed.
    pub sent: u64,
    /// Parts that Telegram refused.
    pub failed: u64,
    /// Parts that may or may not have arrived.
    pub unknown: u64,
    /// Replies that are still waiting.
    pub waiting: u64,
}

#[derive(Clone, Debug)]
pub(super) struct ReplyMetrics {
    pub(super) parts: IntCounterVec,
    pub(super) send_seconds: Histogram,
}

impl ReplyMetrics {
    pub(super) fn new(telemetry: &Telemetry) -> Self {
        Self {
            parts: telemetry.counters("lakegram_reply_parts_total", "parts of replies by outcome", &["status"]),
            send_seconds: telemetry.latency("lakegram_reply_send_seconds", "time a call of sendMessage took"),
        }
    }
}
