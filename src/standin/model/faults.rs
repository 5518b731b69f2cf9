//! What tests do to the stand-in: script its answers and its failures, and decide whom it lets in.

use std::time::Duration;

use super::ModelStandIn;
use super::script::{ModelTrouble, Script};

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

    /// Gives these troubles first, one a request.
    pub fn trouble(&self, troubles: impl IntoIterator<Item = ModelTrouble>) {
        self.shared.script(|script| script.queue.extend(troubles));
    }

    /// Gives trouble to every question that holds `text`; before all other troubles, and as often as it is asked.
    pub fn poison(&self, text: &str, trouble: ModelTrouble) {
        self.shared.script(|script| script.poison.push((text.to_owned(), trouble)));
    }

    /// Answers everything with this status until it recovers.
    pub fn fail_all(&self, status: u16) {
        self.shared.script(|script| script.always = Some(ModelTrouble::status(status)));
    }

    /// Forgets every trouble, lets go of what hangs, and answers again.
    pub fn recover(&self) {
        self.shared.script(Script::recover);
        self.release();
    }

    /// Lets go of what hangs: it is answered now.
    pub fn release(&self) {
        self.shared.released.send_modify(|times| *times += 1);
    }

    /// Lets in only who brings this key, or a token of its own.
    pub fn require_key(&self, key: &str) {
        self.shared.script(|script| script.gate.key = Some(key.to_owned()));
    }

    /// Gives tokens, which live so long, only to this client, and lets in only who brings one.
    pub fn require_client(&self, id: &str, secret: &str, token_life: Duration) {
        self.shared.script(|script| {
            script.gate.client = Some((id.to_owned(), secret.to_owned()));
            script.gate.token_life = token_life;
        });
    }

    /// Refuses every token given so far.
    pub fn revoke_tokens(&self) {
        self.shared.script(|script| script.gate.live.clear());
    }

    /// Gives these troubles first to who asks for a token, one a request.
    pub fn token_trouble(&self, troubles: impl IntoIterator<Item = ModelTrouble>) {
        self.shared.script(|script| script.token_queue.extend(troubles));
    }

    /// How many tokens were given.
    pub fn tokens_given(&self) -> u64 {
        self.shared.script(|script| script.gate.given)
    }
}
