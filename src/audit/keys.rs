//! Updates as compact keys, one share at a time, so that memory stays the same however many there are.

use super::source::{ALWAYS, Source, integer, moment};
use super::{Progress, Scope};
use crate::clock::Timestamp;
use crate::error::Result;

/// Bytes of keys held at a time.
const BUDGET: u64 = if cfg!(test) { 64 } else { 48 * 1_024 * 1_024 };

pub(super) const BRONZE: [&str; 3] = ["bot_id", "update_id", "_received_at"];
pub(super) const SILVER: [&str; 7] =
    ["bot_id", "update_id", "attempt", "chat_id", "reply_parts", "received_at", "processed_at"];
const REPLIES: [&str; 7] = ["bot_id", "update_id", "attempt", "send", "part", "status", "sent_at"];

/// One of several equal shares of all updates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) number: u64,
    pub(super) of: u64,
}

/// A bronze row that is not corrupt. Ordered by update, then by when it was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BronzeKey {
    pub(super) bot_id: i64,
    pub(super) update_id: i64,
    pub(super) received: Timestamp,
    /// Whether silver may not have read it yet.
    pub(super) is_fresh: bool,
}

/// A silver row. Ordered by update, then by when it was received, then by attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SilverKey {
    pub(super) bot_id: i64,
    pub(super) update_id: i64,
    pub(super) received: Timestamp,
    pub(super) attempt: u32,
    /// How many messages its reply has; 0 if there is nobody to send it to.
    pub(super) parts: u32,
    /// Whether the replier may not have read it yet.
    pub(super) is_fresh: bool,
}

/// A replies row. Ordered by answer, then by part and send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReplyKey {
    pub(super) bot_id: i64,
    pub(super) update_id: i64,
    pub(super) attempt: u32,
    pub(super) part: u32,
    pub(super) send: u32,
    pub(super) status: Status,
    pub(super) sent_at: Timestamp,
}

/// The outcome of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Status {
    Sent,
    Failed,
    Unknown,
}

impl Share {
    /// Shares small enough for the budget.
    pub(super) fn all(bronze: &Source, silver: &Source, replies: &Source) -> impl Iterator<Item = Self> {
        let bytes = |source: &Source, row: usize| source.rows() * row as u64;
        let bronze = bytes(bronze, size_of::<BronzeKey>());
        let silver = bytes(silver, size_of::<SilverKey>());
        let replies = bytes(replies, size_of::<ReplyKey>());
        // Bronze is no longer needed when silver and replies are compared.
        let of = (silver + bronze.max(replies)).div_ceil(BUDGET).max(1);
        (0..of).map(move |number| Self { number, of })
    }

    fn holds(self, bot_id: i64, update_id: i64) -> bool {
        // Mixes the bits well, because ids are consecutive: https://prng.di.unimi.it/splitmix64.c
        let mut mixed = update_id.cast_unsigned() ^ bot_id.cast_unsigned().rotate_left(32);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % self.of == self.number
    }

    /// Allocates room for its keys of a table.
    fn room<T>(self, source: &Source) -> Vec<T> {
        let rows = source.rows() / self.of;
        Vec::with_capacity(usize::try_from(rows + rows / 16).unwrap_or(0))
    }
}

/// The bronze rows in scope, sorted, and the number of corrupt ones. Includes rows before the scope but within the
/// redelivery window: a row in scope may duplicate one of those.
pub(super) async fn bronze(
    scope: &Scope<'_>,
    source: &mut Source,
    share: Share,
    progress: &Progress<'_>,
) -> Result<(Vec<BronzeKey>, u64)> {
    let (mut keys, mut corrupt) = (share.room(source), 0);
    let from = scope.since.map_or(ALWAYS.0, |since| since.minus(scope.window()));
    source
        .read((from, ALWAYS.1), &BRONZE, |rows, file| {
            progress.add(rows.len());
            let (bots, updates) = (rows.integers("bot_id")?, rows.integers("update_id")?);
            let moments = rows.moments("_received_at")?;
            for row in 0..rows.len() {
                let received = moment(moments, row);
                let (Some(bot_id), Some(update_id)) = (integer(bots, row), integer(updates, row)) else {
                    corrupt += u64::from(share.number == 0 && scope.holds(received));
                    continue;
                };
                if share.holds(bot_id, update_id) && received >= from {
                    keys.push(BronzeKey { bot_id, update_id, received, is_fresh: file.is_fresh });
                }
            }
            Ok(())
        })
        .await?;
    keys.sort_unstable();
    Ok((keys, corrupt))
}

/// The silver rows in scope, sorted.
pub(super) async fn silver(
    scope: &Scope<'_>,
    source: &mut Source,
    share: Share,
    progress: &Progress<'_>,
) -> Result<Vec<SilverKey>> {
    let mut keys = share.room(source);
    let from = scope.since.unwrap_or(ALWAYS.0);
    source
        .read((from, ALWAYS.1), &SILVER, |rows, file| {
            progress.add(rows.len());
            let (bots, updates) = (rows.integers("bot_id")?, rows.integers("update_id")?);
            let (attempts, chats) = (rows.integers("attempt")?, rows.integers("chat_id")?);
            let (parts, moments) = (rows.integers("reply_parts")?, rows.moments("received_at")?);
            let processed = rows.moments("processed_at")?;
            for row in 0..rows.len() {
                let received = moment(moments, row);
                let (bot_id, update_id) =
                    (integer(bots, row).unwrap_or_default(), integer(updates, row).unwrap_or_default());
                if !share.holds(bot_id, update_id) || !scope.holds(received) {
                    continue;
                }
                // What was answered before the replies table was made is nobody's to send any more.
                let is_history = scope.history_before.is_some_and(|before| moment(processed, row) < before);
                let has_reader = integer(chats, row).is_some() && !is_history;
                let parts = integer(parts, row).filter(|_| has_reader).unwrap_or(0);
                let attempt = integer(attempts, row).unwrap_or(1);
                keys.push(SilverKey {
                    bot_id,
                    update_id,
                    received,
                    attempt: small(attempt),
                    parts: small(parts),
                    is_fresh: file.is_fresh,
                });
            }
            Ok(())
        })
        .await?;
    keys.sort_unstable();
    Ok(keys)
}

/// The replies rows that may belong to answers in scope, sorted.
pub(super) async fn replies(
    scope: &Scope<'_>,
    source: &mut Source,
    share: Share,
    progress: &Progress<'_>,
) -> Result<Vec<ReplyKey>> {
    let mut keys = share.room(source);
    // Nothing is sent before its question was received.
    let from = scope.since.unwrap_or(ALWAYS.0);
    source
        .read((from, ALWAYS.1), &REPLIES, |rows, _| {
            progress.add(rows.len());
            let (bots, updates) = (rows.integers("bot_id")?, rows.integers("update_id")?);
            let (attempts, sends) = (rows.integers("attempt")?, rows.integers("send")?);
            let (parts, statuses) = (rows.integers("part")?, rows.strings("status")?);
            let moments = rows.moments("sent_at")?;
            for row in 0..rows.len() {
                let (bot_id, update_id) =
                    (integer(bots, row).unwrap_or_default(), integer(updates, row).unwrap_or_default());
                let sent_at = moment(moments, row);
                if !share.holds(bot_id, update_id) || !scope.holds(sent_at) {
                    continue;
                }
                let status = match statuses.value(row) {
                    "sent" => Status::Sent,
                    "failed" => Status::Failed,
                    _ => Status::Unknown,
                };
                keys.push(ReplyKey {
                    bot_id,
                    update_id,
                    attempt: small(integer(attempts, row).unwrap_or(1)),
                    part: small(integer(parts, row).unwrap_or(0)),
                    send: small(integer(sends, row).unwrap_or(1)),
                    status,
                    sent_at,
                });
            }
            Ok(())
        })
        .await?;
    keys.sort_unstable();
    Ok(keys)
}

/// Attempts, sends and parts are small numbers.
fn small(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}
