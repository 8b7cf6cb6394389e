//! May it have one more? The arithmetic of a rate limit: one number a key, no rounding.
//!
//! The generic cell rate algorithm remembers when a key would have had all it took at the steady rate (its *due*), and
//! lets it run ahead of the clock by its burst. Time is counted in parts: of a limit of `count` within `period`, a
//! nanosecond has `count` parts, so that a request takes exactly as many parts as `period` has nanoseconds. 3/s loses
//! nothing by that, and neither 1/d nor 1000000/s comes near the ends of 128 bits.

use std::time::Duration;

/// When a key would have had all it took, in parts; 0 is one that took nothing for long.
pub(super) type Due = u128;

/// How many requests may come within which time, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    count: u32,
    period: Duration,
    burst: u32,
}

/// What a key still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// So many at once.
    pub(super) remaining: u32,
    /// How long until there is one more, where there is none.
    pub(super) one_after: Duration,
    /// How long until it has all.
    pub(super) all_after: Duration,
}

impl Rate {
    /// `count` within `period`, and `burst` at once; each is at least one, which the configuration sees to.
    pub(super) fn new(count: u32, period: Duration, burst: u32) -> Self {
        Self { count: count.max(1), period: period.max(Duration::from_nanos(1)), burst: burst.max(1) }
    }

    /// Takes so many from a key: its new due, or how long it has to wait until that many can be had.
    pub(super) fn take(&self, due: Due, now: Duration, cost: u32) -> Result<Due, Duration> {
        let now = self.parts(now);
        let (due, last) = (due.max(now) + self.price(cost), now + self.price(self.burst));
        if due <= last || cost == 0 { Ok(due) } else { Err(self.time(due - last)) }
    }

    /// What a key has left.
    pub(super) fn left(&self, due: Due, now: Duration) -> Left {
        let ahead = due.saturating_sub(self.parts(now));
        let free = self.price(self.burst).saturating_sub(ahead);
        let remaining = free / self.price(1);
        let missing = if remaining == 0 { self.price(1).saturating_sub(free) } else { 0 };
        Left {
            // Never more than the burst, which is a u32.
            remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
            one_after: self.time(missing),
            all_after: self.time(ahead),
        }
    }

    /// From when on a key is like one that never took anything: in nanoseconds, rounded up.
    pub(super) fn forgettable(&self, due: Due) -> u64 {
        u64::try_from(due.div_ceil(u128::from(self.count))).unwrap_or(u64::MAX)
    }

    /// The same in the form in which it is told: so many within so many whole seconds, at the same steady rate. It is
    /// the burst, and the time in which that comes back, as no key ever has more left than it is told here.
    pub(super) fn quota(&self) -> (u64, u64) {
        const SECOND: u128 = 1_000_000_000;
        let refill = self.price(self.burst).div_ceil(u128::from(self.count));
        let (quota, window) = if refill >= SECOND {
            (u128::from(self.burst), refill.div_ceil(SECOND))
        } else {
            (SECOND * u128::from(self.count) / self.period.as_nanos(), 1)
        };
        (u64::try_from(quota).unwrap_or(u64::MAX), u64::try_from(window).unwrap_or(u64::MAX))
    }

    fn parts(&self, time: Duration) -> u128 {
        time.as_nanos() * u128::from(self.count)
    }

    fn price(&self, cost: u32) -> u128 {
        self.period.as_nanos() * u128::from(cost)
    }

    /// Rounded up: who comes after it is not too early.
    fn time(&self, parts: u128) -> Duration {
        let nanos = parts.div_ceil(u128::from(self.count));
        u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(86_400);

    /// Takes one after the other; gives how many could be had.
    fn burst(rate: Rate, due: &mut Due, now: Duration) -> u32 {
        let mut had = 0;
        while let Ok(next) = rate.take(*due, now, 1) {
            (*due, had) = (next, had + 1);
        }
        had
    }

    #[test]
    fn a_new_key_has_its_burst_and_then_the_steady_rate() {
        let rate = Rate::new(10, SECOND, 25);
        let mut due = 0;
        assert_eq!(burst(rate, &mut due, SECOND * 7), 25);
        assert_eq!(rate.take(due, SECOND * 7, 1), Err(Duration::from_millis(100)));
        assert_eq!(burst(rate, &mut due, SECOND * 8), 10);
        assert_eq!(burst(rate, &mut due, SECOND * 800), 25);
    }

    #[test]
    fn a_rate_that_no_nanosecond_divides_loses_nothing_in_a_year() {
        let rate = Rate::new(3, SECOND, 1);
        let (mut due, mut had, mut now) = (0, 0_u64, Duration::ZERO);
        for _ in 0..300_001 {
            match rate.take(due, now, 1) {
                Ok(next) => (due, had) = (next, had + 1),
                Err(wait) => now += wait,
            }
        }
        // Each wait is rounded up to a nanosecond, and what is due is not.
        let steady = now.as_nanos() * 3 / 1_000_000_000;
        assert_eq!(u128::from(had), steady + 1);
    }

    #[test]
    fn the_slowest_and_the_fastest_are_exact() {
        let (slow, fast) = (Rate::new(1, DAY, 1), Rate::new(1_000_000, SECOND, 1));
        let due = slow.take(0, DAY * 36_500, 1).unwrap();
        assert_eq!(slow.take(due, DAY * 36_500 + SECOND, 1), Err(DAY - SECOND));
        assert!(slow.take(due, DAY * 36_501, 1).is_ok());
        let due = fast.take(0, DAY * 36_500, 1).unwrap();
        assert_eq!(fast.take(due, DAY * 36_500, 1), Err(Duration::from_micros(1)));
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let rate = Rate::new(u32::MAX, DAY * 3_650, u32::MAX);
        let due = rate.take(0, Duration::MAX, u32::MAX).unwrap();
        assert!(rate.take(due, Duration::MAX, u32::MAX).is_err());
        assert_eq!(rate.left(due, Duration::MAX).remaining, 0);
        assert_eq!(Rate::new(1, DAY * 3_650, u32::MAX).forgettable(u128::MAX), u64::MAX);
    }

    #[test]
    fn who_is_refused_is_charged_nothing_and_who_costs_nothing_passes() {
        let rate = Rate::new(1, SECOND, 4);
        let due = rate.take(0, SECOND, 3).unwrap();
        assert_eq!(rate.take(due, SECOND, 3), Err(SECOND * 2));
        assert_eq!(rate.left(due, SECOND).remaining, 1);
        let due = rate.take(due, SECOND, 1).unwrap();
        assert_eq!(rate.take(due, SECOND, 0), Ok(due));
    }

    #[test]
    fn what_is_left_and_when_is_told_without_a_lie() {
        let rate = Rate::new(2, SECOND, 4);
        let due = rate.take(0, SECOND, 3).unwrap();
        let left = rate.left(due, SECOND);
        assert_eq!((left.remaining, left.one_after, left.all_after), (1, Duration::ZERO, SECOND * 3 / 2));
        let due = rate.take(due, SECOND, 1).unwrap();
        let left = rate.left(due, SECOND + Duration::from_millis(200));
        assert_eq!((left.remaining, left.one_after), (0, Duration::from_millis(300)));
        assert_eq!(rate.left(0, SECOND).remaining, 4);
    }

    #[test]
    fn a_quota_is_told_in_whole_seconds_at_the_same_rate() {
        let quota = |count, period, burst| Rate::new(count, period, burst).quota();
        assert_eq!(quota(100, SECOND, 100), (100, 1));
        assert_eq!(quota(100, SECOND, 200), (200, 2));
        assert_eq!(quota(100, SECOND, 1), (100, 1));
        assert_eq!(quota(10, SECOND / 10, 10), (100, 1));
        assert_eq!(quota(1, DAY, 1), (1, 86_400));
        assert_eq!(quota(1000, SECOND * 60, 10), (16, 1));
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_ever_holds_more_than_burst_and_rate(
            count in 1_u32..50, millis in 1_u64..2_000, burst in 1_u32..20,
            asks in prop::collection::vec((0_u64..300, 1_u32..4), 1..120),
        ) {
            let rate = Rate::new(count, Duration::from_millis(millis), burst);
            let (mut due, mut now) = (0, Duration::from_secs(5));
            let mut taken: Vec<(Duration, u64)> = Vec::new();
            for (pause, cost) in asks {
                now += Duration::from_millis(pause);
                match rate.take(due, now, cost) {
                    Ok(next) => { due = next; taken.push((now, u64::from(cost))); }
                    Err(wait) => prop_assert!(cost > burst || rate.take(due, now + wait, cost).is_ok()),
                }
            }
            for (first, (from, _)) in taken.iter().enumerate() {
                let mut sum = 0;
                for (to, cost) in &taken[first..] {
                    sum += cost;
                    let steady = (*to - *from).as_nanos() * u128::from(count) / Duration::from_millis(millis).as_nanos();
                    prop_assert!(u128::from(sum) <= u128::from(burst) + steady);
                }
            }
        }
    }
}
