//! Updates the way Telegram shapes and queues them: one queue per chat (one per user for button presses), each in
//! order.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock::Timestamp;

/// The kinds that are only delivered on request.
const OPT_IN_KINDS: [&str; 3] = ["chat_member", "message_reaction", "message_reaction_count"];

/// Identifies a queue: its updates are delivered one at a time and in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct QueueId(i64);

/// The kinds whose queue is not the chat's own: where the id is, and how many times 2^33 is added to it, as in
/// `Client.cpp` of the Bot API server.
const OWN_QUEUES: [(&str, &str, i64); 17] = [
    ("inline_query", "/from/id", 1),
    ("chosen_inline_result", "/from/id", 2),
    ("callback_query", "/from/id", 3),
    ("shipping_query", "/from/id", 4),
    ("pre_checkout_query", "/from/id", 4),
    ("my_chat_member", "/chat/id", 5),
    ("chat_member", "/chat/id", 6),
    ("chat_join_request", "/chat/id", 6),
    ("chat_boost", "/chat/id", 7),
    ("removed_chat_boost", "/chat/id", 7),
    ("message_reaction", "/chat/id", 8),
    ("message_reaction_count", "/chat/id", 9),
    ("business_connection", "/user/id", 10),
    ("business_message", "/chat/id", 11),
    ("edited_business_message", "/chat/id", 11),
    ("deleted_business_messages", "/chat/id", 11),
    ("guest_message", "/chat/id", 12),
];

impl QueueId {
    /// The queue of an update.
    pub(super) fn of(update: &Value) -> Self {
        let Some((kind, content)) = kind_of(update) else { return Self(0) };
        let number = |path: &str| content.pointer(path).and_then(Value::as_i64);
        let queue = match OWN_QUEUES.iter().find(|(name, ..)| *name == kind) {
            Some((_, path, times)) => number(path).map(|number| number.saturating_add(times << 33)),
            None => ["/chat/id", "/user/id", "/from/id", "/id"].into_iter().find_map(number),
        };
        Self(queue.unwrap_or_default())
    }
}

/// The kind of an update and its content.
pub(super) fn kind_of(update: &Value) -> Option<(&str, &Value)> {
    let mut fields = update.as_object()?.iter().filter(|(name, _)| *name != "update_id");
    fields.next().map(|(name, content)| (name.as_str(), content))
}

/// Whether an update of this kind is delivered under this `allowed_updates`.
pub(super) fn is_allowed(kind: &str, allowed: &[String]) -> bool {
    if allowed.is_empty() { !OPT_IN_KINDS.contains(&kind) } else { allowed.iter().any(|name| name == kind) }
}

/// An update waiting for delivery.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    /// Its id.
    pub(super) update_id: i64,
    /// Its queue.
    pub(super) queue: QueueId,
    /// The JSON that is posted.
    pub(super) body: Arc<str>,
}

/// The updates waiting for delivery, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    arrivals: u64,
    updates: BTreeMap<u64, Pending>,
    queues: HashMap<QueueId, VecDeque<u64>>,
}

impl Backlog {
    pub(super) fn push(&mut self, update: Pending) {
        self.queues.entry(update.queue).or_default().push_back(self.arrivals);
        self.updates.insert(self.arrivals, update);
        self.arrivals += 1;
    }

    /// The head of a queue.
    pub(super) fn head(&self, queue: QueueId) -> Option<&Pending> {
        self.updates.get(self.queues.get(&queue)?.front()?)
    }

    /// The queues that are not empty.
    pub(super) fn queues(&self) -> impl Iterator<Item = QueueId> {
        self.queues.keys().copied()
    }

    /// The waiting update with this id.
    #[cfg(any(test, feature = "faults"))]
    pub(super) fn find(&self, update_id: i64) -> Option<&Pending> {
        self.updates.values().find(|update| update.update_id == update_id)
    }

    /// Removes the head of a queue if it is still this update.
    pub(super) fn pop(&mut self, queue: QueueId, update_id: i64) -> Option<Pending> {
        self.head(queue).filter(|head| head.update_id == update_id)?;
        let arrivals = self.queues.get_mut(&queue)?;
        let arrival = arrivals.pop_front()?;
        if arrivals.is_empty() {
            self.queues.remove(&queue);
        }
        self.updates.remove(&arrival)
    }

    /// Removes every update with a lower id, as the offset of `getUpdates` confirms them.
    pub(super) fn confirm_below(&mut self, offset: i64) -> Vec<Pending> {
        let confirmed = |update: &mut Pending| update.update_id < offset;
        let gone: Vec<Pending> =
            self.updates.extract_if(.., |_, update| confirmed(update)).map(|(_, update)| update).collect();
        let updates = &self.updates;
        self.queues.retain(|_, arrivals| {
            arrivals.retain(|arrival| updates.contains_key(arrival));
            !arrivals.is_empty()
        });
        gone
    }

    /// The oldest updates, up to a number.
    pub(super) fn oldest(&self, limit: usize) -> Vec<Pending> {
        self.updates.values().take(limit).cloned().collect()
    }

    /// The id of the `count`-th newest update, or of the oldest when there are fewer.
    pub(super) fn nth_newest(&self, count: usize) -> Option<i64> {
        let nth = self.updates.values().rev().nth(count.saturating_sub(1));
        nth.or_else(|| self.updates.values().next()).map(|update| update.update_id)
    }

    pub(super) fn len(&self) -> usize {
        self.updates.len()
    }

    pub(super) fn clear(&mut self) {
        self.updates.clear();
        self.queues.clear();
    }
}

/// The sender of a chat's messages: in a private chat the one with the chat's id.
fn user(chat_id: i64) -> Value {
    let id = if chat_id > 0 { chat_id } else { 1 };
    json!({
        "id": id, "is_bot": false, "first_name": format!("User {id}"), "username": format!("user_{id}"),
        "language_code": "en",
    })
}

fn chat(chat_id: i64) -> Value {
    if chat_id > 0 {
        json!({
            "id": chat_id, "type": "private", "first_name": format!("User {chat_id}"),
            "username": format!("user_{chat_id}"),
        })
    } else {
        json!({ "id": chat_id, "type": "supergroup", "title": format!("Group {}", chat_id.unsigned_abs()) })
    }
}

/// A message as part of an update: commands are marked as such, as Telegram does.
pub(super) fn message(chat_id: i64, message_id: i64, text: &str, now: Timestamp) -> Value {
    let mut message = json!({
        "message_id": message_id, "from": user(chat_id), "chat": chat(chat_id), "date": now.as_micros() / 1_000_000,
        "text": text,
    });
    if text.starts_with('/') && text.len() > 1 {
        let command = text.split_whitespace().next().unwrap_or_default();
        message["entities"] = json!([{ "type": "bot_command", "offset": 0, "length": command.encode_utf16().count() }]);
    }
    message
}

/// A press of a button below a message of the bot.
pub(super) fn callback_query(id: &str, chat_id: i64, message: &Value, data: &str) -> Value {
    json!({
        "id": id, "from": user(chat_id), "message": message, "chat_instance": chat_id.to_string(), "data": data,
    })
}

/// A message that Telegram no longer shows to the bot.
pub(super) fn inaccessible_message(chat_id: i64, message_id: i64) -> Value {
    json!({ "message_id": message_id, "chat": chat(chat_id), "date": 0 })
}

/// The result of a call that sent or edited a message.
pub(super) fn bot_message(bot: &Value, sent: &super::ledger::SentMessage) -> Value {
    let mut message = json!({
        "message_id": sent.message_id, "from": bot, "chat": chat(sent.chat_id),
        "date": sent.at.as_micros() / 1_000_000, "text": sent.text,
    });
    if !sent.entities.is_empty() {
        message["entities"] = Value::Array(sent.entities.clone());
    }
    if let Some(markup) = &sent.reply_markup {
        message["reply_markup"] = markup.clone();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(update_id: i64, queue: i64) -> Pending {
        Pending { update_id, queue: QueueId(queue), body: "{}".into() }
    }

    #[test]
    fn only_the_head_that_was_delivered_is_taken() {
        let mut backlog = Backlog::default();
        backlog.push(pending(7, 1));
        backlog.push(pending(8, 1));
        assert!(backlog.pop(QueueId(1), 8).is_none());
        assert!(backlog.pop(QueueId(1), 7).is_some());
        assert!(backlog.pop(QueueId(1), 7).is_none());
        assert_eq!(backlog.head(QueueId(1)).map(|head| head.update_id), Some(8));
    }

    #[test]
    fn an_offset_confirms_what_is_below_it_in_every_queue() {
        let mut backlog = Backlog::default();
        for (update_id, queue) in [(5, 1), (6, 2), (7, 1)] {
            backlog.push(pending(update_id, queue));
        }
        assert_eq!(backlog.nth_newest(2), Some(6));
        assert_eq!(backlog.nth_newest(9), Some(5));
        assert_eq!(backlog.confirm_below(7).len(), 2);
        assert_eq!(backlog.queues().collect::<Vec<_>>(), [QueueId(1)]);
        assert_eq!(backlog.oldest(10).len(), 1);
    }

    #[test]
    fn a_message_and_a_press_of_one_user_do_not_wait_for_each_other() {
        let message = json!({ "update_id": 1, "message": message(42, 1, "/start now", Timestamp::default()) });
        let press = json!({ "update_id": 2, "callback_query": callback_query("q", 42, &json!({}), "GO") });
        assert_eq!(QueueId::of(&message), QueueId(42));
        assert_eq!(QueueId::of(&press), QueueId(42 + (3 << 33)));
        assert_eq!(message["message"]["entities"][0]["length"], 6);
        assert_eq!(QueueId::of(&json!({ "update_id": 3 })), QueueId(0));
        assert_eq!(QueueId::of(&json!([])), QueueId(0));
    }

    #[test]
    fn allowed_updates_that_are_empty_leave_out_what_must_be_asked_for() {
        assert!(is_allowed("message", &[]));
        assert!(!is_allowed("message_reaction", &[]));
        assert!(!is_allowed("message", &["callback_query".to_owned()]));
    }
}
