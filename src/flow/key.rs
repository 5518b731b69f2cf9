//! The keys of a stage's work, and large sets of them in little memory.

use std::collections::HashMap;

use roaring::RoaringTreemap;

use crate::id::BotId;

/// Identifies a unit of work in every table, whatever versions, files or duplicate rows the tables have been through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UpdateKey {
    pub(crate) bot_id: BotId,
    pub(crate) update_id: i64,
    /// 1, and one more each time the update is processed anew.
    pub(crate) attempt: i64,
}

/// A set of keys: a few bits for each, because a bot's updates are numbered consecutively.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    update_ids: HashMap<(BotId, i64), RoaringTreemap>,
}

impl KeySet {
    pub(crate) fn insert(&mut self, key: UpdateKey) {
        self.update_ids.entry((key.bot_id, key.attempt)).or_default().insert(key.update_id.cast_unsigned());
    }

    pub(crate) fn contains(&self, key: &UpdateKey) -> bool {
        let ids = self.update_ids.get(&(key.bot_id, key.attempt));
        ids.is_some_and(|ids| ids.contains(key.update_id.cast_unsigned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_each_of_their_parts() {
        let key = |bot_id, update_id, attempt| UpdateKey { bot_id: BotId(bot_id), update_id, attempt };
        let mut set = KeySet::default();
        for there in [key(1, 5, 1), key(1, -5, 1)] {
            set.insert(there);
            assert!(set.contains(&there));
        }
        assert!([key(2, 5, 1), key(1, 6, 1), key(1, 5, 2)].iter().all(|absent| !set.contains(absent)));
    }
}
