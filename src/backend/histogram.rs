//! How long did answers take lately? A histogram of fixed size whose quantiles are of the last 30 to 60 seconds.
//!
//! Log-linear: each doubling of the latency has eight buckets, so a quantile is never more than an eighth too high.
//! Two halves of 30 seconds take turns; a half that is too old is emptied by the first one to write to it. A count
//! that lands while that happens may be lost, which is the price of never taking a lock on a request's way.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

/// Buckets in each doubling.
const STEPS: u64 = 8;
/// The finest difference that is told: answers are rarely faster than this.
const UNIT_MICROS: u64 = 16;
/// 8 linear buckets and 19 doublings: up to 67 seconds, in 640 bytes a half.
const BUCKETS: usize = 160;
/// Seconds that one half covers.
const HALF_SECONDS: u64 = 30;

/// The latencies of one backend.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    halves: [Half; 2],
}

#[derive(Debug)]
struct Half {
    turn: AtomicU32,
    counts: [AtomicU32; BUCKETS],
}

impl Default for Half {
    fn default() -> Self {
        Self { turn: AtomicU32::new(0), counts: [const { AtomicU32::new(0) }; BUCKETS] }
    }
}

/// What a reader has seen of a backend's latencies, so that the next time he sees what has come since.
#[derive(Debug)]
pub struct Since([(u32, Box<[u32; BUCKETS]>); 2]);

impl Default for Since {
    fn default() -> Self {
        Self([(); 2].map(|()| (0, Box::new([0; BUCKETS]))))
    }
}

impl Histogram {
    /// Counts one latency.
    pub(super) fn record(&self, latency: Duration, now: SystemTime) {
        let turn = turn(now);
        let half = &self.halves[turn as usize % 2];
        half.start(turn);
        half.counts[bucket(latency)].fetch_add(1, Relaxed);
    }

    /// For each share, the latency that this share of the recent answers did not exceed; `None` without answers.
    pub(super) fn quantiles<const N: usize>(&self, shares: [f64; N], now: SystemTime) -> [Option<Duration>; N] {
        let mut counts = [0; BUCKETS];
        self.add_to(&mut counts, now);
        shares.map(|share| quantile(&counts, share))
    }

    /// The latency that this share of the recent answers of all of them did not exceed; `None` with fewer than `least`.
    pub(super) fn quantile_of_all<'a>(
        all: impl Iterator<Item = &'a Self>,
        (share, least): (f64, u64),
        now: SystemTime,
    ) -> Option<Duration> {
        let mut counts = [0; BUCKETS];
        all.for_each(|one| one.add_to(&mut counts, now));
        if counts.iter().sum::<u64>() < least { None } else { quantile(&counts, share) }
    }

    /// The same of the answers since the last time, which `since` remembers.
    pub(super) fn quantiles_since<const N: usize>(&self, since: &mut Since, shares: [f64; N]) -> [Option<Duration>; N] {
        let mut counts = [0; BUCKETS];
        for (half, (turn, seen)) in self.halves.iter().zip(&mut since.0) {
            let now = half.turn.load(Relaxed);
            if std::mem::replace(turn, now) != now {
                seen.fill(0);
            }
            for ((sum, seen), count) in counts.iter_mut().zip(seen.iter_mut()).zip(&half.counts) {
                let count = count.load(Relaxed);
                *sum += u64::from(count.saturating_sub(std::mem::replace(seen, count)));
            }
        }
        shares.map(|share| quantile(&counts, share))
    }

    fn add_to(&self, counts: &mut [u64; BUCKETS], now: SystemTime) {
        let turn = turn(now);
        let fresh = |half: &&Half| turn.wrapping_sub(half.turn.load(Relaxed)) <= 1;
        for half in self.halves.iter().filter(fresh) {
            counts.iter_mut().zip(&half.counts).for_each(|(sum, count)| *sum += u64::from(count.load(Relaxed)));
        }
    }
}

impl Half {
    /// Empties the half if it still holds an earlier turn. Only one caller wins the exchange, and that one empties.
    fn start(&self, turn: u32) {
        let held = self.turn.load(Relaxed);
        if held != turn && self.turn.compare_exchange(held, turn, Relaxed, Relaxed).is_ok() {
            self.counts.iter().for_each(|count| count.store(0, Relaxed));
        }
    }
}

fn quantile(counts: &[u64; BUCKETS], share: f64) -> Option<Duration> {
    let total: u64 = counts.iter().sum();
    let rank = ((total as f64 * share).ceil() as u64).max(1);
    let mut below = 0;
    let found = counts.iter().position(|count| {
        below += count;
        below >= rank
    });
    found.map(upper_end)
}

/// Which half minute it is. A clock that is set back or forth costs at most the counts of one minute.
fn turn(now: SystemTime) -> u32 {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    (seconds / HALF_SECONDS) as u32
}

fn bucket(latency: Duration) -> usize {
    let units = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX) / UNIT_MICROS;
    if units < STEPS {
        return units as usize;
    }
    let doubling = u64::from(units.ilog2() - STEPS.ilog2());
    let step = (units >> doubling) - STEPS;
    ((STEPS + doubling * STEPS + step) as usize).min(BUCKETS - 1)
}

/// The first latency that no longer belongs to the bucket.
fn upper_end(bucket: usize) -> Duration {
    let bucket = bucket as u64;
    let units = match bucket.checked_sub(STEPS) {
        None => bucket + 1,
        Some(above) => (STEPS + above % STEPS + 1) << (above / STEPS),
    };
    Duration::from_micros(units * UNIT_MICROS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(3000 + seconds)
    }

    fn median(histogram: &Histogram, seconds: u64) -> Option<Duration> {
        histogram.quantiles([0.5], at(seconds))[0]
    }

    #[test]
    fn without_answers_there_are_no_quantiles() {
        assert_eq!(Histogram::default().quantiles([0.5, 0.99], at(0)), [None, None]);
    }

    #[test]
    fn a_quantile_is_never_below_the_truth_and_at_most_an_eighth_above() {
        for micros in (0..100_000).step_by(37).chain([1_000_000, 15_000_000, 60_000_000]) {
            let histogram = Histogram::default();
            histogram.record(Duration::from_micros(micros), at(0));
            let found = median(&histogram, 0).expect("one answer").as_micros() as u64;
            assert!(found >= micros && found <= micros + micros / 8 + UNIT_MICROS, "{micros} became {found}");
        }
    }

    #[test]
    fn an_endless_answer_lands_in_the_last_bucket() {
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
        assert!(upper_end(BUCKETS - 1) > Duration::from_secs(67));
    }

    #[test]
    fn one_slow_answer_in_a_hundred_shows_beyond_the_99th_only() {
        let histogram = Histogram::default();
        (0..99).for_each(|_| histogram.record(Duration::from_millis(10), at(0)));
        histogram.record(Duration::from_secs(1), at(0));
        let [p99, p100] = histogram.quantiles([0.99, 1.0], at(0));
        assert!(p99 < Some(Duration::from_millis(12)) && p100 >= Some(Duration::from_secs(1)));
    }

    #[test]
    fn answers_are_forgotten_after_a_minute() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_secs(1), at(0));
        assert!(median(&histogram, 59).is_some());
        assert_eq!(median(&histogram, 60), None);
    }

    #[test]
    fn a_half_that_comes_round_again_starts_empty() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_secs(1), at(0));
        histogram.record(Duration::from_millis(1), at(60));
        assert!(median(&histogram, 60) < Some(Duration::from_millis(2)));
    }

    #[test]
    fn a_reader_sees_each_answer_once() {
        let (histogram, mut since) = (Histogram::default(), Since::default());
        let mut median = |histogram: &Histogram| histogram.quantiles_since(&mut since, [0.5])[0];
        assert_eq!(median(&histogram), None);
        histogram.record(Duration::from_millis(1), at(0));
        assert!(median(&histogram) < Some(Duration::from_millis(2)) && median(&histogram).is_none());
        histogram.record(Duration::from_secs(1), at(1));
        assert!(median(&histogram) >= Some(Duration::from_secs(1)), "and not the one before");
        histogram.record(Duration::from_secs(1), at(29));
        histogram.record(Duration::from_millis(1), at(60));
        assert!(median(&histogram) < Some(Duration::from_millis(2)), "the half was emptied in between");
    }

    #[test]
    fn a_histogram_stays_small() {
        assert!(size_of::<Histogram>() < 1400);
    }
}
