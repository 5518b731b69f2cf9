//! Which fault hits which call: first those planned by a test, then random ones, until all faults end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Dice, Matrix, Operation};

/// The faults of one world, for calls grouped by class.
#[derive(Debug)]
pub(in crate::tests) struct FaultPlan<O: Operation> {
    seed: u64,
    has_ended: AtomicBool,
    planned: Mutex<BTreeMap<String, VecDeque<O::Fault>>>,
    /// Calls so far, by class.
    calls: Mutex<BTreeMap<String, u64>>,
    matrix: Mutex<Matrix<O>>,
}

impl<O: Operation> FaultPlan<O> {
    pub(in crate::tests) fn new(seed: u64) -> Self {
        Self {
            seed,
            has_ended: AtomicBool::new(false),
            planned: Mutex::default(),
            calls: Mutex::default(),
            matrix: Mutex::default(),
        }
    }

    /// No more faults.
    pub(in crate::tests) fn end(&self) {
        self.has_ended.store(true, Ordering::SeqCst);
        self.planned.lock().unwrap().clear();
    }

    pub(in crate::tests) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    /// Plans these faults for the next calls of a class.
    pub(in crate::tests) fn plan(&self, class: &str, faults: impl IntoIterator<Item = O::Fault>) {
        self.planned.lock().unwrap().entry(class.to_owned()).or_default().extend(faults);
    }

    /// How many faults are still planned for a class.
    pub(in crate::tests) fn planned_for(&self, class: &str) -> usize {
        self.planned.lock().unwrap().get(class).map_or(0, VecDeque::len)
    }

    /// Counts a call of a class: returns its planned fault, and dice that no other call can disturb.
    pub(in crate::tests) fn next(&self, class: &str) -> (Option<O::Fault>, Dice) {
        let number = {
            let mut calls = self.calls.lock().unwrap();
            let number = calls.entry(class.to_owned()).or_default();
            *number += 1;
            *number
        };
        let planned = self.planned.lock().unwrap().get_mut(class).and_then(VecDeque::pop_front);
        (planned, Dice::of(self.seed, class, number))
    }

    pub(in crate::tests) fn note(&self, operation: O, fault: O::Fault) {
        self.matrix.lock().unwrap().note(operation, fault);
    }

    pub(in crate::tests) fn matrix(&self) -> Matrix<O> {
        self.matrix.lock().unwrap().clone()
    }
}
