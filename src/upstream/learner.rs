//! How many requests at once has a backend been learnt to bear? The limit as all threads see it; it outlives reloads.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config;
use crate::limit::{Adaptive, Age};

/// What is learnt about one backend.
#[derive(Debug)]
pub(super) struct Learner {
    born: Instant,
    adaptive: Mutex<Adaptive>,
    /// What it says now, for those who choose.
    limit: AtomicU32,
}

impl Learner {
    pub(super) fn new(bounds: config::Adaptive) -> Arc<Self> {
        let adaptive = Adaptive::new(bounds.min, bounds.max, Age::ZERO);
        let limit = AtomicU32::new(adaptive.limit());
        Arc::new(Self { born: Instant::now(), adaptive: Mutex::new(adaptive), limit })
    }

    /// The most requests in flight, at the moment.
    pub(super) fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    /// The bounds are these from now on.
    pub(super) fn set(&self, bounds: config::Adaptive) {
        self.change(|adaptive| adaptive.set(bounds.min, bounds.max));
    }

    /// An answer came; says whether the limit has grown.
    pub(super) fn answered(&self, latency: Duration, in_flight: u32, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.born);
        self.change(|adaptive| adaptive.answered(latency, in_flight, now))
    }

    /// A request failed; says whether the limit has grown.
    pub(super) fn failed(&self, in_flight: u32, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.born);
        self.change(|adaptive| adaptive.failed(in_flight, now))
    }

    fn change(&self, change: impl FnOnce(&mut Adaptive)) -> bool {
        let mut adaptive = self.adaptive.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut adaptive);
        let limit = adaptive.limit();
        limit > self.limit.swap(limit, Relaxed)
    }
}
