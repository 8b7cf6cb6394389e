//! Who is alive? Probes, and what their results make of a backend.

pub mod ladder;
