//! The only door to environment variables, `.env` and secret files.
#![allow(clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use super::dot_env;
use super::learn::learn;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::id::Name;
use crate::redact;

/// Variables of this process with those of `.env` below them. Clones share `.env`, which may be read again.
#[derive(Clone, Default)]
pub struct Environment {
    values: BTreeMap<String, String>,
    dot_env: Option<Arc<DotEnv>>,
    /// Names of `.env` that do not count here.
    hidden: BTreeSet<String>,
}

struct DotEnv {
    file: PathBuf,
    values: RwLock<BTreeMap<String, String>>,
}

impl fmt::Debug for Environment {
    /// Names only: values may be secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.values.keys()).finish()
    }
}

impl Environment {
    /// The variables of this process, and those of the file `.env` in `folder` that the process does not have.
    ///
    /// # Errors
    /// A configuration error when `.env` exists and cannot be parsed.
    pub fn of_process(folder: &Path) -> Result<Self> {
        // A variable that is not UTF-8 is not one of ours.
        let values =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let values: BTreeMap<String, String> = values.collect();
        values.iter().for_each(|(name, value)| learn(name, value, redact::know));
        let file = folder.join(".env");
        let dot_env = DotEnv { values: RwLock::new(read_dot_env(&file, &values)?), file };
        Ok(Self { values, dot_env: Some(Arc::new(dot_env)), hidden: BTreeSet::new() })
    }

    /// Reads `.env` again, for this environment and all its clones.
    ///
    /// # Errors
    /// A configuration error when it does not parse; the values before stay.
    pub fn reload(&self) -> Result<()> {
        let Some(dot_env) = &self.dot_env else { return Ok(()) };
        let values = read_dot_env(&dot_env.file, &self.values)?;
        *dot_env.values.write().unwrap_or_else(PoisonError::into_inner) = values;
        Ok(())
    }

    /// Exactly these variables.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let pairs = pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let values: BTreeMap<String, String> = pairs.collect();
        values.iter().for_each(|(name, value)| learn(name, value, redact::know));
        Self { values, ..Self::default() }
    }

    /// The same variables, with these taking precedence.
    #[must_use]
    pub fn with<'a>(mut self, pairs: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        for (name, value) in pairs {
            learn(name, &value, redact::know);
            self.values.remove(&format!("{name}_FILE"));
            self.hidden.insert(format!("{name}_FILE"));
            self.values.insert(name.to_owned(), value);
        }
        self
    }

    /// The value of `name`, or the content of the file that `name` plus `_FILE` names. An empty value counts as unset.
    ///
    /// # Errors
    /// A configuration error when the file cannot be read, or both are given.
    pub fn get(&self, name: &str) -> Result<Option<String>> {
        let set = |name: &str| self.value(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let file_name = format!("{name}_FILE");
        match (set(name), set(&file_name)) {
            (Some(_), Some(_)) => Err(Error::configuration(format!("{name} and {file_name} are both set; keep one"))),
            (Some(value), None) => Ok(Some(value)),
            (None, Some(file)) => {
                // Not what it holds: that may be the secret itself.
                let wrong = format!("{file_name}: cannot read the file; write the path of a file that holds the value");
                let text = std::fs::read_to_string(&file).context(ErrorKind::Configuration, wrong)?;
                learn(name, &text, redact::know_for_now);
                Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
            }
            (None, None) => Ok(None),
        }
    }

    /// The value of `name`.
    ///
    /// # Errors
    /// A configuration error that names it, and how to fix it, when it is not set.
    pub fn require(&self, name: &str, fix: &str) -> Result<String> {
        self.get(name)?.ok_or_else(|| Error::configuration(format!("{name} is not set; {fix}")))
    }

    /// The host's name as a lane: `HOSTNAME`, or what the system says.
    pub fn host_name(&self) -> Name {
        let of_system = || std::fs::read_to_string("/etc/hostname").ok();
        let name = self.value("HOSTNAME").or_else(of_system).unwrap_or_default();
        Name::cleaned(name.trim())
    }

    /// The process wins over `.env`.
    fn value(&self, name: &str) -> Option<String> {
        let of_file = || {
            let dot_env = self.dot_env.as_ref().filter(|_| !self.hidden.contains(name))?;
            dot_env.values.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
        };
        self.values.get(name).cloned().or_else(of_file)
    }
}

/// The variables in the file; none when it is not there.
fn read_dot_env(file: &Path, outside: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    if !file.is_file() {
        return Ok(BTreeMap::new());
    }
    let text = std::fs::read_to_string(file).context(ErrorKind::Configuration, "cannot read .env")?;
    let values = dot_env::parse(&text, |name| outside.get(name).cloned())?;
    values.iter().for_each(|(name, value)| learn(name, value, redact::know));
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_may_come_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "1:abc\n").unwrap();
        let environment = Environment::from_pairs([("TOKEN_FILE", file.to_str().unwrap())]);
        assert_eq!(environment.get("TOKEN").unwrap().unwrap(), "1:abc");
    }

    #[test]
    fn a_missing_secret_file_is_named() {
        for value in ["/nowhere/token", "1:the-secret-itself", &"very-long".repeat(1_000)] {
            let environment = Environment::from_pairs([("TOKEN_FILE", value)]);
            let error = environment.get("TOKEN").unwrap_err().to_string();
            let expected = "TOKEN_FILE: cannot read the file; write the path of a file that holds the value: ";
            assert!(error.starts_with(expected) && !error.contains(value), "{error}");
        }
    }

    #[test]
    fn the_process_wins_over_dot_env() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(".env"), "PATH=/wrong\nLAKEGRAM_TEST_ONLY=\"a b\"\n").unwrap();
        let environment = Environment::of_process(folder.path()).unwrap();
        assert_eq!(environment.get("LAKEGRAM_TEST_ONLY").unwrap().unwrap(), "a b");
        assert_ne!(environment.get("PATH").unwrap().unwrap(), "/wrong");
    }

    #[test]
    fn dot_env_is_read_again_for_every_clone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".env");
        std::fs::write(&file, "LAKEGRAM_TEST_ONLY=one\nLAKEGRAM_TEST_TOO_FILE=/nowhere\n").unwrap();
        let environment = Environment::of_process(folder.path()).unwrap();
        let other = environment.clone().with([("LAKEGRAM_TEST_TOO", "fixed".to_owned())]);
        std::fs::write(&file, "LAKEGRAM_TEST_ONLY=two\nLAKEGRAM_TEST_TOO=three\n").unwrap();
        assert_eq!(other.get("LAKEGRAM_TEST_ONLY").unwrap().unwrap(), "one");
        environment.reload().unwrap();
        assert_eq!(other.get("LAKEGRAM_TEST_ONLY").unwrap().unwrap(), "two");
        assert_eq!(other.get("LAKEGRAM_TEST_TOO").unwrap().unwrap(), "fixed");
        std::fs::write(&file, "LAKEGRAM_TEST_ONLY=broken secret").unwrap();
        assert!(!environment.reload().unwrap_err().to_string().contains("secret"));
        assert_eq!(other.get("LAKEGRAM_TEST_ONLY").unwrap().unwrap(), "two");
    }

    #[test]
    fn values_are_not_shown() {
        let shown = format!("{:?}", Environment::from_pairs([("TOKEN", "s3cret")]));
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
