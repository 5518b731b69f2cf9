//! Waiting work: one item at a time per chat, in order, chats side by side, and none at another's expense.
//!
//! Items in memory are bounded in total and per chat. Beyond that only row positions are kept, and the rows are read
//! again at their turn: a busy chat delays nobody else, and the upstream table is the queue.

use std::collections::{HashMap, VecDeque};

use super::feed::RowPosition;
use super::key::UpdateKey;

/// Maximum items of one chat in memory.
const PER_CHAT: usize = 64;
/// The share of all items in memory that one chat may take.
const CHAT_SHARE: usize = 16;
/// Maximum rows that are fetched together: new rows are not read meanwhile.
const MAX_FETCH: usize = 256;
/// Maximum rows waiting as positions; beyond that nothing more is read.
const MAX_LATER: usize = 200_000;

/// The waiting work, by chat.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    chats: HashMap<i64, Chat<T>>,
    /// Chats whose next item may begin, longest waiting first.
    ready: VecDeque<i64>,
    /// Chats with rows waiting as positions, least recently fetched first.
    behind: VecDeque<i64>,
    /// Unfinished items in memory, and rows being fetched.
    waiting: usize,
    /// Rows waiting as positions.
    later: usize,
    max_waiting: usize,
    per_chat: usize,
}

/// A row waiting in the upstream table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Later {
    pub(crate) position: RowPosition,
    pub(crate) key: UpdateKey,
    pub(crate) chat_id: i64,
}

#[derive(Debug)]
struct Chat<T> {
    items: VecDeque<T>,
    is_busy: bool,
    later: VecDeque<Later>,
    /// Its rows being fetched.
    fetching: usize,
}

impl<T> Chat<T> {
    fn new() -> Self {
        Self { items: VecDeque::new(), is_busy: false, later: VecDeque::new(), fetching: 0 }
    }

    fn in_memory(&self) -> usize {
        self.items.len() + usize::from(self.is_busy) + self.fetching
    }
}

impl<T> Queue<T> {
    /// An empty queue, for at most this many items in memory.
    pub(crate) fn new(max_waiting: usize) -> Self {
        let max_waiting = max_waiting.max(1);
        Self {
            chats: HashMap::new(),
            ready: VecDeque::new(),
            behind: VecDeque::new(),
            waiting: 0,
            later: 0,
            max_waiting,
            per_chat: (max_waiting / CHAT_SHARE).clamp(1, PER_CHAT),
        }
    }

    /// Appends an item to its chat; `false` if only its position is kept.
    pub(crate) fn push(&mut self, later: Later, item: T) -> bool {
        let chat_id = later.chat_id;
        let chat = self.chats.entry(chat_id).or_insert_with(Chat::new);
        let is_behind = !chat.later.is_empty() || chat.fetching > 0;
        if is_behind || chat.in_memory() >= self.per_chat || self.waiting >= self.max_waiting {
            if chat.later.is_empty() {
                self.behind.push_back(chat_id);
            }
            chat.later.push_back(later);
            self.later += 1;
            return false;
        }
        self.waiting += 1;
        if !chat.is_busy && chat.items.is_empty() {
            self.ready.push_back(chat_id);
        }
        chat.items.push_back(item);
        true
    }

    /// The rows to fetch next, for chats that have few left in memory, taking turns; none while there is little room.
    /// Each must be returned with [`Self::fetched`].
    pub(crate) fn next_to_fetch(&mut self) -> Vec<Later> {
        let mut room = self.max_waiting.saturating_sub(self.waiting);
        let mut wanted = Vec::new();
        if room == 0 || room < self.max_waiting / 4 {
            return wanted;
        }
        room = room.min(MAX_FETCH);
        for _ in 0..self.behind.len() {
            if room == 0 {
                break;
            }
            let Some(chat_id) = self.behind.pop_front() else { break };
            let Some(chat) = self.chats.get_mut(&chat_id) else { continue };
            if chat.in_memory() <= self.per_chat / 2 {
                let count = (self.per_chat - chat.in_memory()).min(room).min(chat.later.len());
                wanted.extend(chat.later.drain(..count));
                chat.fetching += count;
                room -= count;
            }
            if !chat.later.is_empty() {
                self.behind.push_back(chat_id);
            }
        }
        self.later -= wanted.len();
        self.waiting += wanted.len();
        wanted
    }

    /// A row that was fetched, in the order of its chat; `None` if it is no longer work.
    pub(crate) fn fetched(&mut self, chat_id: i64, item: Option<T>) {
        let Some(chat) = self.chats.get_mut(&chat_id) else { return };
        chat.fetching = chat.fetching.saturating_sub(1);
        match item {
            Some(item) => {
                if !chat.is_busy && chat.items.is_empty() {
                    self.ready.push_back(chat_id);
                }
                chat.items.push_back(item);
            }
            None => {
                self.waiting -= 1;
                self.forget_if_empty(chat_id);
            }
        }
    }

    /// Rows that could not be fetched wait as before.
    pub(crate) fn not_fetched(&mut self, rows: Vec<Later>) {
        self.waiting -= rows.len();
        self.later += rows.len();
        for later in rows.into_iter().rev() {
            let Some(chat) = self.chats.get_mut(&later.chat_id) else { continue };
            if chat.later.is_empty() {
                self.behind.push_front(later.chat_id);
            }
            chat.fetching = chat.fetching.saturating_sub(1);
            chat.later.push_front(later);
        }
    }

    /// Forgets the rows that wait as positions or are being fetched: they will be delivered again. Returns the former.
    pub(crate) fn forget_later(&mut self) -> Vec<Later> {
        let mut forgotten = Vec::new();
        for chat in self.chats.values_mut() {
            forgotten.extend(chat.later.drain(..));
            self.waiting -= std::mem::take(&mut chat.fetching);
        }
        self.behind.clear();
        self.later = 0;
        self.chats.retain(|_, chat| chat.in_memory() > 0);
        forgotten
    }

    /// The next item whose chat is free; the chat is then busy until the item is done.
    pub(crate) fn next_ready(&mut self) -> Option<T> {
        let chat = self.chats.get_mut(&self.ready.pop_front()?)?;
        chat.is_busy = true;
        chat.items.pop_front()
    }

    /// The item that a chat was busy with is done.
    pub(crate) fn done(&mut self, chat_id: i64) {
        self.waiting -= 1;
        let Some(chat) = self.chats.get_mut(&chat_id) else { return };
        chat.is_busy = false;
        if !chat.items.is_empty() {
            self.ready.push_back(chat_id);
        }
        self.forget_if_empty(chat_id);
    }

    fn forget_if_empty(&mut self, chat_id: i64) {
        if self.chats.get(&chat_id).is_some_and(|chat| chat.in_memory() == 0 && chat.later.is_empty()) {
            self.chats.remove(&chat_id);
        }
    }

    /// Whether more may be read of the upstream table.
    pub(crate) fn has_room(&self) -> bool {
        self.later < MAX_LATER
    }

    /// Rows that are not done, in memory or not.
    pub(crate) fn len(&self) -> usize {
        self.waiting + self.later
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Releases memory beyond what is in use or was asked for.
    pub(crate) fn shrink_to(&mut self, capacity: usize) {
        self.chats.shrink_to(capacity);
        self.ready.shrink_to(capacity);
        self.behind.shrink_to(capacity);
    }

    /// How many chats fit without more memory.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.chats.capacity().max(self.ready.capacity()).max(self.behind.capacity())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::BotId;

    fn later(chat_id: i64, number: i64) -> Later {
        let row = u32::try_from(number).unwrap();
        let key = UpdateKey { bot_id: BotId(1), update_id: number, attempt: 1 };
        Later { position: RowPosition { version: 0, file: 0, row }, key, chat_id }
    }

    #[test]
    fn one_at_a_time_in_a_chat_and_chats_side_by_side() {
        let mut queue = Queue::new(10_000);
        for (chat, item) in [(7, 1), (7, 2), (8, 3)] {
            assert!(queue.push(later(chat, item), item));
        }
        assert_eq!((queue.next_ready(), queue.next_ready(), queue.next_ready()), (Some(1), Some(3), None));
        queue.done(7);
        assert_eq!(queue.next_ready(), Some(2));
        queue.done(8);
        queue.done(7);
        assert!(queue.is_empty() && queue.next_ready().is_none() && queue.chats.is_empty());
    }

    #[test]
    fn a_busy_chat_leaves_room_for_others() {
        for max_waiting in [3, 10_000] {
            let mut queue = Queue::new(max_waiting);
            let in_memory = (0..20_000).filter(|number| queue.push(later(-5, *number), *number)).count();
            assert_eq!(in_memory, (max_waiting / CHAT_SHARE).clamp(1, PER_CHAT));
            assert!(queue.push(later(1, 20_000), 20_000) && queue.has_room());
            assert_eq!((queue.next_ready(), queue.next_ready()), (Some(0), Some(20_000)));
        }
    }

    proptest! {
        /// Whatever is fetched, cannot be, is no longer work, or is forgotten and delivered anew: each chat is served
        /// in its order, every item once, and memory is bounded.
        #[test]
        fn every_item_is_served_once_and_in_the_order_of_its_chat(
            chats in proptest::collection::vec(0_i64..5, 1..200), max_waiting in 1_usize..40, seed in any::<u64>(),
        ) {
            let mut queue = Queue::new(max_waiting);
            let (mut served, mut running, mut fetching) = (Vec::new(), Vec::new(), VecDeque::new());
            let mut gone = 0;
            let chat_of = |number: i64| chats[usize::try_from(number).unwrap()];
            let mut delivered: VecDeque<i64> = (0..).take(chats.len()).collect();
            let mut dice = seed;
            loop {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                match (dice >> 33) % 4 {
                    0 => if let Some(number) = delivered.pop_front() {
                        queue.push(later(chat_of(number), number), number);
                    },
                    1 if fetching.is_empty() => fetching.extend(queue.next_to_fetch()),
                    1 if dice % 5 == 0 => queue.not_fetched(fetching.drain(..).collect()),
                    1 if dice % 7 == 0 => {
                        let forgotten = fetching.drain(..).chain(queue.forget_later());
                        let mut again: Vec<i64> = forgotten.map(|row| row.key.update_id).collect();
                        again.sort_unstable();
                        again.into_iter().rev().for_each(|number| delivered.push_front(number));
                        prop_assert_eq!(queue.later, 0);
                    },
                    1 => for (row, turn) in fetching.drain(..).zip(0..) {
                        // Another process may have done it meanwhile.
                        let is_gone = (dice >> 40).wrapping_add(turn) % 4 == 0;
                        gone += usize::from(is_gone);
                        queue.fetched(row.chat_id, Some(row.key.update_id).filter(|_| !is_gone));
                    },
                    2 => running.extend(queue.next_ready()),
                    _ => if let Some(number) = running.pop() {
                        served.push(number);
                        queue.done(chat_of(number));
                    },
                }
                let in_memory: usize = queue.chats.values().map(Chat::in_memory).sum();
                prop_assert!(queue.waiting == in_memory && in_memory <= max_waiting);
                if served.len() + gone == chats.len() {
                    break;
                }
            }
            for chat in 0..5 {
                let order: Vec<i64> = served.iter().filter(|number| chat_of(**number) == chat).copied().collect();
                prop_assert!(order.is_sorted_by(|one, next| one < next), "chat {chat} was served {order:?}");
            }
            prop_assert!(queue.is_empty() && queue.chats.is_empty() && queue.behind.is_empty());
        }
    }
}
