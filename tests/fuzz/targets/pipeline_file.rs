//! Feeds any text to `laws::pipeline_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| lakegram::laws::pipeline_file(text));
