//! The turns before a question, so that the model knows the conversation.

use std::collections::{HashMap, VecDeque};

use crate::clock::Timestamp;
use crate::llm::{ChatMessage, Role};
use crate::pipeline::HistorySettings;

/// The maximum number of remembered chats, and of bytes. The chats that were quiet longest are forgotten first, and
/// start without context.
const MAX_CHATS: usize = 10_000;
const MAX_BYTES: usize = 16 * 1_024 * 1_024;

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
    bytes: usize,
}

impl Turn {
    fn bytes(&self) -> usize {
        self.question.len() + self.answer.len()
    }
}

impl History {
    pub(super) fn new(settings: HistorySettings) -> Self {
        Self { settings, chats: HashMap::new(), bytes: 0 }
    }

    /// Adds a turn, whenever it was received.
    pub(super) fn add(&mut self, chat_id: i64, at: Timestamp, question: &str, answer: &str) {
        if self.settings.turns == 0 {
            return;
        }
        let turn = Turn { at, question: question.to_owned(), answer: answer.to_owned() };
        self.bytes += turn.bytes();
        let turns = self.chats.entry(chat_id).or_default();
        let after = turns.partition_point(|there| there.at <= at);
        turns.insert(after, turn);
        if turns.len() > self.settings.turns {
            self.bytes -= turns.pop_front().map_or(0, |turn| turn.bytes());
        }
        if self.chats.len() > MAX_CHATS || self.bytes > MAX_BYTES {
            self.forget();
        }
    }

    /// Makes room for a while: a tenth, so that not every message of a busy bot has to look at all chats.
    fn forget(&mut self) {
        let heard = |(chat_id, turns): (&i64, &VecDeque<Turn>)| (turns.back().map(|turn| turn.at), *chat_id);
        let mut quietest: Vec<_> = self.chats.iter().map(heard).collect();
        quietest.sort_unstable();
        for (_, chat_id) in quietest {
            if self.chats.len() <= MAX_CHATS / 10 * 9 && self.bytes <= MAX_BYTES / 10 * 9 {
                break;
            }
            let turns = self.chats.remove(&chat_id).unwrap_or_default();
            self.bytes -= turns.iter().map(Turn::bytes).sum::<usize>();
        }
        self.chats.shrink_to(MAX_CHATS);
    }

    /// The turns sent along with a question received at `at`.
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
    #[test]
    fn the_quietest_chats_are_forgotten_when_there_are_too_many_or_too_much_was_said() {
        let mut history = History::new(HistorySettings { turns: 2, max_age: Duration::from_secs(3_600) });
        let at = |chat: i64| Timestamp::from_micros(chat);
        for chat in 0..=MAX_CHATS as i64 {
            history.add(chat, at(chat), "question", "answer");
        }
        let newest = MAX_CHATS as i64;
        assert_eq!(history.chats.len(), MAX_CHATS / 10 * 9);
        assert!(history.before(Some(0), at(newest)).is_empty());
        assert_eq!(history.before(Some(newest), at(newest)).len(), 2);
        for chat in 0..100 {
            history.add(chat, at(2 * newest + chat), &"x".repeat(MAX_BYTES / 20), "answer");
            let said: usize = history.chats.values().flatten().map(Turn::bytes).sum();
            assert!(said == history.bytes && said <= MAX_BYTES);
        }
        assert_eq!(history.before(Some(99), at(3 * newest)).len(), 2);
    }
}
