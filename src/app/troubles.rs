//! The outcome of many tables, sources or lanes: trouble with one keeps none of the others from its turn.

use crate::error::{Error, ErrorKind, Result};

/// What has failed so far. The gravest is kept for the caller, who handles it; each of the others is logged here.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    gravest: Option<Error>,
}

impl Troubles {
    /// What was done; `None`, and noted, if it failed.
    ///
    /// # Errors
    /// Fatal when the disk failed: nothing may have its turn after that.
    pub(super) fn pass<T>(&mut self, done: Result<T>) -> Result<Option<T>> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(error) => {
                self.note(error);
                let fatal = self.gravest.take_if(|gravest| gravest.kind() == ErrorKind::Fatal);
                fatal.map_or(Ok(None), Err)
            }
        }
    }

    /// Notes an error; logs it, unless it is the gravest so far.
    pub(super) fn note(&mut self, error: Error) {
        if let Some(error) = self.keep_graver(error) {
            tracing::warn!(%error, "this failed as well");
        }
    }

    /// Keeps the graver of an error and the one that is kept, and returns the other. Of equally grave ones the first is
    /// kept.
    fn keep_graver(&mut self, error: Error) -> Option<Error> {
        match &mut self.gravest {
            Some(gravest) if gravity(gravest) >= gravity(&error) => Some(error),
            gravest => gravest.replace(error),
        }
    }

    /// The gravest.
    pub(super) fn gravest(self) -> Option<Error> {
        self.gravest
    }

    /// Whether all went well.
    ///
    /// # Errors
    /// The gravest.
    pub(super) fn outcome(self) -> Result<()> {
        self.gravest.map_or(Ok(()), Err)
    }
}

/// How much an error takes: nothing but time, a look, a change of what is configured, or another disk.
fn gravity(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Unknown | ErrorKind::Refused => 0,
        ErrorKind::Corrupt | ErrorKind::Panicked => 1,
        ErrorKind::Configuration => 2,
        ErrorKind::Fatal => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_is_kept_and_every_other_comes_out_to_be_logged() {
        let mut troubles = Troubles::default();
        let kinds = [
            (ErrorKind::Unavailable, None),
            (ErrorKind::Refused, Some("1")),
            (ErrorKind::Corrupt, Some("0")),
            (ErrorKind::Configuration, Some("2")),
            (ErrorKind::Corrupt, Some("4")),
            (ErrorKind::Configuration, Some("5")),
            (ErrorKind::Unavailable, Some("6")),
        ];
        for (index, (kind, logged)) in kinds.into_iter().enumerate() {
            let other = troubles.keep_graver(Error::new(kind, index.to_string()));
            assert_eq!(other.map(|error| error.to_string()).as_deref(), logged, "{index}");
        }
        assert_eq!(troubles.outcome().unwrap_err().to_string(), "3");
        assert!(Troubles::default().outcome().is_ok());
    }

    #[test]
    fn only_a_disk_that_failed_ends_the_round() {
        let mut troubles = Troubles::default();
        let failed = |kind| Err::<(), _>(Error::new(kind, ""));
        for kind in [ErrorKind::Unavailable, ErrorKind::Configuration, ErrorKind::Panicked] {
            assert_eq!(troubles.pass(failed(kind)).unwrap(), None);
        }
        assert_eq!(troubles.pass(Ok(7)).unwrap(), Some(7));
        assert_eq!(troubles.pass(failed(ErrorKind::Fatal)).unwrap_err().kind(), ErrorKind::Fatal);
    }
}
