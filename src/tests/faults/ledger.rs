//! The promises, checked against the final state: raw log files and Parquet compared with what Telegram has received.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::TryStreamExt;
use object_store::path::Path;

use super::world::World;
use crate::table::TableRole;
use crate::tests::kit::{Table, once_each};

/// What is wrong at the end, when every update was acknowledged and nothing is waiting.
pub(super) async fn check(world: &World) -> Vec<String> {
    let storage = &world.storage;
    let bronze = Table::read(storage, "bronze/telegram_messages").await;
    let silver = Table::read(storage, "silver/telegram_responses").await;
    let replies = Table::read(storage, "silver/telegram_replies").await;
    let updates: BTreeSet<i64> = world.said().iter().map(|said| said.update_id).collect();
    let mut wrong = bronze.check_txns("bronze", TableRole::Bronze);
    wrong.extend(silver.check_txns("silver", TableRole::Silver));
    wrong.extend(replies.check_txns("replies", TableRole::Reply));
    wrong.extend(once_each("bronze", &bronze.integers("update_id"), &updates));
    wrong.extend(once_each("silver", &silver.integers("update_id"), &updates));
    wrong.extend(check_replies(world, &silver, &replies));
    wrong.extend(intents(world).await.iter().map(|path| format!("{path} is left over")));
    wrong
}

/// The remaining intents.
pub(super) async fn intents(world: &World) -> Vec<Path> {
    let listed = world.storage.object_store().list(Some(&Path::from("intents")));
    listed.map_ok(|meta| meta.location).try_collect().await.unwrap()
}

/// The outcomes of the parts of one reply, by part.
type Outcomes = BTreeMap<i64, (String, Option<i64>)>;

fn check_replies(world: &World, silver: &Table, replies: &Table) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut by_update: HashMap<i64, Outcomes> = HashMap::new();
    let (ids, parts) = (replies.integers("update_id"), replies.integers("part"));
    let (statuses, messages) = (replies.texts("status"), replies.integers("telegram_message_id"));
    for (row, id) in ids.iter().enumerate() {
        let (id, part) = (id.unwrap_or(-1), parts[row].unwrap_or(-1));
        let outcome = (statuses[row].clone().unwrap_or_default(), messages[row]);
        if by_update.entry(id).or_default().insert(part, outcome).is_some() {
            wrong.push(format!("replies: part {part} for update {id} has several rows"));
        }
    }
    let wanted = silver.integers("update_id").into_iter().zip(silver.integers("reply_parts"));
    let wanted: HashMap<i64, i64> = wanted.map(|(id, parts)| (id.unwrap_or(-1), parts.unwrap_or(0))).collect();
    let sent = world.telegram.sent();
    let mut texts = BTreeSet::new();
    for message in &sent {
        if !texts.insert((message.chat_id, &message.text)) {
            wrong.push(format!("Telegram has taken twice: {}", message.text));
        }
    }
    for said in world.said() {
        let accepted: BTreeSet<i64> =
            sent.iter().filter(|message| message.text.contains(&said.word)).map(|message| message.message_id).collect();
        let outcomes = by_update.remove(&said.update_id).unwrap_or_default();
        let parts = wanted.get(&said.update_id).copied().unwrap_or(0);
        let found = check_reply(parts, &outcomes, &accepted);
        wrong.extend(found.map(|what| format!("reply to {}: {what}: {outcomes:?}, accepted {accepted:?}", said.word)));
    }
    wrong.extend(by_update.keys().map(|id| format!("replies: update {id} was never said")));
    wrong
}

/// What is wrong with a reply of this many parts.
fn check_reply(parts: i64, outcomes: &Outcomes, accepted: &BTreeSet<i64>) -> Option<String> {
    let with = |status: &str| outcomes.values().filter(|(found, _)| found == status).count();
    let (sent, unknown) = (with("sent"), with("unknown"));
    if !outcomes.keys().copied().eq(1..=i64::try_from(outcomes.len()).unwrap()) {
        return Some("its parts have gaps".to_owned());
    }
    let ended = outcomes.values().rev().skip(1).all(|(status, _)| status == "sent");
    let complete = i64::try_from(sent).unwrap() == parts || outcomes.values().last().is_some_and(|(s, _)| s != "sent");
    if !ended || !complete {
        return Some(format!("of {parts} parts it has other outcomes than it should"));
    }
    if accepted.len() < sent || accepted.len() > sent + unknown {
        return Some("Telegram has taken other parts".to_owned());
    }
    let known = outcomes.values().filter_map(|(_, message)| *message).all(|message| accepted.contains(&message));
    (!known).then(|| "its messages are not those that Telegram took".to_owned())
}

/// How many rows of the replies table have this status.
pub(super) async fn replies_with(world: &World, status: &str) -> usize {
    let replies = Table::read(&world.storage, "silver/telegram_replies").await;
    replies.texts("status").into_iter().flatten().filter(|found| found == status).count()
}
