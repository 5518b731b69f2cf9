//! How far a stage has handled its upstream table, while rows finish out of order.

use std::collections::BTreeMap;

/// Unfinished rows, by the version they were read at.
#[derive(Debug)]
pub(crate) struct Watermark {
    open: BTreeMap<i64, Open>,
    /// How many versions are open from each first version on.
    firsts: BTreeMap<i64, usize>,
    read_to: i64,
    /// Nothing after this version counts as done before all of it has been compared.
    held: Option<i64>,
}

#[derive(Debug)]
struct Open {
    /// The first version these rows may belong to: when contents are compared, all of them are read as the last one.
    first: i64,
    rows: usize,
}

impl Watermark {
    /// Everything up to `version` is done.
    pub(crate) fn new(version: i64) -> Self {
        Self { open: BTreeMap::new(), firsts: BTreeMap::new(), read_to: version, held: None }
    }

    /// Everything up to `version` was read, with this many rows to do; or more rows of a version that has open ones.
    pub(crate) fn read(&mut self, version: i64, rows: usize) {
        let first = version.min(self.read_to + 1);
        self.read_to = self.read_to.max(version);
        if rows > 0 {
            self.open(version, first, rows);
        }
    }

    /// All rows up to some version, which is not known yet, are read again: the value stays.
    pub(crate) fn hold(&mut self) {
        self.held = Some(self.value());
    }

    /// All rows up to `version` are read again. It is open until [`Self::done`] says otherwise.
    pub(crate) fn compare(&mut self, version: i64) {
        let first = self.value() + 1;
        self.held = None;
        self.read_to = self.read_to.max(version);
        self.open(version, first, 1);
    }

    fn open(&mut self, version: i64, first: i64, rows: usize) {
        let firsts = &mut self.firsts;
        let open = self.open.entry(version).or_insert_with(|| {
            *firsts.entry(first).or_default() += 1;
            Open { first, rows: 0 }
        });
        open.rows += rows;
        if first < open.first {
            close(firsts, open.first);
            *firsts.entry(first).or_default() += 1;
            open.first = first;
        }
    }

    /// A row of a version is done.
    pub(crate) fn done(&mut self, version: i64) {
        if let Some(open) = self.open.get_mut(&version) {
            open.rows -= 1;
            if open.rows == 0 {
                close(&mut self.firsts, open.first);
                self.open.remove(&version);
            }
        }
    }

    /// The version up to which everything is done.
    pub(crate) fn value(&self) -> i64 {
        let open = self.firsts.keys().next().map_or(self.read_to, |first| first - 1);
        self.held.map_or(open, |held| held.min(open))
    }
}

/// One version fewer is open from `first` on.
fn close(firsts: &mut BTreeMap<i64, usize>, first: i64) {
    if let Some(count) = firsts.get_mut(&first) {
        *count -= 1;
        if *count == 0 {
            firsts.remove(&first);
        }
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

    #[test]
    fn rows_that_are_compared_once_more_hold_it_where_it_was() {
        let mut watermark = Watermark::new(3);
        watermark.read(4, 1);
        watermark.read(5, 1);
        watermark.done(4);
        assert_eq!(watermark.value(), 4);
        watermark.hold();
        watermark.done(5);
        assert_eq!(watermark.value(), 4);
        watermark.compare(8);
        watermark.read(8, 1);
        watermark.done(8);
        assert_eq!(watermark.value(), 4, "a row of version 5 may be open as one of version 8");
        watermark.done(8);
        assert_eq!(watermark.value(), 8);
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
