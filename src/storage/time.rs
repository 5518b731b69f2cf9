//! The store's clock: last-modified times are its own, so ages are measured by it and not by ours.

use std::time::Duration;

use super::{Storage, StorageKey};
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, Result};
use crate::id::random_id;

/// Clocks that disagree by more than this are not trusted with anything that deletes.
const TRUSTED: Duration = Duration::from_secs(3_600);

impl Storage {
    /// The store's current time, from the date of an object put for this purpose.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn time(&self) -> Result<Timestamp> {
        let path = StorageKey::ClockProbe.path();
        self.put_overwrite(&path, random_id().to_string().into()).await?;
        let found = self.head(&path).await?;
        let found = found.ok_or_else(|| Error::unavailable(format!("{path} was written but does not exist")))?;
        Ok(Timestamp::from_micros(found.last_modified.timestamp_micros()))
    }

    /// A clock that shows the store's time, for what deletes by age.
    ///
    /// # Errors
    /// Unavailable when that time and ours are more than an hour apart: one of the clocks is wrong, and nothing is
    /// deleted until someone has fixed it.
    pub async fn clock(&self, ours: &Clock) -> Result<Clock> {
        let (theirs, now) = (self.time().await?, ours.now());
        if now.since(theirs).max(theirs.since(now)) > TRUSTED {
            return Err(Error::unavailable(format!(
                "this machine's clock says {now} and the store's says {theirs}; nothing is deleted by age until they \
                 agree: set the clock (NTP), then run it again"
            )));
        }
        Ok(ours.showing(theirs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_clock_that_is_a_little_off_follows_the_store_and_one_that_is_far_off_is_refused_with_both_times() {
        let (storage, clock) = (Storage::memory(), Clock::system());
        clock.step(600_000_000);
        let shown = storage.clock(&clock).await.unwrap();
        let off = clock.now().since(shown.now());
        assert!(off > Duration::from_secs(590) && off < Duration::from_secs(610), "{off:?}");
        for hours in [-400 * 24, 2, 10 * 24, 27_000 * 24] {
            let clock = Clock::system();
            clock.step(hours * 3_600_000_000);
            let error = storage.clock(&clock).await.unwrap_err().to_string();
            let year = clock.now().to_string();
            assert!(error.contains(&year[..10]) && error.contains("set the clock"), "{error}");
        }
    }
}
