//! What can go wrong between a body and its coded form.

use thiserror::Error;

use crate::config::Coding;

/// Why a body could not be coded or decoded. None of them is worth a second try with the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// The library gave up: it had no memory, or was asked for a level that it does not know.
    #[error("{0}: the library refused to go on")]
    Refused(Coding),
    /// What came is not in this coding, or was damaged on the way, or goes on behind its end.
    #[error("{0}: not what this coding looks like")]
    Malformed(Coding),
    /// The body ended before its coding did.
    #[error("{0}: the body ends too early")]
    Truncated(Coding),
    /// So much would come out of so little that it can only be meant to harm.
    #[error("{0}: grows too much")]
    Bomb(Coding),
    /// More came out than its reader takes.
    #[error("{0}: longer than {1} bytes once it is decoded")]
    TooLarge(Coding, u64),
}
