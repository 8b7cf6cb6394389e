//! Where are the backends? Sources of addresses; for now the system's resolver.

pub mod dns;
