//! Who starts, stops and swaps?

pub mod admin;
