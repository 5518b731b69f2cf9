//! Feeds any text to `laws::reply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| lakegram::laws::reply(text));
