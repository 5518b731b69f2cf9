//! Controls for tests: script the stand-in's failures, and simulate what happens at Telegram over months.

use super::behavior::Behavior;
use super::ledger::{Delivery, Receipt};
use super::{TelegramStandIn, delivery};
use crate::error::{Error, Result};

impl TelegramStandIn {
    /// Introduces the bot to a chat, as if a user had pressed "Start" long ago.
    pub fn add_chat(&self, chat_id: i64) {
        self.shared.change(|state| {
            state.chat(chat_id);
        });
    }

    /// The user of a chat blocks or unblocks the bot.
    pub fn set_blocked(&self, chat_id: i64, blocked: bool) {
        self.shared.change(|state| state.chat(chat_id).blocked = blocked);
    }

    /// Migrates a group to a supergroup with another id: calls for the old one are refused and name the new one.
    pub fn migrate_chat(&self, chat_id: i64, supergroup_id: i64) {
        self.shared.change(|state| {
            state.chat(chat_id).migrated_to = Some(supergroup_id);
            state.chat(supergroup_id);
        });
    }

    /// Continues update ids from this one, the way Telegram jumps to a random id after a quiet week.
    pub fn jump_update_ids(&self, update_id: i64) {
        self.shared.change(|state| state.jump_to(update_id));
    }

    /// Scripts the next calls of a method, one behavior per call.
    pub fn script(&self, method: &str, behaviors: Vec<Behavior>) {
        self.shared.change(|state| state.script.add(method, behaviors));
    }

    /// Clears all scripted behaviors: from now on calls are handled correctly.
    pub fn forget_script(&self) {
        self.shared.change(|state| state.script.clear());
    }

    /// Loses the next `count` 2xx responses of the webhook on their way, so that those updates are delivered again.
    pub fn lose_acks(&self, count: u32) {
        self.shared.change(|state| state.acks_to_lose += count);
    }

    /// Posts an update to the webhook once more, byte for byte, bypassing the queue; returns the HTTP status.
    ///
    /// # Errors
    /// A configuration error without a webhook or such an update; unavailable when no complete response came.
    pub async fn redeliver(&self, update_id: i64) -> Result<u16> {
        let url = self.shared.look(|state| state.webhook.as_ref().map(|webhook| webhook.url.clone()));
        let url = url.ok_or_else(|| Error::configuration("no webhook is set: call setWebhook first"))?;
        self.redeliver_to(&url, update_id).await
    }

    /// Like [`Self::redeliver`], to any URL, with the secret of the webhook if there is one.
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

    /// The JSON of a waiting or acknowledged update, as it is posted.
    pub fn update_body(&self, update_id: i64) -> Option<String> {
        self.shared.look(|state| state.body_of(update_id)).map(|body| body.to_string())
    }
}
