//! When is an answer so late that another backend is asked beside the first?
//!
//! A quantile is looked up once a second, however many requests ask: it covers the answers of up to a minute. The
//! moment and the quantile are one atomic word, so nobody sees one without the other, and two who look it up at once
//! do no harm.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::config::HedgeAfter;

/// Quick backends are not asked twice: what is saved there is noise, and timers are no finer than a millisecond.
const LEAST: Duration = Duration::from_millis(5);

/// How long the first backend has for itself.
#[derive(Debug)]
pub struct Delay {
    after: HedgeAfter,
    began: Instant,
    /// The second it was looked up in, counted from 1, and the microseconds; none of them is "not known".
    looked_up: AtomicU64,
}

impl Delay {
    /// As the operator asks; seconds are counted from `now` on.
    pub fn new(after: HedgeAfter, now: Instant) -> Self {
        Self { after, began: now, looked_up: AtomicU64::new(0) }
    }

    /// The delay, if it is known. `quantile` tells the latency that this share of the recent answers did not exceed.
    pub fn get(&self, now: Instant, quantile: impl FnOnce(f64) -> Option<Duration>) -> Option<Duration> {
        let percent = match self.after {
            HedgeAfter::Time(time) => return Some(time),
            HedgeAfter::Quantile(percent) => percent,
        };
        let second = (now.saturating_duration_since(self.began).as_secs() + 1) & u64::from(u32::MAX);
        let mut word = self.looked_up.load(Relaxed);
        if word >> 32 != second {
            let micros = quantile(f64::from(percent) / 100.0).map_or(0, |found| found.max(LEAST).as_micros());
            word = second << 32 | u64::try_from(micros).unwrap_or(u64::MAX).min(u64::from(u32::MAX));
            self.looked_up.store(word, Relaxed);
        }
        match word & u64::from(u32::MAX) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_time_is_taken_as_it_is() {
        let delay = Delay::new(HedgeAfter::Time(MS(1)), Instant::now());
        assert_eq!(delay.get(Instant::now(), |_| unreachable!("nobody asks")), Some(MS(1)));
    }

    #[test]
    fn a_quantile_is_looked_up_once_a_second() {
        let now = Instant::now();
        let delay = Delay::new(HedgeAfter::Quantile(95), now);
        assert_eq!(delay.get(now, |share| (share == 0.95).then_some(MS(40))), Some(MS(40)));
        assert_eq!(delay.get(now + MS(999), |_| unreachable!("it is known")), Some(MS(40)));
        assert_eq!(delay.get(now + MS(1000), |_| Some(MS(70))), Some(MS(70)));
    }

    #[test]
    fn what_is_not_known_is_looked_up_once_a_second_too() {
        let now = Instant::now();
        let delay = Delay::new(HedgeAfter::Quantile(95), now);
        assert_eq!(delay.get(now, |_| None), None);
        assert_eq!(delay.get(now, |_| unreachable!("it is known that it is not")), None);
        assert_eq!(delay.get(now + MS(1000), |_| Some(MS(70))), Some(MS(70)));
    }

    #[test]
    fn quick_backends_have_a_little_time() {
        let now = Instant::now();
        let delay = Delay::new(HedgeAfter::Quantile(95), now);
        assert_eq!(delay.get(now, |_| Some(Duration::from_micros(80))), Some(LEAST));
    }

    #[test]
    fn the_longest_time_fits() {
        let delay = Delay::new(HedgeAfter::Quantile(99), Instant::now());
        assert!(delay.get(Instant::now(), |_| Some(Duration::MAX)) > Some(MS(4_000_000)));
    }
}
