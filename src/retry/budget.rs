//! How many retries may there be? A share of the requests, and a few a second however few requests there are.
//!
//! When all of a pool is down, every retry is load without a gain, and retries of retries make a small breakdown a
//! large one. So retries are counted against the requests of the last ten seconds. Nothing here waits or locks, and a
//! budget is never exceeded: who withdraws notes it first and then looks whether that was too much. Two who withdraw
//! the last one at once may so both be refused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::config::RetryBudget;

/// Seconds that are counted together, one slot each.
const WINDOW: u64 = 10;

/// The requests and retries of one upstream within the last seconds.
#[derive(Debug)]
pub struct Budget {
    began: Instant,
    requests: Count,
    retries: Count,
}

impl Budget {
    /// A budget of which nothing has been used. Seconds are counted from `now` on.
    pub fn new(now: Instant) -> Self {
        Self { began: now, requests: Count::default(), retries: Count::default() }
    }

    /// Notes a request.
    pub fn deposit(&self, now: Instant) {
        self.requests.add(self.second(now));
    }

    /// Takes the right to one retry, if there is one.
    pub fn withdraw(&self, limits: &RetryBudget, now: Instant) -> bool {
        let second = self.second(now);
        self.retries.add(second);
        let least = u64::from(limits.min_per_second) * WINDOW;
        let allowed = self.requests.sum(second) * u64::from(limits.percent) / 100 + least;
        let granted = self.retries.sum(second) <= allowed;
        if !granted {
            self.retries.take_back(second);
        }
        granted
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs()
    }
}

/// What has happened in each of the last seconds: the second in the upper half, how often in the lower.
#[derive(Debug, Default)]
struct Count([AtomicU64; WINDOW as usize]);

const LOWER: u64 = u32::MAX as u64;

impl Count {
    fn slot(&self, second: u64) -> &AtomicU64 {
        &self.0[(second % WINDOW) as usize]
    }

    fn add(&self, second: u64) {
        let slot = self.slot(second);
        let mut seen = slot.load(Ordering::SeqCst);
        // A slot that a later second has taken over belongs to it: then we were slower than the window.
        while seen >> 32 < second & LOWER {
            match slot.compare_exchange(seen, (second & LOWER) << 32 | 1, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return,
                Err(other) => seen = other,
            }
        }
        slot.fetch_add(1, Ordering::SeqCst);
    }

    fn take_back(&self, second: u64) {
        let of_this = |seen: u64| (seen >> 32 == second & LOWER && seen & LOWER > 0).then(|| seen - 1);
        // Once the slot has been taken over there is nothing to take back.
        let _ = self.slot(second).fetch_update(Ordering::SeqCst, Ordering::SeqCst, of_this);
    }

    fn sum(&self, second: u64) -> u64 {
        let live = |seen: &u64| (seen >> 32) + WINDOW > second & LOWER;
        self.0.iter().map(|slot| slot.load(Ordering::SeqCst)).filter(live).map(|seen| seen & LOWER).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn limits(percent: u32, min_per_second: u32) -> RetryBudget {
        RetryBudget { percent, min_per_second }
    }

    #[test]
    fn a_share_of_the_requests_and_not_one_more() {
        let now = Instant::now();
        let budget = Budget::new(now);
        (0..50).for_each(|_| budget.deposit(now));
        assert_eq!((0..100).filter(|_| budget.withdraw(&limits(20, 0), now)).count(), 10);
    }

    #[test]
    fn a_few_a_second_without_any_request_may_come_all_at_once() {
        let now = Instant::now();
        let budget = Budget::new(now);
        assert_eq!((0..100).filter(|_| budget.withdraw(&limits(20, 1), now)).count(), 10);
        let later = now + Duration::from_millis(9_900);
        assert!(!budget.withdraw(&limits(20, 1), later), "the window is ten seconds long");
        assert_eq!((0..100).filter(|_| budget.withdraw(&limits(20, 1), now + Duration::from_secs(10))).count(), 10);
    }

    #[test]
    fn old_requests_count_no_more() {
        let now = Instant::now();
        let budget = Budget::new(now);
        (0..50).for_each(|_| budget.deposit(now));
        assert!(!budget.withdraw(&limits(20, 0), now + Duration::from_secs(10)));
    }

    #[test]
    fn those_who_withdraw_at_once_get_no_more_than_there_is() {
        let now = Instant::now();
        let (budget, granted) = (Budget::new(now), AtomicUsize::new(0));
        (0..500).for_each(|_| budget.deposit(now));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mine = (0..100).filter(|_| budget.withdraw(&limits(20, 1), now)).count();
                    granted.fetch_add(mine, Ordering::Relaxed);
                });
            }
        });
        let granted = granted.into_inner();
        assert!(granted <= 110, "{granted}");
        let rest = (0..200).filter(|_| budget.withdraw(&limits(20, 1), now)).count();
        assert_eq!(granted + rest, 110, "what was refused in the rush is still there");
    }

    proptest! {
        /// Against a plain list of everything that has happened.
        #[test]
        fn the_budget_is_never_exceeded_and_never_kept_back(
            steps in prop::collection::vec((any::<bool>(), 0u64..3_000), 1..300),
            percent in 0u32..=100, min_per_second in 0u32..3,
        ) {
            let began = Instant::now();
            let (budget, limits) = (Budget::new(began), limits(percent, min_per_second));
            let (mut millis, mut requests, mut retries) = (0, VecDeque::new(), VecDeque::new());
            for (is_request, pause) in steps {
                millis += pause;
                let (now, second) = (began + Duration::from_millis(millis), millis / 1000);
                for list in [&mut requests, &mut retries] {
                    while list.front().is_some_and(|then| then + WINDOW <= second) { list.pop_front(); }
                }
                if is_request {
                    budget.deposit(now);
                    requests.push_back(second);
                } else {
                    let allowed = requests.len() * percent as usize / 100 + 10 * min_per_second as usize;
                    let granted = budget.withdraw(&limits, now);
                    prop_assert_eq!(granted, retries.len() < allowed);
                    if granted { retries.push_back(second); }
                }
            }
        }
    }
}
