//! Fuzzes `portcullis::fuzzing::accept`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::fuzzing::accept(bytes));
