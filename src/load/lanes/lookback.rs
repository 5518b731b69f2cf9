//! The daily look-back: two days below each position, for what a store has shown late.
//!
//! It goes in small steps, one file of the table or one page of a listing at a time, so that hints need not wait.

use std::collections::VecDeque;

use object_store::path::Path;
use tokio_util::sync::CancellationToken;

use super::BronzeStage;
use super::known::LateLane;
use super::lane::{self, Found};
use crate::clock::Timestamp;
use crate::error::{Error, Result};

/// A look-back in progress.
#[derive(Debug)]
pub(super) struct LookBack {
    began: Timestamp,
    epoch: u64,
    /// Table files that were not read yet.
    files: Vec<crate::table::DataFile>,
    /// Lanes that are not completely listed yet, and where the listing of the first continues.
    lanes: VecDeque<LateLane>,
    after: Option<Path>,
    /// Why a segment could not be read. The others are covered all the same, and then it starts over.
    trouble: Option<Error>,
}

impl BronzeStage {
    /// Begins a look-back, or takes its next step; returns whether there was anything to do.
    ///
    /// # Errors
    /// When the store fails; the same step is then taken again. Also at its end, if a segment could not be read: the
    /// look-back is incomplete, and nothing else looks there again.
    pub(super) async fn look_back(&mut self, stop: &CancellationToken) -> Result<bool> {
        let mut look_back = match self.look_back.take() {
            Some(look_back) => look_back,
            None => match self.begin_look_back().await? {
                Some(look_back) => look_back,
                None => return Ok(false),
            },
        };
        let stepped = self.step_back(&mut look_back, stop).await;
        if look_back.epoch != self.ledger.epoch() {
            self.ledger.drop_late();
        } else if look_back.lanes.is_empty() {
            if let Some(trouble) = look_back.trouble {
                self.ledger.drop_late();
                return Err(trouble);
            }
            self.ledger.end_late(look_back.began);
        } else {
            self.look_back = Some(look_back);
        }
        stepped.map(|()| true)
    }

    async fn begin_look_back(&mut self) -> Result<Option<LookBack>> {
        let lanes = self.ledger.look_back_lanes();
        let Some(first) = lanes.first() else { return Ok(None) };
        let after = first.id.after(first.from);
        let (began, epoch) = (self.clock.now(), self.ledger.epoch());
        let files = self.ledger.begin_late(lanes.clone()).await?;
        Ok(Some(LookBack { began, epoch, files, lanes: lanes.into(), after, trouble: None }))
    }

    async fn step_back(&mut self, look_back: &mut LookBack, stop: &CancellationToken) -> Result<()> {
        if look_back.epoch != self.ledger.epoch() {
            return Ok(());
        }
        if let Some(file) = look_back.files.last() {
            self.ledger.learn_late(file).await?;
            look_back.files.pop();
            return Ok(());
        }
        self.ledger.complete_late();
        let Some(lane) = look_back.lanes.front() else { return Ok(()) };
        let place = self.ledger.place();
        let page = lane::list(&place.storage, &lane.id, look_back.after.as_ref()).await?;
        let is_last = page.next.is_none() || page.found.last().is_some_and(|last| last.key.micros > lane.to);
        let below = page.found.into_iter().filter(|found| found.key.micros <= lane.to);
        let missing: Vec<Found> = below.filter(|found| !self.ledger.known.is_ingested(&found.key)).collect();
        if let Some(trouble) = self.load_listed(missing, stop).await? {
            look_back.trouble = Some(trouble);
        }
        if stop.is_cancelled() {
            // A page may have been left half way.
            return Ok(());
        }
        look_back.after = page.next;
        if is_last {
            look_back.lanes.pop_front();
            let next = look_back.lanes.front();
            look_back.after = next.and_then(|next| next.id.after(next.from));
        }
        Ok(())
    }
}
