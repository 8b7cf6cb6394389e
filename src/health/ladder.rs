//! Is it alive? The state of one backend from the results of its probes, and when the next probe is due.
//!
//! PENDING until the first result, which decides at once. From HEALTHY, `fall` failures in a row lead to UNREACHABLE;
//! from there `rise` successes in a row lead back. Every kind of failure counts the same: a wrong status is no worse
//! than a refused connection. Reads no clock and draws no random number.

use std::time::Duration;

use crate::backend::State;
use crate::config::Schedule;

/// How far a pause strays from what was asked for, up or down: a tenth.
const JITTER: f64 = 0.1;

/// The health of one backend.
#[derive(Clone, Copy, Debug)]
pub struct Ladder {
    fall: u32,
    rise: u32,
    state: State,
    /// Results in a row that do not agree with the state.
    against: u32,
    results: Results,
}

/// How many results there have been, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Results {
    None,
    One,
    Several,
}

impl Ladder {
    /// A backend of which nothing is known. At least one result is needed for each change, whatever the numbers.
    pub fn new(fall: u32, rise: u32) -> Self {
        let (fall, rise) = (fall.max(1), rise.max(1));
        Self { fall, rise, state: State::Pending, against: 0, results: Results::None }
    }

    /// How the backend is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Takes the result of a probe; answers the new state if it changes.
    pub fn record(&mut self, success: bool) -> Option<State> {
        self.results = if self.results == Results::None { Results::One } else { Results::Several };
        let (speaks_for, needed) = match self.state {
            State::Pending => (None, 1),
            State::Healthy => (Some(true), self.fall),
            State::Unreachable => (Some(false), self.rise),
        };
        if speaks_for == Some(success) {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.state = if success { State::Healthy } else { State::Unreachable };
        Some(self.state)
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
    fn check(fall: u32, rise: u32, results: &str) -> State {
        let mut ladder = Ladder::new(fall, rise);
        for result in results.chars() {
            ladder.record(result == '+');
        }
        ladder.state()
    }

    #[test]
    fn the_first_result_decides_at_once() {
        assert_eq!(check(3, 2, ""), State::Pending);
        assert_eq!(check(3, 2, "+"), State::Healthy);
        assert_eq!(check(3, 2, "-"), State::Unreachable);
    }

    #[test]
    fn results_must_come_in_a_row() {
        assert_eq!(check(3, 2, "+--"), State::Healthy);
        assert_eq!(check(3, 2, "+---"), State::Unreachable);
        assert_eq!(check(3, 2, "+--+--"), State::Healthy);
        assert_eq!(check(3, 2, "-+-+"), State::Unreachable);
        assert_eq!(check(3, 2, "-++"), State::Healthy);
    }

    #[test]
    fn zero_counts_as_one() {
        assert_eq!(check(0, 0, "+-"), State::Unreachable);
        assert_eq!(check(0, 0, "-+"), State::Healthy);
    }

    /// The definition once more, by looking back over all results instead of counting.
    fn by_looking_back(fall: usize, rise: usize, results: &[bool]) -> State {
        let mut state = State::Pending;
        let mut since_change = VecDeque::new();
        for &success in results {
            since_change.push_front(success);
            let last =
                |wanted, count| since_change.len() >= count && since_change.iter().take(count).all(|&r| r == wanted);
            let next = match state {
                State::Pending if success => State::Healthy,
                State::Pending => State::Unreachable,
                State::Healthy if last(false, fall) => State::Unreachable,
                State::Unreachable if last(true, rise) => State::Healthy,
                State::Healthy | State::Unreachable => state,
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
                    let before = ladder.state();
                    let change = ladder.record(results[seen - 1]);
                    let expected = by_looking_back(fall as usize, rise as usize, &results[..seen]);
                    assert_eq!(ladder.state(), expected, "{fall}/{rise}: {:?}", &results[..seen]);
                    assert_eq!(change, (expected != before).then_some(expected));
                }
            }
        }
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
