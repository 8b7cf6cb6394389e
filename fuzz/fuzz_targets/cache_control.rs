//! Fuzzes `portcullis::fuzzing::cache_control`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::fuzzing::cache_control(bytes));
