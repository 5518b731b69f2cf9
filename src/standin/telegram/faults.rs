//! What tests do to the stand-in: script its failures, and play what happens at Telegram over months.

use super::behaviour::Behaviour;
use super::ledger::{Delivery, Receipt};
use super::{TelegramStandIn, delivery};
use crate::error::{Error, Result};

impl TelegramStandIn {
    /// Makes the bot and a chat acquainted, as if a user had pressed "Start" long ago.
    pub fn add_chat(&self, chat_id: i64) {
        self.shared.change(|state| {
            state.chat(chat_id);
        });
    }

    /// The user of a chat blocks the bot, or no longer.
    pub fn set_blocked(&self, chat_id: i64, blocked: bool) {
        self.shared.change(|state| state.chat(chat_id).blocked = blocked);
    }

    /// A group becomes a supergroup with another number: calls for the old one are refused and name the new one.
    pub fn migrate_chat(&self, chat_id: i64, supergroup_id: i64) {
        self.shared.change(|state| {
            state.chat(chat_id).migrated_to = Some(supergroup_id);
            state.chat(supergroup_id);
        });
    }

    /// Lets update ids continue at this one, as Telegram jumps to a random one after a silent week.
    pub fn jump_update_ids(&self, update_id: i64) {
        self.shared.change(|state| state.jump_to(update_id));
    }

    /// Scripts the next calls of a method, one behaviour a call.
    pub fn script(&self, method: &str, behaviours: Vec<Behaviour>) {
        self.shared.change(|state| state.script.add(method, behaviours));
    }

    /// Forgets every scripted behaviour: from now on calls are treated as they should be.
    pub fn forget_script(&self) {
        self.shared.change(|state| state.script.clear());
    }

    /// The next so many 2xx of the webhook get lost on their way, so that those updates are delivered again.
    pub fn lose_acks(&self, count: u32) {
        self.shared.change(|state| state.acks_to_lose += count);
    }

    /// Posts an update once more to the webhook, byte for byte, past the queue; returns the HTTP status.
    ///
    /// # Errors
    /// A configuration error without a webhook or such an update; unavailable when no whole answer came.
    pub async fn redeliver(&self, update_id: i64) -> Result<u16> {
        let url = self.shared.look(|state| state.webhook.as_ref().map(|webhook| webhook.url.clone()));
        let url = url.ok_or_else(|| Error::configuration("no webhook is set: call setWebhook first"))?;
        self.redeliver_to(&url, update_id).await
    }

    /// As [`Self::redeliver`], to any URL, with the secret of the webhook if there is one.
    ///
    /// # Errors
    /// As [`Self::redeliver`].
    pub async fn redeliver_to(&self, url: &str, update_id: i64) -> Result<u16> {
        let (body, secret) = self.shared.look(|state| {
            let secret = state.webhook.as_ref().map(|webhook| webhook.secret.clone());
            (state.body_of(update_id), secret.unwrap_or_default())
        });
        let body = body.ok_or_else(|| Error::configuration(format!("update {update_id} is not known any more")))?;
        let began_at = self.shared.now();
        let (receipt, _) = delivery::post(&self.shared, url, &secret, &body).await;
        let delivery = Delivery { update_id, attempt: 0, began_at, at: self.shared.now(), receipt: receipt.clone() };
        self.shared.change(|state| state.ledger.add_delivery(delivery));
        match receipt {
            Receipt::Status(status, _) => Ok(status),
            Receipt::Broken(problem) => Err(Error::unavailable(format!("deliver {update_id} to {url}: {problem}"))),
        }
    }

    /// The JSON of an update that waits or was acknowledged, as it is posted.
    pub fn update_body(&self, update_id: i64) -> Option<String> {
        self.shared.look(|state| state.body_of(update_id)).map(|body| body.to_string())
    }
}
