//! Shall it be smaller? Which coding a client can read best, which answers are worth it, and the codings themselves.

pub mod negotiate;
pub mod rules;
