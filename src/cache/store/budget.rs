//! How much is kept? The count of bytes, which never exceeds what is allowed.
//!
//! A charge is taken before memory is, and given back when that is really free: what a slow client still reads counts,
//! though nobody else will find it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes in use, and the most there may be.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicU64,
    limit: AtomicU64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit: AtomicU64::new(limit) })
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Relaxed)
    }

    /// What is in use may be more for a while.
    pub(super) fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Relaxed);
    }

    pub(super) fn is_exceeded(&self) -> bool {
        self.used() > self.limit()
    }

    fn take(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit());
        self.used.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }
}

/// Bytes that somebody has, until it is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Charge {
    /// A charge for nothing yet.
    pub(super) fn none(budget: &Arc<Budget>) -> Self {
        Self { budget: budget.clone(), bytes: 0 }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it so many bytes; `false` if there is no room for them, and then nothing has changed.
    pub(super) fn resize(&mut self, bytes: u64) -> bool {
        if bytes > self.bytes {
            if !self.budget.take(bytes - self.bytes) {
                return false;
            }
        } else {
            self.budget.used.fetch_sub(self.bytes - bytes, Relaxed);
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_all_of_it_comes_back() {
        let budget = Budget::new(100);
        let mut charge = Charge::none(&budget);
        let mut other = Charge::none(&budget);
        assert!(charge.resize(60) && !other.resize(41) && other.resize(40));
        assert_eq!(budget.used(), 100);
        assert!(charge.resize(10) && other.resize(90));
        drop((charge, other));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_lower_limit_is_exceeded_until_room_is_made() {
        let budget = Budget::new(100);
        let mut charge = Charge::none(&budget);
        assert!(charge.resize(80));
        budget.set_limit(50);
        assert!(budget.is_exceeded() && !charge.resize(81) && charge.resize(50) && !budget.is_exceeded());
    }
}
