//! Fuzzes `portcullis::fuzzing::configuration`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::fuzzing::configuration(bytes));
