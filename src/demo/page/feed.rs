//! What the chat page shows, as a numbered feed: a page that reconnects, or is reloaded, gets what it missed.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::response::sse::Event;
use futures::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::PAGE_CHAT_ID;
use crate::id::random_id;
use crate::redact::redact;
use crate::standin::telegram::{Receipt, SentMessage, StandInEvent, TelegramStandIn};
use crate::telemetry::{Hop, Telemetry};

/// How many events a reloaded page gets at most: some thirty messages with their hops.
const KEPT_EVENTS: usize = 300;

/// How far a slow page may lag behind before it has to reconnect.
const LIVE_EVENTS: usize = 256;

/// One event as the page gets it.
#[derive(Clone, Debug)]
struct PageEvent {
    /// Its number; none if it need not be shown again.
    number: Option<u64>,
    /// JSON.
    data: String,
}

/// The newest events and their subscribers.
#[derive(Debug)]
pub(super) struct Feed {
    /// Distinguishes this feed from that of an earlier process.
    epoch: String,
    kept: Mutex<Kept>,
    live: broadcast::Sender<Arc<PageEvent>>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Arc<PageEvent>>,
    next_number: u64,
}

impl Feed {
    pub(super) fn new() -> Self {
        let epoch = random_id().simple().to_string();
        Self { epoch, kept: Mutex::default(), live: broadcast::Sender::new(LIVE_EVENTS) }
    }

    /// Adds what the stand-in and the stages report, until stopped or until nobody can report any more.
    /// Subscribes when called, not only at the first poll.
    pub(super) fn follow(
        self: Arc<Self>,
        telemetry: &Telemetry,
        stand_in: &TelegramStandIn,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (hops, events) = (telemetry.watch_hops(), stand_in.watch_events());
        async move { self.gather(hops, events, stop).await }
    }

    async fn gather(
        &self,
        mut hops: broadcast::Receiver<Arc<Hop>>,
        mut events: broadcast::Receiver<Arc<StandInEvent>>,
        stop: CancellationToken,
    ) {
        loop {
            // In this order: a message is reported before its first hop, and must be shown before it.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                event = events.recv() => match event {
                    Ok(event) => self.add_stand_in_event(&event),
                    Err(RecvError::Lagged(missed)) => tracing::debug!(missed, "the chat page misses some events"),
                    Err(RecvError::Closed) => return,
                },
                hop = hops.recv() => match hop {
                    Ok(hop) => self.add(json_of_hop(&hop)),
                    Err(RecvError::Lagged(missed)) => tracing::debug!(missed, "the chat page misses some hops"),
                    Err(RecvError::Closed) => return,
                },
            }
        }
    }

    fn add_stand_in_event(&self, event: &StandInEvent) {
        match event {
            StandInEvent::UserSent { update_id, chat_id: PAGE_CHAT_ID, text, is_press, at } => self.add(json!({
                "type": "user", "update_id": update_id, "text": text, "pressed": is_press, "at": at.as_micros(),
            })),
            StandInEvent::Delivery(delivery) => {
                let status = match &delivery.receipt {
                    Receipt::Status(status, _) => Some(*status),
                    Receipt::Broken(_) => None,
                };
                self.add(json!({
                    "type": "delivery", "update_id": delivery.update_id, "status": status,
                    "acked": delivery.receipt.is_ack(), "attempt": delivery.attempt, "at": delivery.at.as_micros(),
                }));
            }
            StandInEvent::Sent(message) if message.chat_id == PAGE_CHAT_ID => {
                self.add(json_of_message("reply", message))
            }
            StandInEvent::Edited(message) if message.chat_id == PAGE_CHAT_ID => {
                self.add(json_of_message("edit", message));
            }
            StandInEvent::ChatAction { chat_id: PAGE_CHAT_ID, action, .. } if action == "typing" => {
                self.publish(None, json!({ "type": "typing", "number": null }));
            }
            _ => {}
        }
    }

    /// Adds an event and keeps it.
    fn add(&self, mut event: Value) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let number = kept.next_number;
        kept.next_number += 1;
        event["number"] = json!(number);
        if kept.events.len() == KEPT_EVENTS {
            kept.events.pop_front();
        }
        // Under the lock, so that a new subscriber gets it once: kept or live.
        let event = self.publish(Some(number), event);
        kept.events.push_back(event);
    }

    fn publish(&self, number: Option<u64>, event: Value) -> Arc<PageEvent> {
        let event = Arc::new(PageEvent { number, data: event.to_string() });
        // An error means that no page is open.
        let _nobody_watches = self.live.send(Arc::clone(&event));
        event
    }

    /// The events after `after`, an id of this feed, and all that follow; all kept ones if it is none.
    pub(super) fn watch(
        &self,
        after: Option<&str>,
        stop: CancellationToken,
    ) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
        let after = after.and_then(|id| id.split_once('.')).filter(|(epoch, _)| *epoch == self.epoch);
        let after = after.and_then(|(_, number)| number.parse::<u64>().ok());
        let (missed, live) = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let missed: Vec<_> = kept.events.iter().filter(|event| event.number > after).cloned().collect();
            (missed, self.live.subscribe())
        };
        let epoch = self.epoch.clone();
        let hello = Event::default().event("hello").data(&epoch);
        // A page that lags behind is disconnected; it reconnects with the id of the last event it got.
        let live = stream::unfold(live, async |mut live| live.recv().await.ok().map(|event| (event, live)));
        let events = stream::iter(missed).chain(live).map(move |event| {
            let sent = Event::default().data(&event.data);
            event.number.map_or(sent.clone(), |number| sent.id(format!("{epoch}.{number}")))
        });
        stream::iter([hello]).chain(events).map(Ok).take_until(stop.cancelled_owned())
    }
}

fn json_of_hop(hop: &Hop) -> Value {
    json!({
        "type": "hop", "update_id": hop.update_id, "step": hop.step, "detail": redact(&hop.detail), "at": hop.at.as_micros(),
    })
}

fn json_of_message(kind: &str, message: &SentMessage) -> Value {
    let rows = message.reply_markup.as_ref().and_then(|markup| markup["inline_keyboard"].as_array());
    let buttons = rows.into_iter().flatten().filter_map(Value::as_array).flatten();
    let buttons: Vec<Value> = buttons
        .filter(|button| button["callback_data"].is_string())
        .map(|button| json!({ "text": button["text"], "data": button["callback_data"] }))
        .collect();
    json!({
        "type": kind, "message_id": message.message_id, "text": message.text, "entities": message.entities,
        "buttons": buttons, "at": message.at.as_micros(),
    })
}
