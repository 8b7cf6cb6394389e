//! Fuzzes `portcullis::fuzzing::cookies`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::fuzzing::cookies(bytes));
