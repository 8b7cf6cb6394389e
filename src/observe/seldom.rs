//! May this line be logged now? What a stranger can cause a thousand times a second is said at most every ten.
//!
//! Nothing is lost: what was kept back is counted, and told with the next line.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(10);

/// One kind of line that is logged seldom.
#[derive(Debug)]
pub struct Seldom {
    born: Instant,
    /// Milliseconds after `born` before which the next line is kept back.
    quiet_until: AtomicU64,
    kept_back: AtomicU64,
}

impl Default for Seldom {
    fn default() -> Self {
        Self { born: Instant::now(), quiet_until: AtomicU64::new(0), kept_back: AtomicU64::new(0) }
    }
}

impl Seldom {
    /// The number of lines kept back since the last one, if a line may be written now.
    pub fn may_log(&self) -> Option<u64> {
        self.may_log_at(self.born.elapsed())
    }

    fn may_log_at(&self, age: Duration) -> Option<u64> {
        let now = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let pause = u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX);
        let quiet_until = self.quiet_until.load(Relaxed);
        // Of two threads that come at once, the exchange lets one through.
        let mine = now >= quiet_until
            && self.quiet_until.compare_exchange(quiet_until, now.saturating_add(pause), Relaxed, Relaxed).is_ok();
        if mine {
            return Some(self.kept_back.swap(0, Relaxed));
        }
        self.kept_back.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_leaves_one_line_and_a_count() {
        let seldom = Seldom::default();
        assert_eq!(seldom.may_log_at(Duration::ZERO), Some(0));
        for _ in 0..5 {
            assert_eq!(seldom.may_log_at(Duration::from_secs(9)), None);
        }
        assert_eq!(seldom.may_log_at(Duration::from_secs(10)), Some(5));
        assert_eq!(seldom.may_log_at(Duration::from_secs(19)), None);
    }
}
