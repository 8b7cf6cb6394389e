//! Who starts, stops and swaps?

pub mod certificates;
pub mod chunks;
pub mod connection;
pub mod front;
pub mod head_guard;
pub mod head_scan;
pub mod limits;
pub mod listen;
pub mod seldom;
pub mod tls;
pub mod watch_files;
pub mod wire;

#[cfg(test)]
mod tests;
