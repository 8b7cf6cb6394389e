//! How many of the last requests failed? Counts over a window that slides in ten steps.
//!
//! Each of ten buckets is one atomic word: the step that it counts, its requests and its failures. So a request adds
//! itself with one addition, and an old bucket is emptied by whoever first needs it. Reads no clock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::Age;

const BUCKETS: usize = 10;
/// Bits of a count: a million requests in one bucket.
const COUNT: u32 = 20;
const COUNT_MASK: u64 = (1 << COUNT) - 1;
/// Beyond this a bucket counts no more; what is left of the field is for those who add at the same time.
const FULL: u64 = COUNT_MASK - 10_000;
const STEP_MASK: u64 = (1 << (64 - 2 * COUNT)) - 1;

/// The requests of the last while, and how many of them failed.
#[derive(Debug, Default)]
pub struct Window {
    buckets: [AtomicU64; BUCKETS],
}

impl Window {
    /// Adds requests and failures.
    pub fn add(&self, requests: u32, failures: u32, now: Age, length: Duration) {
        let step = step(now, length);
        let Some(bucket) = self.buckets.get(place(step)) else { return };
        let added = u64::from(requests) << COUNT | u64::from(failures);
        let seen = bucket.load(Relaxed);
        if seen >> (2 * COUNT) != step & STEP_MASK {
            let fresh = (step & STEP_MASK) << (2 * COUNT) | added;
            // Whoever was quicker has begun the same step; the one request that is then not counted decides nothing.
            let _ = bucket.compare_exchange(seen, fresh, Relaxed, Relaxed);
        } else if (seen >> COUNT & COUNT_MASK).max(seen & COUNT_MASK) < FULL {
            bucket.fetch_add(added, Relaxed);
        }
    }

    /// Requests and failures in the window that ends now.
    pub fn counts(&self, now: Age, length: Duration) -> (u64, u64) {
        let newest = step(now, length);
        let (mut requests, mut failures) = (0, 0);
        for step in newest.saturating_sub(BUCKETS as u64 - 1)..=newest {
            let word = self.buckets.get(place(step)).map_or(0, |bucket| bucket.load(Relaxed));
            if word >> (2 * COUNT) == step & STEP_MASK {
                requests += word >> COUNT & COUNT_MASK;
                failures += word & COUNT_MASK;
            }
        }
        (requests, failures)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.buckets.iter().for_each(|bucket| bucket.store(0, Relaxed));
    }
}

/// Steps are counted from one, so that an empty bucket belongs to none.
fn step(now: Age, length: Duration) -> u64 {
    let step = (length.as_millis() / BUCKETS as u128).max(1);
    u64::try_from(now.as_millis() / step).unwrap_or(u64::MAX - 1) + 1
}

fn place(step: u64) -> usize {
    (step % BUCKETS as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Age {
        Age::from_secs(seconds)
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let window = Window::default();
        window.add(1, 1, at(100), LENGTH);
        window.add(1, 0, at(105), LENGTH);
        assert_eq!(window.counts(at(109), LENGTH), (2, 1));
        assert_eq!(window.counts(at(110), LENGTH), (1, 0));
        assert_eq!(window.counts(at(1000), LENGTH), (0, 0));
    }

    #[test]
    fn a_full_bucket_counts_no_more_and_spills_into_nothing() {
        let window = Window::default();
        for _ in 0..1200 {
            window.add(1000, 1000, at(0), LENGTH);
        }
        let (requests, failures) = window.counts(at(0), LENGTH);
        assert!(requests == failures && (FULL..COUNT_MASK).contains(&requests), "{requests} {failures}");
        window.clear();
        assert_eq!(window.counts(at(0), LENGTH), (0, 0));
    }

    #[test]
    fn requests_that_come_at_the_same_time_are_all_counted() {
        let window = Window::default();
        window.add(1, 0, at(3), LENGTH);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| window.add(1, 1, at(3), LENGTH)));
            }
        });
        assert_eq!(window.counts(at(3), LENGTH), (4001, 4000));
    }

    proptest! {
        #[test]
        fn the_counts_are_those_of_a_list(events in prop::collection::vec((0_u64..4000, any::<bool>()), 0..200)) {
            let window = Window::default();
            let (mut list, mut now) = (VecDeque::new(), 0);
            for (pause, failed) in events {
                now += pause;
                window.add(1, u32::from(failed), Age::from_millis(now), LENGTH);
                list.push_back((now / 1000, failed));
                list.retain(|(second, _)| second + 10 > now / 1000);
                let expected = (list.len() as u64, list.iter().filter(|(_, failed)| *failed).count() as u64);
                prop_assert_eq!(window.counts(Age::from_millis(now), LENGTH), expected);
            }
        }
    }
}
