//! Webhook delivery as Telegram does it: one update in flight per queue, until a 2xx comes back, however long it takes.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};

use super::StandInEvent;
use super::ledger::{Delivery, Receipt};
use super::state::{Shared, Webhook};
use super::updates::{Pending, QueueId};
use crate::id::random_fraction;

/// The header that proves to the receiver that Telegram calls.
pub const SECRET_HEADER: &str = "X-Telegram-Bot-Api-Secret-Token";

/// The longest `Retry-After` that is respected.
const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(3_600);

/// How much of a response body is kept.
const ANSWER_LIMIT_BYTES: usize = 1_024;

/// Starts delivering every waiting queue that has no task yet. Does nothing without a webhook.
pub(super) fn deliver_all(shared: &Arc<Shared>) {
    let waiting: Vec<QueueId> = shared.look(|state| state.backlog.queues().collect());
    for queue in waiting {
        deliver(shared, queue);
    }
}

/// Starts delivering one queue unless a task already does. Does nothing without a webhook.
pub(super) fn deliver(shared: &Arc<Shared>, queue: QueueId) {
    let webhook = shared.change(|state| {
        let webhook = state.webhook.clone()?;
        state.delivered.insert(queue).then_some(webhook)
    });
    let Some(webhook) = webhook else { return };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let removed = webhook.removed.clone();
        tokio::select! {
            () = removed.cancelled() => {}
            () = drain(&shared, queue, &webhook) => {}
        }
    });
}

/// Delivers the updates of a queue one after another until it is empty.
async fn drain(shared: &Shared, queue: QueueId, webhook: &Webhook) {
    while let Some(update) = next(shared, queue, webhook) {
        let mut attempt = 0;
        loop {
            attempt += 1;
            // Never closed: the semaphore lives as long as the webhook.
            let Ok(connection) = webhook.connections.acquire().await else { return };
            let began_at = shared.now();
            let (receipt, retry_after) = post(shared, &webhook.url, &webhook.secret, &update.body).await;
            drop(connection);
            let (update_id, at) = (update.update_id, shared.now());
            if settle(shared, queue, Delivery { update_id, attempt, began_at, at, receipt }) {
                break;
            }
            let wait = retry_after.unwrap_or_else(|| delay_after(shared, attempt));
            shared.options.clock.sleep(wait).await;
        }
    }
}

/// The head of a queue; if there is none, the queue no longer has a task.
fn next(shared: &Shared, queue: QueueId, webhook: &Webhook) -> Option<Pending> {
    shared.change(|state| {
        if webhook.removed.is_cancelled() {
            return None;
        }
        let head = state.backlog.head(queue).cloned();
        if head.is_none() {
            state.delivered.remove(&queue);
        }
        head
    })
}

/// Records how an attempt ended. Returns whether the update is finished.
fn settle(shared: &Shared, queue: QueueId, mut delivery: Delivery) -> bool {
    let is_done = shared.change(|state| {
        if delivery.receipt.is_ack() && state.acks_to_lose > 0 {
            state.acks_to_lose -= 1;
            delivery.receipt = Receipt::Broken("Connection broken: the answer was lost".to_owned());
        }
        if let Some(problem) = delivery.receipt.problem() {
            state.last_error = Some((delivery.at, problem));
        } else {
            let done = state.backlog.pop(queue, delivery.update_id);
            state.acknowledge(done.into_iter().collect());
        }
        state.ledger.add_delivery(delivery.clone());
        delivery.receipt.is_ack()
    });
    shared.tell(StandInEvent::Delivery(delivery));
    is_done
}

/// The first retry comes at once, the next ones after 2, 4, 8… seconds, up to one or two minutes.
fn delay_after(shared: &Shared, attempt: u32) -> Duration {
    let Some(doublings) = attempt.checked_sub(2) else { return Duration::ZERO };
    let factor = 1_u32.checked_shl(doublings.min(16)).unwrap_or(u32::MAX);
    let delay = shared.options.first_retry_delay.saturating_mul(factor);
    let longest = shared.options.longest_retry_delay;
    if delay < longest { delay } else { longest.mul_f64(0.5 + random_fraction() / 2.0) }
}

/// Posts an update once; returns the response, and the wait that a `Retry-After` asks for.
pub(super) async fn post(shared: &Shared, url: &str, secret: &str, body: &Arc<str>) -> (Receipt, Option<Duration>) {
    let mut request = shared.client.post(url).header(CONTENT_TYPE, "application/json").body(body.to_string());
    if !secret.is_empty() {
        request = request.header(SECRET_HEADER, secret);
    }
    let answer = async {
        let mut response = request.send().await?;
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let mut text = Vec::new();
        while text.len() < ANSWER_LIMIT_BYTES
            && let Some(chunk) = response.chunk().await?
        {
            text.extend_from_slice(&chunk);
        }
        text.truncate(ANSWER_LIMIT_BYTES);
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok::<_, reqwest::Error>((Receipt::Status(response.status().as_u16(), text), retry_after))
    };
    match shared.options.clock.timeout(shared.options.delivery_timeout, answer).await {
        Some(Ok((receipt, seconds))) => {
            let wait = seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs);
            (receipt, wait.map(|wait| wait.min(RETRY_AFTER_LIMIT)))
        }
        Some(Err(error)) => (Receipt::Broken(problem_of(&error)), None),
        None => (Receipt::Broken("Read timeout expired".to_owned()), None),
    }
}

/// In the words of `getWebhookInfo`.
fn problem_of(error: &reqwest::Error) -> String {
    if error.is_connect() { "Connection refused".to_owned() } else { format!("Connection broken: {error}") }
}
