//! The stage against a scripted model.
