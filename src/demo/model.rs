//! A model stand-in that says it is one.
