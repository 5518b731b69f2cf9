//! What fits, what is refused, and what adopting does about it.
