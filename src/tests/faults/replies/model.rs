//! The correct states of a reply, derived from what was on the wire.

use std::collections::BTreeMap;

use super::world::{Asked, Sending, World};
use crate::standin::telegram::Fate;
use crate::table::TableRole;
use crate::tests::kit::Table;

/// Status and message of each part, by update and part.
type Outcomes = BTreeMap<(i64, usize), (String, Option<i64>)>;

async fn read(world: &World) -> Result<(Outcomes, Table), String> {
    let table = Table::read(&world.storage, &world.settings.table).await;
    let (ids, sends, parts) = (table.integers("update_id"), table.integers("send"), table.integers("part"));
    let (statuses, messages) = (table.texts("status"), table.integers("telegram_message_id"));
    let mut outcomes = Outcomes::new();
    for row in 0..ids.len() {
        let key = (ids[row].unwrap(), usize::try_from(parts[row].unwrap()).unwrap());
        let status = statuses[row].clone().unwrap();
        if sends[row] != Some(1) || outcomes.insert(key, (status, messages[row])).is_some() {
            return Err(format!("part {key:?} has another row, of send {:?}", sends[row]));
        }
    }
    Ok((outcomes, table))
}

/// Why a reply is incomplete: each part up to the first that was not sent must have its outcome.
fn lacks(asked: &Asked, outcomes: &Outcomes) -> Option<String> {
    for part in 1..=asked.texts.len() {
        match outcomes.get(&(asked.update_id, part)) {
            None => return Some(format!("part {part} of {} has no outcome", asked.update_id)),
            Some((status, _)) if status != "sent" => return None,
            Some(_) => {}
        }
    }
    None
}

/// What has no outcome yet is waiting: the watermark has not passed it.
pub(super) async fn check_waiting(world: &World) -> Result<(), String> {
    let (outcomes, table) = read(world).await?;
    let watermark = table.watermark(TableRole::Reply);
    let passed = world.asked.iter().filter(|asked| asked.silver_version <= watermark);
    match passed.filter_map(|asked| lacks(asked, &outcomes)).next() {
        Some(what) => Err(format!("{what}, and the watermark is at {watermark}")),
        None => Ok(()),
    }
}

/// What is wrong when nothing is left to do.
pub(super) async fn check(world: &World) -> Result<(), String> {
    check_waiting(world).await?;
    let (outcomes, table) = read(world).await?;
    let wrong = table.check_txns("replies", TableRole::Reply);
    if !wrong.is_empty() {
        return Err(wrong.join("\n"));
    }
    let (mut sendings, sent) = (world.sendings(), world.telegram.sent());
    for asked in &world.asked {
        if let Some(what) = lacks(asked, &outcomes) {
            return Err(what);
        }
        let mut goes_on = true;
        for (number, text) in asked.texts.iter().enumerate() {
            let (key, calls) = ((asked.update_id, number + 1), sendings.remove(text).unwrap_or_default());
            let outcome = outcomes.get(&key);
            let accepted: Vec<i64> =
                sent.iter().filter(|message| message.text == *text).map(|message| message.message_id).collect();
            check_part(world, &calls, outcome, &accepted, goes_on)
                .map_err(|what| format!("part {key:?}: {what}: {calls:?}, {outcome:?}, accepted {accepted:?}"))?;
            goes_on &= outcome.is_some_and(|(status, _)| status == "sent");
        }
    }
    if sendings.is_empty() { Ok(()) } else { Err(format!("nobody asked for {:?}", sendings.keys())) }
}

fn check_part(
    world: &World,
    calls: &[Sending],
    outcome: Option<&(String, Option<i64>)>,
    accepted: &[i64],
    goes_on: bool,
) -> Result<(), String> {
    let Some((status, message)) = outcome else {
        return if goes_on || !calls.is_empty() { Err("it has no outcome".to_owned()) } else { Ok(()) };
    };
    if !goes_on {
        return Err("it comes after one that did not arrive".to_owned());
    }
    if accepted.len() > 1 {
        return Err("it was sent twice".to_owned());
    }
    let last = calls.last();
    if calls.iter().rev().skip(1).any(|call| call.fate != Fate::Answered(429)) {
        return Err("it was tried again when nobody knew that nothing had arrived".to_owned());
    }
    // If nothing arrived, an intent may have been created since, and its process may have died.
    let in_doubt = match last {
        Some(call) if call.fate != Fate::Answered(429) => call.in_doubt,
        _ => world.has_died(),
    };
    let fits = match (status.as_str(), last.map(|call| call.fate)) {
        ("sent", Some(Fate::Answered(200))) => *message == accepted.first().copied() && message.is_some(),
        ("failed", Some(Fate::Answered(403))) => accepted.is_empty(),
        ("unknown", Some(Fate::Answered(500 | 502) | Fate::Dropped | Fate::Hanging | Fate::Open)) => true,
        // Its process died before the outcome was recorded, or before anything left.
        ("unknown", Some(Fate::Answered(200 | 403 | 429)) | None) => in_doubt,
        _ => false,
    };
    if fits { Ok(()) } else { Err(format!("it cannot be `{status}`")) }
}
