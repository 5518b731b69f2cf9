//! Which kind of call has met which fault, and how often.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};

/// A kind of call.
pub(in crate::tests) trait Operation: Copy + Debug + Ord + Send + 'static {
    type Fault: Copy + Debug + Ord + Send + 'static;
    const ALL: &'static [Self];
    const FAULTS: &'static [Self::Fault];

    /// The faults that it meets by chance.
    fn faults(self) -> &'static [Self::Fault];

    /// Whether it can meet a fault at all.
    fn can_meet(self, fault: Self::Fault) -> bool {
        self.faults().contains(&fault)
    }
}

/// How often each operation has met each fault.
#[derive(Clone, Debug)]
pub(in crate::tests) struct Matrix<O: Operation>(BTreeMap<(O, O::Fault), u64>);

impl<O: Operation> Default for Matrix<O> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<O: Operation> Matrix<O> {
    pub(in crate::tests) fn note(&mut self, operation: O, fault: O::Fault) {
        *self.0.entry((operation, fault)).or_default() += 1;
    }

    pub(in crate::tests) fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(cell, met)| *self.0.entry(*cell).or_default() += met);
    }

    fn met(&self, operation: O, fault: O::Fault) -> u64 {
        self.0.get(&(operation, fault)).copied().unwrap_or(0)
    }

    /// As a table; a dash stands for what cannot happen.
    pub(in crate::tests) fn to_table(&self) -> String {
        let mut text = format!("{:<11}", "");
        O::FAULTS.iter().for_each(|fault| write!(text, "{:>13}", format!("{fault:?}")).unwrap());
        for operation in O::ALL {
            write!(text, "\n{:<11}", format!("{operation:?}")).unwrap();
            for fault in O::FAULTS {
                let cell = match operation.can_meet(*fault) {
                    true => self.met(*operation, *fault).to_string(),
                    false => "-".to_owned(),
                };
                write!(text, "{cell:>13}").unwrap();
            }
        }
        text
    }

    /// The cells that were met fewer than `least` times.
    pub(in crate::tests) fn rarer_than(&self, least: u64) -> Vec<String> {
        let cells = O::ALL.iter().flat_map(|operation| O::FAULTS.iter().map(|fault| (*operation, *fault)));
        let rare =
            cells.filter(|(operation, fault)| operation.can_meet(*fault) && self.met(*operation, *fault) < least);
        rare.map(|(operation, fault)| format!("{operation:?} × {fault:?}: {}", self.met(operation, fault))).collect()
    }
}
