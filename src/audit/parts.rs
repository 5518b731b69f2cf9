//! Compares replies rows with silver answers: every part in order, and none sent twice.

use super::Scope;
use super::keys::{ReplyKey, SilverKey, Status};
use super::missing::Missing;
use super::report::{Check, Finding, Listed};
use super::source::Source;
use crate::clock::Timestamp;

/// What is found about replies.
pub(super) struct Replies<'a> {
    pub(super) scope: &'a Scope<'a>,
    pub(super) silver: &'a Source,
    pub(super) check: &'a mut Check,
    pub(super) unknown: &'a mut Listed,
    pub(super) missing: Vec<Missing>,
}

impl Replies<'_> {
    /// Compares replies with answers. Both are sorted by answer; several silver rows may have the same key, because
    /// Telegram's ids are reused after a quiet week.
    pub(super) fn check(&mut self, answers: &[SilverKey], replies: &[ReplyKey]) {
        let mut rest = replies;
        for answers in answers.chunk_by(|one, other| answer_of(one) == answer_of(other)) {
            let Some(key) = answers.first().map(answer_of) else { continue };
            let (before, after) = rest.split_at(rest.partition_point(|reply| reply.answer() < key));
            self.without_answer(before);
            let (mine, after) = after.split_at(after.partition_point(|reply| reply.answer() == key));
            rest = after;
            self.check_namesakes(answers, mine);
        }
        self.without_answer(rest);
    }

    /// Assigns each reply to the newest question before it.
    fn check_namesakes(&mut self, answers: &[SilverKey], replies: &[ReplyKey]) {
        let mut answers = answers.to_vec();
        answers.dedup_by_key(|answer| answer.received);
        let mut from = Timestamp::from_micros(i64::MIN);
        for (index, answer) in answers.iter().enumerate() {
            let to = answers.get(index + 1).map(|next| next.received);
            let is_mine = |reply: &&ReplyKey| reply.sent_at >= from && to.is_none_or(|to| reply.sent_at < to);
            let mine: Vec<ReplyKey> = replies.iter().filter(is_mine).copied().collect();
            self.check_answer(answer, &mine);
            from = to.unwrap_or(from);
        }
    }

    fn check_answer(&mut self, answer: &SilverKey, replies: &[ReplyKey]) {
        let is_ours = self.scope.bot_id.is_none_or(|bot_id| bot_id == answer.bot_id);
        let parts = if is_ours { answer.parts } else { 0 };
        self.check.checked += u64::from(parts > 0);
        let (mut arrived, mut stopped) = (0, false);
        for sends in replies.chunk_by(|one, other| one.part == other.part) {
            let Some(part) = sends.first().map(|send| send.part) else { continue };
            self.check_sends(answer, sends);
            if stopped || part != arrived + 1 || (is_ours && part > parts) {
                let what = "a part is where none may be: beyond the answer, or after one that did not arrive";
                self.check.broken(finding(what, answer.received, sends.first()));
                stopped = true;
            } else if sends.iter().any(|send| send.status == Status::Sent) {
                arrived = part;
            } else {
                stopped = true;
            }
        }
        if !stopped && arrived < parts {
            self.missing.push(Missing {
                bot_id: answer.bot_id,
                update_id: answer.update_id,
                received: answer.received,
                attempt: answer.attempt,
                part: arrived + 1,
                is_fresh: answer.is_fresh,
            });
        }
    }

    /// The sends of one part.
    fn check_sends(&mut self, answer: &SilverKey, sends: &[ReplyKey]) {
        let sent: Vec<_> = sends.iter().filter(|send| send.status == Status::Sent).collect();
        for twice in sent.iter().skip(1) {
            self.check.broken(finding("a part was sent twice", answer.received, Some(*twice)));
        }
        for pair in sends.windows(2) {
            if let [one, other] = pair
                && one.send == other.send
                && other.status != Status::Sent
            {
                self.check.broken(finding("a send has two outcomes", answer.received, Some(other)));
            }
        }
        for send in sends.iter().filter(|send| send.status == Status::Unknown) {
            self.unknown.add(finding("it may or may not have arrived", answer.received, Some(send)));
        }
    }

    fn without_answer(&mut self, replies: &[ReplyKey]) {
        // Its answer may be before the scope.
        if self.scope.since.is_some() {
            return;
        }
        for reply in replies {
            if self.silver.table.is_none() {
                self.check.unproven(1, "the silver table does not exist or cannot be read");
            } else if self.silver.is_blind((Timestamp::from_micros(i64::MIN), reply.sent_at)) {
                self.check.unproven(1, "a silver file that may have the answer cannot be read");
            } else {
                self.check.broken(finding("a reply has no answer", reply.sent_at, Some(reply)));
            }
        }
    }
}

/// The key of an answer, as its replies have it.
pub(super) fn answer_of(answer: &SilverKey) -> (i64, i64, u32) {
    (answer.bot_id, answer.update_id, answer.attempt)
}

impl ReplyKey {
    fn answer(&self) -> (i64, i64, u32) {
        (self.bot_id, self.update_id, self.attempt)
    }
}

fn finding(what: &str, received: Timestamp, reply: Option<&ReplyKey>) -> Finding {
    let number = |value: fn(&ReplyKey) -> u32| reply.map(|reply| i64::from(value(reply)));
    Finding {
        bot_id: reply.map(|reply| reply.bot_id),
        update_id: reply.map(|reply| reply.update_id),
        attempt: number(|reply| reply.attempt),
        send: number(|reply| reply.send),
        part: number(|reply| reply.part),
        received: Some(received),
        ..Finding::new(what)
    }
}
