//! What the fault suites share: repeatable randomness, a plan of faults, the matrix of what was met, runs over many
//! seeds, and a reader of tables that is independent of the code under test.
// The environment decides how deep a test goes, and the machine's clock measures how long it takes.
#![allow(clippy::disallowed_methods)]

mod dice;
mod matrix;
mod plan;
mod reply;
mod seeds;
mod table;

pub(super) use self::dice::Dice;
pub(super) use self::matrix::{Matrix, Operation};
pub(super) use self::plan::FaultPlan;
pub(super) use self::reply::{SILVER, integers, reply_stage, rows};
pub(super) use self::seeds::{Outcome, Suite};
pub(super) use self::table::{Table, once_each};
use crate::settings::Environment;
use crate::standin::model::ModelStandIn;
use crate::standin::telegram::TelegramStandIn;

/// A number in the environment.
pub(super) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// The environment of a process between these stand-ins, on free ports. Its store is set afterwards.
pub(super) fn environment(telegram: &TelegramStandIn, model: &ModelStandIn, lane: &str, secret: &str) -> Environment {
    Environment::from_pairs([]).with([
        ("HOSTNAME", lane.to_owned()),
        ("LAKEGRAM_DATA", "memory://".to_owned()),
        ("LAKEGRAM_PIPELINES", "nowhere".to_owned()),
        ("LAKEGRAM_SCHEMAS", "nowhere".to_owned()),
        ("LAKEGRAM_LISTEN", "127.0.0.1:0".to_owned()),
        ("LAKEGRAM_CONSOLE", "127.0.0.1:0".to_owned()),
        ("TELEGRAM_API_URL", telegram.api_url()),
        ("TELEGRAM_BOT_TOKEN", telegram.token().to_owned()),
        ("TELEGRAM_WEBHOOK_SECRET", secret.to_owned()),
        ("LLM_BASE_URL", model.base_url()),
    ])
}
