//! Work that is done one at a time in a chat, in order, and side by side across chats.

use std::collections::{HashMap, VecDeque};

/// What waits, by chat.
#[derive(Debug)]
pub(crate) struct ChatQueue<T> {
    chats: HashMap<i64, Chat<T>>,
    ready: VecDeque<i64>,
    waiting: usize,
}

#[derive(Debug)]
struct Chat<T> {
    items: VecDeque<T>,
    busy: bool,
}

impl<T> ChatQueue<T> {
    /// Nothing waits.
    pub(crate) fn new() -> Self {
        Self { chats: HashMap::new(), ready: VecDeque::new(), waiting: 0 }
    }

    /// Adds an item behind the others of its chat.
    pub(crate) fn push(&mut self, chat_id: i64, item: T) {
        self.waiting += 1;
        let chat = self.chats.entry(chat_id).or_insert_with(|| Chat { items: VecDeque::new(), busy: false });
        if !chat.busy && chat.items.is_empty() {
            self.ready.push_back(chat_id);
        }
        chat.items.push_back(item);
    }

    /// The next item whose chat is free; the chat is then busy until the item is done.
    pub(crate) fn next_ready(&mut self) -> Option<T> {
        let chat = self.chats.get_mut(&self.ready.pop_front()?)?;
        chat.busy = true;
        chat.items.pop_front()
    }

    /// The item that a chat was busy with is done.
    pub(crate) fn done(&mut self, chat_id: i64) {
        self.waiting -= 1;
        let Some(chat) = self.chats.get_mut(&chat_id) else { return };
        chat.busy = false;
        if chat.items.is_empty() {
            self.chats.remove(&chat_id);
        } else {
            self.ready.push_back(chat_id);
        }
    }

    /// Items that are not done.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_in_a_chat_and_chats_side_by_side() {
        let mut queue = ChatQueue::new();
        for (chat, item) in [(7, 1), (7, 2), (8, 3)] {
            queue.push(chat, item);
        }
        assert_eq!((queue.next_ready(), queue.next_ready(), queue.next_ready()), (Some(1), Some(3), None));
        queue.done(7);
        assert_eq!(queue.next_ready(), Some(2));
        queue.done(8);
        queue.done(7);
        assert!(queue.is_empty() && queue.next_ready().is_none());
    }
}
