//! The Bot API methods, with the checks and the wording of the real ones.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::outcome::{Outcome, Refusal};
use super::params::Params;
use super::state::{Shared, State};
use super::{delivery, sending, webhook};

/// Executes a call.
pub(super) async fn call(shared: &Arc<Shared>, method: &str, params: &Params, raw: &str) -> Outcome {
    match method.to_ascii_lowercase().as_str() {
        "getme" => Ok(me(shared).to_string()),
        "setwebhook" => {
            webhook::set(shared, params)?;
            delivery::deliver_all(shared);
            Ok("true".to_owned())
        }
        "deletewebhook" => {
            webhook::delete(shared, params.flag("drop_pending_updates"));
            Ok("true".to_owned())
        }
        "getwebhookinfo" => Ok(shared.look(webhook::info).to_string()),
        "getupdates" => webhook::poll(shared, params).await,
        "sendmessage" => sending::send_message(shared, params, raw),
        "editmessagetext" => sending::edit_message_text(shared, params, raw),
        "sendchataction" => sending::send_chat_action(shared, params),
        "answercallbackquery" => shared.change(|state| answer_callback_query(state, params)),
        "setmycommands" => Ok("true".to_owned()),
        _ => Err(Refusal::new(404, "Not Found: method not found")),
    }
}

fn me(shared: &Shared) -> Value {
    let mut me = shared.bot();
    me["can_join_groups"] = json!(true);
    me["can_read_all_group_messages"] = json!(false);
    me["supports_inline_queries"] = json!(false);
    me
}

fn answer_callback_query(state: &mut State, params: &Params) -> Outcome {
    let id = params.text("callback_query_id");
    let position = state.open_queries.iter().position(|open| open == id);
    match position.and_then(|position| state.open_queries.remove(position)) {
        Some(_) => Ok("true".to_owned()),
        None => Err(Refusal::bad_request("query is too old and response timeout expired or query ID is invalid")),
    }
}

/// Remembers until when a scripted 429 asked for silence, so that earlier calls are counted.
pub(super) fn note_silence(shared: &Shared, params: &Params, refusal: &Refusal) {
    let seconds = refusal.parameters.as_ref().and_then(|parameters| parameters.get("retry_after")?.as_u64());
    if let (Some(seconds), Some(chat_id)) = (seconds, params.integer("chat_id")) {
        let until = shared.options.clock.monotonic() + Duration::from_secs(seconds);
        shared.change(|state| {
            if let Some(chat) = state.chats.get_mut(&chat_id) {
                chat.silent_until = chat.silent_until.max(until);
            }
        });
    }
}
