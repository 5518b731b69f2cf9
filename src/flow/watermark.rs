//! How far a stage has handled the table before it, while rows finish out of order.

use std::collections::BTreeMap;

/// Rows that are not done, by the version they were read with.
#[derive(Debug)]
pub(crate) struct Watermark {
    open: BTreeMap<i64, Open>,
    read_to: i64,
}

#[derive(Debug)]
struct Open {
    /// The first version these rows may be of: where a stretch of the log is gone, all of it is read as its last.
    first: i64,
    rows: usize,
}

impl Watermark {
    /// Everything up to `version` is done.
    pub(crate) fn new(version: i64) -> Self {
        Self { open: BTreeMap::new(), read_to: version }
    }

    /// Everything up to `version` was read, with so many rows to do; or more of a version that has open rows.
    pub(crate) fn read(&mut self, version: i64, rows: usize) {
        let first = self.read_to + 1;
        self.read_to = self.read_to.max(version);
        if rows > 0 {
            self.open.entry(version).or_insert(Open { first, rows: 0 }).rows += rows;
        }
    }

    /// A row of a version is done.
    pub(crate) fn done(&mut self, version: i64) {
        if let Some(open) = self.open.get_mut(&version) {
            open.rows -= 1;
            if open.rows == 0 {
                self.open.remove(&version);
            }
        }
    }

    /// The version up to which everything is done.
    pub(crate) fn value(&self) -> i64 {
        self.open.values().next().map_or(self.read_to, |open| open.first - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_stops_before_the_first_version_with_an_open_row() {
        let mut watermark = Watermark::new(3);
        watermark.read(4, 0);
        assert_eq!(watermark.value(), 4);
        watermark.read(5, 2);
        watermark.read(6, 1);
        watermark.done(6);
        watermark.done(5);
        assert_eq!(watermark.value(), 4);
        watermark.done(5);
        assert_eq!(watermark.value(), 6);
    }

    #[test]
    fn a_stretch_that_was_read_as_its_last_version_is_open_from_its_first() {
        let mut watermark = Watermark::new(3);
        watermark.read(9, 1);
        watermark.read(9, 2);
        watermark.read(10, 0);
        for _ in 0..3 {
            assert_eq!(watermark.value(), 3);
            watermark.done(9);
        }
        assert_eq!(watermark.value(), 10);
    }

    proptest! {
        #[test]
        fn it_never_passes_an_open_row_and_ends_at_what_was_read(
            rows in proptest::collection::vec(0_usize..4, 1..12), seed in any::<u64>(),
        ) {
            let mut watermark = Watermark::new(-1);
            let mut open = Vec::new();
            for (version, rows) in (0..).zip(&rows) {
                watermark.read(version, *rows);
                open.extend(std::iter::repeat_n(version, *rows));
            }
            let mut dice = seed;
            while !open.is_empty() {
                prop_assert_eq!(watermark.value(), open.iter().min().copied().unwrap_or_default() - 1);
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let index = usize::try_from(dice >> 33).unwrap_or_default() % open.len();
                watermark.done(open.swap_remove(index));
            }
            prop_assert_eq!(watermark.value(), rows.len() as i64 - 1);
        }
    }
}
