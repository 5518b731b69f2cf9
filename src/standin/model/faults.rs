//! Controls for tests: script the stand-in's answers and failures, and decide who is let in.

use std::time::Duration;

use super::ModelStandIn;
use super::script::{ModelScript, ModelTrouble};

impl ModelStandIn {
    /// Answers every question with this text.
    pub fn answer_with(&self, text: &str) {
        self.shared.script(|script| script.answer = Some(text.to_owned()));
    }

    /// Answers with a list of blocks, reasoning first, as reasoning models on Databricks do.
    pub fn answer_in_blocks(&self) {
        self.shared.script(|script| script.in_blocks = true);
    }

    /// Answers every question with this body, whatever it is.
    pub fn answer_raw(&self, body: &str) {
        self.shared.script(|script| script.raw_answer = Some(body.to_owned()));
    }

    /// Uses these failures first, one per request.
    pub fn trouble(&self, troubles: impl IntoIterator<Item = ModelTrouble>) {
        self.shared.script(|script| script.queue.extend(troubles));
    }

    /// Fails every question that contains `text`; takes precedence over all other failures, and repeats as often as it
    /// is asked.
    pub fn poison(&self, text: &str, trouble: ModelTrouble) {
        self.shared.script(|script| script.poison.push((text.to_owned(), trouble)));
    }

    /// Responds to everything with this status until it recovers.
    pub fn fail_all(&self, status: u16) {
        self.shared.script(|script| script.always = Some(ModelTrouble::status(status)));
    }

    /// Clears every failure, releases hanging requests, and answers again.
    pub fn recover(&self) {
        self.shared.script(ModelScript::recover);
        self.release();
    }

    /// Releases hanging requests: they are answered now.
    pub fn release(&self) {
        self.shared.released.send_modify(|times| *times += 1);
    }

    /// Only accepts this key, or a token issued by the stand-in.
    pub fn require_key(&self, key: &str) {
        self.shared.script(|script| script.gate.key = Some(key.to_owned()));
    }

    /// Only issues tokens, with this lifetime, to this client, and only accepts those tokens.
    pub fn require_client(&self, id: &str, secret: &str, token_life: Duration) {
        self.shared.script(|script| {
            script.gate.client = Some((id.to_owned(), secret.to_owned()));
            script.gate.token_life = token_life;
        });
    }

    /// Rejects every token issued so far.
    pub fn revoke_tokens(&self) {
        self.shared.script(|script| script.gate.live.clear());
    }

    /// Uses these failures first for token requests, one per request.
    pub fn token_trouble(&self, troubles: impl IntoIterator<Item = ModelTrouble>) {
        self.shared.script(|script| script.token_queue.extend(troubles));
    }

    /// How many tokens were issued.
    pub fn tokens_given(&self) -> u64 {
        self.shared.script(|script| script.gate.given)
    }
}
