//! Fuzzes `portcullis::fuzzing::hosts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::fuzzing::hosts(bytes));
