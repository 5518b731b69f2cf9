//! What matches, what is refused, and what adopting does about it.
