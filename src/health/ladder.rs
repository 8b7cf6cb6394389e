//! Is it alive? What the probes of one backend say, and when the next probe is due.
//!
//! PENDING until the first result, which decides at once. From HEALTHY, `fall` failures in a row lead to UNREACHABLE;
//! from there `rise` successes in a row lead back. Every kind of failure counts the same: a wrong status is no worse
//! than a refused connection. Reads no clock and draws no random number.

use std::time::Duration;

use crate::config::Schedule;

/// How far a pause strays from what was asked for, up or down: a tenth.
const JITTER: f64 = 0.1;

/// What the probes of one backend say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rung {
    /// Nothing: it has not been probed yet.
    Unknown,
    /// It passes.
    Up,
    /// It fails.
    Down,
}

/// The health of one backend by its probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ladder {
    fall: u32,
    rise: u32,
    rung: Rung,
    /// Results in a row that do not agree with the state.
    against: u32,
    results: Results,
}

/// How many results there have been, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Results {
    None,
    One,
    Several,
}

impl Ladder {
    /// A backend of which nothing is known. At least one result is needed for each change, whatever the numbers.
    pub fn new(fall: u32, rise: u32) -> Self {
        let (fall, rise) = (fall.max(1), rise.max(1));
        Self { fall, rise, rung: Rung::Unknown, against: 0, results: Results::None }
    }

    /// A backend that is not probed is taken to be up.
    pub fn unprobed() -> Self {
        Self { rung: Rung::Up, ..Self::new(1, 1) }
    }

    /// The same with other numbers, as after a reload. What was known is kept until enough probes disagree; with the same
    /// numbers those that have disagreed already count.
    #[must_use]
    pub fn again(self, fall: u32, rise: u32) -> Self {
        if (self.fall, self.rise) == (fall.max(1), rise.max(1)) && self.results != Results::None {
            return self;
        }
        let results = if self.rung == Rung::Unknown { Results::None } else { Results::One };
        Self { rung: self.rung, results, ..Self::new(fall, rise) }
    }

    /// What the probes say.
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// Takes the result of a probe; says whether that has moved it to another rung.
    pub fn record(&mut self, success: bool) -> bool {
        self.results = if self.results == Results::None { Results::One } else { Results::Several };
        let (speaks_for, needed) = match self.rung {
            Rung::Unknown => (None, 1),
            Rung::Up => (Some(true), self.fall),
            Rung::Down => (Some(false), self.rise),
        };
        if speaks_for == Some(success) {
            self.against = 0;
            return false;
        }
        self.against += 1;
        if self.against < needed {
            return false;
        }
        self.against = 0;
        self.rung = if success { Rung::Up } else { Rung::Down };
        true
    }

    /// Takes the failure of a live request for that of a probe, but never for the last one that is needed: that a
    /// backend is gone shall be a probe's word. Says whether the next probe is now due sooner.
    pub fn doubt(&mut self) -> bool {
        let up = self.rung == Rung::Up;
        if up {
            self.against = (self.against + 1).min(self.fall - 1);
        }
        up
    }

    /// How long to wait before the next probe; `random` is a fresh random number.
    ///
    /// The first probe is due at once, because nothing is known. The pause after it is anything up to one interval, so
    /// that backends that started together are spread over it. From then on it is the interval within a tenth: the
    /// fast one while the last results do not agree with the state.
    pub fn pause(&self, schedule: &Schedule, random: u64) -> Duration {
        // The upper 53 bits, which an f64 holds exactly: from 0 to just below 1.
        let chance = (random >> 11) as f64 / (1_u64 << 53) as f64;
        let interval = if self.against > 0 { schedule.fast_interval } else { schedule.interval };
        match self.results {
            Results::None => Duration::ZERO,
            Results::One => interval.mul_f64(chance),
            Results::Several => interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn schedule() -> Schedule {
        Schedule {
            interval: Duration::from_secs(10),
            fast_interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            fall: 3,
            rise: 2,
        }
    }

    /// The state after results, `+` and `-`.
    fn check(fall: u32, rise: u32, results: &str) -> Rung {
        let mut ladder = Ladder::new(fall, rise);
        for result in results.chars() {
            ladder.record(result == '+');
        }
        ladder.rung()
    }

    #[test]
    fn the_first_result_decides_at_once() {
        assert_eq!(check(3, 2, ""), Rung::Unknown);
        assert_eq!(check(3, 2, "+"), Rung::Up);
        assert_eq!(check(3, 2, "-"), Rung::Down);
    }

    #[test]
    fn results_must_come_in_a_row() {
        assert_eq!(check(3, 2, "+--"), Rung::Up);
        assert_eq!(check(3, 2, "+---"), Rung::Down);
        assert_eq!(check(3, 2, "+--+--"), Rung::Up);
        assert_eq!(check(3, 2, "-+-+"), Rung::Down);
        assert_eq!(check(3, 2, "-++"), Rung::Up);
    }

    #[test]
    fn zero_counts_as_one() {
        assert_eq!(check(0, 0, "+-"), Rung::Down);
        assert_eq!(check(0, 0, "-+"), Rung::Up);
    }

    /// The definition once more, by looking back over all results instead of counting.
    fn by_looking_back(fall: usize, rise: usize, results: &[bool]) -> Rung {
        let mut state = Rung::Unknown;
        let mut since_change = VecDeque::new();
        for &success in results {
            since_change.push_front(success);
            let last =
                |wanted, count| since_change.len() >= count && since_change.iter().take(count).all(|&r| r == wanted);
            let next = match state {
                Rung::Unknown if success => Rung::Up,
                Rung::Unknown => Rung::Down,
                Rung::Up if last(false, fall) => Rung::Down,
                Rung::Down if last(true, rise) => Rung::Up,
                Rung::Up | Rung::Down => state,
            };
            if next != state {
                state = next;
                since_change.clear();
            }
        }
        state
    }

    #[test]
    fn all_sequences_of_ten_results_follow_the_definition() {
        for (fall, rise) in [(1, 1), (1, 3), (2, 2), (3, 2), (4, 1), (3, 3)] {
            for bits in 0..1_u32 << 10 {
                let results: Vec<bool> = (0..10).map(|bit| bits >> bit & 1 == 1).collect();
                let mut ladder = Ladder::new(fall, rise);
                for seen in 1..=results.len() {
                    let before = ladder.rung();
                    let change = ladder.record(results[seen - 1]);
                    let expected = by_looking_back(fall as usize, rise as usize, &results[..seen]);
                    assert_eq!(ladder.rung(), expected, "{fall}/{rise}: {:?}", &results[..seen]);
                    assert_eq!(change, expected != before);
                }
            }
        }
    }

    #[test]
    fn doubts_alone_never_end_in_a_fall() {
        for fall in 1..4 {
            let mut ladder = Ladder::new(fall, 2);
            assert!(!ladder.doubt(), "nothing is known, so nothing can be doubted");
            ladder.record(true);
            for _ in 0..10 {
                assert!(ladder.doubt());
                assert_eq!(ladder.rung(), Rung::Up);
            }
            assert!(ladder.record(false), "one probe is enough now");
            assert!(!ladder.doubt());
        }
    }

    #[test]
    fn a_passing_probe_ends_the_doubts() {
        let mut ladder = Ladder::new(3, 2);
        ladder.record(true);
        ladder.doubt();
        ladder.doubt();
        ladder.record(true);
        assert!(!ladder.record(false) && !ladder.record(false));
    }

    #[test]
    fn what_was_known_outlives_a_reload() {
        let mut ladder = Ladder::new(3, 2);
        ladder.record(false);
        assert_eq!(ladder.again(1, 1).rung(), Rung::Down);
        assert_eq!(Ladder::new(3, 2).again(1, 1).pause(&schedule(), u64::MAX), Duration::ZERO);
    }

    #[test]
    fn reloads_that_change_no_number_forget_no_result() {
        let mut ladder = Ladder::new(3, 0);
        ladder.record(true);
        for _ in 0..2 {
            assert!(!ladder.record(false));
            ladder = ladder.again(3, 0);
        }
        assert!(ladder.record(false));
        assert_eq!(ladder.again(3, 1), ladder);
        assert_eq!(Ladder::unprobed().again(1, 1).rung(), Rung::Up);
    }

    #[test]
    fn the_first_probe_is_due_at_once() {
        assert_eq!(Ladder::new(3, 2).pause(&schedule(), u64::MAX), Duration::ZERO);
    }

    #[test]
    fn the_second_probe_is_spread_over_one_interval() {
        let mut ladder = Ladder::new(3, 2);
        ladder.record(true);
        assert_eq!(ladder.pause(&schedule(), 0), Duration::ZERO);
        assert_eq!(ladder.pause(&schedule(), 1 << 63), Duration::from_secs(5));
        assert!(ladder.pause(&schedule(), u64::MAX) <= Duration::from_secs(10));
    }

    #[test]
    fn a_pause_is_within_a_tenth_of_the_interval() {
        let mut ladder = Ladder::new(3, 2);
        ladder.record(true);
        ladder.record(true);
        assert_eq!(ladder.pause(&schedule(), 0), Duration::from_secs(9));
        assert_eq!(ladder.pause(&schedule(), 1 << 63), Duration::from_secs(10));
        assert!(ladder.pause(&schedule(), u64::MAX) <= Duration::from_secs(11));
    }

    #[test]
    fn probes_are_fast_while_results_disagree_with_the_state() {
        let mut ladder = Ladder::new(3, 2);
        ladder.record(true);
        for (success, seconds) in [(false, 2), (false, 2), (false, 10), (true, 2), (false, 10), (true, 2), (true, 10)] {
            ladder.record(success);
            assert_eq!(ladder.pause(&schedule(), 1 << 63), Duration::from_secs(seconds));
        }
    }
}
