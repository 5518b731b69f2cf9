//! The reply stage.
