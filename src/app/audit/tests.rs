//! Planted faults, each found and named.
