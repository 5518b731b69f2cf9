//! Switches that each break one promise on purpose, so that a test can show that the suite would notice.
//!
//! Outside this crate's tests all of them are always off, and the compiler removes them.

/// What a switch disables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// Refusing a commit when someone else has raised its fence.
    Fence,
    /// Reading back the outcome of a put that is in doubt.
    ReadBack,
    /// Creating an intent before anything is sent.
    Intent,
    /// Refusing to commit on a head that was read too long ago.
    StaleHead,
    /// Keeping a position below what is not ingested.
    Contiguous,
}

/// Whether a check is disabled.
#[cfg(not(test))]
pub(crate) const fn is_on(_: Sabotage) -> bool {
    false
}

/// Whether a check is disabled in this process, decided once by its environment.
#[cfg(test)]
#[allow(clippy::disallowed_methods)]
pub(crate) fn is_on(switch: Sabotage) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var(VARIABLE).ok());
    chosen.as_deref().is_some_and(|chosen| chosen == format!("{switch:?}"))
}

/// The variable that names the active switch.
#[cfg(test)]
pub(crate) const VARIABLE: &str = "LAKEGRAM_SABOTAGE";
