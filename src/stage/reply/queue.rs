//! Replies that wait: one at a time in a chat, in silver's order, and how far everything is done.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::sender::Job;

/// The replies read from silver that have no outcome yet.
#[derive(Debug)]
pub(super) struct ReplyQueue {
    chats: HashMap<i64, Chat>,
    ready: VecDeque<i64>,
    /// Replies not done, by silver version.
    open: BTreeMap<i64, usize>,
    read_to: i64,
    waiting: usize,
}

#[derive(Debug, Default)]
struct Chat {
    jobs: VecDeque<Job>,
    busy: bool,
}

impl ReplyQueue {
    /// Nothing waits; everything up to `watermark` is done.
    pub(super) fn new(watermark: i64) -> Self {
        Self { chats: HashMap::new(), ready: VecDeque::new(), open: BTreeMap::new(), read_to: watermark, waiting: 0 }
    }

    /// Adds the replies of one silver version.
    pub(super) fn add(&mut self, version: i64, jobs: Vec<Job>) {
        self.read_to = self.read_to.max(version);
        if !jobs.is_empty() {
            *self.open.entry(version).or_default() += jobs.len();
        }
        for job in jobs {
            self.waiting += 1;
            let chat_id = job.answer.chat_id;
            let chat = self.chats.entry(chat_id).or_default();
            if !chat.busy && chat.jobs.is_empty() {
                self.ready.push_back(chat_id);
            }
            chat.jobs.push_back(job);
        }
    }

    /// The next reply whose chat is free; the chat is then busy until the reply is done.
    pub(super) fn next_ready(&mut self) -> Option<Job> {
        let chat = self.chats.get_mut(&self.ready.pop_front()?)?;
        chat.busy = true;
        chat.jobs.pop_front()
    }

    /// A reply has all outcomes it will ever have.
    pub(super) fn done(&mut self, job: &Job) {
        self.waiting -= 1;
        if let Some(open) = self.open.get_mut(&job.silver_version) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&job.silver_version);
            }
        }
        let chat_id = job.answer.chat_id;
        let Some(chat) = self.chats.get_mut(&chat_id) else { return };
        chat.busy = false;
        if chat.jobs.is_empty() {
            self.chats.remove(&chat_id);
        } else {
            self.ready.push_back(chat_id);
        }
    }

    /// The silver version up to which every reply is done.
    pub(super) fn watermark(&self) -> i64 {
        self.open.keys().next().map_or(self.read_to, |first| first - 1)
    }

    /// Replies that are not done.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::Answer;
    use super::*;
    use crate::id::BotId;

    fn job(silver_version: i64, chat_id: i64, update_id: i64) -> Job {
        let answer = Answer {
            bot_id: BotId(1),
            update_id,
            attempt: 1,
            chat_id,
            chat_type: None,
            message_id: None,
            response: "hello".to_owned(),
            trace_id: String::new(),
        };
        Job { silver_version, answer }
    }

    #[test]
    fn one_reply_at_a_time_in_a_chat_and_chats_side_by_side() {
        let mut queue = ReplyQueue::new(-1);
        queue.add(1, vec![job(1, 7, 1), job(1, 7, 2), job(1, 8, 3)]);
        let first = queue.next_ready().unwrap();
        let other = queue.next_ready().unwrap();
        assert_eq!((first.answer.update_id, other.answer.update_id), (1, 3));
        assert!(queue.next_ready().is_none());
        queue.done(&first);
        assert_eq!(queue.next_ready().unwrap().answer.update_id, 2);
    }

    #[test]
    fn the_watermark_stops_before_the_first_version_with_an_open_reply() {
        let mut queue = ReplyQueue::new(3);
        queue.add(4, Vec::new());
        assert_eq!(queue.watermark(), 4);
        queue.add(5, vec![job(5, 7, 1)]);
        queue.add(6, vec![job(6, 8, 2)]);
        let (slow, quick) = (queue.next_ready().unwrap(), queue.next_ready().unwrap());
        queue.done(&quick);
        assert_eq!(queue.watermark(), 4);
        queue.done(&slow);
        assert_eq!(queue.watermark(), 6);
        assert!(queue.is_empty());
    }
}
