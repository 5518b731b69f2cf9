//! The silver stage.
