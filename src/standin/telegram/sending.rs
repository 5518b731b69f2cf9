//! The methods that write to a chat, with Telegram's limits and refusals.

use serde_json::{Value, json};

use super::StandInEvent;
use super::ledger::SentMessage;
use super::outcome::{Outcome, Refusal};
use super::params::Params;
use super::state::{Shared, State};
use super::updates::bot_message;
use crate::telegram::text::MESSAGE_LIMIT_UTF16;

/// The chat actions that exist.
const CHAT_ACTIONS: [&str; 11] = [
    "typing",
    "upload_photo",
    "record_video",
    "upload_video",
    "record_voice",
    "upload_voice",
    "upload_document",
    "choose_sticker",
    "find_location",
    "record_video_note",
    "upload_video_note",
];

/// `sendMessage`.
pub(super) fn send_message(shared: &Shared, params: &Params, raw: &str) -> Outcome {
    let (text, entities) = checked_text(params, "message is too long")?;
    let reply_markup = checked_json(params, "reply_markup", "can't parse reply keyboard markup JSON object")?;
    let reply = checked_json(params, "reply_parameters", "can't parse reply parameters JSON object")?;
    let message = shared.change(|state| {
        let chat_id = reachable_chat(shared, state, params)?;
        admit(shared, state, chat_id)?;
        let chat = state.chat(chat_id);
        let reply_to_message_id = replied_message(reply.as_ref(), chat.last_message_id)?;
        let message_id = chat.next_message_id();
        let (at, raw) = (shared.now(), raw.to_owned());
        let message = SentMessage { chat_id, message_id, text, entities, reply_to_message_id, reply_markup, at, raw };
        state.ledger.add_sent(message.clone());
        Ok(message)
    })?;
    let result = bot_message(&shared.bot(), &message);
    shared.tell(StandInEvent::Sent(message));
    Ok(result.to_string())
}

/// `editMessageText`.
pub(super) fn edit_message_text(shared: &Shared, params: &Params, raw: &str) -> Outcome {
    let (text, entities) = checked_text(params, "MESSAGE_TOO_LONG")?;
    let reply_markup = checked_json(params, "reply_markup", "can't parse reply keyboard markup JSON object")?;
    let message_id = params.integer("message_id").unwrap_or_default();
    let message = shared.change(|state| {
        let chat_id = reachable_chat(shared, state, params)?;
        let last_message_id = state.chat(chat_id).last_message_id;
        let Some(current) = state.ledger.current(chat_id, message_id) else {
            let is_there = (1..=last_message_id).contains(&message_id);
            let why = if is_there { "message can't be edited" } else { "message to edit not found" };
            return Err(Refusal::bad_request(why));
        };
        if (&current.text, &current.entities, &current.reply_markup) == (&text, &entities, &reply_markup) {
            return Err(Refusal::bad_request(
                "message is not modified: specified new message content and reply markup are exactly the same as a \
                 current content and reply markup of the message",
            ));
        }
        let reply_to_message_id = current.reply_to_message_id;
        let (at, raw) = (shared.now(), raw.to_owned());
        let message = SentMessage { chat_id, message_id, text, entities, reply_to_message_id, reply_markup, at, raw };
        state.ledger.add_edit(message.clone());
        Ok(message)
    })?;
    let mut result = bot_message(&shared.bot(), &message);
    result["edit_date"] = json!(message.at.as_micros() / 1_000_000);
    shared.tell(StandInEvent::Edited(message));
    Ok(result.to_string())
}

/// `sendChatAction`.
pub(super) fn send_chat_action(shared: &Shared, params: &Params) -> Outcome {
    let action = params.text("action");
    if !CHAT_ACTIONS.contains(&action) {
        return Err(Refusal::bad_request("wrong parameter action in request"));
    }
    let chat_id = shared.change(|state| reachable_chat(shared, state, params))?;
    shared.tell(StandInEvent::ChatAction { chat_id, action: action.to_owned(), at: shared.now() });
    Ok("true".to_owned())
}

/// The text and its valid entities. The limit is the documented one in UTF-16 units; the real server has been seen to
/// count characters, which never refuses what this accepts.
fn checked_text(params: &Params, too_long: &str) -> Result<(String, Vec<Value>), Refusal> {
    let text = params.text("text").to_owned();
    let length = text.encode_utf16().count();
    if text.trim().is_empty() {
        return Err(Refusal::bad_request("message text is empty"));
    }
    if length > MESSAGE_LIMIT_UTF16 {
        return Err(Refusal::bad_request(too_long));
    }
    let entities = match checked_json(params, "entities", "can't parse entities JSON object")? {
        None => Vec::new(),
        Some(Value::Array(entities)) => entities,
        Some(_) => return Err(Refusal::bad_request("object expected as message entities")),
    };
    let mut within = Vec::new();
    for entity in entities {
        let number = |name: &str| entity.get(name).and_then(Value::as_u64);
        let (Some(offset), Some(span), true) = (number("offset"), number("length"), entity["type"].is_string()) else {
            return Err(Refusal::bad_request("can't parse MessageEntity: type, offset and length expected"));
        };
        if span > 0 && offset.saturating_add(span) <= length as u64 {
            within.push(entity);
        }
    }
    Ok((text, within))
}

fn checked_json(params: &Params, name: &str, problem: &str) -> Result<Option<Value>, Refusal> {
    params.json(name).map_err(|_| Refusal::bad_request(problem))
}

/// The chat a call names, if the bot may write to it.
fn reachable_chat(shared: &Shared, state: &mut State, params: &Params) -> Result<i64, Refusal> {
    if !params.has("chat_id") {
        return Err(Refusal::bad_request("chat_id is empty"));
    }
    let not_found = || Refusal::bad_request("chat not found");
    let chat_id = params.integer("chat_id").filter(|chat_id| *chat_id != 0).ok_or_else(not_found)?;
    if shared.options.accept_unknown_chats {
        state.chat(chat_id);
    }
    let chat = state.chats.get(&chat_id).ok_or_else(not_found)?;
    if let Some(migrated_to) = chat.migrated_to {
        return Err(Refusal {
            parameters: Some(json!({ "migrate_to_chat_id": migrated_to })),
            ..Refusal::bad_request("group chat was upgraded to a supergroup chat")
        });
    }
    if chat.blocked {
        return Err(Refusal::new(403, "Forbidden: bot was blocked by the user"));
    }
    Ok(chat_id)
}

/// Enforces the chat's pace, if there is one, and counts callers that do not wait as told.
fn admit(shared: &Shared, state: &mut State, chat_id: i64) -> Result<(), Refusal> {
    let now = shared.options.clock.monotonic();
    let chat = state.chat(chat_id);
    let silence = chat.silent_until.saturating_sub(now);
    let paced = match shared.options.pace {
        Some(_) if !silence.is_zero() => Err(silence),
        Some(pace) => chat.admit(pace, chat_id < 0, now),
        None => Ok(()),
    };
    let refusal = paced.map_err(Refusal::too_many_requests);
    if let Err(refusal) = &refusal {
        let seconds = refusal.parameters.as_ref().and_then(|parameters| parameters["retry_after"].as_u64());
        chat.silent_until = now + std::time::Duration::from_secs(seconds.unwrap_or(1));
    }
    if !silence.is_zero() {
        state.ledger.add_impatient();
    }
    refusal
}

/// The message to reply to, which must exist unless the caller allows otherwise.
fn replied_message(reply: Option<&Value>, last_message_id: i64) -> Result<Option<i64>, Refusal> {
    let Some(reply) = reply else { return Ok(None) };
    let exists = |message_id: &i64| (1..=last_message_id).contains(message_id);
    let message_id = reply["message_id"].as_i64().filter(exists);
    if message_id.is_none() && reply["allow_sending_without_reply"] != json!(true) {
        return Err(Refusal::bad_request("message to be replied not found"));
    }
    Ok(message_id)
}
