//! Power cuts: the whole pipeline on a simulated disk loses nothing it has acknowledged, and duplicates nothing.
//!
//! `LAKEGRAM_SEEDS=500 cargo test --lib power -- --nocapture` runs more seeds, `LAKEGRAM_SEED=17` a single one, with
//! the log that `RUST_LOG` asks for. A seed determines the messages, the call at which the power goes out and which
//! unsynced data survives. It does not determine the order in which tasks and the outside world run, nor random ids and
//! the time in names: the same seed may hit the same call at a different point of the pipeline.
// The test reads its own variables, and waits for the world in real time.
#![allow(clippy::disallowed_methods)]

mod ledger;
mod machine;
mod run;
mod tally;

use self::run::Failure;
use self::tally::Tally;
use crate::storage::tests::simulated::Lies;
use crate::tests::kit::number;

/// The default number of seeds: what fits into a minute.
const SEEDS: u64 = 25;
/// From this many seeds on, every kind of call must have been cut often enough.
const MANY_SEEDS: u64 = 500;
/// Cuts before, and after, each kind of call in that many seeds.
const CUTS_EACH: u64 = 20;
const PROGRESS_EVERY: u64 = 50;
/// A lying disk is detected within this many seeds.
const SEEDS_FOR_A_LIE: u64 = 20;

fn describe(seed: u64, failure: &Failure) -> String {
    format!("seed {seed}: {failure}\nreplay: LAKEGRAM_SEED={seed} RUST_LOG=info cargo test --lib power -- --nocapture")
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_and_doubles_nothing() {
    if let Some(seed) = number("LAKEGRAM_SEED") {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        // Another test may have one already.
        let _set = tracing_subscriber::fmt().with_env_filter(filter).try_init();
        let tally = run::run(seed, Lies::default()).unwrap_or_else(|failure| panic!("{}", describe(seed, &failure)));
        println!("{tally}");
        return;
    }
    let (seeds, mut tally, mut failures) = (number("LAKEGRAM_SEEDS").unwrap_or(SEEDS), Tally::default(), Vec::new());
    for seed in 0..seeds {
        match run::run(seed, Lies::default()) {
            Ok(one) => tally += one,
            Err(failure) => {
                println!("{}", describe(seed, &failure));
                failures.push(seed);
            }
        }
        if (seed + 1) % PROGRESS_EVERY == 0 {
            println!("{} seeds done, {} failed", seed + 1, failures.len());
        }
    }
    println!("{tally}");
    assert!(failures.is_empty(), "{} of {seeds} seeds failed: {failures:?}", failures.len());
    if seeds >= MANY_SEEDS {
        assert!(tally.rarest_cut() >= CUTS_EACH, "a kind of call was cut fewer than {CUTS_EACH} times");
    }
}

#[test]
fn a_disk_that_ignores_the_sync_of_files_is_found_out() {
    find_out(Lies { ignore_file_sync: true, ..Lies::default() });
}

#[test]
fn a_disk_that_ignores_the_sync_of_folders_is_found_out() {
    find_out(Lies { ignore_folder_sync: true, ..Lies::default() });
}

fn find_out(lies: Lies) {
    let found = (0..SEEDS_FOR_A_LIE).find_map(|seed| run::run(seed, lies).err().map(|failure| (seed, failure)));
    let (seed, failure) = found.unwrap_or_else(|| panic!("{lies:?} was not noticed in {SEEDS_FOR_A_LIE} seeds"));
    println!("{lies:?} was noticed at seed {seed}: {failure}");
}
