//! How much may a backend have in hand, and who waits? Limits and the queue, checked.

use std::time::Duration;

/// How much one backend gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most requests in flight on it; at least one.
    pub max_connections: Option<u32>,
}

/// Where requests wait while all backends have enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// How many wait at most; at least one.
    pub size: usize,
    /// How long each of them waits.
    pub timeout: Duration,
}
