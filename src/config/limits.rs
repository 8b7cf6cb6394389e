//! How much may a backend have in hand, and who waits? Limits and the queue, checked.

use std::fmt;
use std::time::Duration;

use super::units::show_duration;

/// How much one backend gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most requests in flight on it; at least one.
    pub max_connections: Option<u32>,
    /// The most requests within a time, for several times at once.
    pub quota: Vec<Quota>,
}

/// The most requests within any time of one length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// So many; at least one.
    pub most: u32,
    /// Within so long; more than nothing.
    pub window: Duration,
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = show_duration(self.window);
        let one = ["1s", "1m", "1h", "1d"].contains(&window.as_str());
        write!(f, "{}/{}", self.most, if one { &window[1..] } else { &window })
    }
}

/// A limit of requests in flight that is learnt from latencies, for each backend of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adaptive {
    /// It is never lower; at least one.
    pub min: u32,
    /// It is never higher; at least `min`.
    pub max: u32,
}

/// Where requests wait while all backends have enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// How many wait at most; at least one.
    pub size: usize,
    /// How long each of them waits.
    pub timeout: Duration,
}
