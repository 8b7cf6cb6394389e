//! Shall it be smaller? Which coding a client can read best, which answers are worth it, and the codings themselves.

pub mod decode;
pub mod encode;
mod error;

pub use error::CodecError;
