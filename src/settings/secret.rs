//! Secrets that may change while the process runs: a file is replaced, or `.env` is reloaded.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Environment;
use crate::clock::Clock;
use crate::error::Result;
use crate::redact;

/// How old a value may be before its source is checked again.
const FRESH: Duration = Duration::from_secs(1);

/// Checks a new value before it replaces the previous one; the error says why it may not.
type Check = dyn Fn(&str) -> Result<()> + Send + Sync;

/// The current value of a secret. Cheap to clone; clones share what was read.
#[derive(Clone)]
pub struct Secret {
    shared: Arc<Shared>,
}

struct Shared {
    /// `None` for a value that never changes.
    variable: Option<Variable>,
    current: Mutex<Arc<str>>,
    /// When the source was last checked, in milliseconds of its clock.
    looked_at_millis: AtomicU64,
    /// The last refused value, so that it is only reported once.
    refused: Mutex<Option<String>>,
}

struct Variable {
    environment: Environment,
    name: String,
    clock: Clock,
    check: Box<Check>,
}

impl fmt::Debug for Secret {
    /// Without the secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(***)")
    }
}

impl From<&str> for Secret {
    /// One that never changes.
    fn from(value: &str) -> Self {
        Self::holding(value, None)
    }
}

impl From<String> for Secret {
    /// One that never changes.
    fn from(value: String) -> Self {
        Self::holding(&value, None)
    }
}

impl Secret {
    /// The secret in a variable, or in the file that `<name>_FILE` names; `None` if it is not set. Later values replace
    /// it once `check` allows them.
    ///
    /// # Errors
    /// Those of the environment, and what `check` says about the current value.
    pub fn of_variable(
        environment: &Environment,
        name: &str,
        clock: &Clock,
        check: impl Fn(&str) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Option<Self>> {
        let Some(value) = environment.get(name)? else { return Ok(None) };
        hide(&value, redact::know);
        check(&value)?;
        let (environment, name) = (environment.clone(), name.to_owned());
        let variable = Variable { environment, name, clock: clock.clone(), check: Box::new(check) };
        Ok(Some(Self::holding(&value, Some(variable))))
    }

    fn holding(value: &str, variable: Option<Variable>) -> Self {
        hide(value, redact::know);
        let now = variable.as_ref().map_or(0, |variable| millis(&variable.clock));
        let shared = Shared {
            variable,
            current: Mutex::new(value.into()),
            looked_at_millis: AtomicU64::new(now),
            refused: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The current value; a change is noticed within a second.
    pub fn current(&self) -> Arc<str> {
        if let Some(variable) = &self.shared.variable {
            let looked_at = Duration::from_millis(self.shared.looked_at_millis.load(Ordering::Relaxed));
            if variable.clock.monotonic().saturating_sub(looked_at) >= FRESH {
                self.look(variable);
            }
        }
        Arc::clone(&self.shared.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The value after checking its source, however recently it was checked: for callers that were just refused.
    pub fn renewed(&self) -> Arc<str> {
        if let Some(variable) = &self.shared.variable {
            self.look(variable);
        }
        Arc::clone(&self.shared.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps the current value if the source cannot be read or its content is not allowed.
    fn look(&self, variable: &Variable) {
        self.shared.looked_at_millis.store(millis(&variable.clock), Ordering::Relaxed);
        let found = match variable.environment.get(&variable.name) {
            Ok(Some(found)) => found,
            Ok(None) => return self.refuse(variable, "it is no longer set"),
            Err(error) => return self.refuse(variable, &error.to_string()),
        };
        if *found == **self.shared.current.lock().unwrap_or_else(PoisonError::into_inner) {
            *self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return;
        }
        hide(&found, redact::know_for_now);
        if let Err(error) = (variable.check)(&found) {
            return self.refuse(variable, &error.to_string());
        }
        *self.shared.current.lock().unwrap_or_else(PoisonError::into_inner) = found.into();
        tracing::info!("{} has changed; using the new value", variable.name);
    }

    fn refuse(&self, variable: &Variable, reason: &str) {
        let mut refused = self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.as_deref() != Some(reason) {
            tracing::error!("not using the new {}, keeping the previous one: {reason}", variable.name);
            *refused = Some(reason.to_owned());
        }
    }
}

/// Some settings are two secrets, separated by a comma.
fn hide(value: &str, know: fn(&str)) {
    know(value);
    value.split(',').filter(|part| part.len() < value.len()).for_each(know);
}

fn millis(clock: &Clock) -> u64 {
    u64::try_from(clock.monotonic().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[tokio::test]
    async fn a_secret_in_a_file_is_read_again_and_a_wrong_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "7:one\n").unwrap();
        let environment = Environment::from_pairs([("TOKEN_FILE", file.to_str().unwrap())]);
        let check = |value: &str| match value.starts_with("7:") {
            true => Ok(()),
            false => Err(Error::configuration("it names another bot")),
        };
        let clock = Clock::fast(1_000);
        let secret = Secret::of_variable(&environment, "TOKEN", &clock, check).unwrap().unwrap();
        assert_eq!(&*secret.current(), "7:one");
        for (text, expected) in [("7:two", "7:two"), ("8:other", "7:two"), ("", "7:two"), ("7:three", "7:three")] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(&*secret.renewed(), expected, "{text}");
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(&*secret.renewed(), "7:three", "whoever replaces a file may remove it for a moment");
        std::fs::write(&file, "7:four").unwrap();
        clock.sleep(5 * FRESH).await;
        assert_eq!(&*secret.current(), "7:four", "without being asked for it");
        assert!(!format!("{secret:?}").contains("four"));
        for text in ["7:a-later-token", "8:refused-token", "7:the-latest-token"] {
            std::fs::write(&file, text).unwrap();
            secret.renewed();
        }
        for known in ["7:a-later-token", "8:refused-token", "7:the-latest-token"] {
            assert_eq!(redact::redact(known), "***", "whatever it is now");
        }
    }

    #[test]
    fn a_secret_that_is_not_allowed_at_the_start_is_an_error_and_none_is_none() {
        let environment = Environment::from_pairs([("TOKEN", "x")]);
        let refuse = |_: &str| Err(Error::configuration("no"));
        assert!(Secret::of_variable(&environment, "TOKEN", &Clock::system(), refuse).is_err());
        assert!(Secret::of_variable(&environment, "OTHER", &Clock::system(), refuse).unwrap().is_none());
    }
}
