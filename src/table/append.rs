//! The commit path.
