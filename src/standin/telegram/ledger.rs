//! What has happened at the stand-in: calls received, messages accepted, deliveries made. Bounded: the oldest entries
//! are dropped, the totals stay.

use std::collections::VecDeque;

use serde::Serialize;
use serde_json::Value;

use crate::clock::Timestamp;

/// The fate of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is being handled, or its caller has disconnected.
    Open,
    /// It was answered with this HTTP status.
    Answered(u16),
    /// Its connection was closed without an answer.
    Dropped,
    /// It is left without a response.
    Hanging,
}

/// A call of a Bot API method.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method as the caller wrote it.
    pub method: String,
    /// The body as received; the query string of a call without one.
    pub raw: String,
    /// When it came in.
    pub at: Timestamp,
    /// Its fate.
    pub fate: Fate,
}

/// A message of the bot that was accepted, either new or as an edit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SentMessage {
    /// Where to.
    pub chat_id: i64,
    /// Its number in the chat.
    pub message_id: i64,
    /// Its text.
    pub text: String,
    /// Its valid entities, as they were sent.
    pub entities: Vec<Value>,
    /// The message it replies to.
    pub reply_to_message_id: Option<i64>,
    /// Its `reply_markup`.
    pub reply_markup: Option<Value>,
    /// When it was accepted.
    #[serde(skip)]
    pub at: Timestamp,
    /// The body of the call.
    #[serde(skip)]
    pub raw: String,
}

/// How one attempt to deliver an update ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The receiver answered with this status and this body (cut at 1 KiB).
    Status(u16, String),
    /// No complete response: what happened.
    Broken(String),
}

impl Receipt {
    /// Whether Telegram forgets the update after this.
    pub fn is_ack(&self) -> bool {
        matches!(self, Self::Status(200..=299, _))
    }

    /// What went wrong, in the words of `getWebhookInfo`; `None` if nothing did.
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Status(200..=299, _) => None,
            Self::Status(status, _) => Some(format!("Wrong response from the webhook: {status}")),
            Self::Broken(problem) => Some(problem.clone()),
        }
    }
}

/// One attempt to deliver an update.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The update.
    pub update_id: i64,
    /// Which attempt, from 1; a manual redelivery is attempt 0.
    pub attempt: u32,
    /// When it began.
    pub began_at: Timestamp,
    /// When it ended.
    pub at: Timestamp,
    /// How it ended.
    pub receipt: Receipt,
}

/// Totals since the start, including dropped entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Calls of any method.
    pub calls: u64,
    /// Messages accepted.
    pub sent: u64,
    /// Edits accepted.
    pub edited: u64,
    /// Attempts to deliver.
    pub deliveries: u64,
    /// Updates acknowledged: by a 2xx of the webhook or by the offset of `getUpdates`.
    pub acked: u64,
    /// Calls made before an earlier `retry_after` was over.
    pub impatient: u64,
}

/// The entries of one kind; the newest are kept.
#[derive(Debug)]
struct Newest<T> {
    entries: VecDeque<T>,
    limit: usize,
}

impl<T> Newest<T> {
    fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), limit: limit.max(1) }
    }

    fn push(&mut self, entry: T) {
        if self.entries.len() == self.limit {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }
}

/// What has happened, oldest first.
#[derive(Debug)]
pub struct CallHistory {
    calls: Newest<Call>,
    sent: Newest<SentMessage>,
    edits: Newest<SentMessage>,
    deliveries: Newest<Delivery>,
    acked: Newest<i64>,
    totals: Totals,
}

impl CallHistory {
    /// An empty ledger that keeps the `limit` newest entries of each kind.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            calls: Newest::new(limit),
            sent: Newest::new(limit),
            edits: Newest::new(limit),
            deliveries: Newest::new(limit),
            acked: Newest::new(limit),
            totals: Totals::default(),
        }
    }

    /// Every call, whatever its fate.
    pub fn calls(&self) -> impl DoubleEndedIterator<Item = &Call> {
        self.calls.entries.iter()
    }

    /// The calls of one method; case-insensitive, as at Telegram.
    pub fn calls_of(&self, method: &str) -> impl DoubleEndedIterator<Item = &Call> {
        self.calls().filter(move |call| call.method.eq_ignore_ascii_case(method))
    }

    /// Every message that was accepted, as it was sent.
    pub fn sent(&self) -> impl DoubleEndedIterator<Item = &SentMessage> {
        self.sent.entries.iter()
    }

    /// The messages that were accepted for one chat.
    pub fn sent_to(&self, chat_id: i64) -> impl DoubleEndedIterator<Item = &SentMessage> {
        self.sent().filter(move |message| message.chat_id == chat_id)
    }

    /// Every accepted edit, with the message as it was afterwards.
    pub fn edits(&self) -> impl DoubleEndedIterator<Item = &SentMessage> {
        self.edits.entries.iter()
    }

    /// Every attempt to deliver, in the order in which they ended.
    pub fn deliveries(&self) -> impl DoubleEndedIterator<Item = &Delivery> {
        self.deliveries.entries.iter()
    }

    /// The attempts to deliver one update.
    pub fn deliveries_of(&self, update_id: i64) -> impl DoubleEndedIterator<Item = &Delivery> {
        self.deliveries().filter(move |delivery| delivery.update_id == update_id)
    }

    /// The updates that were acknowledged, in that order.
    pub fn acked(&self) -> impl DoubleEndedIterator<Item = i64> {
        self.acked.entries.iter().copied()
    }

    /// How much there has been.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// A message of the bot in its current state, with edits applied.
    pub fn current(&self, chat_id: i64, message_id: i64) -> Option<&SentMessage> {
        let is_it = |message: &&SentMessage| message.chat_id == chat_id && message.message_id == message_id;
        self.edits().rev().find(is_it).or_else(|| self.sent().rev().find(is_it))
    }

    /// Records a call and returns its number, for [`Self::settle`].
    pub(super) fn begin(&mut self, call: Call) -> u64 {
        self.calls.push(call);
        self.totals.calls += 1;
        self.totals.calls
    }

    /// Records the fate of the call with this number.
    pub(super) fn settle(&mut self, number: u64, fate: Fate) {
        let from_the_end = usize::try_from(self.totals.calls - number).unwrap_or(usize::MAX);
        if let Some(call) = self.calls.entries.iter_mut().rev().nth(from_the_end) {
            call.fate = fate;
        }
    }

    pub(super) fn add_sent(&mut self, message: SentMessage) {
        self.sent.push(message);
        self.totals.sent += 1;
    }

    pub(super) fn add_edit(&mut self, message: SentMessage) {
        self.edits.push(message);
        self.totals.edited += 1;
    }

    pub(super) fn add_delivery(&mut self, delivery: Delivery) {
        self.deliveries.push(delivery);
        self.totals.deliveries += 1;
    }

    pub(super) fn add_ack(&mut self, update_id: i64) {
        self.acked.push(update_id);
        self.totals.acked += 1;
    }

    pub(super) fn add_impatient(&mut self) {
        self.totals.impatient += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str) -> Call {
        Call { method: method.to_owned(), raw: String::new(), at: Timestamp::default(), fate: Fate::Open }
    }

    #[test]
    fn the_oldest_go_and_the_totals_stay() {
        let mut ledger = CallHistory::new(2);
        let numbers: Vec<_> = ["getMe", "sendMessage", "getMe"].map(|method| ledger.begin(call(method))).into();
        assert_eq!(ledger.calls().count(), 2);
        assert_eq!(ledger.totals().calls, 3);

        ledger.settle(numbers[0], Fate::Answered(500));
        ledger.settle(numbers[1], Fate::Dropped);
        let fates: Vec<_> = ledger.calls().map(|call| call.fate).collect();
        assert_eq!(fates, [Fate::Dropped, Fate::Open]);
        assert_eq!(ledger.calls_of("GETME").count(), 1);
    }
}
