//! Who starts, stops and swaps?

pub mod certificates;
pub mod connection;
pub mod front;
pub mod guard;
pub mod limits;
pub mod listen;
mod options;
pub mod seldom;
pub mod tls;
pub mod watch_files;
pub mod wire;

#[cfg(test)]
mod tests;
