//! Runs a suite over many seeds, prints what they met, and fails with the seeds that broke a promise.

use std::collections::BTreeSet;
use std::time::Instant;

use futures::{StreamExt, stream};

use super::{Matrix, Operation, number};

/// From this many seeds on, every cell of the matrix must be met this often.
const MANY_SEEDS: usize = 500;
const MET_EACH: u64 = 20;

/// How a suite runs.
#[derive(Clone, Copy, Debug)]
pub(in crate::tests) struct Suite {
    /// Seeds when the environment asks for none in particular.
    pub(in crate::tests) seeds: u64,
    /// Worlds at the same time: most of a world's time is spent waiting.
    pub(in crate::tests) at_once: usize,
}

/// The result of a seed.
#[derive(Debug)]
pub(in crate::tests) struct Outcome<O: Operation> {
    pub(in crate::tests) wrong: Vec<String>,
    pub(in crate::tests) matrix: Matrix<O>,
    /// Totals by name; the same names for each seed.
    pub(in crate::tests) counts: Vec<(&'static str, u64)>,
}

impl Suite {
    /// Runs `LAKEGRAM_SEED`, or the seeds from 0 to `LAKEGRAM_SEEDS`.
    pub(in crate::tests) async fn run<O, F>(self, run: impl Fn(u64) -> F)
    where
        O: Operation,
        F: Future<Output = Outcome<O>> + Send + 'static,
    {
        let began = Instant::now();
        let seeds: Vec<u64> = match (number("LAKEGRAM_SEED"), number("LAKEGRAM_SEEDS")) {
            (Some(seed), _) => vec![seed],
            (None, seeds) => (0..seeds.unwrap_or(self.seeds)).collect(),
        };
        let (count, mut wrong) = (seeds.len(), BTreeSet::new());
        let (mut matrix, mut totals): (Matrix<O>, Vec<(&str, u64)>) = (Matrix::default(), Vec::new());
        let runs = seeds.into_iter().map(|seed| {
            let run = tokio::spawn(run(seed));
            async move { (seed, run.await.unwrap()) }
        });
        let mut runs = stream::iter(runs).buffer_unordered(self.at_once);
        while let Some((seed, outcome)) = runs.next().await {
            matrix.add(&outcome.matrix);
            totals = match totals.is_empty() {
                true => outcome.counts,
                false => totals.iter().zip(outcome.counts).map(|(total, one)| (total.0, total.1 + one.1)).collect(),
            };
            for what in outcome.wrong {
                println!("seed {seed}: {what}");
                wrong.insert(seed);
            }
        }
        let totals: Vec<String> = totals.iter().map(|(name, count)| format!("{count} {name}")).collect();
        println!("{count} seeds in {:?}: {}", began.elapsed(), totals.join(", "));
        println!("{}", matrix.to_table());
        assert!(wrong.is_empty(), "broken promises; again with LAKEGRAM_SEED=<one of {wrong:?}>");
        let rare = matrix.rarer_than(MET_EACH);
        assert!(count < MANY_SEEDS || rare.is_empty(), "met too rarely: {rare:?}");
    }
}
