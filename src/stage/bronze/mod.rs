//! The bronze stage.
