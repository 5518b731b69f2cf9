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

    /// The conversation goes on in another chat.
    pub(super) fn migrate(&mut self, from: Conversation, to: Conversation) {
        let turns = self.conversations.remove(&from).unwrap_or_default();
        self.bytes -= turns.iter().map(Turn::bytes).sum::<usize>();
        turns.into_iter().for_each(|turn| self.add(to, turn.at, &turn.question, &turn.answer));
    }

    /// Forgets all but the latest turns of a conversation.
    pub(super) fn shorten(&mut self, conversation: Conversation, turns: usize) {
        let Some(kept) = self.conversations.get_mut(&conversation) else { return };
        let forgotten = kept.drain(..kept.len().saturating_sub(turns));
        self.bytes -= forgotten.map(|turn| turn.bytes()).sum::<usize>();
    }

    /// The turns sent along with a question received at `at`: the latest that are young enough, as far as the model may
    /// be expected to read them.
    pub(super) fn before(&self, conversation: Option<Conversation>, at: Timestamp) -> Vec<ChatMessage> {
        let oldest = at.minus(self.settings.max_age);
        let turns = conversation.and_then(|conversation| self.conversations.get(&conversation));
        let said = |role, content: &str| ChatMessage { role, content: content.to_owned() };
        let (mut tokens, mut latest) = (0, Vec::new());
        for turn in turns.into_iter().flatten().rev().filter(|turn| turn.at >= oldest) {
            tokens += estimated_tokens(&turn.question) + estimated_tokens(&turn.answer);
            if tokens > self.settings.max_tokens {
                break;
            }
            latest.push(turn);
        }
        let messages = latest.into_iter().rev();
        messages.flat_map(|turn| [said(Role::User, &turn.question), said(Role::Assistant, &turn.answer)]).collect()
    }
}

/// How many tokens a text has, roughly: four characters of English each, and one of any other script.
fn estimated_tokens(text: &str) -> usize {
    let ascii = text.bytes().filter(u8::is_ascii).count();
    ascii / 4 + text.chars().filter(|character| !character.is_ascii()).count() + 1
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn settings(turns: usize, max_age: Duration) -> HistorySettings {
        HistorySettings { turns, max_age, ..HistorySettings::default() }
    }

    fn chat(chat_id: i64) -> Conversation {
        Conversation { chat_id, topic_id: None }
    }

    #[test]
    fn only_the_latest_turns_of_the_chat_that_are_young_enough_go_along() {
        let mut history = History::new(settings(2, Duration::from_micros(50)));
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
    fn the_oldest_turns_stay_behind_when_a_conversation_is_long() {
        let day = Duration::from_secs(86_400);
        let mut history = History::new(HistorySettings { max_tokens: 1_000, ..settings(10, day) });
        for (at, text) in ["a", "b", "c", "d"].into_iter().enumerate() {
            history.add(chat(1), Timestamp::from_micros(at as i64), &text.repeat(900), &text.repeat(900));
        }
        let first = |history: &History| history.before(Some(chat(1)), Timestamp::from_micros(9)).first().cloned();
        assert!(first(&history).unwrap().content.starts_with('c'), "two turns of 450 tokens");
        // A script of which every character is a token.
        history.add(chat(1), Timestamp::from_micros(5), &"語".repeat(990), "e");
        assert!(first(&history).unwrap().content.starts_with('語'));
        history.migrate(chat(1), chat(3));
        assert_eq!(first(&history), None);
        assert!(history.before(Some(chat(3)), Timestamp::from_micros(9))[0].content.starts_with('語'));
        history.migrate(chat(3), chat(1));
        history.shorten(chat(1), 0);
        assert_eq!((first(&history), history.bytes), (None, 0));
        history.shorten(chat(2), 0);
    }

    #[test]
    fn topics_of_a_chat_share_no_turns() {
        let mut history = History::new(settings(2, Duration::from_secs(1)));
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
        let mut history =
            History::new(HistorySettings { max_tokens: usize::MAX, ..settings(2, Duration::from_secs(3_600)) });
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
