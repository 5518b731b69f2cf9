//! `setWebhook`, `deleteWebhook`, `getWebhookInfo` and `getUpdates`: the two ways to receive updates.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use url::{Host, Url};

use super::outcome::{Outcome, Refusal};
use super::params::Params;
use super::state::{Shared, State, Webhook};

/// The default number of connections.
const DEFAULT_CONNECTIONS: i64 = 40;

/// The longest that `getUpdates` waits.
const LONGEST_POLL_SECONDS: i64 = 50;

/// Sets the webhook, or removes it if the URL is empty. Calls in progress to an earlier one are aborted.
pub(super) fn set(shared: &Shared, params: &Params) -> Result<(), Refusal> {
    let allowed = allowed_updates(params)?;
    if params.text("url").is_empty() {
        delete(shared, params.flag("drop_pending_updates"));
        return Ok(());
    }
    let url = checked_url(params.text("url"))?;
    let secret = checked_secret(params.text("secret_token"))?;
    let max_connections = params.integer("max_connections").unwrap_or(DEFAULT_CONNECTIONS).clamp(1, 100);
    let max_connections = usize::try_from(max_connections).unwrap_or(1);
    let connections = Arc::new(Semaphore::new(max_connections));
    let removed = shared.stop.child_token();
    let webhook = Webhook { url, secret, max_connections, connections, removed };
    shared.change(|state| {
        remove(state, params.flag("drop_pending_updates"));
        state.webhook = Some(webhook);
        if let Some(allowed) = allowed {
            state.allowed = allowed;
        }
    });
    Ok(())
}

/// Removes the webhook.
pub(super) fn delete(shared: &Shared, drop_pending: bool) {
    shared.change(|state| remove(state, drop_pending));
}

fn remove(state: &mut State, drop_pending: bool) {
    if let Some(webhook) = state.webhook.take() {
        webhook.removed.cancel();
    }
    state.delivered.clear();
    if drop_pending {
        state.backlog.clear();
    }
}

/// The list that is given; `None` if none is, which keeps the previous one.
fn allowed_updates(params: &Params) -> Result<Option<Vec<String>>, Refusal> {
    let unparsable = |_| Refusal::bad_request("can't parse allowed updates: JSON array of strings expected");
    match params.json("allowed_updates").map_err(unparsable)? {
        None => Ok(None),
        Some(list) => serde_json::from_value(list).map(Some).map_err(unparsable),
    }
}

/// HTTPS anywhere, and HTTP on this machine, as a local Bot API server allows.
fn checked_url(text: &str) -> Result<String, Refusal> {
    let refusal = |why: &str| Refusal::bad_request(&format!("bad webhook: {why}"));
    let url = Url::parse(text).map_err(|_| refusal("invalid URL specified"))?;
    let is_loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if url.scheme() == "https" || (url.scheme() == "http" && is_loopback) {
        Ok(text.to_owned())
    } else {
        Err(refusal("An HTTPS URL must be provided for webhook"))
    }
}

fn checked_secret(secret: &str) -> Result<String, Refusal> {
    if secret.len() > 256 {
        return Err(Refusal::bad_request("secret token is too long"));
    }
    if !secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-') {
        return Err(Refusal::bad_request("secret token contains unallowed characters"));
    }
    Ok(secret.to_owned())
}

/// `getWebhookInfo`.
pub(super) fn info(state: &State) -> Value {
    let mut info = json!({
        "url": state.webhook.as_ref().map_or("", |webhook| webhook.url.as_str()),
        "has_custom_certificate": false,
        "pending_update_count": state.backlog.len(),
    });
    if let Some(webhook) = &state.webhook {
        info["max_connections"] = json!(webhook.max_connections);
        info["ip_address"] = json!("127.0.0.1");
        if let Some((at, problem)) = &state.last_error {
            info["last_error_date"] = json!(at.as_micros() / 1_000_000);
            info["last_error_message"] = json!(problem);
        }
    }
    if !state.allowed.is_empty() {
        info["allowed_updates"] = json!(state.allowed);
    }
    info
}

/// `getUpdates`: confirms what is below the offset, then waits for something to return.
pub(super) async fn poll(shared: &Shared, params: &Params) -> Outcome {
    let allowed = allowed_updates(params)?;
    let limit = usize::try_from(params.integer("limit").unwrap_or(100).clamp(1, 100)).unwrap_or(100);
    let seconds = params.integer("timeout").unwrap_or(0).clamp(0, LONGEST_POLL_SECONDS);
    let clock = &shared.options.clock;
    let deadline = clock.monotonic() + Duration::from_secs(seconds.unsigned_abs());
    let mut changes = shared.changes();
    let number = shared.change(|state| {
        if let Some(allowed) = allowed {
            state.allowed = allowed;
        }
        state.newest_poll += 1;
        state.newest_poll
    });
    shared.change(|state| confirm(state, params.integer("offset").unwrap_or(0)))?;
    loop {
        changes.mark_unchanged();
        let bodies = shared.look(|state| hand_out(state, number, limit))?;
        let wait = deadline.saturating_sub(clock.monotonic());
        if !bodies.is_empty() || wait.is_zero() {
            return Ok(format!("[{}]", bodies.join(",")));
        }
        // The sender lives in `shared`, so this wait ends with a change or at the deadline.
        let _changed = clock.timeout(wait, changes.changed()).await;
    }
}

fn conflict_with_webhook() -> Refusal {
    let conflict = "can't use getUpdates method while webhook is active; use deleteWebhook to delete the webhook first";
    Refusal::new(409, &format!("Conflict: {conflict}"))
}

fn confirm(state: &mut State, offset: i64) -> Result<(), Refusal> {
    if state.webhook.is_some() {
        return Err(conflict_with_webhook());
    }
    // A negative offset counts from the end and drops what is before it.
    let from_the_end = usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX);
    let offset = if offset < 0 { state.backlog.nth_newest(from_the_end).unwrap_or(0) } else { offset };
    let confirmed = state.backlog.confirm_below(offset);
    state.acknowledge(confirmed);
    Ok(())
}

fn hand_out(state: &State, number: u64, limit: usize) -> Result<Vec<String>, Refusal> {
    if state.webhook.is_some() {
        return Err(conflict_with_webhook());
    }
    if state.newest_poll != number {
        let why = "terminated by other getUpdates request; make sure that only one bot instance is running";
        return Err(Refusal::new(409, &format!("Conflict: {why}")));
    }
    Ok(state.backlog.oldest(limit).iter().map(|update| update.body.to_string()).collect())
}
