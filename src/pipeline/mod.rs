//! The pipeline file as checked data: bot, receive, bronze, silver, routes, reply.

pub mod clean;
pub mod files;
pub mod load;
pub mod table_path;
mod texts;

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer};

use self::clean::CleanSource;
pub use self::table_path::{TablePath, is_within};
pub use self::texts::LocalText;
use crate::id::Name;

/// One `pipelines/*.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Version of this format; 1.
    pub version: u32,
    /// The pipeline's name in storage keys, commands and logs.
    pub name: Name,
    /// Skipped when no pipeline is named.
    #[serde(default)]
    pub example: bool,
    /// Which bot.
    pub bot: BotSettings,
    /// The webhook edge.
    pub receive: ReceiveSettings,
    /// The first table.
    pub bronze: BronzeSettings,
    /// The second table and the model.
    pub silver: SilverSettings,
    /// How answers are sent.
    pub reply: ReplySettings,
    /// What happens to an update; the first match counts, and no match means `ignored`.
    #[serde(default, rename = "route")]
    pub routes: Vec<Route>,
}

/// The names of the variables that hold the bot's secrets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BotSettings {
    /// Variable with the token.
    #[serde(default = "default_token_env")]
    pub token_env: String,
    /// Variable with the webhook secret, or two of them separated by a comma.
    #[serde(default = "default_secret_env")]
    pub secret_env: String,
}

/// The webhook edge.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiveSettings {
    /// Paths that receive this bot's updates.
    pub paths: Vec<String>,
    /// Response status for a wrong secret.
    #[serde(default = "default_reject_with")]
    pub reject_with: u16,
    /// The lane this receiver writes; the host name when not set.
    #[serde(default)]
    pub lane: Option<Name>,
    /// Largest body that is landed.
    #[serde(default = "default_max_body")]
    pub max_body: ByteSize,
    /// Maximum bytes received and not yet durable.
    #[serde(default = "default_max_in_flight")]
    pub max_in_flight: ByteSize,
}

/// What happens to a field that has no column. For updates, which `payload` has whole, this means a field of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evolution {
    /// It is kept in `_rescued_data`, unless `payload` has it.
    #[default]
    Rescue,
    /// It becomes a column, in the commit that brings its first value; of a message, `msg_<field>`.
    AddColumns,
    /// The loader names it and stops.
    Fail,
    /// It is ignored. Values that do not fit an existing column are rescued all the same.
    Ignore,
}

/// The bronze stage.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BronzeSettings {
    /// Folder of the table, relative to `LAKEGRAM_DATA`.
    pub table: TablePath,
    /// File of the table's schema.
    #[serde(default = "default_bronze_schema")]
    pub schema: String,
    /// What happens to a field of a message that has no column.
    #[serde(default)]
    pub evolution: Evolution,
    /// Maximum raw files per commit.
    #[serde(default = "default_max_files")]
    pub max_files: usize,
    /// Maximum raw bytes per commit; a file is never split, so the last one may exceed it.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: ByteSize,
    /// How far a position stays behind the present.
    #[serde(default = "default_settle", deserialize_with = "duration")]
    pub settle: Duration,
    /// How long a redelivery of an update is recognized.
    #[serde(default = "default_redelivery_window", deserialize_with = "duration")]
    pub redelivery_window: Duration,
    /// What happens to ingested segments.
    #[serde(default)]
    pub clean_source: CleanSource,
}

/// The silver stage.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SilverSettings {
    /// Folder of the table, relative to `LAKEGRAM_DATA`.
    pub table: TablePath,
    /// Maximum concurrent calls to the model.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// Tries of its own that a row gets before it is `failed`.
    #[serde(default = "default_max_attempts")]
    pub max_attempts: u32,
    /// Rows that wait in memory before the tail stops reading.
    #[serde(default = "default_max_waiting")]
    pub max_waiting: usize,
    /// What the reader of an answer sees below it when the model was cut off at its length limit; nothing if empty.
    #[serde(default = "default_cut_text")]
    pub cut_text: LocalText,
    /// What the asker of a question reads that could not be answered; nothing if empty.
    #[serde(default = "default_failed_text")]
    pub failed_text: LocalText,
    /// Which messages in groups are answered.
    #[serde(default)]
    pub groups: Groups,
    /// The model.
    pub model: ModelSettings,
}

/// Which messages in groups are answered. A command for another bot never is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Groups {
    /// Those meant for the bot: they mention it, reply to it, or are a command.
    #[default]
    Addressed,
    /// All that a route matches.
    All,
}

/// Which dialect of chat completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// `LLM_BASE_URL` with `/chat/completions` appended.
    Openai,
    /// `DATABRICKS_HOST` with `/serving-endpoints/{name}/invocations`.
    Databricks,
}

/// The model and how it is called.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSettings {
    /// The dialect.
    pub provider: Provider,
    /// Model or serving endpoint; `LLM_MODEL` wins.
    pub name: String,
    /// File of the system prompt, beside the pipeline file; after loading, its text.
    #[serde(default)]
    pub system: Option<String>,
    /// Previous turns sent along.
    #[serde(default)]
    pub history: HistorySettings,
    /// Time limit of a call.
    #[serde(default = "default_model_timeout", deserialize_with = "duration")]
    pub timeout: Duration,
    /// Maximum tokens of an answer.
    #[serde(default)]
    pub max_tokens: Option<u32>,
}

/// How much of a chat is sent along with a question.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistorySettings {
    /// Pairs of question and answer.
    #[serde(default = "default_turns")]
    pub turns: usize,
    /// Nothing older than this.
    #[serde(default = "default_history_age", deserialize_with = "duration")]
    pub max_age: Duration,
    /// About as many tokens, estimated from the characters.
    #[serde(default = "default_history_tokens")]
    pub max_tokens: usize,
}

/// What happens to a reply whose outcome is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// Nothing: never two answers.
    #[default]
    Leave,
    /// It is sent once more, and may arrive twice.
    Resend,
}

/// How the user sees immediately that an answer is coming.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acknowledge {
    /// "typing…" in the chat.
    #[default]
    Typing,
    /// Nothing.
    None,
}

/// The reply stage.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplySettings {
    /// Folder of the table, relative to `LAKEGRAM_DATA`.
    pub table: TablePath,
    /// What happens when nobody knows whether a part arrived.
    #[serde(default)]
    pub on_unknown: OnUnknown,
    /// What the user sees meanwhile.
    #[serde(default)]
    pub acknowledge: Acknowledge,
    /// Maximum number of chats replied to at the same time.
    #[serde(default = "default_concurrency")]
    pub concurrency: usize,
    /// Lifetime of an intent: no byte of a send leaves later than this after it was created.
    #[serde(default = "default_intent_ttl", deserialize_with = "duration")]
    pub intent_ttl: Duration,
}

/// One rule: what it matches and what happens then.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name in the `route` column; its number when not set.
    #[serde(default)]
    pub name: Option<String>,
    /// What it matches; all conditions must hold.
    #[serde(rename = "match")]
    pub matches: RouteMatch,
    /// Who answers.
    pub answer: Answer,
}

/// The conditions of a route.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteMatch {
    /// Whether the update has text.
    #[serde(default)]
    pub text: Option<bool>,
    /// The bot command the text starts with, without its slash.
    #[serde(default)]
    pub command: Option<String>,
    /// Whether a bot wrote it. What bots write is matched by no route that does not say so: two bots that answer each
    /// other would never stop.
    #[serde(default)]
    pub from_bot: bool,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The model.
    Model,
    /// Nobody.
    Nobody,
}

impl Default for HistorySettings {
    fn default() -> Self {
        Self { turns: default_turns(), max_age: default_history_age(), max_tokens: default_history_tokens() }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|error| {
        serde::de::Error::custom(format!("`{text}` is not a duration ({error}); write it like \"2s\" or \"10m\""))
    })
}

fn default_token_env() -> String {
    "TELEGRAM_BOT_TOKEN".to_owned()
}
fn default_secret_env() -> String {
    "TELEGRAM_WEBHOOK_SECRET".to_owned()
}
const fn default_reject_with() -> u16 {
    401
}
const fn default_max_body() -> ByteSize {
    ByteSize::mib(16)
}
const fn default_max_in_flight() -> ByteSize {
    ByteSize::mib(64)
}
fn default_bronze_schema() -> String {
    "telegram_messages.json".to_owned()
}
const fn default_max_files() -> usize {
    1_000
}
const fn default_max_bytes() -> ByteSize {
    ByteSize::mib(32)
}
const fn default_settle() -> Duration {
    Duration::from_secs(600)
}
const fn default_redelivery_window() -> Duration {
    Duration::from_secs(48 * 3_600)
}
const fn default_concurrency() -> usize {
    32
}
const fn default_max_attempts() -> u32 {
    3
}
fn default_cut_text() -> LocalText {
    "(The answer was cut off: it reached the length limit.)".into()
}

fn default_failed_text() -> LocalText {
    "Sorry, I cannot answer this message. Please try to put it another way.".into()
}

const fn default_history_tokens() -> usize {
    16_000
}

const fn default_max_waiting() -> usize {
    10_000
}
const fn default_model_timeout() -> Duration {
    Duration::from_secs(60)
}
const fn default_turns() -> usize {
    10
}
const fn default_history_age() -> Duration {
    Duration::from_secs(3 * 3_600)
}
const fn default_intent_ttl() -> Duration {
    Duration::from_secs(30)
}
