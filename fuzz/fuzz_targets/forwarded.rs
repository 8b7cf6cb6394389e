//! Fuzzes `portcullis::fuzzing::forwarded`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis::fuzzing::forwarded(bytes));
