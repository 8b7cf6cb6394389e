//! Fuzzes `portcullis::fuzzing::jwt`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::fuzzing::jwt(bytes));
