//! The Bot API methods, with the checks and the words of the real ones.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::params::Params;
use super::state::{Shared, State};
use super::{delivery, sending, webhook};

/// An unsuccessful answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    /// HTTP status and `error_code`.
    pub(super) code: u16,
    /// `description`.
    pub(super) description: String,
    /// `parameters`.
    pub(super) parameters: Option<Value>,
}

impl Refusal {
    pub(super) fn new(code: u16, description: &str) -> Self {
        Self { code, description: description.to_owned(), parameters: None }
    }

    pub(super) fn bad_request(what: &str) -> Self {
        Self::new(400, &format!("Bad Request: {what}"))
    }

    /// 429; Telegram counts in whole seconds.
    pub(super) fn too_many_requests(wait: Duration) -> Self {
        let seconds = (wait.as_millis().div_ceil(1_000)).max(1);
        Self {
            code: 429,
            description: format!("Too Many Requests: retry after {seconds}"),
            parameters: Some(json!({ "retry_after": u64::try_from(seconds).unwrap_or(u64::MAX) })),
        }
    }
}

/// The JSON text of `result`, or the refusal.
pub(super) type Outcome = Result<String, Refusal>;

/// Does what a call asks for.
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

/// Remembers for how long a scripted 429 asked for silence, so that calls before its end are counted.
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
