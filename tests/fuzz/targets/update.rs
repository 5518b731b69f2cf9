//! Feeds any bytes to `laws::update`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lakegram::laws::update(bytes));
