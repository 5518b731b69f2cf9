//! The finished row of a question, with or without an answer.

use std::time::Duration;

use super::ask::{Asker, Question, Tries};
use super::rows::{BronzeRow, SilverRow, Status};
use crate::llm::ChatAnswer;
use crate::telegram::reply::{self, Answered, ReplyMessage};
use crate::telegram::text;

impl Asker {
    /// A row with the model's answer.
    pub(super) fn answered(&self, question: &Question, answer: ChatAnswer, took: Duration, tries: &Tries) -> SilverRow {
        let latency_ms = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
        self.hop(question, "answered", format!("{latency_ms} ms"));
        let row = &question.row;
        let note = self.cut_text.of(row.language_code.as_deref()).filter(|_| answer.is_cut);
        let reply = compose(row, &answer.text, note);
        let empty = reply.is_empty() && text::render(&answer.text).is_empty();
        let reason = answer.finish_reason.as_deref().unwrap_or("none");
        SilverRow {
            status: if empty { Status::Failed } else { Status::Answered },
            error: empty.then(|| format!("the model returned no text (finish_reason: {reason})")),
            response: (!empty).then_some(answer.text),
            reply: if empty { self.apology(row) } else { reply },
            model: answer.model,
            finish_reason: answer.finish_reason,
            input_tokens: answer.input_tokens,
            output_tokens: answer.output_tokens,
            latency_ms: Some(latency_ms),
            route: question.route.clone(),
            model_calls: tries.calls,
            kept_turns: (tries.left_out > 0).then_some((question.history.len() - tries.left_out) / 2),
            ..self.unanswered(row)
        }
    }

    /// A row that the model did not answer, and why.
    pub(super) fn failed(&self, question: &Question, error: String, tries: &Tries) -> SilverRow {
        let row = self.set_aside(&question.row, error);
        SilverRow { route: question.route.clone(), model_calls: tries.calls, ..row }
    }

    /// A row that was not asked, and why.
    pub(super) fn set_aside(&self, row: &BronzeRow, error: String) -> SilverRow {
        SilverRow { error: Some(error), reply: self.apology(row), ..self.unanswered(row) }
    }

    /// What tells the asker that there is no answer. A channel's readers have not asked.
    fn apology(&self, row: &BronzeRow) -> Vec<ReplyMessage> {
        let text = self.failed_text.of(row.language_code.as_deref());
        let text = text.filter(|_| row.chat_type.as_deref() != Some("channel"));
        text.map_or_else(Vec::new, |text| compose(row, text, None))
    }

    fn unanswered(&self, row: &BronzeRow) -> SilverRow {
        SilverRow {
            bronze: row.clone(),
            status: Status::Failed,
            response: None,
            route: None,
            error: None,
            reply: Vec::new(),
            model: None,
            prompt_version: self.prompt_version.clone(),
            finish_reason: None,
            input_tokens: None,
            output_tokens: None,
            latency_ms: None,
            model_calls: 0,
            kept_turns: None,
            processed_at: self.clock.now(),
        }
    }
}

/// The messages that answer a row.
fn compose(row: &BronzeRow, markdown: &str, note: Option<&str>) -> Vec<ReplyMessage> {
    let Some(chat_id) = row.chat_id else { return Vec::new() };
    let (chat_type, topic) = (row.chat_type.as_deref(), row.context.topic);
    reply::compose(markdown, note, Answered { chat_id, chat_type, topic, message_id: row.message_id })
}
