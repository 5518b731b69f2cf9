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

    /// What a stage and its upstream table may do next; what does not apply is nothing.
    #[derive(Clone, Debug)]
    enum Step {
        /// The next commit is read.
        Read,
        /// All rows up to the head, which is this many commits away, are read again.
        Compare(usize),
        /// So many rows of that are delivered.
        Deliver(usize),
        /// That is over, if everything was delivered.
        Clear,
        /// That ends early: rows are gone, and everything is read again.
        Abandon,
        /// Every so-many-th open row has moved in the upstream table, and everything is read again.
        Move(usize),
        /// One of the open rows is done.
        Done(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Read),
            1 => (0_usize..3).prop_map(Step::Compare),
            3 => (1_usize..4).prop_map(Step::Deliver),
            2 => Just(Step::Clear),
            1 => Just(Step::Abandon),
            1 => (1_usize..4).prop_map(Step::Move),
            4 => any::<usize>().prop_map(Step::Done),
        ]
    }

    /// A stage as the watermark sees it.
    struct Model {
        watermark: Watermark,
        /// Every row's version in the upstream table.
        rows: Vec<i64>,
        head: i64,
        is_done: Vec<bool>,
        /// Rows that were taken and are not done, with the version they were read at.
        open: Vec<(usize, i64)>,
        read_to: i64,
        /// The version up to which rows are compared, and the row that comes next.
        comparing: Option<(i64, usize)>,
        must_compare: bool,
    }

    impl Model {
        fn new(rows_per_version: &[usize]) -> Self {
            let rows = (0..).zip(rows_per_version).flat_map(|(version, rows)| std::iter::repeat_n(version, *rows));
            let rows: Vec<i64> = rows.collect();
            Self {
                watermark: Watermark::new(-1),
                is_done: vec![false; rows.len()],
                rows,
                head: i64::try_from(rows_per_version.len()).unwrap() - 1,
                open: Vec::new(),
                read_to: -1,
                comparing: None,
                must_compare: false,
            }
        }

        fn take(&mut self, row: usize, version: i64) {
            if !self.is_done[row] && self.open.iter().all(|(open, _)| *open != row) {
                self.watermark.read(version, 1);
                self.open.push((row, version));
            }
        }

        fn step(&mut self, step: &Step) {
            let is_reading = self.comparing.is_none() && !self.must_compare;
            match *step {
                Step::Read if is_reading && self.read_to < self.head => {
                    self.read_to += 1;
                    self.watermark.read(self.read_to, 1);
                    for row in 0..self.rows.len() {
                        if self.rows[row] == self.read_to {
                            self.take(row, self.read_to);
                        }
                    }
                    self.watermark.done(self.read_to);
                }
                Step::Compare(ahead) if self.comparing.is_none() => {
                    self.read_to = self.head.min(self.read_to + i64::try_from(ahead).unwrap());
                    self.watermark.compare(self.read_to);
                    (self.comparing, self.must_compare) = (Some((self.read_to, 0)), false);
                }
                Step::Deliver(count) => {
                    for _ in 0..count {
                        let Some((version, next)) = self.comparing.filter(|(_, next)| *next < self.rows.len()) else {
                            return;
                        };
                        if self.rows[next] <= version {
                            self.take(next, version);
                        }
                        self.comparing = Some((version, next + 1));
                    }
                }
                Step::Clear => {
                    if let Some((version, _)) = self.comparing.take_if(|(_, next)| *next == self.rows.len()) {
                        self.watermark.done(version);
                    }
                }
                Step::Abandon => self.abandon(),
                Step::Move(every) => {
                    self.must_compare = true;
                    self.watermark.hold();
                    let mut number = 0;
                    for (_, version) in self.open.extract_if(.., |_| {
                        number += 1;
                        number % every == 0
                    }) {
                        self.watermark.done(version);
                    }
                    if let Some((version, _)) = self.comparing.take() {
                        self.watermark.done(version);
                    }
                }
                Step::Done(which) if !self.open.is_empty() => {
                    let (row, version) = self.open.swap_remove(which % self.open.len());
                    self.is_done[row] = true;
                    self.watermark.done(version);
                }
                _ => {}
            }
        }

        fn abandon(&mut self) {
            if let Some((version, _)) = self.comparing.take() {
                self.watermark.hold();
                self.watermark.done(version);
                self.must_compare = true;
            }
        }

        /// The version before the first row that is not done, and of what was read.
        fn bound(&self) -> i64 {
            let undone = self.rows.iter().zip(&self.is_done).filter(|(_, is_done)| !**is_done);
            undone.map(|(version, _)| version - 1).min().unwrap_or(self.read_to).min(self.read_to)
        }
    }

    proptest! {
        /// However commits, comparisons and rows that move interleave, the watermark never falls, never passes a row
        /// that is not done, and reaches the head once all of them are.
        #[test]
        fn it_rises_to_the_head_and_passes_no_row_that_is_not_done(
            rows in proptest::collection::vec(0_usize..4, 1..8), steps in proptest::collection::vec(step(), 0..80),
        ) {
            let mut model = Model::new(&rows);
            let mut before = -1;
            let end = [Step::Abandon, Step::Compare(100), Step::Deliver(100), Step::Clear];
            let end = end.into_iter().chain(std::iter::repeat_n(Step::Done(0), 100));
            for step in steps.into_iter().chain(end) {
                model.step(&step);
                let value = model.watermark.value();
                let bound = model.bound();
                prop_assert!(before <= value && value <= bound, "{before}, {value}, {bound} after {step:?}");
                before = value;
            }
            prop_assert_eq!(model.watermark.value(), model.head);
            prop_assert!(model.watermark.open.is_empty() && model.watermark.firsts.is_empty());
        }

        /// While rows only finish, it is the version before the first one with an open row.
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
