//! Who is behind the balancer? The header that one puts before the bytes of a connection (PROXY protocol, versions 1 and 2).
//!
//! Only the form: bytes in, addresses out, and the other way. Nothing here reads a socket, and nothing here knows who is
//! to be believed. The reader never looks beyond the header, and whatever the bytes are it does not panic.

mod read;
mod write;

use std::net::SocketAddr;

pub use read::{LONGEST, Malformed, read};
pub use write::Version;

/// What a header says about the connection behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// Nothing: the sender speaks for itself, or does not know. The connection is its own.
    Nothing,
    /// The two ends of the connection that the sender relays.
    Ends(Ends),
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who connected.
    pub client: SocketAddr,
    /// To which address.
    pub server: SocketAddr,
}
