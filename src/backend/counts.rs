//! What became of what was sent to a backend? Counts since it is known, which nobody decides by.

use crate::count::{Count, Words};

/// The counts of one backend.
#[derive(Debug, Default)]
pub struct Counts {
    /// How attempts ended: the `outcome` of the access log.
    pub outcomes: Words,
    /// Attempts on a new connection.
    pub connected: Count,
    /// Attempts on a connection from the pool.
    pub reused: Count,
    /// Probes that passed.
    pub probes_passed: Count,
    /// Probes that failed.
    pub probes_failed: Count,
    /// How often it was ejected.
    pub ejections: Count,
}

impl Counts {
    /// Counts the connection that an attempt goes out on.
    pub fn connection(&self, reused: bool) {
        if reused { self.reused.one() } else { self.connected.one() }
    }
}
