//! Takes rows in, records rows, and keeps track of how far that is.

use std::collections::HashMap;

use super::feed::{Feed, Fetched, RowPosition, Rows, Step};
use super::key::UpdateKey;
use super::ledger::LedgerRow;
use super::queue::Later;
use super::watermark::Watermark;
use super::work::{Call, Item, Work};
use super::{Flow, KEPT_CAPACITY, Success, Wanted};
use crate::error::Result;

impl<W: Work> Flow<W> {
    /// Takes in what was read.
    ///
    /// # Errors
    /// They end the stage, however transient: what was read does not come a second time.
    pub(super) async fn take(&mut self, read: Success) -> Result<()> {
        self.backoff.reset();
        match read {
            Success::Fetched(later, Some(fetched)) => self.take_fetched(later, fetched).await,
            Success::Fetched(later, None) => {
                self.compare_again(later);
                Ok(())
            }
            Success::Step(step) => self.take_step(step).await,
        }
    }

    async fn take_step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Found { table_id } => {
                let watermark = self.ledger.watermark(&table_id);
                self.watermark = Watermark::new(watermark.unwrap_or(-1));
                self.upstream = Some(table_id);
                if let Some(feed) = &mut self.feed {
                    feed.start(watermark);
                }
            }
            Step::AtHead => self.reached(),
            Step::New { version, rows } => {
                // Open until all of its rows are taken.
                self.watermark.read(version, 1);
                for rows in rows {
                    self.take_rows(rows).await?;
                }
                self.watermark.done(version);
            }
            Step::Unclear { version } => {
                // Whatever the upstream table has been through, the stage's own table may have been through as well.
                self.watermark.compare(version);
                self.ledger.refresh().await?;
            }
            Step::Some(rows) => self.take_rows(rows).await?,
            Step::Cleared { version } => self.watermark.done(version),
            Step::Abandoned { version } => {
                self.forget_waiting(Vec::new());
                self.watermark.done(version);
            }
            Step::Replaced => self.forget_waiting(Vec::new()),
        }
        Ok(())
    }

    async fn take_rows(&mut self, rows: Rows) -> Result<()> {
        let RowPosition { version, file, row } = rows.first;
        let items = self.work.items(&rows.batch, version)?;
        let items = (row..).zip(items).filter_map(|(row, item)| Some((row, item?)));
        let items: Vec<(u32, W::Item)> = items.filter(|(_, item)| !self.taken.contains(&item.key())).collect();
        let keys: Vec<UpdateKey> = items.iter().map(|(_, item)| item.key()).collect();
        let done = self.ledger.are_done(&keys).await?;
        for ((row, item), _) in items.into_iter().zip(done).filter(|(_, is_done)| !is_done) {
            let key = item.key();
            // An update may occur more than once.
            if !self.taken.insert(key) {
                continue;
            }
            self.watermark.read(version, 1);
            if let Some(row) = self.work.settle(&item) {
                self.ledger.begin(key);
                self.settled.push(row);
                self.settled_items.push(item);
                continue;
            }
            let later = Later { position: RowPosition { version, file, row }, key, chat_id: item.chat_id() };
            if self.queue.push(later, item) {
                self.ledger.begin(key);
            }
        }
        Ok(())
    }

    /// Takes rows in that had been waiting in the upstream table.
    async fn take_fetched(&mut self, later: Vec<Later>, fetched: Vec<Fetched>) -> Result<()> {
        let mut items = HashMap::with_capacity(later.len());
        for Fetched { positions, batch } in fetched {
            let version = positions.first().map_or(-1, |position| position.version);
            items.extend(positions.into_iter().zip(self.work.items(&batch, version)?));
        }
        let found = |later: &Later| items.get(&later.position).and_then(Option::as_ref).map(Item::key);
        if later.iter().any(|later| found(later).is_some_and(|found| found != later.key)) {
            self.compare_again(later);
            return Ok(());
        }
        let keys: Vec<UpdateKey> = later.iter().map(|later| later.key).collect();
        // Another process may have done them meanwhile.
        let done = self.ledger.are_done(&keys).await?;
        for (later, is_done) in later.into_iter().zip(done) {
            let item = items.remove(&later.position).flatten().filter(|_| !is_done);
            match &item {
                Some(_) => self.ledger.begin(later.key),
                None => {
                    self.taken.remove(&later.key);
                    self.watermark.done(later.position.version);
                }
            }
            self.queue.fetched(later.chat_id, item);
        }
        Ok(())
    }

    /// Rows waiting in the upstream table are no longer where they were: a comparison of contents finds them again.
    fn compare_again(&mut self, fetching: Vec<Later>) {
        tracing::info!("waiting rows were moved by a clean-up, or the table was replaced; comparing contents");
        self.forget_waiting(fetching);
        self.wanted = Wanted::Head;
        // A comparison that was under way is not finished.
        if let Some(version) = self.feed.as_mut().and_then(Feed::compare) {
            self.watermark.done(version);
        }
    }

    /// Forgets the rows that wait in the upstream table, and those that were being fetched: they come again with its
    /// contents, and until then they are open.
    fn forget_waiting(&mut self, fetching: Vec<Later>) {
        self.watermark.hold();
        for Later { position, key, .. } in fetching.into_iter().chain(self.queue.forget_later()) {
            self.taken.remove(&key);
            self.watermark.done(position.version);
        }
    }

    /// Answers what items ask and records what they report, with one read of the head and one commit.
    pub(super) async fn answer(&mut self, calls: Vec<Call<W::Row>>) -> Result<()> {
        let (mut rows, mut waiters, mut questions) = (Vec::new(), Vec::new(), Vec::new());
        for call in calls {
            match call {
                Call::Record { row, is_last, done } => {
                    rows.push((*row, is_last));
                    waiters.push(done);
                }
                Call::State { key, part, at_head, answer } => questions.push((key, part, at_head, answer)),
            }
        }
        if !rows.is_empty() {
            self.record(rows).await?;
            // If the item is gone, it needs no answer.
            waiters.into_iter().for_each(|done| done.send(()).unwrap_or_default());
        }
        if questions.iter().any(|(.., at_head, _)| *at_head) {
            self.ledger.refresh().await?;
        }
        for (key, part, _, answer) in questions {
            let _gone = answer.send(self.ledger.get(&key, part));
        }
        Ok(())
    }

    /// Records rows of items in progress, and whether each is the last of its item.
    pub(super) async fn record(&mut self, rows: Vec<(W::Row, bool)>) -> Result<()> {
        let mut recorded = Vec::with_capacity(rows.len());
        for (row, is_last) in rows {
            if let Some(under_way) =
                self.under_way.get_mut(&row.key()).filter(|under_way| is_last && !under_way.is_done)
            {
                under_way.is_done = true;
                let item = under_way.item.clone();
                self.done(&item);
            }
            recorded.push(row);
        }
        self.commit(recorded).await
    }

    /// An item is done, or will be with the following commit.
    pub(super) fn done(&mut self, item: &W::Item) {
        self.watermark.done(item.version());
    }

    /// Commits rows, including those of items that needed no work, and the progress.
    pub(super) async fn commit(&mut self, mut rows: Vec<W::Row>) -> Result<()> {
        if rows.is_empty() && self.settled.is_empty() {
            return Ok(());
        }
        rows.append(&mut self.settled);
        let settled = std::mem::take(&mut self.settled_items);
        settled.iter().for_each(|item| self.done(item));
        let recorded = self.ledger.record(rows, self.upstream.as_deref().zip(Some(self.watermark.value()))).await?;
        self.watermark_committed_at = self.clock.monotonic();
        // Only now: a row that is neither known nor taken would be taken again.
        for item in settled {
            self.taken.remove(&item.key());
            self.ledger.end(&item.key());
        }
        if let Some(version) = recorded.version {
            self.work.committed(&recorded.rows, version);
        }
        self.release_memory();
        self.forget();
        Ok(())
    }

    /// Releases the memory that a backlog took, once it is gone.
    pub(super) fn release_memory(&mut self) {
        if self.taken.is_empty() {
            self.taken.shrink_to(KEPT_CAPACITY);
            self.under_way.shrink_to(KEPT_CAPACITY);
            self.tasks.shrink_to(KEPT_CAPACITY);
            self.settled.shrink_to(KEPT_CAPACITY);
            self.settled_items.shrink_to(KEPT_CAPACITY);
            self.queue.shrink_to(KEPT_CAPACITY);
            self.ledger.shrink_to(KEPT_CAPACITY);
        }
    }

    /// Commits the progress if it has moved.
    pub(super) async fn commit_watermark(&mut self) -> Result<()> {
        let upstream = self.upstream.as_deref().zip(Some(self.watermark.value()));
        self.ledger.record(Vec::new(), upstream).await?;
        self.watermark_committed_at = self.clock.monotonic();
        self.forget();
        Ok(())
    }

    fn forget(&mut self) {
        if let Some(feed) = &mut self.feed {
            feed.forget_to(self.watermark.value());
        }
    }
}
