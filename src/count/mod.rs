//! How often, and how long? Counts that many threads add to and that somebody reads now and then.
//!
//! To add takes no lock and looks nothing up in a map: it is an addition or two in memory. What is read while others add
//! may lag behind by a moment, and never goes down.

mod durations;
mod words;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub use self::durations::{BOUNDS, Durations, Spread};
pub use self::words::Words;

/// One count.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Counts one.
    pub fn one(&self) {
        self.add(1);
    }

    /// Counts so many. What adds nothing writes nothing, so that the memory stays shared.
    pub fn add(&self, many: u64) {
        if many > 0 {
            self.0.fetch_add(many, Relaxed);
        }
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
