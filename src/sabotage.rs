//! Switches that break one promise each, on purpose, so that a test can show that the suite would notice.
//!
//! Outside the tests of this crate all of them are off for good, and the compiler takes them out.

/// What a switch takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// A commit is refused when somebody else has raised its fence.
    Fence,
    /// What became of a put in doubt is read back.
    ReadBack,
    /// Nothing is sent without an intent.
    Intent,
    /// A head that was read too long ago is not committed on.
    StaleHead,
    /// A position stops before what is not ingested.
    Contiguous,
}

/// Whether a check is switched off.
#[cfg(not(test))]
pub(crate) const fn is_on(_: Sabotage) -> bool {
    false
}

/// Whether a check is switched off in this process, which its environment says once and for all.
#[cfg(test)]
#[allow(clippy::disallowed_methods)]
pub(crate) fn is_on(switch: Sabotage) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var(VARIABLE).ok());
    chosen.as_deref().is_some_and(|chosen| chosen == format!("{switch:?}"))
}

/// Names the switch that is on.
#[cfg(test)]
pub(crate) const VARIABLE: &str = "LAKEGRAM_SABOTAGE";
