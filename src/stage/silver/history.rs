//! The turns before a question, so that the model knows the conversation. Topics of one chat share nothing.

use std::collections::{HashMap, VecDeque};

use super::rows::Conversation;
use crate::clock::Timestamp;
use crate::llm::{ChatMessage, Role};
use crate::pipeline::HistorySettings;

/// The maximum number of remembered conversations, and of bytes. Those that were quiet longest are forgotten first, and
/// start without context.
const MAX_CONVERSATIONS: usize = 10_000;
const MAX_BYTES: usize = 16 * 1_024 * 1_024;

#[derive(Debug)]
struct Turn {
    at: Timestamp,
    question: String,
    answer: String,
}

/// The latest turns of each conversation.
#[derive(Debug)]
pub(super) struct History {
    settings: HistorySettings,
    conversations: HashMap<Conversation, VecDeque<Turn>>,
    bytes: usize,
}

impl Turn {
    fn bytes(&self) -> usize {
        self.question.len() + self.answer.len()
    }
}

impl History {
    pub(super) fn new(settings: HistorySettings) -> Self {
        Self { settings, conversations: HashMap::new(), bytes: 0 }
    }

    /// Adds a turn, whenever it was received.
    pub(super) fn add(&mut self, conversation: Conversation, at: Timestamp, question: &str, answer: &str) {
        if self.settings.turns == 0 {
            return;
        }
        let turn = Turn { at, question: question.to_owned(), answer: answer.to_owned() };
        self.bytes += turn.bytes();
        let turns = self.conversations.entry(conversation).or_default();
        let after = turns.partition_point(|there| there.at <= at);
        turns.insert(after, turn);
        if turns.len() > self.settings.turns {
            self.bytes -= turns.pop_front().map_or(0, |turn| turn.bytes());
        }
        if self.conversations.len() > MAX_CONVERSATIONS || self.bytes > MAX_BYTES {
            self.forget();
        }
    }

    /// Makes room for a while: a tenth, so that not every message of a busy bot has to look at all of them.
    fn forget(&mut self) {
        let heard =
            |(conversation, turns): (&Conversation, &VecDeque<Turn>)| (turns.back().map(|turn| turn.at), *conversation);
        let mut quietest: Vec<_> = self.conversations.iter().map(heard).collect();
        quietest.sort_unstable();
        for (_, conversation) in quietest {
            if self.conversations.len() <= MAX_CONVERSATIONS / 10 * 9 && self.bytes <= MAX_BYTES / 10 * 9 {
                break;
            }
            let turns = self.conversations.remove(&conversation).unwrap_or_default();
            self.bytes -= turns.iter().map(Turn::bytes).sum::<usize>();
        }
        self.conversations.shrink_to(MAX_CONVERSATIONS);
    }

    /// The turns sent along with a question received at `at`.
    pub(super) fn before(&self, conversation: Option<Conversation>, at: Timestamp) -> Vec<ChatMessage> {
        let oldest = at.minus(self.settings.max_age);
        let turns = conversation.and_then(|conversation| self.conversations.get(&conversation)).into_iter().flatten();
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

    fn chat(chat_id: i64) -> Conversation {
        Conversation { chat_id, topic_id: None }
    }

    #[test]
    fn only_the_latest_turns_of_the_chat_that_are_young_enough_go_along() {
        let mut history = History::new(HistorySettings { turns: 2, max_age: Duration::from_micros(50) });
        for at in [10, 20, 30] {
            history.add(chat(1), Timestamp::from_micros(at), &format!("q{at}"), &format!("a{at}"));
        }
        history.add(chat(2), Timestamp::from_micros(40), "other", "chat");
        let said = |at| -> Vec<String> {
            let messages = history.before(Some(chat(1)), Timestamp::from_micros(at));
            messages.into_iter().map(|message| message.content).collect()
        };
        assert_eq!(said(40), ["q20", "a20", "q30", "a30"]);
        assert_eq!(said(75), ["q30", "a30"]);
        assert!(history.before(None, Timestamp::default()).is_empty());
    }

    #[test]
    fn topics_of_a_chat_share_no_turns() {
        let mut history = History::new(HistorySettings { turns: 2, max_age: Duration::from_secs(1) });
        for topic_id in [None, Some(1), Some(2)] {
            history.add(Conversation { chat_id: 7, topic_id }, Timestamp::default(), &format!("in {topic_id:?}"), "a");
        }
        for topic_id in [None, Some(1), Some(2)] {
            let said = history.before(Some(Conversation { chat_id: 7, topic_id }), Timestamp::default());
            assert_eq!((said.len(), said[0].content.clone()), (2, format!("in {topic_id:?}")));
        }
        assert!(history.before(Some(Conversation { chat_id: 7, topic_id: Some(3) }), Timestamp::default()).is_empty());
    }

    #[test]
    fn the_quietest_chats_are_forgotten_when_there_are_too_many_or_too_much_was_said() {
        let mut history = History::new(HistorySettings { turns: 2, max_age: Duration::from_secs(3_600) });
        let at = Timestamp::from_micros;
        for id in 0..=MAX_CONVERSATIONS as i64 {
            history.add(chat(id), at(id), "question", "answer");
        }
        let newest = MAX_CONVERSATIONS as i64;
        assert_eq!(history.conversations.len(), MAX_CONVERSATIONS / 10 * 9);
        assert!(history.before(Some(chat(0)), at(newest)).is_empty());
        assert_eq!(history.before(Some(chat(newest)), at(newest)).len(), 2);
        for id in 0..100 {
            history.add(chat(id), at(2 * newest + id), &"x".repeat(MAX_BYTES / 20), "answer");
            let said: usize = history.conversations.values().flatten().map(Turn::bytes).sum();
            assert!(said == history.bytes && said <= MAX_BYTES);
        }
        assert_eq!(history.before(Some(chat(99)), at(3 * newest)).len(), 2);
    }
}
