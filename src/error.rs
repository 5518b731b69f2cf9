//! One error type whose kind says what the caller should do.
//!
//! An expected outcome (a lost race, an unknown send, a busy lane) is a value of the operation, not an error.
//! An error is logged once, where it is handled.

use std::error::Error as StdError;
use std::fmt;

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What the caller should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A person has to change a setting, a file or a table; exit code 2.
    Configuration,
    /// An outside system failed or could not be reached; try again later; exit code 3.
    Unavailable,
    /// It may or may not have happened; read back before anything else; exit code 3.
    Unknown,
    /// An outside system understood and refused; the same call will be refused again; exit code 3.
    Refused,
    /// Stored data is not what it must be; stop and look; exit code 3.
    Corrupt,
    /// The disk can no longer be trusted (an fsync failed); the process must end; exit code 3.
    Fatal,
    /// Our own code panicked; its owner is reopened, or the row is set aside with the text; exit code 3.
    Panicked,
}

/// An error: its kind, what was being done and how to fix it, and the cause.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error that is not caused by another library's error.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// A [`ErrorKind::Configuration`] error: say what is wrong, where, and how to fix it.
    pub fn configuration(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Configuration, context)
    }

    /// A [`ErrorKind::Unavailable`] error.
    pub fn unavailable(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, context)
    }

    /// A [`ErrorKind::Corrupt`] error.
    pub fn corrupt(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, context)
    }

    /// The same error with its cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error, noting that it happened while doing `context`.
    #[must_use]
    pub fn during(self, context: impl fmt::Display) -> Self {
        Self { context: format!("{context}: {}", self.context), ..self }
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether it may pass by itself: an outside system that is unavailable, an unknown outcome that reading back will
    /// settle, or a refusal while a credential is being renewed.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, ErrorKind::Unavailable | ErrorKind::Unknown | ErrorKind::Refused)
    }

    /// The exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Configuration => 2,
            _ => 3,
        }
    }
}

impl fmt::Display for Error {
    /// One line: what was being done, then the chain of causes.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.context)?;
        // Many errors repeat their cause; a line that adds nothing is left out.
        let mut said = self.context.clone();
        let mut cause = self.source.as_deref().map(|source| source as &dyn StdError);
        while let Some(error) = cause {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            if !said.contains(line) {
                write!(formatter, ": {line}")?;
                said.push_str(line);
            }
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as Store;
        let kind = match &error {
            Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => ErrorKind::Refused,
            Store::NotImplemented { .. } | Store::NotSupported { .. } | Store::InvalidPath { .. } => {
                ErrorKind::Configuration
            }
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, "object store").caused_by(error)
    }
}

/// Adds what was being done to any error, with the kind it should have.
pub trait Context<T> {
    /// Maps the error to one of `kind` that says it happened during `context`.
    ///
    /// # Errors
    /// The mapped error, when there was one.
    fn context(self, kind: ErrorKind, context: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context(self, kind: ErrorKind, context: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::new(kind, context).caused_by(source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_as_one_line_with_its_causes() {
        let cause = std::io::Error::other("no space left on device");
        let error = Error::unavailable("land a segment").caused_by(cause).during("serve");
        assert_eq!(error.to_string(), "serve: land a segment: no space left on device");
    }

    #[test]
    fn only_a_configuration_error_exits_with_two() {
        assert_eq!(Error::configuration("x").exit_code(), 2);
        assert_eq!(Error::unavailable("x").exit_code(), 3);
    }
}
