//! The ids under which a table keeps progress: formatted and parsed only here.
//!
//! A Delta `txn` action is an app id and a number that the log keeps beside the data. An id says what its number is
//! about: a fence belongs to the table's role, a watermark names the id of the table that was read, a position names
//! its lane. No id depends on the name of a pipeline, except where it names a folder of the raw volume.

use std::collections::BTreeMap;
use std::fmt;

use crate::id::{BotId, Name};

/// What a table is in its pipeline, and so which stage appends to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableRole {
    /// One row for each update or record, appended by a loader.
    Bronze,
    /// One row for each bronze row, appended by the silver stage.
    Silver,
    /// One row for each part of a reply, appended by the replier.
    Reply,
}

/// What a number in a table's txns means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TxnId {
    /// The commit counter of the stage that appends to the table.
    Fence(TableRole),
    /// The version of an upstream table up to which the stage has handled everything.
    Watermark {
        /// The stage.
        role: TableRole,
        /// The id of the upstream table.
        upstream: String,
    },
    /// Microseconds up to which every key of a lane is ingested.
    Position {
        /// The folder of the raw volume.
        pipeline: Name,
        /// The bot.
        bot_id: BotId,
        /// The lane.
        lane: Name,
    },
    /// Microseconds since 1970 at which the last look-back began.
    LookBack,
    /// Microseconds since 1970: foreign files last changed before this are left out.
    SourceFrom,
}

impl TableRole {
    /// All of them, upstream first.
    pub const ALL: [Self; 3] = [Self::Bronze, Self::Silver, Self::Reply];

    /// As written in ids and properties.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bronze => "bronze",
            Self::Silver => "silver",
            Self::Reply => "reply",
        }
    }

    /// Parses a role.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

impl fmt::Display for TableRole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Display for TxnId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fence(role) => write!(formatter, "lakegram/{role}"),
            Self::Watermark { role, upstream } => write!(formatter, "lakegram/{role}/watermark/{upstream}"),
            Self::Position { pipeline, bot_id, lane } => write!(formatter, "lakegram/lane/{pipeline}/{bot_id}/{lane}"),
            Self::LookBack => formatter.write_str("lakegram/bronze/look-back"),
            Self::SourceFrom => formatter.write_str("lakegram/bronze/source-from"),
        }
    }
}

impl TxnId {
    /// Parses an id; `None` if it is not one of ours, or one of release 0.1.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            ["lakegram", "bronze", "look-back"] => Some(Self::LookBack),
            ["lakegram", "bronze", "source-from"] => Some(Self::SourceFrom),
            ["lakegram", role] => TableRole::parse(role).map(Self::Fence),
            ["lakegram", "lane", pipeline, bot_id, lane] => position(pipeline, bot_id, lane),
            ["lakegram", role, "watermark", upstream] if !upstream.is_empty() => {
                Some(Self::Watermark { role: TableRole::parse(role)?, upstream: (*upstream).to_owned() })
            }
            _ => None,
        }
    }
}

/// What release 0.1 called a number: by the name of the pipeline, and without the table it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyId {
    /// The pipeline's name at that time.
    pub pipeline: Name,
    /// The number's meaning today. `None` for a watermark, which says nothing without its upstream table: contents are
    /// compared instead.
    pub id: Option<TxnId>,
}

impl LegacyId {
    /// Parses an id of release 0.1.
    pub fn parse(text: &str) -> Option<Self> {
        if TxnId::parse(text).is_some() {
            return None;
        }
        let parts: Vec<&str> = text.split('/').collect();
        let (pipeline, id) = match parts.as_slice() {
            ["lakegram", pipeline, "bronze", "look_back"] => (pipeline, Some(TxnId::LookBack)),
            ["lakegram", pipeline, "source_from"] => (pipeline, Some(TxnId::SourceFrom)),
            ["lakegram", pipeline, role] => (pipeline, Some(TxnId::Fence(TableRole::parse(role)?))),
            ["lakegram", pipeline, role, "watermark"] => (pipeline, TableRole::parse(role).map(|_| None)?),
            ["lakegram", pipeline, "lane", bot_id, lane] => (pipeline, Some(position(pipeline, bot_id, lane)?)),
            _ => return None,
        };
        Some(Self { pipeline: Name::new(pipeline).ok()?, id })
    }
}

fn position(pipeline: &str, bot_id: &str, lane: &str) -> Option<TxnId> {
    Some(TxnId::Position {
        pipeline: Name::new(pipeline).ok()?,
        bot_id: BotId(bot_id.parse().ok()?),
        lane: Name::new(lane).ok()?,
    })
}

/// The ids that hold the commit counter of a role: today's and, in a table of release 0.1, those it was created with. A
/// process of that release may still be running, so all of them are raised, and none may have changed.
fn fence_ids(txns: &BTreeMap<String, i64>, role: TableRole) -> Vec<String> {
    let mut ids: Vec<String> = txns.keys().filter(|text| is_legacy_fence(text, role)).cloned().collect();
    ids.push(TxnId::Fence(role).to_string());
    ids
}

/// The same as [`LegacyId::parse`] says. Asked of every txn several times a commit, so nothing is allocated for it.
fn is_legacy_fence(text: &str, role: TableRole) -> bool {
    let pipeline = text.strip_prefix("lakegram/").and_then(|rest| rest.strip_suffix(role.as_str())?.strip_suffix('/'));
    pipeline.is_some_and(|name| !name.contains('/') && Name::new(name).is_ok())
}

/// The commit counter of a role: every commit of the stage raises it, whichever release made it. 0 at first.
pub(super) fn fence_value(txns: &BTreeMap<String, i64>, role: TableRole) -> i64 {
    fence_ids(txns, role).iter().filter_map(|id| txns.get(id)).sum()
}

/// The txns that raise the commit counter of a role.
pub(super) fn raised_fence(txns: &BTreeMap<String, i64>, role: TableRole) -> Vec<(String, i64)> {
    let raised = |id: String| (txns.get(&id).copied().unwrap_or(0) + 1, id);
    fence_ids(txns, role).into_iter().map(raised).map(|(value, id)| (id, value)).collect()
}

/// By how much [`raised_fence`] raises the commit counter of a role.
pub(super) fn fence_step(txns: &BTreeMap<String, i64>, role: TableRole) -> i64 {
    i64::try_from(fence_ids(txns, role).len()).unwrap_or(1)
}

/// What a table knows besides fences, under today's ids, whichever release wrote it. None of it ever decreases, so of
/// two values the higher one counts.
pub(super) fn progress(txns: &BTreeMap<String, i64>) -> BTreeMap<TxnId, i64> {
    let mut progress = BTreeMap::new();
    for (text, value) in txns {
        let id = TxnId::parse(text).or_else(|| LegacyId::parse(text)?.id);
        if let Some(id) = id.filter(|id| !matches!(id, TxnId::Fence(_))) {
            let highest = progress.entry(id).or_insert(*value);
            *highest = (*highest).max(*value);
        }
    }
    progress
}

/// The pipelines that processes of release 0.1 have appended to a table for.
pub fn legacy_pipelines(txns: &BTreeMap<String, i64>) -> Vec<Name> {
    let mut names: Vec<Name> = txns.keys().filter_map(|text| Some(LegacyId::parse(text)?.pipeline)).collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = Name> {
        "[a-z0-9_-]{1,12}|bronze|silver|reply|lane|watermark".prop_map(|text| Name::new(&text).unwrap())
    }

    fn txn_id() -> impl Strategy<Value = TxnId> {
        let role = || prop_oneof![Just(TableRole::Bronze), Just(TableRole::Silver), Just(TableRole::Reply)];
        prop_oneof![
            role().prop_map(TxnId::Fence),
            (role(), "[0-9a-f-]{1,36}").prop_map(|(role, upstream)| TxnId::Watermark { role, upstream }),
            (name(), any::<i64>(), name()).prop_map(|(pipeline, bot, lane)| TxnId::Position {
                pipeline,
                bot_id: BotId(bot),
                lane
            }),
            Just(TxnId::LookBack),
            Just(TxnId::SourceFrom),
        ]
    }

    fn any_id() -> impl Strategy<Value = String> {
        let part = || "[a-z.]{0,4}|bronze|silver|reply|lane|watermark|look_back";
        let legacy = proptest::collection::vec(part(), 1..5).prop_map(|parts| format!("lakegram/{}", parts.join("/")));
        prop_oneof![txn_id().prop_map(|id| id.to_string()), legacy, "[a-z/]{0,20}"]
    }

    proptest! {
        #[test]
        fn a_fence_of_release_0_1_is_recognized_as_by_parsing(text in any_id()) {
            for role in TableRole::ALL {
                let parsed = LegacyId::parse(&text).and_then(|legacy| legacy.id);
                prop_assert_eq!(is_legacy_fence(&text, role), parsed == Some(TxnId::Fence(role)), "{}", text);
            }
        }

        /// Commits of either release, in any order: each raises the value, and ours those of both ids.
        #[test]
        fn the_fence_moves_with_every_commit(is_ours in proptest::collection::vec(any::<bool>(), 1..20)) {
            let legacy = "lakegram/telegram/silver".to_owned();
            let (mut txns, mut legacy_seen) = (BTreeMap::from([(legacy.clone(), 3)]), 3);
            for ours in is_ours {
                let before = fence_value(&txns, TableRole::Silver);
                match ours {
                    true => {
                        let step = fence_step(&txns, TableRole::Silver);
                        txns.extend(raised_fence(&txns, TableRole::Silver));
                        prop_assert_eq!(fence_value(&txns, TableRole::Silver), before + step);
                        prop_assert!(txns[&legacy] > legacy_seen, "the old release would not notice");
                    }
                    false => drop(txns.insert(legacy.clone(), txns[&legacy] + 1)),
                }
                legacy_seen = txns[&legacy];
                prop_assert!(fence_value(&txns, TableRole::Silver) > before);
            }
        }

        #[test]
        fn an_id_parses_back_and_is_none_of_release_0_1(id in txn_id()) {
            prop_assert_eq!(TxnId::parse(&id.to_string()), Some(id.clone()));
            prop_assert_eq!(LegacyId::parse(&id.to_string()), None);
        }

        #[test]
        fn ids_of_release_0_1_are_recognized_whatever_the_pipeline_is_called(
            pipeline in "[a-z0-9_-]{1,12}".prop_map(|text| Name::new(&text).unwrap()), bot in 1_i64.., lane in name(),
        ) {
            let fence = LegacyId { pipeline: pipeline.clone(), id: Some(TxnId::Fence(TableRole::Silver)) };
            prop_assert_eq!(LegacyId::parse(&format!("lakegram/{pipeline}/silver")), Some(fence));
            let watermark = LegacyId { pipeline: pipeline.clone(), id: None };
            prop_assert_eq!(LegacyId::parse(&format!("lakegram/{pipeline}/silver/watermark")), Some(watermark));
            let position = TxnId::Position { pipeline: pipeline.clone(), bot_id: BotId(bot), lane: lane.clone() };
            let legacy = LegacyId { pipeline: pipeline.clone(), id: Some(position) };
            prop_assert_eq!(LegacyId::parse(&format!("lakegram/{pipeline}/lane/{bot}/{lane}")), Some(legacy));
        }
    }

    #[test]
    fn the_fence_of_a_carried_over_table_moves_with_commits_of_either_release() {
        let mut txns = BTreeMap::from([
            ("lakegram/telegram/bronze".to_owned(), 7),
            ("lakegram/telegram/lane/1/edge".to_owned(), 77),
            ("lakegram/telegram/bronze/look_back".to_owned(), 5),
        ]);
        assert_eq!(fence_value(&txns, TableRole::Bronze), 7);
        txns.extend(raised_fence(&txns, TableRole::Bronze));
        assert_eq!(txns["lakegram/telegram/bronze"], 8, "a process of the old release is fenced");
        assert_eq!((txns["lakegram/bronze"], fence_value(&txns, TableRole::Bronze)), (1, 9));
        txns.insert("lakegram/telegram/bronze".to_owned(), 9);
        assert_eq!(fence_value(&txns, TableRole::Bronze), 10, "and so are we by one");
        let position =
            TxnId::Position { pipeline: Name::cleaned("telegram"), bot_id: BotId(1), lane: Name::cleaned("edge") };
        assert_eq!(progress(&txns), BTreeMap::from([(TxnId::LookBack, 5), (position, 77)]));
        assert_eq!(legacy_pipelines(&txns), [Name::cleaned("telegram")]);
    }
}
