//! Every path below `LAKEGRAM_DATA`, formatted and parsed only here.

use chrono::{DateTime, Utc};
use object_store::path::Path;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::id::{BotId, Name};

/// A path below `LAKEGRAM_DATA`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StorageKey {
    /// The id of the data root: `_lakegram/root.json`.
    Root,
    /// What the store's clock is read from: `_lakegram/clock`.
    ClockProbe,
    /// What is created twice to see what the store does: `_lakegram/created-<id>`.
    CreateProbe {
        /// Nobody else's.
        id: Uuid,
    },
    /// One raw segment: `raw/<pipeline>/<bot_id>/<lane>/<yyyy-mm-dd>/<hh>/<20-digit microseconds>.json`.
    Segment {
        /// The pipeline that received it.
        pipeline: Name,
        /// The bot that received it.
        bot_id: BotId,
        /// The lane of the receiver.
        lane: Name,
        /// Its time, unique within the lane.
        micros: Timestamp,
    },
    /// The folder of all raw segments.
    Raw,
    /// The folder of all raw segments of a pipeline.
    RawPipeline {
        /// The pipeline.
        pipeline: Name,
    },
    /// The folder of one lane.
    Lane {
        /// The pipeline.
        pipeline: Name,
        /// The bot.
        bot_id: BotId,
        /// The lane.
        lane: Name,
    },
    /// The lock file beside a lane, hidden from listings: `raw/<pipeline>/<bot_id>/.<lane>.lock`.
    LaneLock {
        /// The pipeline.
        pipeline: Name,
        /// The bot.
        bot_id: BotId,
        /// The lane.
        lane: Name,
    },
    /// The intent of one part of a reply: `intents/<pipeline>/<bot_id>/<update_id>-<attempt>-<send>-<part>`.
    Intent {
        /// The pipeline.
        pipeline: Name,
        /// The bot.
        bot_id: BotId,
        /// The update that is answered.
        update_id: i64,
        /// Silver's attempt.
        attempt: i64,
        /// 1, and one more for each resend.
        send: i64,
        /// The part of the reply, from 1.
        part: i64,
    },
    /// The folder of all intents of a pipeline.
    Intents {
        /// The pipeline.
        pipeline: Name,
    },
    /// Which tables a pipeline has: `_lakegram/pipelines/<pipeline>.json`.
    Pipeline {
        /// The pipeline.
        pipeline: Name,
    },
    /// A data file of a table, named as in its log.
    TableFile {
        /// The table's folder.
        table: Path,
        /// The file, relative to it.
        file: String,
    },
    /// The log folder of a table.
    Log {
        /// The table's folder.
        table: Path,
    },
    /// One commit of a table: `<table>/_delta_log/<20-digit version>.json`.
    Commit {
        /// The table's folder.
        table: Path,
        /// The version it creates.
        version: i64,
    },
    /// `<table>/_delta_log/_last_checkpoint`.
    LastCheckpoint {
        /// The table's folder.
        table: Path,
    },
}

impl StorageKey {
    /// Whether an object belongs to the log of a table.
    pub(super) fn is_in_log(path: &Path) -> bool {
        path.parts().any(|part| part.as_ref() == "_delta_log")
    }

    /// The path of this key.
    pub fn path(&self) -> Path {
        match self {
            Self::Root => Path::from("_lakegram/root.json"),
            Self::ClockProbe => Path::from("_lakegram/clock"),
            Self::CreateProbe { id } => Path::from(format!("_lakegram/created-{id}")),
            Self::Segment { pipeline, bot_id, lane, micros } => {
                let (day, hour) = day_and_hour(*micros);
                Path::from(format!("raw/{pipeline}/{bot_id}/{lane}/{day}/{hour}/{:020}.json", micros.as_micros()))
            }
            Self::Raw => Path::from("raw"),
            Self::RawPipeline { pipeline } => Path::from(format!("raw/{pipeline}")),
            Self::Lane { pipeline, bot_id, lane } => Path::from(format!("raw/{pipeline}/{bot_id}/{lane}")),
            Self::LaneLock { pipeline, bot_id, lane } => Path::from(format!("raw/{pipeline}/{bot_id}/.{lane}.lock")),
            Self::Intent { pipeline, bot_id, update_id, attempt, send, part } => {
                Path::from(format!("intents/{pipeline}/{bot_id}/{update_id}-{attempt}-{send}-{part}"))
            }
            Self::Intents { pipeline } => Path::from(format!("intents/{pipeline}")),
            Self::Pipeline { pipeline } => Path::from(format!("_lakegram/pipelines/{pipeline}.json")),
            Self::TableFile { table, file } => Path::from(format!("{table}/{file}")),
            Self::Log { table } => Path::from(format!("{table}/_delta_log")),
            Self::Commit { table, version } => Path::from(format!("{table}/_delta_log/{version:020}.json")),
            Self::LastCheckpoint { table } => Path::from(format!("{table}/_delta_log/_last_checkpoint")),
        }
    }

    /// The segment or intent at `path`; `None` if it is neither.
    pub fn parse(path: &Path) -> Option<Self> {
        let parts: Vec<&str> = path.as_ref().split('/').collect();
        match parts.as_slice() {
            ["raw", pipeline, bot_id, lane, _day, _hour, file] => {
                let digits = file.strip_suffix(".json").filter(|digits| digits.len() == 20)?;
                let key = Self::Segment {
                    pipeline: Name::new(pipeline).ok()?,
                    bot_id: BotId(bot_id.parse().ok()?),
                    lane: Name::new(lane).ok()?,
                    micros: Timestamp::from_micros(digits.parse().ok()?),
                };
                // A copy filed under another day is not a segment of the lane: its order would be wrong.
                (key.path() == *path).then_some(key)
            }
            ["intents", pipeline, bot_id, file] => {
                let mut numbers = file.splitn(4, '-').map(|number| number.parse().ok());
                Some(Self::Intent {
                    pipeline: Name::new(pipeline).ok()?,
                    bot_id: BotId(bot_id.parse().ok()?),
                    update_id: numbers.next()??,
                    attempt: numbers.next()??,
                    send: numbers.next()??,
                    part: numbers.next()??,
                })
            }
            _ => None,
        }
    }
}

fn day_and_hour(moment: Timestamp) -> (String, String) {
    let time: DateTime<Utc> = moment.to_datetime().unwrap_or_default();
    (time.format("%Y-%m-%d").to_string(), time.format("%H").to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_segment_is_filed_by_lane_day_and_hour() {
        let key = StorageKey::Segment {
            pipeline: Name::new("telegram").unwrap(),
            bot_id: BotId(42),
            lane: Name::new("edge-1").unwrap(),
            micros: Timestamp::from_micros(1_760_000_000_123_456),
        };
        let path = key.path();
        assert_eq!(path.as_ref(), "raw/telegram/42/edge-1/2025-10-09/08/00001760000000123456.json");
        assert_eq!(StorageKey::parse(&path), Some(key));
        assert_eq!(
            StorageKey::parse(&Path::from("raw/telegram/42/edge-1/2025-10-09/09/00001760000000123456.json")),
            None
        );
    }

    proptest! {
        #[test]
        fn later_segments_have_greater_paths(first in 0_i64..4_102_444_800_000_000, later in 1_i64..10_000_000_000) {
            let key = |micros| StorageKey::Segment {
                pipeline: Name::cleaned("p"), bot_id: BotId(1), lane: Name::cleaned("l"), micros: Timestamp::from_micros(micros),
            };
            prop_assert!(key(first).path() < key(first + later).path());
            prop_assert_eq!(StorageKey::parse(&key(first).path()), Some(key(first)));
        }

        #[test]
        fn intents_parse_back(update_id in 0_i64.., attempt in 1_i64..9, send in 1_i64..9, part in 1_i64..99) {
            let key = StorageKey::Intent { pipeline: Name::cleaned("p"), bot_id: BotId(1), update_id, attempt, send, part };
            prop_assert_eq!(StorageKey::parse(&key.path()), Some(key));
        }
    }
}
