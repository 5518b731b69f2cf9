//! The turns before a question, so that the model knows what was said.

use std::collections::{HashMap, VecDeque};

use super::rows::KnownRow;
use crate::clock::Timestamp;
use crate::llm::{ChatMessage, Role};
use crate::pipeline::HistorySettings;

/// Chats that are remembered. The one that was quiet longest is forgotten first, and starts without context.
const MAX_CHATS: usize = 10_000;

#[derive(Debug)]
struct Turn {
    at: Timestamp,
    question: String,
    answer: String,
}

/// The latest turns of each chat.
#[derive(Debug)]
pub(super) struct History {
    settings: HistorySettings,
    chats: HashMap<i64, VecDeque<Turn>>,
}

impl History {
    pub(super) fn new(settings: HistorySettings) -> Self {
        Self { settings, chats: HashMap::new() }
    }

    /// Takes up what the table has, in the order it was received.
    pub(super) fn rebuild(&mut self, mut rows: Vec<KnownRow>) {
        rows.sort_by_key(|row| (row.received_at, row.key));
        for row in rows {
            if let (Some(chat_id), Some(question), Some(answer)) = (row.chat_id, row.question, row.answer) {
                self.add(chat_id, row.received_at, &question, &answer);
            }
        }
    }

    pub(super) fn add(&mut self, chat_id: i64, at: Timestamp, question: &str, answer: &str) {
        if self.settings.turns == 0 {
            return;
        }
        if self.chats.len() >= MAX_CHATS && !self.chats.contains_key(&chat_id) {
            let quietest = self.chats.iter().min_by_key(|(_, turns)| turns.back().map(|turn| turn.at));
            if let Some(quietest) = quietest.map(|(chat_id, _)| *chat_id) {
                self.chats.remove(&quietest);
            }
        }
        let turns = self.chats.entry(chat_id).or_default();
        turns.push_back(Turn { at, question: question.to_owned(), answer: answer.to_owned() });
        if turns.len() > self.settings.turns {
            turns.pop_front();
        }
    }

    /// The turns that go along with a question received at `at`.
    pub(super) fn before(&self, chat_id: Option<i64>, at: Timestamp) -> Vec<ChatMessage> {
        let oldest = at.minus(self.settings.max_age);
        let turns = chat_id.and_then(|chat_id| self.chats.get(&chat_id)).into_iter().flatten();
        let said = |role, content: &str| ChatMessage { role, content: content.to_owned() };
        turns
            .filter(|turn| turn.at >= oldest)
            .flat_map(|turn| [said(Role::User, &turn.question), said(Role::Assistant, &turn.answer)])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_the_latest_turns_of_the_chat_that_are_young_enough_go_along() {
        let mut history = History::new(HistorySettings { turns: 2, max_age: Duration::from_micros(50) });
        for at in [10, 20, 30] {
            history.add(1, Timestamp::from_micros(at), &format!("q{at}"), &format!("a{at}"));
        }
        history.add(2, Timestamp::from_micros(40), "other", "chat");
        let said = |at| -> Vec<String> {
            let messages = history.before(Some(1), Timestamp::from_micros(at));
            messages.into_iter().map(|message| message.content).collect()
        };
        assert_eq!(said(40), ["q20", "a20", "q30", "a30"]);
        assert_eq!(said(75), ["q30", "a30"]);
        assert!(history.before(None, Timestamp::default()).is_empty());
    }
}
