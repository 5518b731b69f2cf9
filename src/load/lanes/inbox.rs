//! The hints of the lanes' receivers, as the loader waits for them.

use std::future;

use futures::FutureExt;

use crate::hint::{HintedKeys, KeyHints};

/// The hints, until every sender is gone.
pub(super) struct Inbox(pub(super) Option<KeyHints>);

impl Inbox {
    /// The hints that are there now.
    pub(super) fn take(&mut self, limit: usize) -> Option<HintedKeys> {
        self.next(limit).now_or_never()
    }

    /// Waits for hints. Safe to cancel.
    pub(super) async fn next(&mut self, limit: usize) -> HintedKeys {
        if let Some(hints) = &mut self.0 {
            if let Some(hinted) = hints.next(limit).await {
                return hinted;
            }
            self.0 = None;
        }
        future::pending().await
    }
}
