//! Fuzzes `portcullis::fuzzing::paths`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::fuzzing::paths(bytes));
