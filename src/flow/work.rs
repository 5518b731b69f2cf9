//! What a stage does with a row of its upstream table, and how it reaches its ledger meanwhile.

use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::key::UpdateKey;
use super::ledger::{LedgerRow, Parts};
use crate::error::Result;

/// A stage, as seen by a [`Flow`](super::Flow).
pub(crate) trait Work: Send + 'static {
    /// What the stage records.
    type Row: LedgerRow;
    /// What it makes of a row of the upstream table.
    type Item: Item;

    /// An item for each row of a batch that requires one. `version` is the version it was read at.
    ///
    /// # Errors
    /// Corrupt when the batch has other columns than the stage reads.
    fn items(&self, batch: &RecordBatch, version: i64) -> Result<Vec<Option<Self::Item>>>;

    /// The row of an item that needs no work. Called once per item that is taken, before any of its work.
    fn settle(&mut self, item: &Self::Item) -> Option<Self::Row>;

    /// Starts processing an item. No other item of its chat is in progress until this ends; `true` if everything that
    /// will ever be recorded for it was recorded, `false` if it was stopped before that.
    ///
    /// # Errors
    /// Those of the future end the stage.
    fn begin(&mut self, item: Self::Item, desk: Desk<Self::Row>) -> BoxFuture<'static, Result<bool>>;

    /// The row of an item whose work panicked twice; `rows` already exist for it.
    fn set_aside(&mut self, item: &Self::Item, rows: &Parts<Self::Row>, panic: &str) -> Self::Row;

    /// These rows are in the table since `version`.
    fn committed(&mut self, rows: &[Self::Row], version: i64);

    /// How many rows are waiting or in progress.
    fn waiting(&self, _rows: usize) {}

    /// Tells items in progress to end soon.
    fn wind_down(&self);
}

/// One row of the upstream table that requires work.
pub(crate) trait Item: Clone + Send + Sync + 'static {
    /// Its key.
    fn key(&self) -> UpdateKey;
    /// Items of one chat are processed one after another.
    fn chat_id(&self) -> i64;
    /// The version it was read with.
    fn version(&self) -> i64;
}

/// A message to the keeper of the ledger.
#[derive(Debug)]
pub(super) enum Call<R: LedgerRow> {
    /// Asks for the existing rows: as known, or after reading the table to its head.
    State { key: UpdateKey, part: R::Part, at_head: bool, answer: oneshot::Sender<Option<R::State>> },
    /// Records this; the answer comes once it is committed.
    Record { row: Box<R>, is_last: bool, done: oneshot::Sender<()> },
}

/// The stage is about to stop: what is not recorded is processed again at the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

/// An item's access to the ledger.
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
    /// The known existing rows of an item in progress.
    pub(crate) async fn state(&self, key: UpdateKey, part: R::Part) -> std::result::Result<Option<R::State>, Stopped> {
        self.ask(key, part, false).await
    }

    /// The same, after reading the table to its head.
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
