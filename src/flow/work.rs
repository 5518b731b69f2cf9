//! What a stage does with a row of its upstream table, and how it reaches its ledger meanwhile.

use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::key::UpdateKey;
use super::ledger::{LedgerRow, Parts};
use crate::error::Result;

/// A stage, as a [`Flow`](super::Flow) sees it.
pub(crate) trait Work: Send + 'static {
    /// What the stage records.
    type Row: LedgerRow;
    /// What it makes of a row of the upstream table.
    type Item: Item;

    /// An item for each row of a batch that asks for one. `version` is the one it was read with.
    ///
    /// # Errors
    /// Corrupt when the batch has other columns than the stage reads.
    fn items(&self, batch: &RecordBatch, version: i64) -> Result<Vec<Option<Self::Item>>>;

    /// The row of an item that needs no work. Called once for each item that is taken, before any of its work.
    fn settle(&mut self, item: &Self::Item) -> Option<Self::Row>;

    /// Begins to work on an item. No other item of its chat is under way until this has ended; `true` when everything
    /// that will ever be recorded of it has been, `false` when it was stopped before that.
    ///
    /// # Errors
    /// Those of the future end the stage.
    fn begin(&mut self, item: Self::Item, desk: Desk<Self::Row>) -> BoxFuture<'static, Result<bool>>;

    /// The row of an item whose work panicked twice; `rows` are there of it already.
    fn set_aside(&mut self, item: &Self::Item, rows: &Parts<Self::Row>, panic: &str) -> Self::Row;

    /// These rows are in the table since `version`.
    fn committed(&mut self, rows: &[Self::Row], version: i64);

    /// So many rows wait or are under way.
    fn waiting(&self, _rows: usize) {}

    /// Tells what is under way to end soon.
    fn wind_down(&self);
}

/// One row of the upstream table that asks for work.
pub(crate) trait Item: Clone + Send + Sync + 'static {
    /// What names it.
    fn key(&self) -> UpdateKey;
    /// Items of one chat are worked on one after the other.
    fn chat_id(&self) -> i64;
    /// The version it was read with.
    fn version(&self) -> i64;
}

/// A question or a word to the keeper of the ledger.
#[derive(Debug)]
pub(super) enum Call<R: LedgerRow> {
    /// What is there of this row: as known, or with the table read to its head?
    State { key: UpdateKey, part: R::Part, at_head: bool, answer: oneshot::Sender<Option<R::State>> },
    /// Record this; the answer comes when it is committed.
    Record { row: Box<R>, is_last: bool, done: oneshot::Sender<()> },
}

/// The stage is about to stop: what is not recorded is taken up again at the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

/// The way to the ledger of whoever works on an item.
#[derive(Debug)]
pub(crate) struct Desk<R: LedgerRow> {
    pub(super) calls: mpsc::Sender<Call<R>>,
}

impl<R: LedgerRow> Clone for Desk<R> {
    fn clone(&self) -> Self {
        Self { calls: self.calls.clone() }
    }
}

impl<R: LedgerRow> Desk<R> {
    /// What is known to be there of a row of an item under way.
    pub(crate) async fn state(&self, key: UpdateKey, part: R::Part) -> std::result::Result<Option<R::State>, Stopped> {
        self.ask(key, part, false).await
    }

    /// The same, with the table read to its head.
    pub(crate) async fn state_at_head(
        &self,
        key: UpdateKey,
        part: R::Part,
    ) -> std::result::Result<Option<R::State>, Stopped> {
        self.ask(key, part, true).await
    }

    async fn ask(
        &self,
        key: UpdateKey,
        part: R::Part,
        at_head: bool,
    ) -> std::result::Result<Option<R::State>, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.calls.send(Call::State { key, part, at_head, answer }).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }

    /// Records a row and returns when it is committed. With the last row of an item the watermark may pass it in the
    /// same commit.
    pub(crate) async fn record(&self, row: R, is_last: bool) -> std::result::Result<(), Stopped> {
        let (done, recorded) = oneshot::channel();
        self.calls.send(Call::Record { row: Box::new(row), is_last, done }).await.map_err(|_| Stopped)?;
        recorded.await.map_err(|_| Stopped)
    }
}
