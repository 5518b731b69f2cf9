//! Feeds any bytes to `laws::segment`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lakegram::laws::segment(bytes));
