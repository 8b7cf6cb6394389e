//! Fuzzes `portcullis::fuzzing::accept_encoding`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::fuzzing::accept_encoding(bytes));
