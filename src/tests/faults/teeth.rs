//! The teeth of the suite: with a check disabled, the scenario for it fails.
//!
//! A switch applies to a whole process, so each test runs in a child process of this test's own binary.

use std::process::Command;

use crate::sabotage::{Sabotage, VARIABLE};

/// Runs one test of this binary, with a switch or without; its output when it failed.
fn failure_of(test: &str, switch: Option<Sabotage>) -> Option<String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env("RUST_BACKTRACE", "0");
    match switch {
        Some(switch) => command.env(VARIABLE, format!("{switch:?}")),
        None => command.env_remove(VARIABLE),
    };
    let ended = command.output().unwrap();
    let output = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(output.contains("running 1 test"), "there is no test {test}: {output}");
    (!ended.status.success()).then_some(output)
}

/// The scenario passes, and fails with these words once the check is disabled.
fn assert_bites(switch: Sabotage, test: &str, words: &str) {
    assert_eq!(failure_of(test, None), None, "{test} fails by itself");
    let output = failure_of(test, Some(switch)).unwrap_or_else(|| panic!("without {switch:?}, {test} still passes"));
    assert!(output.contains(words), "without {switch:?}, {test} fails of something else: {output}");
}

#[test]
fn without_the_fence_rows_are_doubled() {
    let test = "tests::faults::scenarios::two_processes_on_one_pipeline_double_nothing";
    assert_bites(Sabotage::Fence, test, "has 2 rows");
}

#[test]
fn without_reading_back_what_is_in_doubt_stays_in_doubt() {
    let test = "tests::faults::scenarios::lost_answers_of_the_store_leave_nothing_in_doubt";
    assert_bites(Sabotage::ReadBack, test, "nobody tells of the step");
}

#[test]
fn without_the_intent_an_answer_is_sent_twice() {
    let test = "tests::faults::scenarios::what_may_have_reached_telegram_is_not_sent_again";
    assert_bites(Sabotage::Intent, test, "Telegram has taken twice");
}

#[test]
fn without_the_check_of_the_head_a_commit_is_lost_below_a_cleaned_log() {
    let test = "table::tests::race::a_head_below_a_cleaned_log_never_commits_below_it";
    assert_bites(Sabotage::StaleHead, test, "panicked");
}

#[test]
fn without_a_contiguous_position_a_segment_is_forgotten() {
    let test = "tests::faults::scenarios::a_segment_that_cannot_be_read_for_long_is_loaded_in_the_end";
    assert_bites(Sabotage::Contiguous, test, "has 0 rows");
}
